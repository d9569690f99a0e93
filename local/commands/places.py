"""Where events lie: manifests, windows, dead letters. What `trace` looks through and `rescan` compares with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from functions.adapters.dead_letters import DeadLetterBox
from functions.adapters.history import History
from functions.core import manifest
from functions.core.events import UnreadableEvent, parse
from functions.core.trace import Sought, event_of
from functions.core.values import Json, JsonObject
from functions.core.windows import Head, Line


@dataclass(frozen=True, slots=True)
class Found:
    """An event and where it lies.

    Attributes:
        entry: as a manifest's line has it.
        place: one of `manifest`, `ledger`, `open window`, `closing window`, `closed window`, `dead letter`.
        dispatch: id of the dispatch that carries or will carry it; "" for a dead letter.
        note: what there is to say of the place.
    """

    entry: Mapping[str, Json]
    place: str
    dispatch: str
    note: str

    def to_json(self) -> JsonObject:
        """For `--json`."""
        return {"place": self.place, "dispatch": self.dispatch or None, "note": self.note, **self.entry}


def in_manifests(history: History, since: datetime, sought: Sought | None = None) -> Iterator[Found]:
    """Events of the manifests written since then, newest manifest first."""
    for dispatch_id in history.manifests(since):
        for raw in history.manifest_lines(dispatch_id):
            if sought is None or sought.may_be_in(raw):
                entry = json.loads(raw)
                if sought is None or sought.is_meant(entry):
                    yield Found(entry, "manifest", dispatch_id, "")


def in_ledger(history: History, since: datetime, sought: Sought | None = None) -> Iterator[Found]:
    """Events of routes without windows, as far as their rows keep them: an event's own id is not among that."""
    for row in history.dispatches(since):
        if row.manifest is None:
            entry = manifest.entry(event_of(row))
            if sought is None or sought.is_meant(entry):
                yield Found(entry, "ledger", row.id, "")


def in_windows(
    history: History, heads: list[Head], since: datetime, sought: Sought | None = None, *, closed: bool = False
) -> Iterator[Found]:
    """Events of windows that are not in the ledger yet; with `closed` those of the finished ones that still stand.

    `heads` are those to look at, or, with `closed`, all that may have had windows since then.
    """
    by_name = {(head.route, head.key_digest): head for head in heads}
    for segment in history.segments(since):
        head = by_name.get((segment.route, segment.key_digest))
        place = _place(head, segment.number) if head else "closed window"
        if head is None or (place == "closed window") is not closed:
            continue
        for raw in history.lines(segment):
            if sought is None or sought.may_be_in(raw):
                try:
                    entry = manifest.entry(Line.from_bytes(raw).event)
                except UnreadableEvent:
                    continue
                if sought is None or sought.is_meant(entry):
                    note = f"window {segment.number} of {head.route}, key '{head.key}'"
                    yield Found(entry, place, head.dispatch_id(segment.number), note)


def in_dead_letters(box: DeadLetterBox, sought: Sought | None = None) -> Iterator[Found]:
    """Events among the dead letters that were not replayed."""
    for letter in box.letters():
        try:
            entry = manifest.entry(parse(letter.event))
        except UnreadableEvent:
            entry = {"event_id": letter.event_id, "type": letter.type, "subject": letter.subject}
        if sought is None or sought.is_meant(entry) or sought.event_id == letter.id:
            yield Found(entry, "dead letter", "", f"{letter.id} in {letter.container}: {letter.reason}")


def _place(head: Head, number: int) -> str:
    if head.is_open and number == head.number:
        return "open window"
    return "closing window" if number == head.unfinished else "closed window"
