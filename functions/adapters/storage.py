"""Azure Storage as the flow's store: calls and error codes; nothing is decided here.

Follows the REST references of Blob and Table storage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice
from secrets import token_hex
from typing import Any
from urllib.parse import quote, unquote

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.data.tables import TableClient, UpdateMode
from azure.storage.blob import BlobBlock, BlobClient, ContainerClient

from functions.adapters.account import (
    DEAD_LETTERS,
    HEADS,
    LEDGER,
    MANIFESTS,
    WINDOWS,
    StateStorage,
    error_code,
    pieces,
    translated,
    translation,
)
from functions.adapters.rows import (
    BUDGETS,
    DISPATCHES,
    LIMITS,
    OPEN,
    WATCHES,
    WINDOW_HEADS,
    compare_and_set,
    dispatch_entity,
    dispatch_note,
    head_entity,
    head_note,
    head_of,
    row_or_none,
    text_of,
    unfinished,
    watch_key,
)
from functions.adapters.threads import in_thread, iterate_in_thread
from functions.core.budget import Spending
from functions.core.dispatch import Dispatch, readable
from functions.core.manifest import Header
from functions.core.values import JsonObject, compact_json, format_time, parse_time
from functions.core.windows import Head, Segment
from functions.flow.ports import Append, Conflict, SegmentState, Watch

_BLOCK = 4 * 1024 * 1024  # bytes of one request; each has to be answered in time
_GITHUB = "github"  # the row key of its limit
_METADATA_SAFE = '{}[]":,/~'


class AzureStore:
    """The port `Store` over one state account."""

    def __init__(self, storage: StateStorage) -> None:
        """`storage` holds the clients."""
        self._windows: ContainerClient = storage.blobs.get_container_client(WINDOWS)
        self._manifests: ContainerClient = storage.blobs.get_container_client(MANIFESTS)
        self._dead_letters: ContainerClient = storage.blobs.get_container_client(DEAD_LETTERS)
        self._heads: TableClient = storage.tables.get_table_client(HEADS)
        self._ledger: TableClient = storage.tables.get_table_client(LEDGER)

    # Heads: the row key is the digest of route and key; beside each that is open or unfinished stands a note.

    @in_thread
    @translated
    def read_head(self, route: str, key_digest: str) -> Head | None:
        row = row_or_none(self._heads, WINDOW_HEADS, key_digest)
        return None if row is None else head_of(row)

    @in_thread
    @translated
    def write_head(self, head: Head) -> Head:
        noted = head.is_open or bool(head.unfinished)
        version = compare_and_set(self._heads, head_entity(head), head.version, head_note(head), noted=noted)
        return replace(head, version=version)

    @in_thread
    @translated
    def count_open(self, route: str, limit: int) -> int:
        found = (note for note in unfinished(self._heads, WINDOW_HEADS, f"{route} ") if head_of(note).is_open)
        return sum(1 for _ in islice(found, limit))

    @in_thread
    @translated
    def heads_to_look_at(self) -> list[Head]:
        return [replace(head_of(note), version="") for note in unfinished(self._heads, WINDOW_HEADS)]

    # Windows: append blobs.

    @in_thread
    @translated
    def append(self, segment: Segment, block: bytes) -> Append:
        try:
            self._windows.get_blob_client(segment.name).append_block(block, length=len(block))
        except HttpResponseError as error:
            outcome = _APPEND_OUTCOMES.get(error_code(error))
            if outcome is None:
                raise
            return outcome
        return Append.DONE

    @in_thread
    @translated
    def create_segment(self, segment: Segment, rule: str) -> None:
        try:
            # Without the condition Put Blob would truncate the blob, even a sealed one.
            self._windows.get_blob_client(segment.name).create_append_blob(
                metadata={"rule": quote(rule, safe=_METADATA_SAFE)}, match_condition=MatchConditions.IfMissing
            )
        except (ResourceExistsError, ResourceModifiedError):
            return

    @in_thread
    @translated
    def seal_segment(self, segment: Segment) -> None:
        self._windows.get_blob_client(segment.name).seal_append_blob()

    @in_thread
    @translated
    def segments_unchanged_since(self, moment: datetime) -> list[Segment]:
        return [Segment.from_name(blob.name) for blob in self._windows.list_blobs() if blob.last_modified <= moment]

    @in_thread
    @translated
    def delete_segment(self, segment: Segment) -> None:
        try:
            self._windows.get_blob_client(segment.name).delete_blob()
        except ResourceNotFoundError as error:
            if error_code(error) == "ContainerNotFound":
                raise

    @in_thread
    @translated
    def segment_state(self, segment: Segment) -> SegmentState | None:
        dates: list[datetime] = []

        def note_date(response: Any) -> None:
            if response.http_response.status_code == HTTPStatus.OK:  # a fault's answer may come without
                dates.append(_http_date(response.http_response.headers["Date"]))

        try:
            found = self._windows.get_blob_client(segment.name).get_blob_properties(raw_response_hook=note_date)
        except ResourceNotFoundError as error:
            if error_code(error) == "ContainerNotFound":
                raise
            return None
        return SegmentState(
            created=found.creation_time,
            modified=found.last_modified,
            size=found.size,
            sealed=bool(found.is_append_blob_sealed),
            now=dates[-1],
            rule=unquote(found.metadata.get("rule", "")),
        )

    def read_segment(self, segment: Segment) -> AsyncIterator[bytes]:
        return iterate_in_thread(_lines(self._windows, segment.name))

    # Manifests: block blobs named after their dispatch, the header in their metadata.

    @in_thread
    @translated
    def write_manifest(self, header: Header, body: bytes) -> Header:
        blob = self._manifests.get_blob_client(_manifest_name(header.dispatch_id))
        try:
            _write_once(blob, body, {"header": header.to_text()})
        except (ResourceExistsError, ResourceModifiedError):
            return Header.from_text(blob.get_blob_properties().metadata["header"])
        return header

    @in_thread
    @translated
    def manifest_header(self, dispatch_id: str) -> Header | None:
        try:
            found = self._manifests.get_blob_client(_manifest_name(dispatch_id)).get_blob_properties()
        except ResourceNotFoundError as error:
            if error_code(error) == "ContainerNotFound":
                raise
            return None
        return Header.from_text(found.metadata["header"])

    def read_manifest(self, dispatch_id: str) -> AsyncIterator[bytes]:
        return iterate_in_thread(_lines(self._manifests, _manifest_name(dispatch_id)))

    def manifest_url(self, dispatch_id: str) -> str:
        return str(self._manifests.get_blob_client(_manifest_name(dispatch_id)).url)

    # Ledger: one partition, so that a row and the note that it is unfinished change together.

    @in_thread
    @translated
    def insert_dispatch(self, dispatch: Dispatch) -> bool:
        try:
            self._write_row(replace(dispatch, version=""))
        except Conflict:
            return False
        return True

    @in_thread
    @translated
    def read_dispatch(self, dispatch_id: str) -> Dispatch | None:
        row = self._read_row(dispatch_id)
        return None if row is None else Dispatch.from_text(*row)

    @in_thread
    @translated
    def replace_dispatch(self, dispatch: Dispatch) -> Dispatch:
        return replace(dispatch, version=self._write_row(dispatch))

    @in_thread
    @translated
    def unfinished_dispatches(self) -> list[Dispatch]:
        notes = unfinished(self._ledger, DISPATCHES)
        rows = [self._read_row(note["RowKey"].removeprefix(OPEN)) for note in notes]
        return [row for row in readable(row for row in rows if row is not None) if not row.is_final]

    def _write_row(self, dispatch: Dispatch) -> str:
        note = dispatch_note(dispatch.id)
        return compare_and_set(
            self._ledger, dispatch_entity(dispatch), dispatch.version, note, noted=not dispatch.is_final
        )

    def _read_row(self, dispatch_id: str) -> tuple[str, str] | None:
        entity = row_or_none(self._ledger, DISPATCHES, dispatch_id)
        return None if entity is None else (text_of(entity), str(entity.metadata["etag"]))

    @in_thread
    @translated
    def lead_watch(self, repository: str, watch: Watch) -> None:
        not_before = "" if watch.not_before is None else format_time(watch.not_before)
        row = {"PartitionKey": WATCHES, "RowKey": watch_key(repository), "token": watch.token, "until": not_before}
        self._ledger.upsert_entity(row, mode=UpdateMode.REPLACE)

    @in_thread
    @translated
    def watch_leader(self, repository: str) -> Watch | None:
        row = row_or_none(self._ledger, WATCHES, watch_key(repository))
        return None if row is None else Watch(row["token"], parse_time(row["until"]) if row.get("until") else None)

    @in_thread
    @translated
    def limited_until(self) -> datetime | None:
        row = row_or_none(self._ledger, LIMITS, _GITHUB)
        return None if row is None else parse_time(row["until"])

    @in_thread
    @translated
    def limit_until(self, moment: datetime) -> None:
        row = {"PartitionKey": LIMITS, "RowKey": _GITHUB, "until": format_time(moment)}
        self._ledger.upsert_entity(row, mode=UpdateMode.REPLACE)

    @in_thread
    @translated
    def read_spending(self, route: str) -> Spending | None:
        entity = row_or_none(self._ledger, BUDGETS, route)
        return None if entity is None else Spending.from_text(route, entity["spending"], str(entity.metadata["etag"]))

    @in_thread
    @translated
    def write_spending(self, spending: Spending) -> Spending:
        row = {"PartitionKey": BUDGETS, "RowKey": spending.route, "spending": spending.to_text()}
        return replace(spending, version=compare_and_set(self._ledger, row, spending.version))

    @in_thread
    @translated
    def write_dead_letter(self, name: str, letter: JsonObject) -> None:
        self._dead_letters.get_blob_client(name).upload_blob(compact_json(letter).encode("ascii"), overwrite=True)


_APPEND_OUTCOMES = {
    "BlobNotFound": Append.MISSING,
    "BlobIsSealed": Append.SEALED,
    "BlockCountExceedsLimit": Append.FULL,
}


def _lines(container: ContainerClient, name: str) -> Iterator[list[bytes]]:
    """The blob's lines, in chunks of at most 1 MiB as they come."""
    rest = b""
    with translation(f"read {name}"):
        for chunk in pieces(container, name):
            *whole, rest = (rest + chunk).split(b"\n")
            yield [line + b"\n" for line in whole]
    if rest:
        yield [rest]


def _write_once(blob: BlobClient, body: bytes, metadata: dict[str, str]) -> None:
    """Write a blob where none exists, whole or not at all.

    A body of several blocks gets names of its own for them: the SDK's own are the same for every upload, so that what
    two instances write at once would be mixed in one blob.
    """
    missing: dict[str, Any] = {"metadata": metadata, "match_condition": MatchConditions.IfMissing}
    if len(body) <= _BLOCK:
        blob.upload_blob(body, **missing)
        return
    # As long as the SDK's: Azure wants one length for all of a blob's blocks, and another version may have left some.
    upload = token_hex(17)
    blocks = {start: f"{upload}{start:012}" for start in range(0, len(body), _BLOCK)}
    for start, name in blocks.items():
        blob.stage_block(name, body[start : start + _BLOCK])
    blob.commit_block_list([BlobBlock(name) for name in blocks.values()], **missing)


def _manifest_name(dispatch_id: str) -> str:
    return f"{dispatch_id}.jsonl"


def _http_date(value: str) -> datetime:
    return datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
