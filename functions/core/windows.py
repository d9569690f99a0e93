"""Windows: their names, their lines, and when they are settled.

A window is a numbered series of append blobs ("segments") of one route and key. How it is opened, sealed and read is
the protocol in `functions.flow`; this module only decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta

from functions.core.events import Event, UnreadableEvent, parse
from functions.core.routes import MOST_BYTES, Hold, Route, Settle
from functions.core.values import JsonObject, compact_json, digest, format_time, parse_time

LINE_VERSION = 1
READABLE_LINE_VERSIONS = frozenset({LINE_VERSION})

LARGEST_LINE = 3 * 1024 * 1024
"""Bytes of the largest event that is kept in a window; Event Grid itself delivers at most 1 MB."""

LARGEST_APPEND = 4 * 1024 * 1024
"""Bytes of one Append Block that every service version accepts."""

MARKER_QUIET = timedelta(seconds=10)
EMPTY_WINDOW_CHECK = timedelta(minutes=15)
HOLD_CHECK = timedelta(seconds=15)
SIZE_CHECK = timedelta(minutes=1)
"""Only a look tells how large a window is, so that an open one is looked at so often, however long its quiet time."""


@dataclass(frozen=True, slots=True)
class Head:
    """Which window of a route and key takes lines now. Only moves forward, by compare-and-set on `version`.

    Attributes:
        route: the route's name.
        key: what its events have in common.
        epoch: made once with the row, so that dispatch ids never repeat, not even after the account was made anew.
        number: of the window that takes lines, from 1.
        segment: of that window, from 0.
        is_open: True once somebody may have created a blob of this window.
        unfinished: number of the window before, while it is not yet in the ledger; else 0.
        last_segment: of the unfinished window.
        alarm: token of the one alarm message that counts; copies of it, and older ones, are let go.
        marked: True once a marker came for the open window.
        version: the row's ETag; "" for a head that is not stored yet.
    """

    route: str
    key: str
    epoch: str
    number: int = 1
    segment: int = 0
    is_open: bool = False
    unfinished: int = 0
    last_segment: int = 0
    alarm: str = ""
    marked: bool = False
    version: str = ""

    def to_text(self) -> str:
        """The row as one ASCII text, without its version."""
        row = asdict(self)
        del row["version"]
        return compact_json(row)

    @staticmethod
    def from_text(line: str, version: str) -> Head:
        """Read back what `to_text` wrote; keys that this version does not know are left out."""
        known = {item.name for item in fields(Head)}
        return Head(**{name: value for name, value in json.loads(line).items() if name in known}, version=version)

    @property
    def key_digest(self) -> str:
        """Stands for the key where its characters are not allowed."""
        return digest(self.route, self.key)

    @property
    def current(self) -> Segment:
        """The segment that takes lines now."""
        return Segment(self.route, self.key_digest, self.number, self.segment)

    def opened(self, alarm: str) -> Head:
        """The head once its window may exist; `alarm` is the token of its first alarm."""
        return replace(self, is_open=True, alarm=alarm)

    def rearmed(self, alarm: str, *, marked: bool = False) -> Head:
        """The head once another alarm counts; `marked` notes that a marker came."""
        return replace(self, alarm=alarm, marked=self.marked or marked)

    def next_segment(self) -> Head:
        """The head after its current segment was full."""
        return replace(self, segment=self.segment + 1)

    def next_window(self) -> Head:
        """The head after its window settled. Only allowed while no earlier window is unfinished."""
        if self.unfinished:
            raise ValueError(f"window {self.unfinished} of '{self.route}' must be finished before {self.number}")
        return replace(
            self,
            number=self.number + 1,
            segment=0,
            is_open=False,
            unfinished=self.number,
            last_segment=self.segment,
            alarm="",
            marked=False,
        )

    def finished(self) -> Head:
        """The head once the unfinished window stands in the ledger."""
        return replace(self, unfinished=0, last_segment=0)

    def dispatch_id(self, number: int) -> str:
        """The id of the dispatch that window `number` becomes; known before the window exists, never used again."""
        return f"sb-{digest('window', self.epoch, self.route, self.key, str(number))}"


@dataclass(frozen=True, slots=True)
class Segment:
    """One append blob of a window."""

    route: str
    key_digest: str
    number: int
    segment: int

    @staticmethod
    def from_name(name: str) -> Segment:
        """The segment whose blob has this name."""
        route, key_digest, number, segment = name.split("/")
        return Segment(route, key_digest, int(number), int(segment))

    @property
    def window_name(self) -> str:
        """Prefix of all the window's blobs."""
        return f"{self.route}/{self.key_digest}/{self.number:010d}/"

    @property
    def name(self) -> str:
        """Name of the blob inside the container `windows`."""
        return f"{self.window_name}{self.segment:05d}"

    def sibling(self, segment: int) -> Segment:
        """Another segment of the same window."""
        return Segment(self.route, self.key_digest, self.number, segment)


@dataclass(frozen=True, slots=True)
class Rule:
    """What finishing a window needs to know of its route; kept with the blob, so that a route may go meanwhile.

    `template` is the route's `key`; None in what a version kept that did not keep it yet.
    """

    route: str
    key: str
    event_type: str
    repository: str
    settle: Settle
    hold: Hold | None
    workflow: str = ""
    ref: str = ""
    template: str | None = None

    @staticmethod
    def of(route: Route, key: str) -> Rule:
        """The rule of a route that has a window."""
        if route.settle is None:
            raise ValueError(f"route '{route.name}' has no window")
        return Rule(
            route=route.name,
            key=key,
            event_type=route.dispatch,
            repository=route.repository,
            settle=route.settle,
            hold=route.hold,
            workflow=route.workflow,
            ref=route.ref,
            template=route.key,
        )

    def to_text(self) -> str:
        """One line of ASCII, fit for a blob's metadata."""
        settle = self.settle
        door: JsonObject = {"event_type": self.event_type}
        if self.workflow:
            # A version that knows repository_dispatch only must not take this for one: it misses its event type.
            door = {"workflow_dispatch": {**door, "workflow": self.workflow, "ref": self.ref}}
        return compact_json(
            {
                "v": 1,
                "route": self.route,
                "key": self.key,
                **door,
                "repository": self.repository,
                "template": self.template,
                "quiet": settle.quiet.total_seconds(),
                "max_wait": settle.max_wait.total_seconds(),
                "max_bytes": settle.max_bytes,
                "marker": settle.marker,
                "hold": self.hold.at_most.total_seconds() if self.hold else None,
            }
        )

    @staticmethod
    def from_text(line: str) -> Rule:
        """Read back what `to_text` wrote."""
        kept = json.loads(line)
        door = kept.get("workflow_dispatch", kept)
        return Rule(
            route=kept["route"],
            key=kept["key"],
            event_type=door["event_type"],
            repository=kept["repository"],
            settle=Settle(
                quiet=timedelta(seconds=kept["quiet"]),
                max_wait=timedelta(seconds=kept["max_wait"]),
                max_bytes=MOST_BYTES if kept["max_bytes"] is None else kept["max_bytes"],
                marker=kept["marker"],
            ),
            hold=None if kept["hold"] is None else Hold(timedelta(seconds=kept["hold"])),
            workflow=door.get("workflow", ""),
            ref=door.get("ref", ""),
            template=kept.get("template"),
        )


@dataclass(frozen=True, slots=True)
class WindowState:
    """What storage says of an unsealed window, all by the storage service's own clock.

    `opened` is the creation of its first segment, `touched` the last change of its last one, `size` in bytes.
    """

    opened: datetime
    touched: datetime
    size: int
    now: datetime


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet; look again after `delay`."""

    delay: timedelta
    reason: str


def settled(settle: Settle, state: WindowState, *, marker_seen: bool) -> Wait | None:
    """None once the window is complete, else how long to wait before the next look."""
    if state.size == 0:
        return Wait(EMPTY_WINDOW_CHECK, "nothing stands in it yet")
    quiet = min(settle.quiet, MARKER_QUIET) if marker_seen else settle.quiet
    if state.size >= settle.max_bytes:
        return None
    quiet_left = quiet - (state.now - state.touched)
    wait_left = settle.max_wait - (state.now - state.opened)
    left = min(quiet_left, wait_left)
    return Wait(min(left, SIZE_CHECK), "events still come in") if left > timedelta() else None


def held(hold: Hold | None, last_created: datetime | None, now: datetime) -> Wait | None:
    """None where the next dispatch may go. `last_created` is of the key's last dispatch while that is unfinished."""
    if hold is None or last_created is None:
        return None
    left = hold.at_most - (now - last_created)
    return Wait(min(left, HOLD_CHECK), "the last run is still going") if left > timedelta() else None


@dataclass(frozen=True, slots=True)
class Line:
    """One event in a window, and when intake took it in (by intake's clock)."""

    event: Event
    received: datetime

    def to_bytes(self) -> bytes:
        """One line with its newline."""
        line = {"v": LINE_VERSION, "received": format_time(self.received), "event": self.event.to_json()}
        return compact_json(line).encode("ascii") + b"\n"

    @staticmethod
    def from_bytes(line: bytes) -> Line:
        """Read one line. Raises UnreadableEvent for a line that no known version of this code wrote."""
        try:
            kept = json.loads(line)
            version = kept["v"]
            if version not in READABLE_LINE_VERSIONS:
                raise UnreadableEvent(f"line version {version!r} is not known to this version of Signalbox")
            return Line(parse(kept["event"]), parse_time(kept["received"]))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, UnreadableEvent):
                raise
            raise UnreadableEvent(f"no line of a window: {error}") from error


def split_appends(lines: Iterable[bytes], largest: int = LARGEST_APPEND) -> Iterator[bytes]:
    """Join lines into as few appends as fit the limit, in order."""
    parts: list[bytes] = []
    size = 0
    for line in lines:
        if parts and size + len(line) > largest:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(line)
        size += len(line)
    if parts:
        yield b"".join(parts)


def alarm(head: Head, token: str) -> JsonObject:
    """The queue message that has a window looked at; it counts while the head names its token."""
    return {"kind": "window", "route": head.route, "key": head.key, "alarm": token}
