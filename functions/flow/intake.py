"""Intake: parse, match routes, make durable, answer. No call to GitHub happens here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from functions.core.dead_letters import of_bytes, of_value, refusal
from functions.core.dispatch import Dispatch, State
from functions.core.events import Event, UnreadableEvent, parse, parse_document
from functions.core.payload import trim_data, trim_subject
from functions.core.routes import Route, is_marker, key_of, matching
from functions.core.values import JsonObject, compact_json, digest, format_time
from functions.core.windows import MARKER_QUIET, Line, alarm
from functions.flow.patience import patiently
from functions.flow.ports import Chance, Clock, Conflict, Queue, Store
from functions.flow.window_writer import WindowWriter

_log = logging.getLogger("signalbox.intake")

_LONGEST_LOGGED = 500  # characters of a reason, which may quote what an outsider wrote; the dead letter has all of it


class Fate(StrEnum):
    """What became of an event at intake."""

    TAKEN = "taken"
    UNWANTED = "unwanted"
    DEAD_LETTER = "dead letter"


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes events in through either door. Raises StorageUnavailable where nothing could be made durable.

    Attributes:
        repository: where dispatches of routes go that name no other.
        data_accounts: storage accounts (lower case) whose blobs may be dispatched.
    """

    routes: tuple[Route, ...]
    store: Store
    queue: Queue
    writer: WindowWriter
    clock: Clock
    chance: Chance
    repository: str
    data_accounts: frozenset[str]

    async def take_message(self, raw: bytes) -> list[Fate]:
        """Take a queue message, which is one event or an array of them, as the raw bytes that Event Grid delivered."""
        try:
            read = list(parse_document(raw))
        except UnreadableEvent as error:
            return [await self.dead_letter(of_bytes(raw), str(error))]
        if not read:
            return [await self.dead_letter(of_bytes(raw), "an array without an event")]
        return [
            await self.dead_letter(of_value(value), str(event))
            if isinstance(event, UnreadableEvent)
            else await self.take(event)
            for value, event in read
        ]

    async def give_up(self, raw: bytes, reason: str) -> None:
        """Make dead letters of the events in a queue message that cannot be taken in; of its bytes where none is."""
        try:
            values = [value for value, _ in parse_document(raw)]
        except UnreadableEvent:
            values = []
        for value in values:
            await self.dead_letter(of_value(value), reason)
        if not values:
            await self.dead_letter(of_bytes(raw), reason)

    async def take_value(self, value: object) -> Fate:
        """Take one decoded event, of either schema."""
        try:
            event = parse(value)
        except UnreadableEvent as error:
            return await self.dead_letter(of_value(value), str(error))
        return await self.take(event)

    async def take(self, event: Event) -> Fate:
        """Take one readable event."""
        line = Line(event, self.clock.now()).to_bytes()
        if reason := refusal(event, line, self.data_accounts):
            return await self.dead_letter(of_value(event.to_json()), reason)
        routes = matching(self.routes, event)
        for route in routes:
            if route.settle is None:
                await self._insert(route, event)
            else:
                await self.writer.append(route, key_of(route, event), line)
        marked = [route for route in self.routes if is_marker(route, event)]
        for route in marked:
            await self._shorten(route, key_of(route, event))
        fate = Fate.TAKEN if routes or marked else Fate.UNWANTED
        # An outsider's text is logged as ASCII with its control characters escaped, so that it stays on its line.
        _log.info("event %a %a: %s %s", event.id, event.type, fate, ", ".join(route.name for route in routes))
        return fate

    async def _insert(self, route: Route, event: Event) -> None:
        """Without a window the ledger row is the durable place; a redelivery finds it there."""
        unsequenced = event.unsequenced if event.unsequenced != event.identity else ()
        dispatch = Dispatch(
            id=_dispatch_id(route, event.identity),
            route=route.name,
            key=key_of(route, event),
            event_type=route.dispatch,
            repository=route.repository or self.repository,
            workflow=route.workflow,
            ref=route.ref,
            source=event.type,
            subject=trim_subject(event.subject),
            data=trim_data(event.data),
            event_count=1,
            manifest=None,
            created=self.clock.now(),
        )

        async def insert() -> None:
            standing = None
            if unsequenced:  # `signalbox rescan` may have made this event up before it came
                standing = await self.store.read_dispatch(_dispatch_id(route, unsequenced))
            if standing is None and not await self.store.insert_dispatch(dispatch):
                standing = await self.store.read_dispatch(dispatch.id)
            if standing is None or standing.state is State.READY:
                await self.queue.send({"kind": "send", "dispatch": (standing or dispatch).id})

        await patiently(self.clock, insert)

    async def _shorten(self, route: Route, key: str) -> None:
        """A marker came: look at the key's window earlier. Where no window is open there is nothing to shorten."""

        async def shorten() -> None:
            head = await self.store.read_head(route.name, digest(route.name, key))
            while head is not None and head.is_open and not head.marked:
                token = self.chance.token()
                await self.queue.send(alarm(head, token), MARKER_QUIET)
                try:
                    head = await self.store.write_head(head.rearmed(token, marked=True))
                except Conflict:
                    head = await self.store.read_head(route.name, digest(route.name, key))

        await patiently(self.clock, shorten)

    async def dead_letter(self, letter: JsonObject, reason: str) -> Fate:
        """Keep what cannot be used, so that it is answered 2xx: sending it again would never help."""
        now = self.clock.now()
        name = f"{now:%Y/%m/%d}/{digest(compact_json(letter), reason)}.json"
        full: JsonObject = {"schema": 1, "reason": reason, "received": format_time(now), **letter}
        await patiently(self.clock, partial(self.store.write_dead_letter, name, full))
        _log.warning("dead letter %s: %a", name, reason[:_LONGEST_LOGGED])
        return Fate.DEAD_LETTER


def _dispatch_id(route: Route, identity: tuple[str, ...]) -> str:
    return f"sb-{digest('event', route.name, *identity)}"
