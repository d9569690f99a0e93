"""Tracing: what an id stands for, how its traces are recognized, and what became of a dispatch in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from functions.core.dispatch import Dispatch, State
from functions.core.events import Blob, Event
from functions.core.manifest import blob_digest
from functions.core.values import Json, compact_json, format_time, text

ORIGIN_TAG = "signalbox_origin"

_DISPATCH = re.compile(r"sb-[a-z2-7]{20}")
_RUN = re.compile(r"[0-9]+")
_JOB = re.compile(r"train-([A-Za-z0-9._-]+)-[0-9]+")
_MODEL = re.compile(r"(?:models:/)?([^/:\s']+)[/:]([0-9]+)")
# By name, with or without one of its deployments; or by an address that answers there: on one machine, or in Azure
# (https://learn.microsoft.com/azure/machine-learning/how-to-authenticate-online-endpoint).
_ENDPOINT = re.compile(
    r"(?:http://127\.0\.0\.1(?::[0-9]+)?/)?endpoints/(?P<name>[A-Za-z][A-Za-z0-9-]*)"
    r"(?:/(?:score|swagger\.json|(?:deployments/)?(?P<deployment>[A-Za-z][A-Za-z0-9-]*)))?"
)
_ENDPOINT_HOST = re.compile(r"https://(?P<name>[A-Za-z][A-Za-z0-9-]*)\.[a-z0-9]+\.inference\.ml\.azure\.com(?:/.*)?")


class Kind(StrEnum):
    """What can be traced."""

    DISPATCH = "dispatch"
    RUN = "workflow run"
    JOB = "job"
    MODEL = "model version"
    ENDPOINT = "endpoint"
    BLOB = "blob"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Asked:
    """An id as it was given.

    `parts` are (origin) of a job, (name, version) of a model version, (name, deployment or "") of an endpoint; else
    empty.
    """

    kind: Kind
    id: str
    parts: tuple[str, ...] = ()


def read_id(written: str) -> Asked:
    """What an id stands for, by its form; whatever has no other form is an event's id."""
    if _DISPATCH.fullmatch(written):
        return Asked(Kind.DISPATCH, written)
    if _RUN.fullmatch(written):
        return Asked(Kind.RUN, written)
    if job := _JOB.fullmatch(written):
        return Asked(Kind.JOB, written, (job[1],))
    if model := _MODEL.fullmatch(written):
        return Asked(Kind.MODEL, written, (model[1], model[2]))
    if endpoint := _ENDPOINT.fullmatch(written):
        return Asked(Kind.ENDPOINT, written, (endpoint["name"], endpoint["deployment"] or ""))
    if endpoint := _ENDPOINT_HOST.fullmatch(written):
        return Asked(Kind.ENDPOINT, written, (endpoint["name"], ""))
    return Asked(Kind.BLOB if "://" in written else Kind.EVENT, written)


@dataclass(frozen=True, slots=True)
class Sought:
    """How an event, or the events of a blob, are recognized.

    Attributes:
        needles: one of them stands in the bytes of every line that is meant; most other lines hold none.
        event_id: of the event; "" where a blob is sought.
        blobs: digests of the blob, one for each way to read its address.
    """

    needles: tuple[bytes, ...]
    event_id: str
    blobs: frozenset[str]

    def may_be_in(self, line: bytes) -> bool:
        """A quick look that passes over nothing that `is_meant` would take."""
        return any(needle in line for needle in self.needles)

    def is_meant(self, entry: Mapping[str, Json]) -> bool:
        """Whether a manifest's line, or what `manifest.entry` makes of an event, is about what is sought."""
        return entry.get("event_id") == self.event_id if self.event_id else entry.get("blob") in self.blobs


def seek(asked: Asked) -> Sought:
    """How what was asked for is recognized: by the event's id, or by the blob's account, container and path."""
    if asked.kind is not Kind.BLOB:
        return Sought((compact_json(asked.id).encode("ascii"),), asked.id, frozenset())
    # As it stands, with its percent signs read, and without a signature behind it: any of them may be the name.
    spellings = {asked.id, unquote(asked.id), unquote(asked.id.partition("?")[0])}
    blobs = [blob for url in sorted(spellings) if (blob := _blob(url))]
    needles = {compact_json(f"{blob.container}/blobs/{blob.path}")[1:-1].encode("ascii") for blob in blobs}
    return Sought(tuple(sorted(needles)), "", frozenset(blob_digest(blob) for blob in blobs))


def _blob(url: str) -> Blob | None:
    """The blob at a url, host style or, on one machine, path style; None where the url names none."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return None
    path = url.partition("://")[2].partition("/")[2]
    if host in {"127.0.0.1", "localhost", "::1"}:
        path = path.partition("/")[2]
    container, _, name = path.partition("/")
    subject = Blob("", container, name, url, "", None, "", "").subject
    blob = Event("", "Microsoft.Storage.BlobCreated", "", subject, None, {"url": url}, "eventgrid").blob
    return blob if name else None


def event_of(dispatch: Dispatch) -> Event:
    """A dispatch's first event as far as its row keeps it: without id and time, its data maybe trimmed."""
    return Event("", dispatch.source, "", dispatch.subject, None, dispatch.data, "eventgrid")


def cause(dispatch: Dispatch) -> tuple[str, str]:
    """(origin, job) of a dispatch that the end of one of our jobs caused; ("", "") for every other."""
    run = event_of(dispatch).run
    return (text(run.tags, ORIGIN_TAG), run.id) if run else ("", "")


def fate(dispatch: Dispatch) -> str:
    """Where a dispatch stands, as part of a sentence."""
    run = f"run {dispatch.run_id}"
    match dispatch.state:
        case State.READY:
            until = f" from {format_time(dispatch.not_before)} on" if dispatch.not_before else ""
            return f"waits to be sent{until}" + (f", because {dispatch.reason}" if dispatch.reason else "")
        case State.SENDING:
            return "is being sent" + (
                f", but its run is looked for first: {dispatch.reason}" if dispatch.reason else ""
            )
        case State.SENT:
            return "was accepted by GitHub; its run is looked for" + (
                f", but {dispatch.reason}" if dispatch.reason else ""
            )
        case State.CONFIRMED:
            return f"started {run}, which is going"
        case State.DONE:
            return f"started {run}, which ended: {dispatch.conclusion}"
        case State.PARKED:
            return f"is parked until somebody mends this: {dispatch.reason}"
        case State.DEAD:
            return f"was refused for good: {dispatch.reason}"
        case State.EMPTY:  # pragma: no branch - there is no other state
            return f"was not sent: {dispatch.reason}"
