"""The simulated store as histories use it: quick, and as two versions of the app see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from flow.memory import MemoryStore

from functions.core.dispatch import Dispatch
from functions.core.windows import LINE_VERSION
from functions.flow.ports import Conflict

_LINE, _LATER_LINE = f'{{"v":{LINE_VERSION},'.encode(), b'{"v":99,'


class QuickStore(MemoryStore):
    """Keeps ledger rows as the values that they are. What their text loses or keeps is shown by the store contract."""

    def __init__(self, now: Any) -> None:
        super().__init__(now)
        self.rows: dict[str, Dispatch] = {}
        self.hidden: set[str] = set()
        """Ids of rows that a later version of the app wrote so that the first one cannot read their state."""

    async def insert_dispatch(self, dispatch: Dispatch) -> bool:
        if dispatch.id in self.rows:
            return False
        self.rows[dispatch.id] = replace(dispatch, version=self._etag())
        return True

    async def read_dispatch(self, dispatch_id: str) -> Dispatch | None:
        if dispatch_id in self.hidden:
            raise ValueError("'queued' is not a valid State")
        return self.rows.get(dispatch_id)

    async def replace_dispatch(self, dispatch: Dispatch) -> Dispatch:
        standing = self.rows.get(dispatch.id)
        if standing is None or standing.version != dispatch.version:
            raise Conflict
        self.rows[dispatch.id] = replace(dispatch, version=self._etag())
        return self.rows[dispatch.id]

    async def unfinished_dispatches(self) -> list[Dispatch]:
        return [row for row in self.rows.values() if not row.is_final and row.id not in self.hidden]


class LaterStore:
    """The store as a later version of the app uses it.

    The first one cannot read its lines, its `ready` rows, and its unfinished rows that go to one workflow.
    """

    def __init__(self, store: QuickStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, segment: Any, block: bytes) -> Any:
        lines = block.splitlines(keepends=True)
        later = b"".join(_LATER_LINE + line.removeprefix(_LINE) if line.startswith(_LINE) else line for line in lines)
        return await self._store.append(segment, later)

    async def read_segment(self, segment: Any) -> AsyncIterator[bytes]:
        async for line in self._store.read_segment(segment):
            yield _LINE + line.removeprefix(_LATER_LINE) if line.startswith(_LATER_LINE) else line

    def _written(self, row: Dispatch) -> Dispatch:
        if row.state == "ready" or (row.workflow and not row.is_final):
            self._store.hidden.add(row.id)
        else:
            self._store.hidden.discard(row.id)
        return row

    async def insert_dispatch(self, dispatch: Dispatch) -> bool:
        inserted = await self._store.insert_dispatch(dispatch)
        if inserted:
            self._written(dispatch)
        return inserted

    async def read_dispatch(self, dispatch_id: str) -> Dispatch | None:
        return self._store.rows.get(dispatch_id)

    async def replace_dispatch(self, dispatch: Dispatch) -> Dispatch:
        return self._written(await self._store.replace_dispatch(dispatch))

    async def unfinished_dispatches(self) -> list[Dispatch]:
        return [row for row in self._store.rows.values() if not row.is_final]


def read_line(raw: str) -> str:
    """A line of a window, whichever version of the app wrote it."""
    return raw.replace(_LATER_LINE.decode(), _LINE.decode(), 1)
