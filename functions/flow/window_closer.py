"""Closing windows: settle, move the head, seal, fold into a manifest, insert the ledger row.

The protocol is the one of docs/adr/0001-append-blob-windows.md. Every step can be done again by another instance, at
any time, with the same result.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from functions.core import manifest
from functions.core.dispatch import Dispatch, ManifestRef, State
from functions.core.events import Event, UnreadableEvent, identity_digest
from functions.core.fold import Fold
from functions.core.manifest import Entry, Header, Listed, read_listed
from functions.core.payload import trim_data, trim_subject
from functions.core.routes import OVERFLOW_KEY, Route, key_by
from functions.core.values import digest, format_time
from functions.core.windows import (
    EMPTY_WINDOW_CHECK,
    SIZE_CHECK,
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
from functions.flow.budget_keeper import BudgetKeeper
from functions.flow.patience import patiently
from functions.flow.ports import Chance, Clock, Conflict, Queue, SegmentState, Store

_log = logging.getLogger("signalbox.window")

_IDS_TOLD = 5
_MOST_LOOKS = 10
"""Head moves that one look may meet; each is another instance's progress."""


@dataclass(frozen=True, slots=True)
class WindowCloser:
    """Looks at windows when their alarm rings, and finishes those that are settled."""

    routes: Mapping[str, Route]
    store: Store
    queue: Queue
    clock: Clock
    chance: Chance
    budgets: BudgetKeeper
    repository: str

    async def ring(self, route: str, key: str, token: str) -> None:
        """An alarm rang: look at the window, and set the next alarm where it has to wait.

        Only the alarm that the head names rings on. A send whose answer was lost leaves a copy in the queue; were
        copies to ring on, they would multiply. Any alarm has an unfinished window finished: it may be the one whose
        handler failed half-way.
        """
        head = await self.store.read_head(route, digest(route, key))
        if head is None or (head.alarm != token and not head.unfinished):
            return
        wait = await self.look(route, key)
        if wait is None:
            return
        current = await self.store.read_head(route, digest(route, key))
        if current is None or current.alarm != token:
            return
        following = self.chance.token()
        await self.queue.send(alarm(current, following), wait.delay)
        while current is not None and current.alarm == token:  # else somebody else set an alarm, or closed the window
            try:
                current = await self.store.write_head(current.rearmed(following))
            except Conflict:  # also where a segment was added, or the window before finished: no alarm would be left
                current = await self.store.read_head(route, digest(route, key))

    async def look(self, route: str, key: str) -> Wait | None:
        """Finish what is unfinished, and close the open window if it is settled; else gives how long it has to wait."""
        for _ in range(_MOST_LOOKS):
            head = await self.store.read_head(route, digest(route, key))
            if head is not None and head.unfinished:
                head = await self._finish(head)
            if head is None or not head.is_open:
                return None
            if head.unfinished:
                continue  # meanwhile another instance closed the next window
            wait = await self._why_wait(head)
            if wait is not None:
                _log.info("window %s of %s, key %a waits: %s", head.number, route, key, wait.reason)
                return wait
            with suppress(Conflict):  # a segment was added, or another instance was first: look again
                await self._finish(await self.store.write_head(head.next_window()))
                return None
        return Wait(EMPTY_WINDOW_CHECK, "its head keeps moving")

    async def _why_wait(self, head: Head) -> Wait | None:
        state, rule_text = await self._window_state(head)
        rule = self._rule(head, rule_text)
        if rule is None:
            return Wait(EMPTY_WINDOW_CHECK, "its first segment is not there yet")
        wait = settled(rule.settle, state, marker_seen=head.marked)
        if wait is None and rule.hold is not None:
            wait = held(rule.hold, await self._last_unfinished(head), state.now)
        if wait is None and state.size < rule.settle.max_bytes:  # a full one waits for its turn in the ledger
            turn = await self.budgets.wait(head.route, head.dispatch_id(head.number))
            wait = None if turn is None else Wait(min(turn, SIZE_CHECK), "its route's budget is used up")
        return wait

    async def _last_unfinished(self, head: Head) -> datetime | None:
        """When the key's last dispatch was made, if that is unfinished; windows that held nothing new do not count."""
        for number in range(head.number - 1, 0, -1):
            last = await self.store.read_dispatch(head.dispatch_id(number))
            if last is None or last.state is not State.EMPTY:
                return None if last is None or last.is_final else last.created
        return None

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
        if header is None:
            fold = await self._fold(head, last, sealed, rule)
            header = await self._write_manifest(head, fold, sealed)
        first = await self._first_listed(dispatch_id, last) if header.count else None
        await self._insert(head, rule, header, first)
        return await self._mark_finished(head)

    async def _seal(self, head: Head, last: Segment) -> tuple[datetime, Rule]:
        """Seal every segment, creating absent ones so that no late writer can. Gives when, by storage's clock."""
        rule_text = self._rule_text(head)
        for number in range(last.segment + 1):
            segment = last.sibling(number)
            state = await self.store.segment_state(segment)
            if state is None:
                await self.store.create_segment(segment, rule_text)
            if state is None or not state.sealed:
                await self.store.seal_segment(segment)
        # Read after the last seal: a duplicate's event can then not be younger than "sealed".
        first = await self.store.segment_state(last.sibling(0))
        if first is None:
            raise UnreadableEvent(f"window {last.window_name} has no segment although it was open")
        rule = self._rule(head, first.rule)
        if rule is None:
            raise UnreadableEvent(f"window {last.window_name} has no rule, and no route '{head.route}' is left")
        return first.now, rule

    def _rule_text(self, head: Head) -> str:
        route = self.routes.get(head.route)
        return Rule.of(route, head.key).to_text() if route is not None and route.settle is not None else ""

    async def _fold(self, head: Head, last: Segment, sealed: datetime, rule: Rule) -> Fold:
        fold, keys = Fold(sealed), {OVERFLOW_KEY}
        async for line in self._lines(last):
            fold.add(line)
            if head.key == OVERFLOW_KEY and rule.template is not None:
                keys.add(key_by(rule.template, line.event))
        if fold.since is not None:
            for other in await self._heads_with_duplicates(head, keys):
                if other is not head and other.unfinished:
                    await self._agree(head, other, fold)
                async for dispatch_id in self._manifests_since(other, fold.since, before=head.unfinished, of=head):
                    fold.drop([read_listed(listed) async for listed in self.store.read_manifest(dispatch_id)])
        return fold

    async def _lines(self, last: Segment) -> AsyncIterator[Line]:
        """The lines of a sealed window; what this version cannot read is kept elsewhere."""
        for number in range(last.segment + 1):
            async for raw in self.store.read_segment(last.sibling(number)):
                try:
                    yield Line.from_bytes(raw)
                except UnreadableEvent as error:
                    await self._keep_unreadable(last.sibling(number), raw, str(error))

    async def _heads_with_duplicates(self, head: Head, keys: set[str]) -> list[Head]:
        """The heads under which an event of this window may stand already.

        Its own; and since an event may overflow once and settle under its own key when it comes again, the overflow's
        for every other key, and those of its events' own `keys` for the overflow.
        """
        others = [await self.store.read_head(head.route, digest(head.route, key)) for key in sorted(keys - {head.key})]
        return [head, *(other for other in others if other is not None)]

    async def _agree(self, head: Head, other: Head, fold: Fold) -> None:
        """Two windows that may share an event close at once: let it stand in one of them, and not in both.

        The overflow gives way to manifests, so those of the other keys are finished before it looks at them. All other
        keys give way to what stands in an overflow that closes: its manifest lists that, or finds it listed elsewhere.
        """
        if head.key == OVERFLOW_KEY:
            await self._finish(other)
            return
        if await self.store.manifest_header(other.dispatch_id(other.unfinished)) is not None:
            return  # what it lists counts, which is not all that stands there: another version may not read every line
        last = Segment(other.route, other.key_digest, other.unfinished, other.last_segment)
        for number in range(last.segment + 1):
            segment = last.sibling(number)
            if await self.store.segment_state(segment) is None:
                continue
            standing = []
            async for raw in self.store.read_segment(segment):
                with suppress(UnreadableEvent):  # the overflow's own closing keeps it
                    standing.append(Listed.of(Line.from_bytes(raw).event))
            # Not older versions: where another version cannot read the newer one's line, no manifest will list that.
            fold.drop(standing, older=False)

    async def _manifests_since(self, other: Head, since: datetime, *, before: int, of: Head) -> AsyncIterator[str]:
        """Ids of the manifests of `other` that may list an event that is looked for from then on, newest first."""
        for number in range(before - 1 if other is of else other.number - 1, 0, -1):
            dispatch_id = other.dispatch_id(number)
            header = await self.store.manifest_header(dispatch_id)
            if header is None and number == other.unfinished:
                continue  # it is being made
            if header is None or not header.reaches(since):
                return  # where one is missing, somebody deleted it and those before it
            if header.count:
                yield dispatch_id

    async def _first_listed(self, dispatch_id: str, last: Segment) -> Event | None:
        """The event that the manifest lists first. Nearly always it is among the first lines of the window.

        It may have come several times, with other words; another version may have listed it in words of its own.
        """
        line = await anext(self.store.read_manifest(dispatch_id))
        listed, same = read_listed(line), None
        for number in range(last.segment + 1):
            async for raw in self.store.read_segment(last.sibling(number)):
                with suppress(UnreadableEvent):  # the fold keeps it
                    event = Line.from_bytes(raw).event
                    if identity_digest(event) != listed.identity:
                        continue
                    if Entry.of(event).line == line:
                        return event
                    same = same or event
        return same

    async def _keep_unreadable(self, segment: Segment, raw: bytes, reason: str) -> None:
        """As a dead letter, rather than lost."""
        line = raw.decode("utf-8", "replace")
        name = f"windows/{digest(segment.name, line)}.json"
        await self.store.write_dead_letter(name, {"schema": 1, "reason": reason, "window": segment.name, "raw": line})

    async def _write_manifest(self, head: Head, fold: Fold, sealed: datetime) -> Header:
        repeated = fold.repeated_ids
        if repeated:
            _log.warning("ids that stand for several events, all of them listed: %a", repeated[:_IDS_TOLD])
        entries = fold.entries()
        body, header = manifest.build(
            head.dispatch_id(head.unfinished),
            entries,
            sealed=sealed,
            lines=fold.lines,
            duplicates=fold.duplicates,
            superseded=fold.superseded,
            repeated_ids=len(repeated),
            reach=fold.reach(await self.store.manifest_header(head.dispatch_id(head.unfinished - 1))),
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
            workflow=rule.workflow,
            ref=rule.ref,
            source=first.type if first else "",
            subject=trim_subject(first.subject) if first else "",
            data=trim_data(first.data) if first else {},
            event_count=header.count,
            manifest=ManifestRef(self.store.manifest_url(header.dispatch_id), header.sha256, header.count, header.size),
            created=self.clock.now(),
        )
        if not header.count:
            reason = f"all {header.lines} lines repeat what an earlier dispatch carried"
            if not header.lines:
                reason = "none of its lines could be read: they are among the dead letters"
            dispatch = replace(dispatch, state=State.EMPTY, reason=reason)
        inserted = await self.store.insert_dispatch(dispatch)
        _log.info(
            "window %s of %s, key %a sealed at %s: dispatch %s with %s events (%s lines)%s",
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
