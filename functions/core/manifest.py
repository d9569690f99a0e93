"""Manifests: the complete list of what one dispatch is about, as JSON Lines with a small header beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from functions.core.events import Blob, Event, identity_digest
from functions.core.values import JsonObject, compact_json, digest, format_time, parse_time

MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Header:
    """What a manifest holds, without reading it.

    Attributes:
        dispatch_id: of the dispatch that carries it; also the blob's name, with `.jsonl`.
        sha256: of the manifest's bytes, in hexadecimal.
        count: lines, which is events.
        size: bytes.
        first_event, last_event: times of the oldest and the newest event; None where no event had a time.
        sealed: when the window was sealed, by the storage service's clock.
        lines, duplicates, superseded: what the window held, what was dropped as the same event, and what a newer event
            of the same blob replaced.
        repeated_ids: ids that stand for several events of the window; all of them are listed.
        reach: until when an event of this manifest, or of one before it, may be looked for under its own time; None
            where that is no later than `sealed`. See `Fold.reach`.
    """

    dispatch_id: str
    sha256: str
    count: int
    size: int
    first_event: datetime | None
    last_event: datetime | None
    sealed: datetime
    lines: int
    duplicates: int
    superseded: int
    repeated_ids: int = 0
    reach: datetime | None = None

    def reaches(self, since: datetime) -> bool:
        """Whether this manifest, or one before it, may list an event that is looked for from `since` on."""
        return (self.reach or self.sealed) >= since

    def to_text(self) -> str:
        """One line of ASCII, fit for a blob's metadata."""
        return compact_json(
            {
                "v": MANIFEST_VERSION,
                "dispatch_id": self.dispatch_id,
                "sha256": self.sha256,
                "count": self.count,
                "bytes": self.size,
                "first_event": _time_text(self.first_event),
                "last_event": _time_text(self.last_event),
                "sealed": format_time(self.sealed),
                "lines": self.lines,
                "duplicates": self.duplicates,
                "superseded": self.superseded,
                "repeated_ids": self.repeated_ids,
                "reach": _time_text(self.reach),
            }
        )

    @staticmethod
    def from_text(line: str) -> Header:
        """Read back what `to_text` wrote, also before it told of repeated ids and reach."""
        kept = json.loads(line)
        reach = kept.get("reach")
        return Header(
            dispatch_id=kept["dispatch_id"],
            sha256=kept["sha256"],
            count=kept["count"],
            size=kept["bytes"],
            first_event=None if kept["first_event"] is None else parse_time(kept["first_event"]),
            last_event=None if kept["last_event"] is None else parse_time(kept["last_event"]),
            sealed=parse_time(kept["sealed"]),
            lines=kept["lines"],
            duplicates=kept["duplicates"],
            superseded=kept["superseded"],
            repeated_ids=kept.get("repeated_ids", 0),
            reach=None if reach is None else parse_time(reach),
        )


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One line of a manifest before it is written. Entries sort as they are listed: oldest first, then by their lines.

    Folding a window holds one for each of its events; an event itself takes several times the memory.

    Attributes:
        time: of the event, as `values.format_time` writes it; "" where it has none.
        line: what `entry` says, as JSON with its newline.
        blob: digest of the blob, whatever version of it; "" for an event about none.
        sequencer: the blob's version, as storage counts; "" where the event has none.
    """

    time: str
    line: bytes
    blob: str
    sequencer: str

    @staticmethod
    def of(event: Event) -> Entry:
        """What a manifest lists of an event."""
        blob = event.blob
        return Entry(
            time=_time_text(event.time) or "",
            line=compact_json(entry(event)).encode("ascii") + b"\n",
            blob=blob_digest(blob) if blob else "",
            sequencer=blob.sequencer if blob else "",
        )


def entry(event: Event) -> JsonObject:
    """One line of a manifest: what it takes to fetch exactly this blob, and to find the event again."""
    blob = event.blob
    return {
        "url": blob.url if blob else None,
        "etag": (blob.etag or None) if blob else None,
        "size": blob.size if blob else None,
        "sequencer": (blob.sequencer or None) if blob else None,
        "event_id": event.id,
        "event_time": _time_text(event.time),
        "type": event.type,
        "subject": event.subject,
        "identity": identity_digest(event),
        "blob": blob_digest(blob) if blob else None,
    }


def blob_digest(blob: Blob) -> str:
    """Stands for a blob, whatever version of it."""
    return digest("blob", blob.account, blob.subject)


def build(
    dispatch_id: str,
    entries: list[Entry],
    *,
    sealed: datetime,
    lines: int,
    duplicates: int,
    superseded: int,
    repeated_ids: int,
    reach: datetime | None,
) -> tuple[bytes, Header]:
    """The manifest's bytes and its header, for entries in the order in which they shall be listed."""
    body = b"".join(entry.line for entry in entries)
    times = [entry.time for entry in entries if entry.time]
    return body, Header(
        dispatch_id=dispatch_id,
        sha256=hashlib.sha256(body).hexdigest(),
        count=len(entries),
        size=len(body),
        first_event=parse_time(min(times)) if times else None,
        last_event=parse_time(max(times)) if times else None,
        sealed=sealed,
        lines=lines,
        duplicates=duplicates,
        superseded=superseded,
        repeated_ids=repeated_ids,
        reach=reach,
    )


@dataclass(frozen=True, slots=True)
class Listed:
    """What folding a later window needs to know of one line of a manifest; what a line lacks is empty.

    Attributes:
        identity: digest of the event's identity.
        blob: digest of the blob, whatever version of it.
        sequencer: the blob's version, as storage counts.
        version: digest of what happened (the event's type), to which blob, and the etag that it had then.
    """

    identity: str
    blob: str
    sequencer: str
    version: str

    @staticmethod
    def of(event: Event) -> Listed:
        """What a manifest's line says of an event, before there is a manifest."""
        blob = event.blob
        if blob is None:
            return Listed(identity_digest(event), "", "", "")
        name = blob_digest(blob)
        return Listed(identity_digest(event), name, blob.sequencer, _version(event.type, name, blob.etag))


def read_listed(line: bytes) -> Listed:
    """Read one line of a manifest."""
    kept = json.loads(line)
    blob = kept.get("blob") or ""
    version = _version(kept["type"], blob, kept["etag"] or "")
    return Listed(kept["identity"], blob, kept["sequencer"] or "", version)


def _version(event_type: str, blob: str, etag: str) -> str:
    return digest(event_type, blob, etag) if blob and etag else ""


def _time_text(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)
