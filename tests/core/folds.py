"""Folds over given events, and what they list."""

from __future__ import annotations

from datetime import datetime

from functions.core.events import Event, parse
from functions.core.fold import Fold
from functions.core.manifest import Entry, Listed, read_listed
from functions.core.windows import Line

from .strategies import NOW, blob_event


def an_event(path: str = "d/a.csv", **changes: object) -> Event:
    """A parsed BlobCreated."""
    return parse(blob_event(path, **changes))


def folded(found: list[Event], received: datetime = NOW, sealed: datetime = NOW) -> Fold:
    """A fold over these events, of a window that was sealed then."""
    fold = Fold(sealed)
    for event in found:
        fold.add(Line(event, received))
    return fold


def entries(*found: Event) -> list[Entry]:
    """What a manifest lists of these events, in this order."""
    return [Entry.of(event) for event in found]


def events_of(fold: Fold, found: list[Event]) -> list[Event]:
    """Those of `found` that the fold keeps, as its manifest lists them."""
    by_line = {Entry.of(event).line: event for event in found}
    return [by_line[entry.line] for entry in fold.entries()]


def listed(*found: Event) -> list[Listed]:
    """The lines of a manifest of these events, as they are read back."""
    return [read_listed(entry.line) for entry in entries(*found)]
