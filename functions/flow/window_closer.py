"""Closing windows: settle, move the head, seal, fold into a manifest, insert the ledger row.

The protocol is the one of docs/adr/0001-append-blob-windows.md. Every step can be done again by another instance, at
any time, with the same result.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from functions.core import manifest
from functions.core.dispatch import Dispatch, ManifestRef, State
from functions.core.events import Event, UnreadableEvent
from functions.core.manifest import Header
from functions.core.payload import trim_data, trim_subject
from functions.core.routes import Route
from functions.core.values import digest, format_time
from functions.core.windows import (
    EMPTY_WINDOW_CHECK,
    Fold,
    Head,
    Line,
    Rule,
    Segment,
    Wait,
    WindowState,
    alarm,
    held,
    settled,
)
from functions.flow.patience import patiently
from functions.flow.ports import Clock, Conflict, Queue, SegmentState, Store

_log = logging.getLogger("signalbox.window")


@dataclass(frozen=True, slots=True)
class WindowCloser:
    """Looks at windows when their alarm rings, and finishes those that are settled."""

    routes: Mapping[str, Route]
    store: Store
    queue: Queue
    clock: Clock
    repository: str

    async def ring(self, route: str, key: str, *, number: int = 0, marker: bool = False, rearm: bool = True) -> None:
        """Look at the window of a route and key; `number` 0 means whichever is open.

        With `rearm`, a window that is not settled gets its next alarm; the slow timer looks without.
        """
        head = await self.store.read_head(route, digest(route, key))
        if head is None:
            return
        if head.unfinished:
            head = await self._finish(head)
        if not head.is_open or number not in (0, head.number):
            return
        wait = await self._why_wait(head, marker=marker)
        if wait is not None:
            if rearm:
                await self.queue.send(alarm(head, marker=marker), wait.delay)
            _log.info("window %s of %s, key '%s' waits: %s", head.number, route, key, wait.reason)
            return
        try:
            head = await self.store.write_head(head.next_window())
        except Conflict:
            # Another instance moved it, or a segment was added: look again at once.
            await self.queue.send(alarm(head, marker=marker))
            return
        await self._finish(head)

    async def _why_wait(self, head: Head, *, marker: bool) -> Wait | None:
        state, rule_text = await self._window_state(head)
        rule = self._rule(head, rule_text)
        if rule is None:
            return Wait(EMPTY_WINDOW_CHECK, "its first segment is not there yet")
        wait = settled(rule.settle, state, marker_seen=marker)
        if wait is not None or rule.hold is None or head.number == 1:
            return wait
        last = await self.store.read_dispatch(head.dispatch_id(head.number - 1))
        return held(rule.hold, None if last is None or last.is_final else last.created, state.now)

    async def _window_state(self, head: Head) -> tuple[WindowState, str]:
        found: list[SegmentState] = []
        for segment in range(head.segment + 1):
            state = await self.store.segment_state(head.current.sibling(segment))
            if state is not None:
                found.append(state)
        if not found:
            now = self.clock.now()
            return WindowState(now, now, 0, now), ""
        return (
            WindowState(
                opened=found[0].created,
                touched=max(state.modified for state in found),
                size=sum(state.size for state in found),
                now=found[-1].now,
            ),
            found[0].rule,
        )

    def _rule(self, head: Head, kept: str) -> Rule | None:
        """The route's rule as it is today; the one in the blob's metadata where the route is gone."""
        route = self.routes.get(head.route)
        if route is not None and route.settle is not None:
            return Rule.of(route, head.key)
        return Rule.from_text(kept) if kept else None

    async def _finish(self, head: Head) -> Head:
        """Seal the unfinished window, make its manifest and its ledger row, and say so in the head."""
        number = head.unfinished
        last = Segment(head.route, head.key_digest, number, head.last_segment)
        sealed, rule = await self._seal(head, last)
        dispatch_id = head.dispatch_id(number)
        header = await self.store.manifest_header(dispatch_id)
        first: Event | None = None
        if header is None or header.count:
            fold = await self._fold(head, last, sealed)
            events = fold.events()
            first = events[0] if events else None
            if header is None:
                header = await self._write_manifest(dispatch_id, fold, events, sealed)
        await self._insert(head, rule, header, first)
        return await self._mark_finished(head)

    async def _seal(self, head: Head, last: Segment) -> tuple[datetime, Rule]:
        """Seal every segment, creating absent ones so that no late writer can. Gives when, by storage's clock."""
        rule_text = self._rule_text(head)
        first: SegmentState | None = None
        for number in range(last.segment + 1):
            segment = last.sibling(number)
            state = await self.store.segment_state(segment)
            if state is None:
                await self.store.create_segment(segment, rule_text)
            if state is None or not state.sealed:
                await self.store.seal_segment(segment)
            first = first or state or await self.store.segment_state(segment)
        if first is None:
            raise UnreadableEvent(f"window {last.window_name} has no segment although it was open")
        rule = self._rule(head, first.rule)
        if rule is None:
            raise UnreadableEvent(f"window {last.window_name} has no rule, and no route '{head.route}' is left")
        return first.now, rule

    def _rule_text(self, head: Head) -> str:
        route = self.routes.get(head.route)
        return Rule.of(route, head.key).to_text() if route is not None and route.settle is not None else ""

    async def _fold(self, head: Head, last: Segment, sealed: datetime) -> Fold:
        fold = Fold()
        for number in range(last.segment + 1):
            async for raw in self.store.read_segment(last.sibling(number)):
                try:
                    fold.add(Line.from_bytes(raw))
                except UnreadableEvent as error:
                    await self._keep_unreadable(last.sibling(number), raw, str(error))
        since = fold.earliest_sealed(sealed)
        number = head.unfinished - 1
        while since is not None and number > 0:
            dispatch_id = head.dispatch_id(number)
            earlier = await self.store.manifest_header(dispatch_id)
            if earlier is None or earlier.sealed < since:
                break
            fold.drop({identity async for identity in _identities(self.store.read_manifest(dispatch_id))})
            number -= 1
        return fold

    async def _keep_unreadable(self, segment: Segment, raw: bytes, reason: str) -> None:
        """A line that this version cannot read is kept as a dead letter rather than lost."""
        line = raw.decode("utf-8", "replace")
        name = f"windows/{digest(segment.name, line)}.json"
        await self.store.write_dead_letter(name, {"schema": 1, "reason": reason, "window": segment.name, "raw": line})

    async def _write_manifest(self, dispatch_id: str, fold: Fold, events: list[Event], sealed: datetime) -> Header:
        body, header = manifest.build(
            dispatch_id,
            events,
            sealed=sealed,
            lines=fold.lines,
            duplicates=fold.duplicates,
            superseded=fold.superseded,
        )
        return await self.store.write_manifest(header, body)

    async def _insert(self, head: Head, rule: Rule, header: Header, first: Event | None) -> None:
        """The commit point: once this row stands, everything after it can be done again without harm."""
        dispatch = Dispatch(
            id=header.dispatch_id,
            route=head.route,
            key=head.key,
            event_type=rule.event_type,
            repository=rule.repository or self.repository,
            source=first.type if first else "",
            subject=trim_subject(first.subject) if first else "",
            data=trim_data(first.data) if first else {},
            event_count=header.count,
            manifest=ManifestRef(self.store.manifest_url(header.dispatch_id), header.sha256, header.count, header.size),
            created=self.clock.now(),
        )
        if not header.count:
            reason = f"all {header.lines} lines repeat what an earlier dispatch carried"
            dispatch = replace(dispatch, state=State.EMPTY, reason=reason)
        inserted = await self.store.insert_dispatch(dispatch)
        _log.info(
            "window %s of %s, key '%s' sealed at %s: dispatch %s with %s events (%s lines)%s",
            head.unfinished,
            head.route,
            head.key,
            format_time(header.sealed),
            dispatch.id,
            header.count,
            header.lines,
            "" if inserted else ", which stood in the ledger already",
        )
        if header.count:
            await self.queue.send({"kind": "send", "dispatch": dispatch.id})

    async def _mark_finished(self, head: Head) -> Head:
        """Clear the head's note. Intake may open the next window at the same time, so the row is read anew."""

        async def mark() -> Head:
            current = await self.store.read_head(head.route, head.key_digest)
            while current is not None and current.unfinished == head.unfinished:
                try:
                    return await self.store.write_head(current.finished())
                except Conflict:
                    current = await self.store.read_head(head.route, head.key_digest)
            return current or head.finished()

        return await patiently(self.clock, partial(mark))


async def _identities(lines: AsyncIterator[bytes]) -> AsyncIterator[str]:
    async for line in lines:
        for identity in manifest.identities([line]):
            yield identity
