"""Storage, queue and GitHub in memory: the ports' semantics without faults, over a clock that is handed in.

tests/flow/test_*_contract.py hold the store against the real one.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from functions.core.budget import Spending
from functions.core.dispatch import Dispatch, readable
from functions.core.github import Answer, NoAnswer, Span
from functions.core.manifest import Header
from functions.core.values import JsonObject, compact_json
from functions.core.windows import LARGEST_APPEND, Head, Segment
from functions.flow.ports import Append, Conflict, PoisonMessage, SegmentState, Watch

_LARGEST_METADATA = 8 * 1024
_LARGEST_MESSAGE = 48 * 1024
_MOST_LISTED = 1_000


@dataclass
class _AppendBlob:
    created: datetime
    modified: datetime
    rule: str
    blocks: list[bytes] = field(default_factory=list)
    sealed: bool = False


class MemoryStore:
    """The port `Store` in memory, with the semantics of Azure Storage (tests/flow/test_*_contract.py)."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._clock = now
        self._changes = 0
        self.most_blocks = 50_000
        self.heads: dict[tuple[str, str], Head] = {}
        self.segments: dict[str, _AppendBlob] = {}
        self.manifests: dict[str, tuple[Header, bytes]] = {}
        self.ledger: dict[str, tuple[str, str]] = {}
        self.budgets: dict[str, tuple[str, str]] = {}
        self.watches: dict[str, Watch] = {}
        self.limit: datetime | None = None
        self.dead_letters: dict[str, JsonObject] = {}

    def _date(self) -> datetime:
        """HTTP dates have whole seconds."""
        return self._clock().replace(microsecond=0)

    def _etag(self) -> str:
        self._changes += 1
        return f'"{self._changes}"'

    async def read_head(self, route: str, key_digest: str) -> Head | None:
        return self.heads.get((route, key_digest))

    async def write_head(self, head: Head) -> Head:
        name = (head.route, head.key_digest)
        standing = self.heads.get(name)
        if (standing.version if standing else "") != head.version:
            raise Conflict
        self.heads[name] = replace(head, version=self._etag())
        return self.heads[name]

    async def count_open(self, route: str, limit: int) -> int:
        return min(limit, sum(head.is_open for head in self.heads.values() if head.route == route))

    async def heads_to_look_at(self) -> list[Head]:
        return [replace(head, version="") for head in self.heads.values() if head.is_open or head.unfinished]

    async def append(self, segment: Segment, block: bytes) -> Append:
        if not 0 < len(block) <= LARGEST_APPEND:
            raise ValueError(f"an append of {len(block)} bytes")
        blob = self.segments.get(segment.name)
        if blob is None:
            return Append.MISSING
        if blob.sealed:
            return Append.SEALED
        if len(blob.blocks) >= self.most_blocks:
            return Append.FULL
        blob.blocks.append(block)
        blob.modified = self._date()
        return Append.DONE

    async def create_segment(self, segment: Segment, rule: str) -> None:
        if not rule.isascii() or len(rule) > _LARGEST_METADATA:
            raise ValueError(f"metadata of {len(rule)} characters")
        self.segments.setdefault(segment.name, _AppendBlob(self._date(), self._date(), rule))

    async def segments_unchanged_since(self, moment: datetime) -> list[Segment]:
        return [Segment.from_name(name) for name, blob in self.segments.items() if blob.modified <= moment]

    async def delete_segment(self, segment: Segment) -> None:
        self.segments.pop(segment.name, None)

    async def seal_segment(self, segment: Segment) -> None:
        self.segments[segment.name].sealed = True

    async def segment_state(self, segment: Segment) -> SegmentState | None:
        blob = self.segments.get(segment.name)
        if blob is None:
            return None
        size = sum(map(len, blob.blocks))
        return SegmentState(blob.created, blob.modified, size, blob.sealed, self._date(), blob.rule)

    async def read_segment(self, segment: Segment) -> AsyncIterator[bytes]:
        for line in b"".join(self.segments[segment.name].blocks).splitlines(keepends=True):
            yield line

    async def write_manifest(self, header: Header, body: bytes) -> Header:
        return self.manifests.setdefault(header.dispatch_id, (Header.from_text(header.to_text()), body))[0]

    async def manifest_header(self, dispatch_id: str) -> Header | None:
        found = self.manifests.get(dispatch_id)
        return found[0] if found else None

    async def read_manifest(self, dispatch_id: str) -> AsyncIterator[bytes]:
        for line in self.manifests[dispatch_id][1].splitlines(keepends=True):
            yield line

    def manifest_url(self, dispatch_id: str) -> str:
        return f"memory://manifests/{dispatch_id}.jsonl"

    async def insert_dispatch(self, dispatch: Dispatch) -> bool:
        if dispatch.id in self.ledger:
            return False
        self.ledger[dispatch.id] = (dispatch.to_text(), self._etag())
        return True

    async def read_dispatch(self, dispatch_id: str) -> Dispatch | None:
        found = self.ledger.get(dispatch_id)
        return Dispatch.from_text(*found) if found else None

    async def replace_dispatch(self, dispatch: Dispatch) -> Dispatch:
        standing = self.ledger.get(dispatch.id)
        if standing is None or standing[1] != dispatch.version:
            raise Conflict
        self.ledger[dispatch.id] = (dispatch.to_text(), self._etag())
        return Dispatch.from_text(*self.ledger[dispatch.id])

    async def unfinished_dispatches(self) -> list[Dispatch]:
        return [row for row in readable(self.ledger.values()) if not row.is_final]

    async def lead_watch(self, repository: str, watch: Watch) -> None:
        self.watches[repository] = watch

    async def watch_leader(self, repository: str) -> Watch | None:
        return self.watches.get(repository)

    async def limited_until(self) -> datetime | None:
        return self.limit

    async def limit_until(self, moment: datetime) -> None:
        self.limit = moment

    async def read_spending(self, route: str) -> Spending | None:
        found = self.budgets.get(route)
        return Spending.from_text(route, *found) if found else None

    async def write_spending(self, spending: Spending) -> Spending:
        if self.budgets.get(spending.route, ("", ""))[1] != spending.version:
            raise Conflict
        self.budgets[spending.route] = (spending.to_text(), self._etag())
        return Spending.from_text(spending.route, *self.budgets[spending.route])

    async def write_dead_letter(self, name: str, letter: JsonObject) -> None:
        self.dead_letters[name] = json.loads(compact_json(letter))


@dataclass(eq=False)
class Message:
    """One message of the work queue."""

    body: str
    visible: datetime
    deliveries: int = 0


class MemoryQueue:
    """The port `Queue` in memory; what comes due at the same time comes in the order in which it was sent."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._clock = now
        self.messages: list[Message] = []
        self.poison: list[Message] = []
        self.events_poison: list[Message] = []

    async def send(self, message: JsonObject, delay: timedelta = timedelta()) -> None:
        body = compact_json(message)
        if len(body) > _LARGEST_MESSAGE:
            raise ValueError(f"a message of {len(body)} bytes")
        self.messages.append(Message(body, self._clock() + max(delay, timedelta())))

    async def take_poison(self, queue: str) -> list[PoisonMessage]:
        taken = []
        for message in self.poison if queue == "work" else self.events_poison:
            if message.visible <= self._clock() and len(taken) < 32:
                message.visible, message.deliveries = self._clock() + timedelta(minutes=4), message.deliveries + 1
                taken.append(PoisonMessage(queue, str(id(message)), "", message.body, message.deliveries))
        return taken

    async def drop_poison(self, message: PoisonMessage) -> None:
        queue = self.poison if message.queue == "work" else self.events_poison
        queue[:] = [item for item in queue if str(id(item)) != message.id]

    def first(self) -> Message | None:
        """The message that becomes visible first."""
        return min(self.messages, key=lambda message: message.visible, default=None)


@dataclass(frozen=True)
class _Run:
    id: int
    dispatch_id: str
    created: datetime
    ends: datetime
    fate: str
    workflow: str = ""

    @property
    def trigger(self) -> str:
        return "workflow_dispatch" if self.workflow else "repository_dispatch"


class SimulatedGitHub:
    """The port `GitHub`: starts one run for each dispatch that it accepts, unless told otherwise."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._clock = now
        self.answers: deque[Answer | NoAnswer] = deque()
        """What the next requests get. An Answer of success and a NoAnswer that was reached start a run, too."""
        self.listens = True
        self.names_runs = True
        """Whether the answer to a workflow dispatch says which run it started; older servers answer 204."""
        self.starts_after = timedelta(seconds=1)
        self.takes = timedelta(minutes=1)
        self.listing: Answer | None = None
        """What a listing is answered instead of the runs."""
        self.fates: deque[str] = deque()
        """How the next runs end: `cancelled` or `failure`; `unstarted` is cancelled before a job began."""
        self.requests: list[tuple[datetime, str]] = []
        self.runs: list[_Run] = []

    @property
    def effective(self) -> Counter[str]:
        """How many runs each dispatch started."""
        return Counter(run.dispatch_id for run in self.runs)

    async def create_dispatch(self, repository: str, body: JsonObject) -> Answer | NoAnswer:
        payload: Any = body["client_payload"]
        if len(payload) > 10 or len(compact_json(body)) >= 64 * 1024:
            return Answer(422, {}, '{"message": "client_payload is too large"}')
        return self._take(payload["dispatch_id"])

    async def start_workflow(self, repository: str, workflow: str, body: JsonObject) -> Answer | NoAnswer:
        inputs: Any = body["inputs"]
        if len(inputs) > 25 or len(compact_json(inputs)) > 65_535:
            return Answer(422, {}, '{"message": "inputs are too large"}')
        return self._take(inputs["dispatch_id"], workflow)

    def _take(self, dispatch_id: str, workflow: str = "") -> Answer | NoAnswer:
        self.requests.append((self._clock(), dispatch_id))
        answer = self.answers.popleft() if self.answers else None
        accepted = True if answer is None else answer.reached if isinstance(answer, NoAnswer) else answer.status < 300
        if not accepted or not self.listens:
            return answer or Answer(204)
        created = self._clock() + self.starts_after
        fate = self.fates.popleft() if self.fates else "success"
        run = _Run(len(self.runs) + 1, dispatch_id, created, created + self.takes, fate, workflow)
        self.runs.append(run)
        if answer is None and workflow and self.names_runs:
            told = {"workflow_run_id": run.id, "run_url": "https://api", "html_url": f"https://github.example/{run.id}"}
            return Answer(200, {}, json.dumps(told))
        return answer or Answer(204)

    async def list_runs(self, repository: str, trigger: str, span: Span, page: int) -> Answer | NoAnswer:
        if self.listing is not None:
            return self.listing
        now = self._clock()
        since, until = span.since.replace(microsecond=0), span.until or now
        found = [
            run
            for run in self.runs
            if run.trigger == trigger and since <= run.created <= now and run.created.replace(microsecond=0) <= until
        ]
        found.sort(key=lambda run: run.created, reverse=True)
        del found[_MOST_LISTED:]
        runs = [_document(run, repository, now) for run in found[100 * (page - 1) : 100 * page]]
        return Answer(200, {}, json.dumps({"total_count": len(found), "workflow_runs": runs}))

    async def get_run(self, repository: str, run_id: int) -> Answer | NoAnswer:
        found = [run for run in self.runs if run.id == run_id]
        return Answer(200, {}, json.dumps(_document(found[0], repository, self._clock()))) if found else Answer(404)

    async def list_jobs(self, repository: str, run_id: int) -> Answer | NoAnswer:
        (run,) = (run for run in self.runs if run.id == run_id)
        began = [
            {"name": "Set up job", "status": "completed", "conclusion": "success", "started_at": "2026-11-20T12:00Z"}
        ]
        job = {"id": 1, "conclusion": "cancelled", "steps": [] if run.fate == "unstarted" else began}
        return Answer(200, {}, json.dumps({"total_count": 1, "jobs": [job]}))


def _document(run: _Run, repository: str, now: datetime) -> JsonObject:
    ended = run.ends <= now
    return {
        "id": run.id,
        "display_title": f"train {run.dispatch_id}",
        "status": "completed" if ended else "in_progress",
        "conclusion": run.fate.replace("unstarted", "cancelled") if ended else None,
        "html_url": f"https://github.example/{repository}/actions/runs/{run.id}",
        "created_at": run.created.isoformat()[:19] + "Z",
    }
