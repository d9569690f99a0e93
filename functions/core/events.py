"""Reading an event: both schemas of Event Grid, what the event is about, and its identity.

Follows "Azure Event Grid event schema" and "CloudEvents v1.0 schema" of the Event Grid documentation, and the pages on
Azure Blob Storage and Azure Machine Learning as event sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal
from urllib.parse import urlsplit

from functions.core.values import Json, JsonObject, compact_json, digest, field, parse_time, text

STORAGE = "Microsoft.Storage."
MACHINE_LEARNING = "Microsoft.MachineLearningServices."
_BLOB_SUBJECT = ("blobServices", "default", "containers")
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_STORAGE_HOST = re.compile(
    r"([a-z0-9]{3,24})(-secondary)?(\.z[0-9]+)?\.(blob|dfs)"
    r"\.(core\.windows\.net|core\.usgovcloudapi\.net|core\.chinacloudapi\.cn|storage\.azure\.net)"
)

DEEPEST = 100
"""Levels of an event that is read: far more than any publisher nests, far fewer than Python's recursion bears."""


class UnreadableEvent(ValueError):
    """The event lacks something without which it cannot be used; the message says what and where."""


@dataclass(frozen=True)
class Event:
    """One event, whichever schema it came in.

    Attributes:
        id: the publisher's id; not unique by itself (see `identity`).
        type: the Event Grid type, for example `Microsoft.Storage.BlobCreated`.
        source: the topic (Event Grid schema) or source (CloudEvents): an ARM resource id for system topics.
        subject: as it came.
        time: when it happened, by the publisher's clock; None where CloudEvents left it out.
        data: the payload; keys vary in case, so read it with `values.field` and `values.text`.
        schema: which of the two schemas it came in.
    """

    id: str
    type: str
    source: str
    subject: str
    time: datetime | None
    data: JsonObject
    schema: Literal["eventgrid", "cloudevents"]

    @cached_property
    def blob(self) -> Blob | None:
        """What a storage event is about; None for every other event."""
        return _blob(self) if _is_of(self.type, STORAGE) else None

    @cached_property
    def account(self) -> str | None:
        """The storage account that a storage event names, whatever its subject looks like; None for other events."""
        return _account(text(self.data, "url"), self.source) if _is_of(self.type, STORAGE) else None

    @cached_property
    def run(self) -> Run | None:
        """The Azure ML run that the event is about; None where it is about none."""
        return _run(self) if _is_of(self.type, MACHINE_LEARNING) else None

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """What makes two deliveries the same event. Redelivery keeps it; two different happenings never share it."""
        if self.blob is not None:
            return self._blob_identity(self.blob, self.blob.sequencer or self.blob.etag or self.id)
        workspace = self.source.lower()
        if self.run is not None:
            return ("run", self.type, workspace, self.run.id, self.run.status.lower())
        model, version = text(self.data, "modelName"), text(self.data, "modelVersion")
        if _is_of(self.type, MACHINE_LEARNING) and model:
            return ("model", self.type, workspace, model, version)
        # Some publishers repeat an id with other content: that is another event, and none may be lost.
        return ("event", self.source, self.id, digest(compact_json(self.data)))

    @cached_property
    def unsequenced(self) -> tuple[str, ...]:
        """The identity of the same event from a teller who does not know its sequencer, as `signalbox rescan` does not.

        () for an event without an etag: BlobDeleted has none, and what is about no blob.
        """
        return self._blob_identity(self.blob, self.blob.etag) if self.blob and self.blob.etag else ()

    def _blob_identity(self, blob: Blob, version: str) -> tuple[str, ...]:
        return ("blob", self.type, blob.account, blob.subject, version)

    def to_json(self) -> JsonObject:
        """The event in the schema that it came in, for dead letters and window lines; `parse` reads it back."""
        time = None if self.time is None else self.time.isoformat()
        names = ("type", "source", "time") if self.schema == "cloudevents" else ("eventType", "topic", "eventTime")
        head: JsonObject = {"specversion": "1.0"} if self.schema == "cloudevents" else {}
        body: JsonObject = {"id": self.id, names[0]: self.type, names[1]: self.source, "subject": self.subject}
        if time is not None:
            body[names[2]] = time
        return {**head, **body, "data": self.data}


@dataclass(frozen=True, slots=True)
class Blob:
    """The blob (or directory) of a storage event. Text that the event lacked is empty, a missing size is None."""

    account: str
    container: str
    path: str
    url: str
    etag: str
    size: int | None
    sequencer: str
    api: str

    @property
    def subject(self) -> str:
        """The subject in its documented form, with the leading slash."""
        return f"/{'/'.join(_BLOB_SUBJECT)}/{self.container}/blobs/{self.path}"

    @property
    def folder(self) -> str:
        """The first folder of the path; empty for a blob at the top of its container."""
        return self.path.split("/", 1)[0] if "/" in self.path else ""


@dataclass(frozen=True, slots=True)
class Run:
    """The run of an Azure ML event; text that the event did not carry is empty."""

    id: str
    type: str
    status: str
    tags: Mapping[str, Json]
    is_root: bool


def parse(value: object) -> Event:
    """Read one decoded event. Raises UnreadableEvent with a sentence that names the field."""
    if not isinstance(value, dict):
        raise UnreadableEvent(f"an event is a JSON object, this is {_kind(value)}")
    if "specversion" in value:
        return _read(value, "cloudevents", type_name="type", source_name="source", time_name="time")
    if "eventType" in value:
        return _read(value, "eventgrid", type_name="eventType", source_name="topic", time_name="eventTime")
    raise UnreadableEvent(
        "neither the Event Grid schema (it would have 'eventType') nor CloudEvents 1.0 (it would have 'specversion')"
    )


def parse_document(raw: bytes | str) -> Iterator[tuple[object, Event | UnreadableEvent]]:
    """Read a document of one event or an array of them: each as (decoded value, Event or why it is unreadable).

    A document that is no JSON at all raises UnreadableEvent.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UnreadableEvent(f"not JSON: {error}") from error
    for value in document if isinstance(document, list) else [document]:
        try:
            yield value, parse(value)
        except UnreadableEvent as error:
            yield value, error


def _read(
    value: Mapping[str, object],
    schema: Literal["eventgrid", "cloudevents"],
    *,
    type_name: str,
    source_name: str,
    time_name: str,
) -> Event:
    if schema == "cloudevents" and (version := _optional(value, "specversion")) != "1.0":
        raise UnreadableEvent(f"'specversion' is {version[:64]!r}; only CloudEvents 1.0 is read")
    data = value.get("data")
    if not isinstance(data, dict):
        raise UnreadableEvent(f"'data' is {_kind(data)}, it must be an object")
    if is_deeper(data, DEEPEST):
        raise UnreadableEvent(f"'data' nests more than {DEEPEST} levels deep")
    return Event(
        id=_required(value, "id"),
        type=_required(value, type_name),
        source=_optional(value, source_name),
        subject=_optional(value, "subject"),
        time=_time(value, time_name),
        data=data,
        schema=schema,
    )


def _required(value: Mapping[str, object], name: str) -> str:
    found = _optional(value, name)
    if not found:
        raise UnreadableEvent(f"'{name}' is missing or empty")
    return found


def _optional(value: Mapping[str, object], name: str) -> str:
    found = value.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise UnreadableEvent(f"'{name}' is {_kind(found)}, it must be text")
    return found


def _time(value: Mapping[str, object], name: str) -> datetime | None:
    written = _optional(value, name)
    if not written:
        return None
    try:
        return parse_time(written)
    except ValueError as error:
        raise UnreadableEvent(f"'{name}' is {written[:64]!r}, which is no RFC 3339 time") from error


def _is_of(event_type: str, family: str) -> bool:
    """Event types are compared without regard to case, here as in the routes."""
    return event_type.lower().startswith(family.lower())


def is_deeper(value: object, levels: int) -> bool:
    """True where objects and arrays nest deeper than `levels`; stops there, so that no depth exhausts the stack."""
    if isinstance(value, dict):
        return levels == 0 or any(is_deeper(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels == 0 or any(is_deeper(item, levels - 1) for item in value)
    return False


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "an array", str: "text", bool: "true or false", type(None): "missing or null"}
    return kinds.get(type(value), "a number")


def _blob(event: Event) -> Blob | None:
    container, path = _container_and_path(event.subject)
    if not container:
        return None
    size = field(event.data, "contentLength")
    url = text(event.data, "url")
    return Blob(
        account=_account(url, event.source),
        container=container,
        path=path,
        url=url,
        etag=bare_etag(text(event.data, "eTag")),
        size=size if isinstance(size, int) and not isinstance(size, bool) else None,
        sequencer=text(event.data, "sequencer"),
        api=text(event.data, "api"),
    )


def bare_etag(etag: str) -> str:
    """The etag without quotes and without the mark of a weak one: events and listings differ in both."""
    return etag.removeprefix("W/").strip('"')


def _container_and_path(subject: str) -> tuple[str, str]:
    """Split `/blobServices/default/containers/<c>/blobs/<path>`, with or without its first slash."""
    parts = subject.removeprefix("/").split("/", 5)
    if len(parts) < 6 or tuple(parts[:3]) != _BLOB_SUBJECT or parts[4] != "blobs":
        return "", ""
    return parts[3], parts[5]


def _account(url: str, topic: str) -> str:
    """The storage account by the blob's url (host style, or path style as on one machine), else by the topic.

    An address that is none of Azure Storage stands for itself: `acme.attacker.example` is not the account `acme`.
    """
    if not url:
        return topic.rsplit("/", 1)[-1].lower()
    try:
        address = urlsplit(url)
        host = address.hostname or ""
    except ValueError:
        return url
    if host in _LOOPBACK:
        return address.path.removeprefix("/").split("/", 1)[0].lower()
    found = _STORAGE_HOST.fullmatch(host)
    return found[1] if found else host or url


def _run(event: Event) -> Run | None:
    run_id = text(event.data, "runId")
    if not run_id or not _is_of(event.type, MACHINE_LEARNING + "Run"):
        return None
    tags, properties = field(event.data, "runTags"), field(event.data, "runProperties")
    run_type = text(event.data, "runType")
    is_step = run_type.lower() == "azureml.steprun" or (
        isinstance(properties, dict) and bool(text(properties, "azureml.pipelinerunid"))
    )
    return Run(
        id=run_id,
        type=run_type,
        status=text(event.data, "runStatus"),
        tags=tags if isinstance(tags, dict) else {},
        is_root=not is_step,
    )


def identity_digest(event: Event) -> str:
    """The identity as one short key."""
    return digest(*event.identity)
