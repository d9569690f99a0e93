"""What the state account remembers, for people who ask: manifests, ledger rows, windows that still stand. Only reads.

Calls block.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import ContainerClient

from functions.adapters.account import (
    LEDGER,
    MANIFESTS,
    QUERY,
    WINDOWS,
    StateStorage,
    error_code,
    pieces,
    translation,
)
from functions.adapters.rows import DISPATCHES, text_of
from functions.core.dispatch import Dispatch, State, readable
from functions.core.windows import Segment

_ROWS = f"PartitionKey eq '{DISPATCHES}' and RowKey ge 'sb-' and RowKey lt 'sb-~'"


class History:
    """Reads one state account."""

    def __init__(self, storage: StateStorage) -> None:
        """`storage` holds the clients."""
        self._manifests = storage.blobs.get_container_client(MANIFESTS)
        self._windows = storage.blobs.get_container_client(WINDOWS)
        self._ledger = storage.tables.get_table_client(LEDGER)

    def manifests(self, since: datetime) -> list[str]:
        """Dispatch ids of the manifests written since then, newest first."""
        with translation("list manifests"):
            found = [blob for blob in self._manifests.list_blobs() if blob.last_modified >= since]
        found.sort(key=lambda blob: blob.last_modified, reverse=True)
        return [str(blob.name).removesuffix(".jsonl") for blob in found]

    def segments(self, since: datetime) -> list[Segment]:
        """Windows' blobs that changed since then and still stand, newest first."""
        with translation("list windows"):
            found = [blob for blob in self._windows.list_blobs() if blob.last_modified >= since]
        found.sort(key=lambda blob: blob.last_modified, reverse=True)
        return [Segment.from_name(str(blob.name)) for blob in found]

    def lines(self, segment: Segment) -> list[bytes]:
        """The lines of a window's blob; none where it was deleted meanwhile."""
        return _lines(self._windows, segment.name)

    def manifest_lines(self, dispatch_id: str) -> list[bytes]:
        """The lines of a manifest; none where there is no such manifest."""
        return _lines(self._manifests, f"{dispatch_id}.jsonl")

    def dispatches(self, since: datetime) -> list[Dispatch]:
        """Ledger rows that were written or changed since then; a scan on the service's side."""
        return self._rows(f"{_ROWS} and Timestamp ge @since", {"since": since})

    def dispatches_in(self, state: State) -> list[Dispatch]:
        """Every ledger row in this state; a scan on the service's side."""
        return self._rows(f"{_ROWS} and state eq @state", {"state": str(state)})

    def _rows(self, query: str, values: dict[str, Any]) -> list[Dispatch]:
        with translation("query ledger"):
            return readable(
                (text_of(entity), str(entity.metadata["etag"]))
                for entity in self._ledger.query_entities(query, parameters=values, **QUERY)
            )


def _lines(container: ContainerClient, name: str) -> list[bytes]:
    with translation(f"read {name}"):
        try:
            content = b"".join(pieces(container, name))
        except ResourceNotFoundError as error:
            if error_code(error) == "ContainerNotFound":
                raise
            return []
    return content.split(b"\n")[:-1]
