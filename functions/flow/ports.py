"""What the flow needs of the outside world. The adapters implement it, and so does a simulation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from functions.core.budget import Spending
from functions.core.dispatch import Dispatch
from functions.core.github import Answer, NoAnswer, Span
from functions.core.manifest import Header
from functions.core.values import JsonObject
from functions.core.windows import Head, Segment


class StorageUnavailable(Exception):
    """Storage did not answer, or with an error that passes; whether the call took effect is not known."""


class Conflict(Exception):
    """Somebody else changed the row first."""


class Append(Enum):
    """What became of an append."""

    DONE = auto()
    MISSING = auto()
    SEALED = auto()
    FULL = auto()


@dataclass(frozen=True, slots=True)
class SegmentState:
    """What storage says of one segment. `now` is the storage service's Date; `rule` the text it was created with."""

    created: datetime
    modified: datetime
    size: int
    sealed: bool
    now: datetime
    rule: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks for a repository's runs: messages with its token.

    `not_before` is when its first look comes, or the next one that GitHub allows; None once it was begun.
    """

    token: str
    not_before: datetime | None = None


class Store(Protocol):
    """The state account. Every call may raise StorageUnavailable, and may have taken effect all the same."""

    async def read_head(self, route: str, key_digest: str) -> Head | None:
        """The head of a route and key, or None."""

    async def write_head(self, head: Head) -> Head:
        """Insert (version "") or replace the head as it was read; gives it with its new version. Raises Conflict."""

    async def count_open(self, route: str, limit: int) -> int:
        """How many keys of the route have an open window, counted up to `limit`."""

    async def heads_to_look_at(self) -> list[Head]:
        """All heads that have an open or an unfinished window, without versions: read one anew before changing it."""

    async def append(self, segment: Segment, block: bytes) -> Append:
        """Append one block (at most `windows.LARGEST_APPEND` bytes)."""

    async def create_segment(self, segment: Segment, rule: str) -> None:
        """Create the blob where it does not exist yet; never touches one that does."""

    async def segments_unchanged_since(self, moment: datetime) -> list[Segment]:
        """Every segment that stands and was not changed since then."""

    async def delete_segment(self, segment: Segment) -> None:
        """Delete a segment, sealed or not; where there is none, nothing changes."""

    async def seal_segment(self, segment: Segment) -> None:
        """Seal an existing blob for good; sealing a sealed one changes nothing."""

    async def segment_state(self, segment: Segment) -> SegmentState | None:
        """Properties of a segment, or None where it does not exist."""

    def read_segment(self, segment: Segment) -> AsyncIterator[bytes]:
        """The lines of a segment, each with its newline."""

    async def write_manifest(self, header: Header, body: bytes) -> Header:
        """Write the manifest where none exists for this dispatch; gives the header of the one that stands."""

    async def manifest_header(self, dispatch_id: str) -> Header | None:
        """The header of a manifest, or None."""

    def read_manifest(self, dispatch_id: str) -> AsyncIterator[bytes]:
        """The lines of a manifest, each with its newline."""

    def manifest_url(self, dispatch_id: str) -> str:
        """Where a person finds the manifest."""

    async def insert_dispatch(self, dispatch: Dispatch) -> bool:
        """Insert a ledger row; False where a row with this id exists already."""

    async def read_dispatch(self, dispatch_id: str) -> Dispatch | None:
        """A ledger row, or None."""

    async def replace_dispatch(self, dispatch: Dispatch) -> Dispatch:
        """Replace the row as it was read; gives it with its new version. Raises Conflict."""

    async def unfinished_dispatches(self) -> list[Dispatch]:
        """Every ledger row whose state is not final."""

    async def lead_watch(self, repository: str, watch: Watch) -> None:
        """Note who leads the watch over a repository's runs from now on."""

    async def watch_leader(self, repository: str) -> Watch | None:
        """Who leads the watch, or None."""

    async def limited_until(self) -> datetime | None:
        """Until when GitHub last asked that nothing be dispatched; None where it never did."""

    async def limit_until(self, moment: datetime) -> None:
        """Note until when GitHub asked that nothing be dispatched; the last note stands."""

    async def read_spending(self, route: str) -> Spending | None:
        """What a route has spent of its budget, or None."""

    async def write_spending(self, spending: Spending) -> Spending:
        """Insert (version "") or replace the row as it was read; gives it with its new version. Raises Conflict."""

    async def write_dead_letter(self, name: str, letter: JsonObject) -> None:
        """Keep a dead letter under a name that follows from its content; writing it again changes nothing."""


@dataclass(frozen=True, slots=True)
class PoisonMessage:
    """A message that the host gave up: its text as it stands in the queue, and how often it was taken from there.

    `queue` is `work` or `events`; `id` and `receipt` are storage's own, and `receipt` is good until the next taking.
    """

    queue: str
    id: str
    receipt: str
    text: str
    deliveries: int


class Queue(Protocol):
    """The work queue, which is also the alarm clock; and what the host gave up of it and of the events queue."""

    async def send(self, message: JsonObject, delay: timedelta = timedelta()) -> None:
        """Put a message that becomes visible after `delay` and never expires. Raises StorageUnavailable."""

    async def take_poison(self, queue: str) -> list[PoisonMessage]:
        """Up to 32 messages that the host gave up of `work` or `events`; nobody else sees them for 4 minutes.

        From then on they do not expire, whatever end the host gave them.
        """

    async def drop_poison(self, message: PoisonMessage) -> None:
        """Delete a message that was taken; where it is gone, or was taken again, nothing changes."""


class GitHub(Protocol):
    """GitHub's REST API."""

    async def create_dispatch(self, repository: str, body: JsonObject) -> Answer | NoAnswer:
        """POST /repos/{repository}/dispatches."""

    async def start_workflow(self, repository: str, workflow: str, body: JsonObject) -> Answer | NoAnswer:
        """POST /repos/{repository}/actions/workflows/{workflow}/dispatches."""

    async def list_runs(self, repository: str, trigger: str, span: Span, page: int) -> Answer | NoAnswer:
        """GET /repos/{repository}/actions/runs, those that this event started in this span; 100 a page from 1."""

    async def get_run(self, repository: str, run_id: int) -> Answer | NoAnswer:
        """GET /repos/{repository}/actions/runs/{run_id}."""

    async def list_jobs(self, repository: str, run_id: int) -> Answer | NoAnswer:
        """GET /repos/{repository}/actions/runs/{run_id}/jobs, the first 100 of all its attempts."""


class Clock(Protocol):
    """Our own time."""

    def now(self) -> datetime:
        """Now, aware, in UTC."""

    async def sleep(self, delay: timedelta) -> None:
        """Return after `delay`."""


class Chance(Protocol):
    """Where the flow needs something that nobody else picks."""

    def token(self) -> str:
        """A text that never comes twice."""

    def share(self) -> float:
        """A number from 0 up to 1."""
