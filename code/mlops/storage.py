"""The two storage accounts as the model side sees them: data to read, and the manifests of the dispatches.

One machine hands over a connection string; in Azure the job's own identity is used, and no key exists.
Every read names the ETag that was listed (`If-Match`), so what is trained on is what was recorded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobServiceClient, ContainerClient

from mlops.environment import required
from mlops.report import Fault

DATA_CONTAINER = "training-data"
MANIFEST_CONTAINER = "manifests"
_DOWNLOADS_AT_ONCE = 4
# The SDK waits 15 s before its first retry and 60 s for an answer; a job should say sooner what is wrong.
_PATIENCE: dict[str, Any] = {"retry_total": 3, "initial_backoff": 1, "increment_base": 2, "connection_timeout": 5}


@dataclass(frozen=True, slots=True)
class BlobVersion:
    """One file of the snapshot, pinned by its ETag."""

    name: str
    """Path inside the container, the folder first."""
    url: str
    etag: str
    size: int
    """Bytes."""


def service(account_variable: str) -> BlobServiceClient:
    """Connect to the account that `account_variable` names (`STORAGE_ACCOUNT` or `STATE_ACCOUNT`)."""
    connection = os.environ.get("STORAGE_CONNECTION_STRING")
    if connection:
        try:
            return BlobServiceClient.from_connection_string(connection, **_PATIENCE)
        except ValueError as error:
            raise Fault(f"STORAGE_CONNECTION_STRING is not a connection string ({error}).") from None
    account = required(account_variable, "the name of a storage account (or STORAGE_CONNECTION_STRING)")
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - only Azure needs it, 150 ms

    return BlobServiceClient(f"https://{account}.blob.core.windows.net", DefaultAzureCredential(), **_PATIENCE)


def list_folder(container: ContainerClient, folder: str) -> list[BlobVersion]:
    """List the files of `folder` as they stand now, by name; empty markers such as `_SUCCESS` are left out."""
    try:
        blobs = [
            BlobVersion(
                name=blob.name,
                url=f"{container.url}/{blob.name}",
                etag=str(blob.etag).strip('"'),
                size=int(blob.size),
            )
            for blob in container.list_blobs(name_starts_with=f"{folder}/")
            if not blob.name.rpartition("/")[2].startswith("_") and not _is_directory(blob.metadata)
        ]
    except AzureError as error:
        raise Fault(f"Container {container.container_name!r} cannot be listed: {_reason(error)}.") from None
    return sorted(blobs, key=lambda blob: blob.name)


def download(container: ContainerClient, blobs: list[BlobVersion], into: Path) -> Iterator[Path]:
    """Download each blob exactly as listed, into `into`/00000.csv …, in the order of `blobs`.

    Local names are numbers, because a blob's name is an outsider's input. Raises `Fault` when a blob is gone
    or has changed since it was listed.
    """
    into.mkdir(parents=True, exist_ok=True)

    def fetch(number: int) -> Path:
        blob = blobs[number]
        path = into / f"{number:05}.csv"
        try:
            stream = container.download_blob(
                blob.name, etag=f'"{blob.etag}"', match_condition=MatchConditions.IfNotModified
            )
            path.write_bytes(stream.readall())
        except (ResourceModifiedError, ResourceNotFoundError):
            raise Fault(
                f"{blob.name} was changed or deleted after it was listed: "
                "the upload that did so starts the next training; start this one again if it does not."
            ) from None
        except AzureError as error:
            raise Fault(f"{blob.name} cannot be read: {_reason(error)}.") from None
        return path

    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        yield from pool.map(fetch, range(len(blobs)))


def manifest(state: BlobServiceClient, origin: str, sha256: str) -> bytes:
    """Download the dispatch's manifest and hold it against the sha256 that the dispatch carried."""
    name = f"{origin}.jsonl"
    try:
        content = state.get_blob_client(MANIFEST_CONTAINER, name).download_blob().readall()
    except AzureError as error:
        raise Fault(
            f"Manifest {MANIFEST_CONTAINER}/{name} cannot be read: {_reason(error)}. "
            "Check STATE_ACCOUNT, and that the dispatch id is one of this function app's."
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise Fault(
            f"Manifest {MANIFEST_CONTAINER}/{name} has the sha256 {found}, but the dispatch announced {sha256}: "
            "somebody changed it, so nothing is trained from it. `signalbox replay` makes a new dispatch."
        )
    return content


def _is_directory(metadata: dict[str, str] | None) -> bool:
    """Tell whether an entry of a hierarchical namespace is a folder (`hdi_isfolder`)."""
    return (metadata or {}).get("hdi_isfolder", "").lower() == "true"


def _reason(error: AzureError) -> str:
    code = getattr(error, "error_code", None)
    return str(code or error.message or type(error).__name__).splitlines()[0].rstrip(".")
