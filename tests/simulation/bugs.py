"""Bugs that are planted to show that the histories find them. Planted from outside; production code has no flags."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

import functions.core.dispatch as dispatches
from functions.core.budget import Spending
from functions.core.dispatch import State
from functions.core.fold import Fold
from functions.core.windows import Head
from functions.flow import sender, window_closer
from functions.flow.sender import Sender
from functions.flow.window_writer import WindowWriter

from .history import Plant
from .process import Process


@dataclass(frozen=True)
class Bug:
    """What is wrong, which words the violation must begin with, and how the bug is planted."""

    name: str
    shows_as: tuple[str, ...]
    store: Plant | None = None
    patch: Callable[[pytest.MonkeyPatch], None] | None = None


class _Wrapped:
    def __init__(self, store: Any, process: Process) -> None:
        self._store, self._process = store, process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _Truncating(_Wrapped):
    """Put Blob without If-None-Match: what stood in the blob is gone."""

    async def create_segment(self, segment: Any, rule: str) -> None:
        self._process.history.store.segments.pop(segment.name, None)
        await self._store.create_segment(segment, rule)


class _ListingFirst(_Wrapped):
    """A closer that reads what a window holds before it moves the head, and believes that later."""

    def __init__(self, store: Any, process: Process) -> None:
        super().__init__(store, process)
        self._read: dict[str, list[bytes]] = {}

    async def write_head(self, head: Head) -> Head:
        if head.unfinished:
            for number in range(head.last_segment + 1):
                segment = replace(head.current, number=head.unfinished, segment=number)
                blob = self._process.history.store.segments.get(segment.name)
                self._read[segment.name] = (
                    [] if blob is None else [line async for line in self._store.read_segment(segment)]
                )
        written: Head = await self._store.write_head(head)
        return written

    async def read_segment(self, segment: Any) -> AsyncIterator[bytes]:
        listed = self._read.get(segment.name)
        if listed is not None:
            for line in listed:
                yield line
            return
        async for line in self._store.read_segment(segment):
            yield line


class _Overwriting(_Wrapped):
    """A budget's row that is written whatever stands in it: turns that another instance gave are lost."""

    async def write_spending(self, spending: Spending) -> Spending:
        standing = await self._store.read_spending(spending.route)
        written: Spending = await self._store.write_spending(
            replace(spending, version=standing.version if standing else "")
        )
        return written


def _no_drop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fold, "drop", lambda self, listed, **how: None)


def _double_send(patch: pytest.MonkeyPatch) -> None:
    send = Sender.send

    async def regardless(self: Sender, dispatch_id: str) -> None:
        row = await self.store.read_dispatch(dispatch_id)
        if row is not None and row.state is State.SENDING:
            await self.store.replace_dispatch(replace(row, state=State.READY, not_before=None))
        await send(self, dispatch_id)

    patch.setattr(Sender, "send", regardless)


def _forgotten_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Head, "opened", lambda self, alarm: self)


def _impatient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dispatches, "RUN_SETTLES", timedelta())


def _answered_too_early(patch: pytest.MonkeyPatch) -> None:
    append = WindowWriter.append

    async def early(self: WindowWriter, route: Any, key: str, line: bytes) -> None:
        task = asyncio.create_task(append(self, route, key, line))  # type: ignore[arg-type]
        task.add_done_callback(lambda done: done.exception())

    patch.setattr(WindowWriter, "append", early)


def _parked_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sender, "wake", lambda rows, now: [])


def _hold_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(window_closer, "held", lambda hold, last_created, now: None)


BUGS = (
    Bug("a blob is created without If-None-Match", ("lost", "window"), store=_Truncating),
    Bug("a window is read before the head moved", ("lost",), store=_ListingFirst),
    Bug("duplicates across windows are not dropped", ("twice",), patch=_no_drop),
    Bug("a sender ignores `sending`", ("twice",), patch=_double_send),
    Bug("a window is opened without `open` and alarm in the head", ("lost", "unfinished"), patch=_forgotten_window),
    Bug("an unknown outcome is sent again at once", ("twice",), patch=_impatient),
    Bug("an event is answered before it is durable", ("lost",), patch=_answered_too_early),
    Bug("a parked dispatch is never tried again", ("unfinished",), patch=_parked_for_ever),
    Bug("a window closes while the last run goes on", ("hold",), patch=_hold_forgotten),
    Bug("a budget's row is written whatever stands in it", ("budget",), store=_Overwriting),
)
