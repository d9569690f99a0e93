"""Appending to windows: find the open one by the head row, open it where there is none, share one append among callers.

The protocol is the one of docs/adr/0001-append-blob-windows.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

from functions.core.routes import OVERFLOW_KEY, Route
from functions.core.values import digest
from functions.core.windows import SIZE_CHECK, Head, Rule, alarm, split_appends
from functions.flow.patience import patiently
from functions.flow.ports import Append, Chance, Clock, Conflict, Queue, StorageUnavailable, Store

_MOST_TURNS = 25
"""Head moves that one append may meet: each is another instance's progress, so many mean that something is broken."""

_MOST_KNOWN_HEADS = 10_000


class _TooManyKeys(Exception):
    """The route may open no further window."""


class WindowWriter:
    """Appends lines to the window of a route and key. One per process: it remembers heads and shares appends."""

    def __init__(self, store: Store, queue: Queue, clock: Clock, chance: Chance) -> None:
        """`chance` gives each new head its epoch."""
        self._store, self._queue, self._clock, self._chance = store, queue, clock, chance
        self._heads: dict[str, Head] = {}
        self._groups: dict[str, _Group] = {}
        self._openings: dict[str, _Openings] = {}

    async def append(self, route: Route, key: str, line: bytes) -> Head:
        """Returns the head under which the line was taken once it is durable. Raises StorageUnavailable.

        Callers of the same route and key share appends: while one is under way, the lines of the others gather
        for the next.
        """
        name = digest(route.name, key)
        group = self._groups.setdefault(name, _Group())
        mine: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        group.waiting.append((line, mine))
        if group.task is None:
            group.task = asyncio.create_task(self._drain(name, group, route, key))
        return await asyncio.shield(mine)

    async def _drain(self, name: str, group: _Group, route: Route, key: str) -> None:
        while group.waiting:
            batch, group.waiting = group.waiting, []
            try:
                for block in split_appends(line for line, _ in batch):
                    head = await patiently(self._clock, partial(self._write, route, key, block))
            except Exception as error:
                if isinstance(error, StorageUnavailable):
                    # Who joined meanwhile would wait as long once more, which is longer than Event Grid waits.
                    batch, group.waiting = batch + group.waiting, []
                for _, caller in batch:
                    if not caller.done():
                        caller.set_exception(error)
                        caller.exception()  # a caller that went away meanwhile reads it no more
                continue
            for _, caller in batch:
                if not caller.done():
                    caller.set_result(head)
        group.task = None
        del self._groups[name]

    async def _write(self, route: Route, key: str, block: bytes) -> Head:
        try:
            return await self._write_to(route, key, block)
        except _TooManyKeys:
            return await self.append(route, OVERFLOW_KEY, block)  # shared: a burst of odd names comes here all at once

    async def _write_to(self, route: Route, key: str, block: bytes) -> Head:
        key_digest = digest(route.name, key)
        head = self._heads.get(key_digest) or await self._open(route, key, None)
        for _ in range(_MOST_TURNS):
            match await self._store.append(head.current, block):
                case Append.DONE:
                    self._remember(head)
                    return head
                case Append.MISSING:
                    head = await self._open(route, key, head)
                case Append.SEALED:
                    head = await self._moved(route, key, head)
                case Append.FULL:
                    head = await self._next_segment(route, key, head)
        raise StorageUnavailable(
            f"the window of route '{route.name}', key {key!a} moved {_MOST_TURNS} times in one append"
        )

    async def _open(self, route: Route, key: str, missing: Head | None) -> Head:
        """Make sure that the current segment exists. `missing` is the head whose segment did not.

        Order matters: the head says "open" and the alarm is set before the blob exists, so that no window with a line
        in it can be forgotten.
        """
        head = await self._store.read_head(route.name, digest(route.name, key))
        if head is not None and (missing is None or head.current != missing.current):
            return head
        if head is None:
            head = Head(route.name, key, epoch=self._chance.token())
        rule = Rule.of(route, key)
        if not head.is_open:
            try:
                head = await self._note_open(route, head, rule)
            except Conflict:
                return await self._open(route, key, missing)
        await self._store.create_segment(head.current, rule.to_text())
        return head

    async def _note_open(self, route: Route, head: Head, rule: Rule) -> Head:
        if head.key == OVERFLOW_KEY:
            return await self._write_opened(head, rule)
        openings = self._openings.setdefault(route.name, _Openings())
        await self._admit(route, head.key, openings)
        openings.begun += 1
        try:
            return await self._write_opened(head, rule)
        finally:
            openings.ended += 1

    async def _write_opened(self, head: Head, rule: Rule) -> Head:
        token = self._chance.token()
        await self._queue.send(alarm(head, token), min(rule.settle.quiet, SIZE_CHECK))
        return await self._store.write_head(head.opened(token))

    async def _admit(self, route: Route, key: str, openings: _Openings) -> None:
        """Raises _TooManyKeys where the route may open no further window.

        A burst brings many keys at once: those that this process is about to open count as open, or all of them would
        pass before storage has the first.
        """
        while True:
            ended = openings.ended
            count = await self._store.count_open(route.name, route.max_open_keys)
            if count + openings.begun - ended < route.max_open_keys:
                return
            if count + openings.begun - openings.ended >= route.max_open_keys:
                break
            # What was opened while storage counted may have been counted twice: only another count can tell.
        head = await self._store.read_head(route.name, digest(route.name, key))
        if head is None or not head.is_open:  # else another instance has just opened this very key
            raise _TooManyKeys

    async def _moved(self, route: Route, key: str, sealed: Head) -> Head:
        """The head after its segment was sealed: whoever seals moves the head first."""
        self._heads.pop(sealed.key_digest, None)
        return await self._open(route, key, sealed)

    async def _next_segment(self, route: Route, key: str, full: Head) -> Head:
        head = await self._store.read_head(route.name, full.key_digest)
        if head is not None and head.current == full.current:
            try:
                head = await self._store.write_head(head.next_segment())
            except Conflict:
                head = None
        return await self._open(route, key, None) if head is None else head

    def _remember(self, head: Head) -> None:
        if len(self._heads) >= _MOST_KNOWN_HEADS:
            self._heads.clear()
        self._heads[head.key_digest] = head


@dataclass(slots=True)
class _Openings:
    """Windows of a route that this process set out to open, and how many of those attempts are over."""

    begun: int = 0
    ended: int = 0


@dataclass(slots=True)
class _Group:
    waiting: list[tuple[bytes, asyncio.Future[Head]]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
