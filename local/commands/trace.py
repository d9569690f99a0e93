"""`signalbox trace`: the fate of an event, blob, dispatch, run, job or model version, and its neighbours."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from functions.adapters.account import StateStorage
from functions.adapters.dead_letters import DeadLetterBox
from functions.adapters.history import History
from functions.adapters.storage import AzureStore
from functions.core.dispatch import Dispatch, State
from functions.core.trace import Asked, Kind, Sought, cause, fate, read_id, seek
from functions.core.values import JsonObject, earlier, format_time
from local.commands import places, surroundings
from local.commands.models import Models, ModelSide
from local.commands.moments import shown
from local.commands.places import Found
from local.commands.plain import plain
from local.commands.surroundings import CommandError

DEFAULT_SPAN = timedelta(days=7)
_SKEW = timedelta(hours=1)
_MOST_EVENTS = 5


@dataclass(slots=True)
class Chain:
    """One origin: the dispatch that it is, what it led to, and the dispatches that the end of its job caused."""

    dispatch: Dispatch | None
    models: ModelSide
    later: list[Dispatch] = field(default_factory=list)

    @property
    def is_known(self) -> bool:
        """False where there is no more of it than its name."""
        return bool(self.dispatch or self.later or self.models.version or self.models.decision)

    def to_json(self) -> JsonObject:
        """For `--json`."""
        return {
            "origin": self.models.origin,
            "dispatch": _row(self.dispatch) if self.dispatch else None,
            **self.models.to_json(),
            "later": [_row(dispatch) for dispatch in self.later],
        }


@dataclass(slots=True)
class Trace:
    """All that was found."""

    asked: Asked
    fate: str
    events: list[Found]
    chains: list[Chain]
    notes: list[str]

    @property
    def is_known(self) -> bool:
        """False where nothing at all was found of the id."""
        return bool(self.events) or any(chain.is_known for chain in self.chains)

    def to_json(self) -> JsonObject:
        """For `--json`."""
        return {
            "id": self.asked.id,
            "kind": str(self.asked.kind),
            "fate": self.fate,
            "events": [found.to_json() for found in self.events],
            "chains": [chain.to_json() for chain in self.chains],
            "notes": list(self.notes),
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield f"{self.asked.kind} {self.asked.id}: {self.fate}"
        for found in self.events[:_MOST_EVENTS]:
            entry = found.entry
            yield f"  event      {entry.get('event_id')}  {entry.get('event_time') or '-'}  {entry.get('subject')}"
            yield f"    {found.place:<14}{found.note or found.dispatch}"
        if len(self.events) > _MOST_EVENTS:
            yield f"  and {len(self.events) - _MOST_EVENTS} more; --json lists all"
        for chain in self.chains:
            yield from _chain_lines(chain)
        yield from (f"  ({note})" for note in self.notes)


def run(options: argparse.Namespace) -> int:
    """Print the trace; status 1 where nothing is known of the id."""
    found = surroundings.of(options)
    since = options.since or datetime.now(UTC) - DEFAULT_SPAN
    with surroundings.asking(found):
        tracer = _Tracer(found.storage(), Models(found.mlflow, found.endpoints), since)
        trace = asyncio.run(tracer.trace(read_id(options.id)))
    if not trace.is_known:
        reasons = "; ".join(one for one in (trace.fate, *trace.notes) if one)
        raise CommandError(f"nothing is known of {trace.asked.kind} {trace.asked.id} in {found.place}: {reasons}")
    print(json.dumps(trace.to_json(), indent=2) if options.json else "\n".join(map(plain, trace.lines())))
    return 0


class _Tracer:
    """Looks where the id leads directly, and through what was written since `since` where it leads nowhere."""

    def __init__(self, storage: StateStorage, models: Models, since: datetime) -> None:
        self._store, self._history, self._box = AzureStore(storage), History(storage), DeadLetterBox(storage)
        self._models, self._since = models, since

    async def trace(self, asked: Asked) -> Trace:
        trace = await self._by_form(asked)
        if trace.is_known or asked.kind is Kind.EVENT:
            return trace
        # Publishers choose their events' ids: one may be a plain number, or look like a model version.
        of_event = await self._of_events(Asked(Kind.EVENT, asked.id))
        return of_event if of_event.is_known else trace

    async def _by_form(self, asked: Asked) -> Trace:
        if asked.kind in {Kind.EVENT, Kind.BLOB}:
            return await self._of_events(asked)
        if asked.kind is Kind.DISPATCH:
            return await self._of_dispatch(asked)
        if asked.kind is Kind.RUN:
            rows = self._history.dispatches(self._since)
            started = [row for row in rows if asked.id in map(str, (row.run_id, *row.other_runs))]
            chains = [await self._chain_of(row) for row in started]
            said = f"started by {', '.join(row.id for row in started)}" if started else self._nothing("ledger row")
            return _joined(asked, said, [], chains)
        if asked.kind is Kind.JOB:
            chain = await self._chain(asked.parts[0], job=asked.id)
            said = f"started by {asked.parts[0]}" if chain.is_known else f"nothing is known of {asked.parts[0]} either"
            return _joined(asked, said, [], [chain])
        is_endpoint = asked.kind is Kind.ENDPOINT
        side = (self._models.of_endpoint if is_endpoint else self._models.of_version)(*asked.parts)
        chain = await self._complete(side)
        if not side.version:
            return _joined(asked, "", [], [chain])
        if is_endpoint:
            return _joined(asked, f"serves {side.model}/{side.version}", [], [chain])
        return _joined(asked, f"made by {side.job}" if side.job else "its tags name no job", [], [chain])

    async def _of_events(self, asked: Asked) -> Trace:
        sought = seek(asked)
        # Windows first: one that closes meanwhile is then found in its manifest.
        heads = await self._store.heads_to_look_at()
        events = list(places.in_windows(self._history, heads, earlier(self._since, _SKEW), sought))
        events += places.in_manifests(self._history, self._since, sought)
        events += places.in_ledger(self._history, self._since, sought)
        events += places.in_dead_letters(self._box, sought)
        if not events:
            events = await self._dropped(sought)
        rows = [
            await self._store.read_dispatch(one) for one in dict.fromkeys(found.dispatch for found in events) if one
        ]
        chains = [await self._chain_of(row) for row in rows if row is not None]
        trace = _joined(asked, self._fate_of(events, rows), events, chains)
        several = {found.entry.get("identity") for found in events} - {None}
        if asked.kind is Kind.EVENT and len(several) > 1:
            trace.notes.append(f"the id stands for {len(several)} events with different content, each of which is kept")
        return trace

    async def _dropped(self, sought: Sought) -> list[Found]:
        """Events of finished windows that no manifest lists: repeated, or replaced by a newer one of their blob."""
        names = {(segment.route, segment.key_digest) for segment in self._history.segments(self._since)}
        heads = [head for name in sorted(names) if (head := await self._store.read_head(*name)) is not None]
        return list(places.in_windows(self._history, heads, self._since, sought, closed=True))

    def _fate_of(self, events: list[Found], rows: list[Dispatch | None]) -> str:
        if not events:
            return self._nothing("manifest, open window or dead letter")
        sentences = [fate_of for row in rows if row is not None for fate_of in [f"{row.id} {fate(row)}"]]
        in_ledger = {row.id for row in rows if row is not None}
        for found in events:
            if found.place == "dead letter":
                sentences.append("it lies in the dead letters; 'signalbox replay' takes it in again")
            elif found.place == "closed window":
                sentences.insert(0, "a manifest lists the same event, or a newer one of its blob, in its place")
            elif found.dispatch not in in_ledger:
                sentences.append(f"it waits in an {found.place} that becomes {found.dispatch}")
        return "; ".join(dict.fromkeys(sentences))

    async def _of_dispatch(self, asked: Asked) -> Trace:
        row = await self._store.read_dispatch(asked.id)
        if row is not None:
            return _joined(asked, fate(row), self._events_of(row), [await self._chain_of(row)])
        for head in await self._store.heads_to_look_at():
            growing = head.is_open and head.dispatch_id(head.number) == asked.id
            if growing or (head.unfinished and head.dispatch_id(head.unfinished) == asked.id):
                said = f"its window of {head.route}, key '{head.key}' is {'still open' if growing else 'being closed'}"
                found = places.in_windows(self._history, [head], datetime.min.replace(tzinfo=UTC))
                return Trace(asked, said, [one for one in found if one.dispatch == asked.id], [], [])
        return Trace(asked, "no ledger row and no window has this id", [], [], [])

    def _events_of(self, row: Dispatch) -> list[Found]:
        lines = self._history.manifest_lines(row.id) if row.manifest else []
        return [Found(json.loads(raw), "manifest", row.id, "") for raw in lines]

    async def _chain_of(self, row: Dispatch) -> Chain:
        """The chain in which a dispatch stands: its own, or that of the job whose end caused it."""
        origin, job = cause(row)
        return await (self._chain(origin, job=job, caused=row) if job else self._chain(row.id))

    async def _chain(self, origin: str, *, job: str = "", caused: Dispatch | None = None) -> Chain:
        return await self._complete(self._models.of_origin(origin, job), caused)

    async def _complete(self, side: ModelSide, caused: Dispatch | None = None) -> Chain:
        dispatch = await self._store.read_dispatch(side.origin) if side.origin else None
        since = dispatch.created - _SKEW if dispatch else self._since
        later = []
        if side.job:
            later = [row for row in self._history.dispatches(since) if cause(row)[1] == side.job]
        if caused is not None and caused.id not in {row.id for row in later}:
            later.append(caused)
        return Chain(dispatch, side, sorted(later, key=lambda row: row.created))

    def _nothing(self, what: str) -> str:
        return f"no {what} since {shown(self._since)} names it; --since looks further back"


def _joined(asked: Asked, said: str, events: list[Found], chains: list[Chain]) -> Trace:
    """The trace, with each chain once."""
    by_origin = {(chain.models.origin, chain.models.job): chain for chain in chains}
    notes = dict.fromkeys(note for chain in by_origin.values() for note in chain.models.notes)
    return Trace(asked, said, events, list(by_origin.values()), list(notes))


def _row(dispatch: Dispatch) -> JsonObject:
    return {
        "id": dispatch.id,
        "route": dispatch.route,
        "key": dispatch.key,
        "via": dispatch.trigger,
        "workflow": dispatch.workflow or None,
        "ref": dispatch.ref or None,
        "state": str(dispatch.state),
        "fate": fate(dispatch),
        "created": format_time(dispatch.created),
        "sent": format_time(dispatch.sent) if dispatch.sent else None,
        "attempts": dispatch.attempts,
        "replays": dispatch.replays,
        "events": dispatch.event_count,
        "manifest": dispatch.manifest.url if dispatch.manifest else None,
        "run": dispatch.run_id,
        "run_url": dispatch.run_url,
        "other_runs": list(dispatch.other_runs),
        "conclusion": dispatch.conclusion,
    }


def _chain_lines(chain: Chain) -> Iterator[str]:
    side = chain.models
    if chain.dispatch is not None:
        yield from _dispatch_lines(chain.dispatch)
    elif side.origin:
        yield f"  origin     {side.origin}"
    if side.job:
        yield f"  job        {side.job}" + (f"  {side.decision}" if side.decision else "")
    if side.version:
        yield f"  model      {side.model}/{side.version}" + (f"  {side.afterwards}" if side.afterwards else "")
    if side.deployment:
        yield f"  endpoint   {side.endpoint} / {side.deployment}"
    for dispatch in chain.later:
        yield from _dispatch_lines(dispatch)


def _dispatch_lines(dispatch: Dispatch) -> Iterator[str]:
    events = "1 event" if dispatch.event_count == 1 else f"{dispatch.event_count} events"
    made = f"{events}, made {shown(dispatch.created)}"
    yield f"  dispatch   {dispatch.id}  {dispatch.route}, key '{dispatch.key}', {made}"
    if dispatch.workflow:
        yield f"    goes to {dispatch.workflow} on {dispatch.ref}"
    yield f"    {fate(dispatch)}" + (f"; replayed {_times(dispatch.replays)}" if dispatch.replays else "")
    if dispatch.state in {State.CONFIRMED, State.DONE} and dispatch.run_id is not None:
        yield f"  run        {dispatch.run_id}  {dispatch.conclusion or 'going'}  {dispatch.run_url}"
        yield from (f"  run        {other}  of the same dispatch" for other in dispatch.other_runs)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
