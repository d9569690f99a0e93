"""Folding a window: what its manifest lists once repeated events and older versions of a blob are dropped.

The result depends on nothing but the window's lines and what earlier manifests list, whatever the order of either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from functions.core.events import Event, identity_digest
from functions.core.manifest import Entry, Header, Listed, read_listed
from functions.core.values import digest, earlier
from functions.core.windows import Line

CLOCK_SKEW = timedelta(minutes=5)
"""By how much the clocks of a publisher, of intake and of storage may differ where nothing else is known."""

REDELIVERY = timedelta(days=1)
"""Event Grid delivers an event again for no longer."""

OLDEST_BELIEVED = timedelta(days=30)
"""An event comes so late at most, from a queue that nobody read or by `signalbox replay`. An earlier time (1601) is a
wrong clock; to follow it would be to read every manifest that there ever was, for each window again."""


class Fold:
    """Takes a window's lines one by one and keeps what its manifest will list: no duplicates, the newest of each blob.

    The result does not depend on the order of the lines; entries come out in the order of their times.

    Attributes:
        lines: taken so far.
        duplicates: dropped because the same event stands in another line, or in an earlier manifest.
        superseded: dropped for a newer version of the same blob; final once `entries` was called.
        since: the earliest moment at which a manifest that already lists one of these events can have been sealed.
            An event's own time minus 5 minutes. Where it has none, or one that cannot be believed, a day before it came
            in: Event Grid redelivers for no longer. When it came is intake's word, unless this window was sealed before
            that. None without a line.
    """

    def __init__(self, sealed: datetime) -> None:
        """Starts empty. `sealed` is when the window was, by the storage service's clock."""
        self.lines = 0
        self.duplicates = 0
        self.superseded = 0
        self.since: datetime | None = None
        self._sealed = sealed
        self._ahead: datetime | None = None
        self._stale = 0
        # Digests stand for identities here: of a large window, only what its manifest lists fits into memory.
        self._entries: dict[str, Entry] = {}
        self._sequenced: set[str] = set()
        self._first_of_id: dict[str, str] = {}
        self._repeated: set[tuple[str, str]] = set()
        self._index: _Index | None = None

    def add(self, line: Line) -> None:
        """Take one line."""
        event, self._index = line.event, None
        self.lines += 1
        self._note_times(event.time, line.received)
        identity = identity_digest(event)
        self._note_id(event, identity)
        if self._is_known_better(event, identity):
            self.duplicates += 1
            return
        entry, standing = Entry.of(event), self._entries.get(identity)
        if standing is not None:
            self.duplicates += 1
        if standing is None or entry < standing:
            self._entries[identity] = entry

    def drop(self, listed: Iterable[Listed], *, older: bool = True) -> None:
        """Drop what an earlier manifest lists already, and versions of a blob that are `older` than what it lists."""
        if self._index is None:
            self._index = _Index(self._entries)
        for earlier_entry in listed:
            for identity in self._index.repeats_of(earlier_entry):
                self.duplicates += self._entries.pop(identity, None) is not None
            for identity in self._index.older_than(earlier_entry) if older else ():
                self._stale += self._entries.pop(identity, None) is not None

    def entries(self) -> list[Entry]:
        """What remains, oldest first; of several events of one blob the one with the highest sequencer."""
        kept: list[Entry] = []
        newest: dict[str, Entry] = {}
        for entry in self._entries.values():
            if not entry.sequencer:
                kept.append(entry)
                continue
            standing = newest.get(entry.blob)
            if standing is None or (standing.sequencer, standing) < (entry.sequencer, entry):
                newest[entry.blob] = entry
        kept += newest.values()
        self.superseded = self._stale + len(self._entries) - len(kept)
        return sorted(kept)

    @property
    def repeated_ids(self) -> list[str]:
        """Ids that stand for several events of one source: publishers should not, and nothing is dropped for it."""
        return sorted(event_id for _, event_id in self._repeated)

    def reach(self, before: Header | None) -> datetime | None:
        """The `Header.reach` of this window's manifest, which follows `before`.

        An event whose clock is ahead is looked for under its own time once that has passed, which is later than the
        seal. Times more than Event Grid's day ahead never pass while it still delivers the event.
        """
        told = [moment for moment in (self._ahead, before.reach if before else None) if moment is not None]
        latest = max(told, default=self._sealed)
        return latest if latest > self._sealed else None

    def _note_times(self, time: datetime | None, received: datetime) -> None:
        since = _since(time, min(received, self._sealed))
        self.since = since if self.since is None else min(self.since, since)
        if time is not None and time - self._sealed <= REDELIVERY + CLOCK_SKEW:
            self._ahead = time if self._ahead is None else max(self._ahead, time)

    def _note_id(self, event: Event, identity: str) -> None:
        if self._first_of_id.setdefault(digest(event.source, event.id), identity) != identity:
            self._repeated.add((event.source, event.id))

    def _is_known_better(self, event: Event, identity: str) -> bool:
        """True where the event lacks the sequencer with which it came in another line; that line's event stays."""
        if not event.unsequenced:
            return False
        version = digest(*event.unsequenced)
        if version == identity:
            return version in self._sequenced
        self._sequenced.add(version)
        self.duplicates += self._entries.pop(version, None) is not None
        return False


class _Index:
    """Finds events by what a manifest's line says of them."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries
        self._by_version: dict[str, list[str]] = defaultdict(list)
        self._by_blob: dict[str, list[str]] = defaultdict(list)
        for identity, entry in entries.items():
            version = read_listed(entry.line).version
            if version:
                self._by_version[version].append(identity)
            if entry.sequencer:
                self._by_blob[entry.blob].append(identity)

    def repeats_of(self, entry: Listed) -> list[str]:
        """The same event; where it or the entry lacks the sequencer, the same version of the blob by its etag."""
        versions = self._by_version.get(entry.version, ())
        return [entry.identity, *(one for one in versions if not (entry.sequencer and self._sequencer(one)))]

    def older_than(self, entry: Listed) -> list[str]:
        """Earlier versions of the same blob."""
        return [one for one in self._by_blob.get(entry.blob, ()) if self._sequencer(one) < entry.sequencer]

    def _sequencer(self, identity: str) -> str:
        standing = self._entries.get(identity)
        return standing.sequencer if standing else ""


def _since(time: datetime | None, arrived: datetime) -> datetime:
    """The earliest moment at which an event that came in at `arrived` can have come in before, less the skew."""
    if time is None or not -CLOCK_SKEW <= arrived - time <= OLDEST_BELIEVED:
        time = earlier(arrived, REDELIVERY)
    return earlier(time, CLOCK_SKEW)
