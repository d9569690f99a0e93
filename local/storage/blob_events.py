"""Which blob event a storage request raises, and what it says. Plain functions over requests and answers.

Follows https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage for an account without a hierarchical
namespace: Put Blob, Put Block List and Copy Blob raise `Microsoft.Storage.BlobCreated`, Delete Blob raises
`Microsoft.Storage.BlobDeleted`. Blocks, appends, reads, metadata, containers, snapshots and refused requests raise
none. Deletions inside a Blob Batch request are not recognised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from local.arm.template import LOCAL_RESOURCE_GROUP, LOCAL_SUBSCRIPTION
from local.azurite import ACCOUNT

TOPIC = (
    f"/subscriptions/{LOCAL_SUBSCRIPTION}/resourceGroups/{LOCAL_RESOURCE_GROUP}"
    f"/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"
)
"""ARM id of the local storage account."""

_CREATED, _DELETED = "Microsoft.Storage.BlobCreated", "Microsoft.Storage.BlobDeleted"


@dataclass(frozen=True, slots=True)
class Operation:
    """A request that raises an event if it succeeds."""

    api: str
    """As events name it: PutBlob, PutBlockList, CopyBlob, DeleteBlob."""
    container: str
    blob: str
    """The blob's name, decoded."""

    @property
    def path(self) -> str:
        """Canonical address of the blob below the endpoint: percent-encoded, slashes kept."""
        return f"/{ACCOUNT}/{self.container}/{quote(self.blob, safe='/~')}"


@dataclass(frozen=True, slots=True)
class Properties:
    """What an event says about the blob; None where it is not known."""

    content_type: str | None = None
    content_length: int | None = None
    blob_type: str | None = None
    etag: str | None = None
    """Without quotes."""


def operation(method: str, target: str, headers: Mapping[str, str]) -> Operation | None:
    """Read a request that may raise an event. `target` is path and query as they came; `headers` ignores case."""
    path, _, query_text = target.partition("?")
    query = {key.lower(): value for key, value in parse_qsl(query_text, keep_blank_values=True)}
    account, _, rest = path.lstrip("/").partition("/")
    container, _, blob = rest.partition("/")
    if account != ACCOUNT or not container or not blob or "restype" in query:
        return None
    api = _api(method, query, headers)
    return Operation(api, unquote(container), unquote(blob)) if api else None


def _api(method: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
    part = query.get("comp")
    if method == "PUT" and part == "blocklist":
        return "PutBlockList"
    if method == "PUT" and part is None and "x-ms-copy-source" in headers:
        return "CopyBlob"
    if method == "PUT" and part is None and "x-ms-blob-type" in headers:
        return "PutBlob"
    of_snapshots = "snapshot" in query or headers.get("x-ms-delete-snapshots", "").lower() == "only"
    if method == "DELETE" and part is None and not of_snapshots and "versionid" not in query:
        return "DeleteBlob"
    return None


def took_effect(status: int, headers: Mapping[str, str]) -> bool:
    """Whether storage's answer says that the operation is complete (a pending copy is not)."""
    return status in (201, 202) and headers.get("x-ms-copy-status", "success") == "success"


def properties_of_upload(headers: Mapping[str, str]) -> Properties:
    """What a Put Blob request itself says about the blob that it makes."""
    kind = headers.get("x-ms-blob-type")
    lengths = {"AppendBlob": "0", "PageBlob": headers.get("x-ms-blob-content-length")}
    length = lengths.get(kind or "", headers.get("Content-Length"))
    return Properties(
        content_type=headers.get("x-ms-blob-content-type") or headers.get("Content-Type") or _DEFAULT_TYPE,
        content_length=int(length) if length and length.isdigit() else None,
        blob_type=kind,
    )


_DEFAULT_TYPE = "application/octet-stream"


def properties_of_answer(headers: Mapping[str, str]) -> Properties:
    """What the answer to Get Blob Properties says."""
    length = headers.get("Content-Length", "")
    return Properties(
        content_type=headers.get("Content-Type"),
        content_length=int(length) if length.isdigit() else None,
        blob_type=headers.get("x-ms-blob-type"),
        etag=bare_etag(headers.get("ETag")),
    )


def bare_etag(etag: str | None) -> str | None:
    """Give an ETag as events write it: without the quotes of the header."""
    return etag.strip('"') if etag else None


def blob_event(
    operation: Operation,
    properties: Properties,
    *,
    endpoint: str,
    number: int,
    now: datetime,
    batch_id: str,
    request_headers: Mapping[str, str],
    answer_headers: Mapping[str, str],
) -> dict[str, Any]:
    """Build the event, in Event Grid schema.

    `number` counts events and never goes back; `endpoint` is the blob service's address without the account. Where
    `properties` belong to another version of the blob than the one that the answer names, its length is left out.
    """
    deleted = operation.api == "DeleteBlob"
    request_id = answer_headers.get("x-ms-request-id", "")
    etag = None if deleted else bare_etag(answer_headers.get("ETag"))
    same = properties.etag is None or etag is None or properties.etag == etag
    data = {
        "api": operation.api,
        "clientRequestId": request_headers.get("x-ms-client-request-id"),
        "requestId": request_id,
        "eTag": etag,
        "contentType": properties.content_type,
        "contentLength": properties.content_length if same and not deleted else None,
        "blobType": properties.blob_type,
        "url": endpoint + operation.path,
        "sequencer": sequencer(number),
        "storageDiagnostics": {"batchId": batch_id},
    }
    return {
        "topic": TOPIC,
        "subject": f"/blobServices/default/containers/{operation.container}/blobs/{operation.blob}",
        "eventType": _DELETED if deleted else _CREATED,
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "id": f"{request_id[:-6]}{number % 0x1000000:06x}",
        "data": {key: value for key, value in data.items() if value is not None},
        "dataVersion": "",
        "metadataVersion": "1",
    }


def sequencer(number: int) -> str:
    """Give a number as text that sorts as the number does."""
    return f"{number:048x}"
