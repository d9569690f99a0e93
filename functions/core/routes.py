"""Routes: which events are wanted, how they are grouped, how long a group settles, and what is sent for it."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase

from functions.core.events import Event
from functions.core.values import Json, digest, text

OWN_CONTAINERS = frozenset({"windows", "manifests", "dead-letters", "eventgrid-dead-letters"})
_WORKSPACE_CONTAINERS = frozenset({"snapshots", "snapshotzips", "revisions"})

OVERFLOW_KEY = "~overflow"
LONGEST_KEY = 200


@dataclass(frozen=True, slots=True)
class Where:
    """Filters; an empty one lets everything pass. Within a filter any value will do, all filters must agree.

    Attributes:
        container: names of blob containers, compared exactly.
        prefix, suffix, glob: on the blob's path inside its container; a glob's `*` also crosses slashes.
        api: storage operations, for example `PutBlob`, without regard to case.
        content_length: (smallest, largest) size in bytes, either of them None; a blob of unknown size passes.
        experiment, run_type, status: of an Azure ML run; globs, without regard to case.
        root_run: True for runs that are no step of a pipeline, False for steps only.
        tag: name to glob of the value; `*` asks for the tag's presence only.
        topic: globs on the event's topic or source, without regard to case.
    """

    container: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()
    glob: tuple[str, ...] = ()
    api: tuple[str, ...] = ()
    content_length: tuple[int | None, int | None] | None = None
    experiment: tuple[str, ...] = ()
    run_type: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    root_run: bool | None = None
    tag: Mapping[str, str] = field(default_factory=dict)
    topic: tuple[str, ...] = ()


MOST_BYTES = 256 * 1024 * 1024
"""A window's size where its route names none: about 300,000 events. To close them takes 0.7 GB (bench/large_window.py)
of the 2 GB that the template gives an instance; a window that no instance can close would never be dispatched."""


@dataclass(frozen=True, slots=True)
class Settle:
    """When a window is complete: `quiet` without a new event, at the latest `max_wait` old or `max_bytes` large.

    `max_bytes` counts the bytes of the window's lines (about 1 KB an event). A blob whose file name is `marker`
    shortens the quiet time to 10 seconds; it does not close the window at once, because Event Grid is unordered.
    """

    quiet: timedelta
    max_wait: timedelta
    max_bytes: int = MOST_BYTES
    marker: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the next window growing while the key's last dispatch is unfinished, but no longer than `at_most`."""

    at_most: timedelta


LARGEST_BUDGET = 500
"""Slots that one row holds; GitHub itself takes 500 requests an hour that create something."""


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `dispatches` (1 to 500) get their turn in any span of `per`."""

    dispatches: int
    per: timedelta


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the routes file. `settle` None sends each event by itself; `repository` "" means the setting's.

    Dispatches go out as repository_dispatch; where `workflow` is set, to that workflow file on `ref` alone.
    """

    name: str
    on: tuple[str, ...]
    dispatch: str
    where: Where = Where()
    key: str = "all"
    settle: Settle | None = None
    hold: Hold | None = None
    budget: Budget | None = None
    max_open_keys: int = 100
    repository: str = ""
    workflow: str = ""
    ref: str = ""


def default_event_type(event_type: str) -> str:
    """`Microsoft.Storage.BlobCreated` → `storage-blobcreated`: without its first segment, dots to dashes."""
    return event_type.partition(".")[2].replace(".", "-").lower() or event_type.lower()


def why_not(route: Route, event: Event) -> str | None:
    """None where the route takes the event, else the first reason why it does not, as part of a sentence."""
    if event.type.lower() not in {name.lower() for name in route.on}:
        return f"it listens to {', '.join(route.on)}"
    return next((reason for check in _CHECKS if (reason := check(route.where, event))), None)


def matching(routes: tuple[Route, ...], event: Event) -> tuple[Route, ...]:
    """The routes that take the event, in the file's order."""
    return tuple(route for route in routes if why_not(route, event) is None)


def key_of(route: Route, event: Event) -> str:
    """The key under which the event settles together with others of its route."""
    return key_by(route.key, event)


def key_by(template: str, event: Event) -> str:
    """The event's key by a route's `key`: all, folder, experiment, or a template.

    Keys longer than 200 characters are cut and end in a digest, so that two long names never share a window.
    """
    if template == "all":
        key = ""
    elif template == "folder":
        key = event.blob.folder if event.blob else ""
    elif template == "experiment":
        key = _experiment(event)
    else:
        key = template.format_map(key_fields(event))
    return key if len(key) <= LONGEST_KEY else f"{key[:LONGEST_KEY]}~{digest(key)}"


KEY_FIELDS = ("account", "container", "folder", "parent", "path", "experiment", "run_type", "topic", "type")


def key_fields(event: Event) -> dict[str, str]:
    """What a key template such as `{container}/{folder}` can name; a field that the event lacks is empty."""
    blob, run = event.blob, event.run
    return {
        "account": blob.account if blob else "",
        "container": blob.container if blob else "",
        "folder": blob.folder if blob else "",
        "parent": blob.path.rpartition("/")[0] if blob else "",
        "path": blob.path if blob else "",
        "experiment": _experiment(event),
        "run_type": run.type if run else "",
        "topic": event.source.rpartition("/")[2],
        "type": event.type,
    }


def _experiment(event: Event) -> str:
    """The experiment that the event names, whether or not it is about a run."""
    return text(event.data, "experimentName")


def template_fields(template: str) -> Iterator[str]:
    """Names that a key template uses. Raises ValueError where the braces do not match or a field has a format."""
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is not None:
            if spec or conversion:
                raise ValueError(f"{{{name}}} takes no format")
            yield name


def is_marker(route: Route, event: Event) -> bool:
    """True where the event says that the route's marker file was written: it need not pass the filters on the path."""
    if route.settle is None or not route.settle.marker or event.blob is None:
        return False
    if event.type.lower() not in {name.lower() for name in route.on} or _container(route.where, event):
        return False
    return event.blob.path.rpartition("/")[2] == route.settle.marker


def _reserved(container: str) -> bool:
    """Containers in which Azure ML, Azure Storage or Signalbox itself keep their own: listening there never ends."""
    name = container.lower()
    return name in OWN_CONTAINERS or name in _WORKSPACE_CONTAINERS or name.startswith(("azureml", "insights-", "$"))


def _container(where: Where, event: Event) -> str | None:
    container = event.blob.container if event.blob else ""
    if where.container:
        return None if container in where.container else f"its container is '{container}'"
    return f"'{container}' is excluded unless a route names it" if _reserved(container) else None


def _path(where: Where, event: Event) -> str | None:
    path = event.blob.path if event.blob else ""
    if where.prefix and not path.startswith(where.prefix):
        return f"its path does not start with {_or(where.prefix)}"
    if where.suffix and not path.endswith(where.suffix):
        return f"its path does not end with {_or(where.suffix)}"
    if where.glob and not any(fnmatchcase(path, pattern) for pattern in where.glob):
        return f"its path does not match {_or(where.glob)}"
    return None


def _api(where: Where, event: Event) -> str | None:
    api = event.blob.api if event.blob else ""
    if where.api and api.lower() not in {name.lower() for name in where.api}:
        return f"its api is '{api}', not {_or(where.api)}"
    return None


def _content_length(where: Where, event: Event) -> str | None:
    size = event.blob.size if event.blob else None
    if where.content_length is None or size is None:
        return None
    smallest, largest = where.content_length
    if (smallest is not None and size < smallest) or (largest is not None and size > largest):
        return f"its contentLength is {size}"
    return None


def _run(where: Where, event: Event) -> str | None:
    run = event.run
    checks = (
        ("experiment", where.experiment, _experiment(event)),
        ("run type", where.run_type, run.type if run else ""),
        ("status", where.status, run.status if run else ""),
        ("topic", where.topic, event.source),
    )
    for name, patterns, value in checks:
        if patterns and not _any_glob(patterns, value):
            return f"its {name} is '{value}', not {_or(patterns)}"
    if where.root_run is not None and (run is None or run.is_root != where.root_run):
        return "its run is a step of a pipeline" if where.root_run else "its run is no step of a pipeline"
    return None


def _tags(where: Where, event: Event) -> str | None:
    tags: Mapping[str, Json] = event.run.tags if event.run else {}
    for name, pattern in where.tag.items():
        value = text(tags, name)
        if not value or not fnmatchcase(value, pattern):
            return f"its run has no tag '{name}'" if not value else f"its tag '{name}' is '{value}'"
    return None


_CHECKS: tuple[Callable[[Where, Event], str | None], ...] = (_container, _path, _api, _content_length, _run, _tags)


def _any_glob(patterns: tuple[str, ...], value: str) -> bool:
    return any(fnmatchcase(value.lower(), pattern.lower()) for pattern in patterns)


def _or(values: tuple[str, ...]) -> str:
    return " or ".join(f"'{value}'" for value in values)
