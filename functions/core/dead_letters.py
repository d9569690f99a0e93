"""Dead letters: what Signalbox could not use, what Event Grid gave up, and whether either can be taken in today.

Event Grid's follow "Dead-letter events": an array of events a blob, each with the fate that it met.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from datetime import datetime

from functions.core.dispatch import Dispatch, State
from functions.core.events import DEEPEST, Event, UnreadableEvent, is_deeper, parse
from functions.core.routes import Route, is_marker, key_of, matching
from functions.core.values import Json, JsonObject, compact_json, digest, parse_time, text
from functions.core.windows import LARGEST_LINE, Line

_NOTHING = object()

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


def of_value(value: object) -> JsonObject:
    """What a dead letter keeps of a decoded event; as text where that is no object, or nests too deep to be written."""
    return {"event": value if isinstance(value, dict) and not _is_too_deep(value) else _written(value)}


def of_bytes(raw: bytes) -> JsonObject:
    """What a dead letter keeps of a message that is no event at all."""
    return {"raw": base64.b64encode(raw).decode("ascii")}


def refusal(event: Event, line: bytes, data_accounts: frozenset[str]) -> str:
    """Why a readable event is a dead letter all the same, as part of a sentence, or "". `line` is it in a window."""
    if event.account is not None and event.account not in data_accounts:
        return (
            f"its storage account '{event.account}' is not among SIGNALBOX_DATA_ACCOUNTS "
            f"({', '.join(sorted(data_accounts)) or 'none'})"
        )
    if len(line) > LARGEST_LINE:
        return f"it has {len(line)} bytes, more than the {LARGEST_LINE} that a window takes"
    return ""


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
    left = [value for value in values if _written(value) not in replayed]
    if not left:
        return b""
    return _written(left if isinstance(document, list) else document).encode("ascii")


def prospect(letter: DeadLetter, routes: tuple[Route, ...], data_accounts: frozenset[str]) -> Prospect:
    """What would become of the letter's event with today's routes and settings."""
    try:
        event = parse(letter.event)
    except UnreadableEvent as error:
        return Prospect(None, {}, letter.reason if letter.event is None else f"it still cannot be read: {error}")
    if refused := refusal(event, Line(event, letter.time).to_bytes(), data_accounts):
        return Prospect(event, {}, refused)
    keys = {route.name: key_of(route, event) for route in matching(routes, event)}
    keys |= {route.name: key_of(route, event) for route in routes if is_marker(route, event)}
    return Prospect(event, keys, "" if keys else "no route takes it: 'signalbox explain' says why")


def replayed(dispatch: Dispatch) -> Dispatch:
    """A parked or refused dispatch as it goes on because a person says so.

    One that went unheard was accepted by GitHub once: its run is looked for first, and only where there is none is it
    sent again.
    """
    again = replace(dispatch, probes=0, unheard=0, replays=dispatch.replays + 1, reason="replayed by a person")
    if dispatch.state is State.PARKED and dispatch.sent is not None:
        return replace(again, state=State.SENDING, sending_since=dispatch.sent)
    return replace(again, state=State.READY, not_before=None)


def _letter(container: str, blob: str, value: Json, modified: datetime) -> DeadLetter:
    written = _written(value)
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


def _is_too_deep(value: object) -> bool:
    """True where recursion may not be able to write the value, although it could just be read."""
    return is_deeper(value, 2 * DEEPEST)


def _written(value: object) -> str:
    """`compact_json` of a value of any depth."""
    if not _is_too_deep(value):
        return compact_json(value)
    written: list[str] = []
    left: list[tuple[str, object]] = [("", value)]  # each with the text before it
    while left:
        before, item = left.pop()
        written.append(before)
        if isinstance(item, dict):
            pairs = [(f"{',' if n else ''}{compact_json(name)}:", part) for n, (name, part) in enumerate(item.items())]
            written.append("{")
            left += [("}", _NOTHING), *reversed(pairs)]
        elif isinstance(item, list):
            written.append("[")
            left += [("]", _NOTHING), *reversed([("," if n else "", part) for n, part in enumerate(item)])]
        elif item is not _NOTHING:
            written.append(compact_json(item))
    return "".join(written)


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
