"""Rescan: which blobs no event has told of, and the events that make up for it.

An event made here has no sequencer, which only storage itself knows; it is known by the blob and its etag. The real
event, should it still come, is the same one: see `Event.unsequenced`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from functions.core.events import Event
from functions.core.fold import CLOCK_SKEW
from functions.core.manifest import blob_digest
from functions.core.routes import Route, matching
from functions.core.values import Json, digest, format_time, parse_time

BLOB_CREATED = "Microsoft.Storage.BlobCreated"
WHOLE = ("PutBlob", "FlushWithClose")
"""The operation is not known either: the first one that a route listens to. After both of them a file is whole."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob as a listing has it; size in bytes."""

    account: str
    container: str
    path: str
    url: str
    etag: str
    size: int
    modified: datetime

    def event(self, api: str) -> Event:
        """The event that should have told of it; the same each time it is made."""
        subject = f"/blobServices/default/containers/{self.container}/blobs/{self.path}"
        return Event(
            id=f"rescan-{digest(self.account, subject, self.etag)}",
            type=BLOB_CREATED,
            source=f"/subscriptions/-/resourceGroups/-/providers/Microsoft.Storage/storageAccounts/{self.account}",
            subject=subject,
            time=self.modified,
            data={"api": api, "url": self.url, "eTag": self.etag, "contentLength": self.size},
            schema="eventgrid",
        )


def wanted(blob: StoredBlob, routes: tuple[Route, ...]) -> Event | None:
    """The blob's event as a route takes it; None where no route does."""
    return next((event for api in WHOLE if matching(routes, event := blob.event(api))), None)


def containers(routes: Iterable[Route]) -> list[str]:
    """The containers that routes name for new blobs."""
    of_blobs = [route for route in routes if BLOB_CREATED.lower() in {name.lower() for name in route.on}]
    return sorted({name for route in of_blobs for name in route.where.container})


class Known:
    """The versions of blobs that events have told of."""

    def __init__(self) -> None:
        """Starts empty."""
        self._etags: dict[str, set[str]] = defaultdict(set)
        self._latest: dict[str, str] = {}

    def add(self, entry: Mapping[str, Json]) -> None:
        """Take a manifest's line, or what `manifest.entry` makes of an event; what is about no blob is passed over."""
        blob, etag, time = entry.get("blob"), entry.get("etag"), entry.get("event_time")
        if not isinstance(blob, str):
            return
        if isinstance(etag, str):
            self._etags[blob].add(etag)
        elif isinstance(time, str):
            self._latest[blob] = max(time, self._latest.get(blob, ""))

    def has(self, event: Event) -> bool:
        """Whether this version of the blob is known; one told of without an etag is, where the telling is as new."""
        if event.blob is None or event.time is None:
            return False
        name = blob_digest(event.blob)
        if event.blob.etag in self._etags.get(name, ()):
            return True
        latest = self._latest.get(name)
        return latest is not None and parse_time(latest) >= event.time - CLOCK_SKEW


def title(event: Event) -> str:
    """One line that names the blob of an event made here."""
    blob = event.blob
    return f"{blob.container}/{blob.path}  {format_time(event.time)[:19]}Z" if blob and event.time else event.id
