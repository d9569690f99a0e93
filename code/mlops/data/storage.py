"""The two storage accounts as the model side sees them: data to read, and the manifests of the dispatches.

One machine hands over a connection string; in Azure the job's own identity is used, and no key exists.
Every read names the ETag that was listed, or that came with the event (`If-Match`), so what is trained on is what
was recorded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

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
CREATED = "Microsoft.Storage.BlobCreated"
_DOWNLOADS_AT_ONCE = 4
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
# The SDK waits 15 s before its first retry and 60 s for an answer; a job should say sooner what is wrong.
_PATIENCE: dict[str, Any] = {"retry_total": 3, "initial_backoff": 1, "increment_base": 2, "connection_timeout": 5}


@dataclass(frozen=True, slots=True)
class BlobVersion:
    """One file, pinned by its ETag."""

    name: str
    """Path inside the container, the folder first."""
    url: str
    etag: str
    """Without quotes; empty where the event that told of the file carried none."""
    size: int
    """Bytes."""
    modified: datetime | None = None
    """When it was written, by storage's clock; None where only an event told of it."""


@dataclass(frozen=True, slots=True)
class Download:
    """What became of one file: a local copy, or why there is none."""

    blob: BlobVersion
    path: Path | None
    missing: str = ""
    """Why it could not be read as pinned, as the end of a sentence that begins with its name."""


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
                modified=blob.last_modified,
            )
            for blob in container.list_blobs(name_starts_with=f"{folder}/")
            if not _is_marker(blob.name) and not _is_directory(blob.metadata)
        ]
    except AzureError as error:
        raise Fault(f"Container {container.container_name!r} cannot be listed: {_reason(error)}.") from None
    return sorted(blobs, key=lambda blob: blob.name)


def list_burst(container: ContainerClient, folder: str, manifest: bytes) -> list[BlobVersion]:
    """List the files that the dispatch's manifest tells of, by name; entries that created no file are left out.

    The urls came with events. One that leads out of `folder` of this very container is refused with a `Fault`:
    it would be opened with our identity.
    """
    found: dict[str, BlobVersion] = {}
    for number, line in enumerate(manifest.splitlines(), start=1):
        entry = json.loads(line)
        if str(entry.get("type") or CREATED).lower() != CREATED.lower():
            continue
        url = str(entry["url"] or "")
        name = _name_inside(container.url, url)
        # An HTTP client takes `..` out of an address on the way, and so asks for another blob.
        if name is None or not name.startswith(f"{folder}/") or {".", ".."} & set(name.split("/")):
            raise Fault(
                f"Line {number} of the manifest names {url[:200]!r}, which is not in folder {folder!r} of "
                f"{container.url}: nothing is trained. Give the route `key: folder` and `container: "
                f"{container.container_name}`, and SIGNALBOX_DATA_ACCOUNTS this account only."
            )
        if not _is_marker(name):
            found[name] = BlobVersion(name, url, str(entry.get("etag") or ""), int(entry.get("size") or 0))
    return sorted(found.values(), key=lambda blob: blob.name)


def download(container: ContainerClient, blobs: Sequence[BlobVersion], into: Path) -> Iterator[Download]:
    """Download each blob exactly as pinned, in the order of `blobs`; a copy lives until the next one is asked for.

    A few files are on disk at once, and none is ever whole in memory. Copies are called `into`/00000.csv …, because
    a blob's name is an outsider's input. Raises `Fault` when storage itself fails.
    """
    into.mkdir(parents=True, exist_ok=True)

    def fetch(number: int) -> Download:
        return _fetch(container, blobs[number], into / f"{number:05}.csv")

    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        ahead = deque(pool.submit(fetch, number) for number in range(min(_DOWNLOADS_AT_ONCE, len(blobs))))
        following = iter(range(len(ahead), len(blobs)))
        while ahead:
            fetched = ahead.popleft().result()
            yield fetched
            if fetched.path is not None:
                fetched.path.unlink()
            for number in islice(following, 1):
                ahead.append(pool.submit(fetch, number))


def _fetch(container: ContainerClient, blob: BlobVersion, path: Path) -> Download:
    if not blob.etag:
        return Download(blob, None, "came with an event without an ETag, so nobody knows which version was meant")
    try:
        stream = container.download_blob(
            blob.name, etag=f'"{blob.etag}"', match_condition=MatchConditions.IfNotModified
        )
        with path.open("wb") as copy:
            stream.readinto(copy)
    except (ResourceModifiedError, ResourceNotFoundError):  # storage may answer 412 also for a blob that is gone
        return Download(blob, None, "was changed or deleted before it could be read")
    except AzureError as error:
        raise Fault(f"{blob.name} cannot be read: {_reason(error)}.") from None
    return Download(replace(blob, size=path.stat().st_size), path)


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


def _name_inside(container: str, url: str) -> str | None:
    """Return the blob's name if `url` lies in the container of that address, else None.

    An account answers at two host names, `blob` and `dfs`, and events carry either. On one machine the port is
    another one after each start, and the account stands in the path.
    """
    try:
        ours, theirs = urlsplit(container), urlsplit(url)
        hosts = [(address.hostname or "").replace(".dfs.", ".blob.") for address in (ours, theirs)]
    except ValueError:
        return None
    if theirs.scheme not in ("http", "https") or (hosts[0] != hosts[1] and not _LOOPBACK.issuperset(hosts)):
        return None
    prefix = f"{unquote(ours.path)}/"
    path = unquote(theirs.path)
    return path.removeprefix(prefix) if path.startswith(prefix) else None


def _is_marker(name: str) -> bool:
    """Tell whether a file only marks an upload's end, as `_SUCCESS` does."""
    return name.rpartition("/")[2].startswith("_")


def _is_directory(metadata: dict[str, str] | None) -> bool:
    """Tell whether an entry of a hierarchical namespace is a folder (`hdi_isfolder`)."""
    return (metadata or {}).get("hdi_isfolder", "").lower() == "true"


def _reason(error: AzureError) -> str:
    code = getattr(error, "error_code", None)
    return str(code or error.message or type(error).__name__).splitlines()[0].rstrip(".")
