"""Dead letters: what Signalbox could not use, what Event Grid gave up, and whether either can be taken in today.

Event Grid's follow "Dead-letter events": an array of events a blob, each with the fate that it met.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime

from functions.core.dispatch import Dispatch, State
from functions.core.events import Event, UnreadableEvent, parse
from functions.core.routes import Route, is_marker, key_of, matching
from functions.core.values import Json, compact_json, digest, parse_time, text

REPLAYED = "replayed/"
"""First part of the name under which a replayed dead letter is kept."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter, whoever wrote it.

    Attributes:
        id: stands for this letter; follows from where it lies and what it says.
        container, blob: where it lies.
        reason: why it was given up.
        time: when that was.
        event: what came, decoded; None where that was no JSON.
        text: the letter as it stands in its blob, as JSON.
    """

    id: str
    container: str
    blob: str
    reason: str
    time: datetime
    event: Json
    text: str

    @property
    def event_id(self) -> str:
        """The event's id; "" where it has none."""
        return self._field("id")

    @property
    def type(self) -> str:
        """The event's type in either schema; "" where it has none."""
        return self._field("eventType") or self._field("type")

    @property
    def subject(self) -> str:
        """The event's subject; "" where it has none."""
        return self._field("subject")

    @property
    def replayed_name(self) -> str:
        """Name of the blob that keeps it once it was replayed."""
        return f"{REPLAYED}{self.blob.removesuffix('.json')}-{self.id}.json"

    def _field(self, name: str) -> str:
        return text(self.event, name) if isinstance(self.event, dict) else ""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What intake would do with a dead letter today: `keys` by the names of the routes that take it, or why none does.

    `event` is None where it still cannot be read.
    """

    event: Event | None
    keys: dict[str, str]
    obstacle: str


def read_letters(container: str, blob: str, content: bytes, modified: datetime) -> list[DeadLetter]:
    """The dead letters of one blob. One that cannot be read at all is a single letter that says so."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        document = {"reason": f"the dead letter itself cannot be read: {error}"}
    values = document if isinstance(document, list) else [document]
    return [_letter(container, blob, value, modified) for value in values]


def without(content: bytes, replayed: set[str]) -> bytes:
    """The blob's content without the letters whose text is among `replayed`; empty once none is left."""
    document = json.loads(content)
    values = document if isinstance(document, list) else [document]
    left = [value for value in values if compact_json(value) not in replayed]
    if not left:
        return b""
    return compact_json(left if isinstance(document, list) else document).encode("ascii")


def prospect(letter: DeadLetter, routes: tuple[Route, ...], data_accounts: frozenset[str]) -> Prospect:
    """What would become of the letter's event with today's routes and settings."""
    try:
        event = parse(letter.event)
    except UnreadableEvent as error:
        return Prospect(None, {}, letter.reason if letter.event is None else f"it still cannot be read: {error}")
    if event.account is not None and event.account not in data_accounts:
        return Prospect(event, {}, f"its storage account '{event.account}' is not among SIGNALBOX_DATA_ACCOUNTS")
    keys = {route.name: key_of(route, event) for route in matching(routes, event)}
    keys |= {route.name: key_of(route, event) for route in routes if is_marker(route, event)}
    return Prospect(event, keys, "" if keys else "no route takes it: 'signalbox explain' says why")


def replayed(dispatch: Dispatch) -> Dispatch:
    """A parked or refused dispatch as it goes on because a person says so.

    One that went unheard was accepted by GitHub once: its run is looked for first, and only where there is none is it
    sent again.
    """
    reason = "replayed by a person"
    if dispatch.state is State.PARKED and dispatch.sent is not None:
        return replace(dispatch, state=State.SENDING, sending_since=dispatch.sent, probes=0, reason=reason)
    return replace(dispatch, state=State.READY, not_before=None, probes=0, reason=reason)


def _letter(container: str, blob: str, value: Json, modified: datetime) -> DeadLetter:
    written = compact_json(value)
    body = value if isinstance(value, dict) else {}
    given_up_by_event_grid = bool(text(body, "deadLetterReason"))
    if given_up_by_event_grid:
        outcome = text(body, "lastDeliveryOutcome")
        reason = text(body, "deadLetterReason") + (f", last outcome {outcome}" if outcome else "")
        moment, event = text(body, "lastDeliveryAttemptTime") or text(body, "publishTime"), value
    else:
        reason = text(body, "reason") or "it says no reason"
        moment, event = text(body, "received"), _event(body)
    return DeadLetter(
        id=digest("dead letter", container, blob, written),
        container=container,
        blob=blob,
        reason=reason,
        time=_time(moment) or modified,
        event=event,
        text=written,
    )


def _event(body: dict[str, Json]) -> Json:
    """The event inside of one of our own dead letters: as it came, or inside of a window's line."""
    if "window" not in body:
        return body.get("event")
    try:
        line = json.loads(text(body, "raw"))
    except (ValueError, RecursionError):
        return None
    found: Json = line.get("event") if isinstance(line, dict) else None
    return found


def _time(written: str) -> datetime | None:
    try:
        return parse_time(written)
    except ValueError:
        return None
