"""Folding a window: what its manifest lists once repeated events and older versions of a blob are dropped.

The result depends on nothing but the window's lines and what earlier manifests list, whatever the order of either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from functions.core.events import Event
from functions.core.manifest import Header, Listed
from functions.core.values import compact_json, earlier, format_time
from functions.core.windows import Line

CLOCK_SKEW = timedelta(minutes=5)
"""By how much the clocks of a publisher, of intake and of storage may differ where nothing else is known."""

REDELIVERY = timedelta(days=1)
"""Event Grid delivers an event again for no longer."""

OLDEST_BELIEVED = timedelta(days=30)
"""An event comes so late at most, from a queue that nobody read or by `signalbox replay`. An earlier time (1601) is a
wrong clock; to follow it would be to read every manifest that there ever was, for each window again."""

Identity = tuple[str, ...]


class Fold:
    """Takes a window's lines one by one and keeps what its manifest will list: no duplicates, the newest of each blob.

    The result does not depend on the order of the lines; events come out in the order of their times.

    Attributes:
        lines: taken so far.
        duplicates: dropped because the same event stands in another line, or in an earlier manifest.
        superseded: dropped for a newer version of the same blob; final once `events` was called.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self.lines = 0
        self.duplicates = 0
        self.superseded = 0
        self._stale = 0
        self._events: dict[Identity, Event] = {}
        self._sequenced: set[Identity] = set()
        self._first_of_id: dict[tuple[str, str], Identity] = {}
        self._repeated: set[tuple[str, str]] = set()
        self._moments: set[tuple[datetime | None, datetime]] = set()
        self._index: _Index | None = None

    def add(self, line: Line) -> None:
        """Take one line."""
        event, self._index = line.event, None
        self.lines += 1
        self._moments.add((event.time, line.received))
        self._note_id(event)
        if self._is_known_better(event):
            self.duplicates += 1
            return
        standing = self._events.get(event.identity)
        if standing is not None:
            self.duplicates += 1
        if standing is None or _precedes(event, standing):
            self._events[event.identity] = event

    def drop(self, listed: Iterable[Listed]) -> None:
        """Drop what an earlier manifest lists already, and versions of a blob that are older than what it lists."""
        if self._index is None:
            self._index = _Index(self._events)
        for entry in listed:
            for identity in self._index.repeats_of(entry):
                self.duplicates += self._events.pop(identity, None) is not None
            for identity in self._index.older_than(entry):
                self._stale += self._events.pop(identity, None) is not None

    def events(self) -> list[Event]:
        """What remains, oldest first; of several events of one blob the one with the highest sequencer."""
        kept: list[Event] = []
        newest: dict[tuple[str, str], tuple[tuple[str, ...], Event]] = {}
        for event in self._events.values():
            about = event.blob
            if about is None or not about.sequencer:
                kept.append(event)
                continue
            blob, age = (about.account, about.subject), (about.sequencer, *_order(event))
            if blob not in newest or newest[blob][0] < age:
                newest[blob] = (age, event)
        kept += [event for _, event in newest.values()]
        self.superseded = self._stale + len(self._events) - len(kept)
        return sorted(kept, key=_order)

    @property
    def repeated_ids(self) -> list[str]:
        """Ids that stand for several events of one source: publishers should not, and nothing is dropped for it."""
        return sorted(event_id for _, event_id in self._repeated)

    def earliest_sealed(self, sealed: datetime) -> datetime | None:
        """The earliest moment at which a manifest that already lists one of these events can have been sealed.

        An event's own time minus 5 minutes. Where it has none, or one that cannot be believed, a day before it came in:
        Event Grid redelivers for no longer. When it came is intake's word, unless this window was `sealed` before that.
        None without a line.
        """
        return min((_since(time, min(received, sealed)) for time, received in self._moments), default=None)

    def reach(self, sealed: datetime, before: Header | None) -> datetime | None:
        """The `Header.reach` of a manifest that is `sealed` now and follows `before`.

        An event whose clock is ahead is looked for under its own time once that has passed, which is later than the
        seal. Times more than Event Grid's day ahead never pass while it still delivers the event.
        """
        ahead = [time for time, _ in self._moments if time is not None and time - sealed <= REDELIVERY + CLOCK_SKEW]
        if before is not None and before.reach is not None:
            ahead.append(before.reach)
        latest = max(ahead, default=sealed)
        return latest if latest > sealed else None

    def _note_id(self, event: Event) -> None:
        name = (event.source, event.id)
        if self._first_of_id.setdefault(name, event.identity) != event.identity:
            self._repeated.add(name)

    def _is_known_better(self, event: Event) -> bool:
        """True where the event lacks the sequencer with which it came in another line; that line's event stays."""
        version = event.unsequenced
        if version == event.identity:
            return version in self._sequenced
        if version:
            self._sequenced.add(version)
            self.duplicates += self._events.pop(version, None) is not None
        return False


class _Index:
    """Finds events by what a manifest's line says of them."""

    def __init__(self, events: dict[Identity, Event]) -> None:
        self._by_identity: dict[str, tuple[Identity]] = {}
        self._by_version: dict[tuple[str, ...], list[tuple[Identity, str]]] = defaultdict(list)
        self._by_blob: dict[str, list[tuple[Identity, str]]] = defaultdict(list)
        for identity, event in events.items():
            entry = Listed.of(event)
            self._by_identity[entry.identity] = (identity,)
            if entry.version:
                self._by_version[entry.version].append((identity, entry.sequencer))
            if entry.sequencer:
                self._by_blob[entry.blob].append((identity, entry.sequencer))

    def repeats_of(self, entry: Listed) -> list[Identity]:
        """The same event; where it or the entry lacks the sequencer, the same version of the blob by its etag."""
        versions = self._by_version.get(entry.version, ())
        same_version = (identity for identity, sequencer in versions if not (sequencer and entry.sequencer))
        return [*self._by_identity.get(entry.identity, ()), *same_version]

    def older_than(self, entry: Listed) -> list[Identity]:
        """Earlier versions of the same blob."""
        return [identity for identity, sequencer in self._by_blob.get(entry.blob, ()) if sequencer < entry.sequencer]


def _since(time: datetime | None, arrived: datetime) -> datetime:
    """The earliest moment at which an event that came in at `arrived` can have come in before, less the skew."""
    if time is None or not -CLOCK_SKEW <= arrived - time <= OLDEST_BELIEVED:
        time = earlier(arrived, REDELIVERY)
    return earlier(time, CLOCK_SKEW)


def _order(event: Event) -> tuple[str, ...]:
    """Oldest first; the rest only makes the order total among events of different identity."""
    return (format_time(event.time) if event.time else "", event.subject, event.id, *event.identity)


def _precedes(event: Event, other: Event) -> bool:
    """A total order also among events of one identity, so that no result hangs on which line came first."""
    mine, its = _order(event), _order(other)
    return mine < its or (mine == its and compact_json(event.to_json()) < compact_json(other.to_json()))
