"""What must hold once faults have stopped. Judged from what stands in storage, not with the app's own identities."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from functions.core.dispatch import Dispatch, State
from functions.core.routes import Route
from functions.flow.ports import Conflict, StorageUnavailable

from .history import History
from .script import Sent
from .store import read_line

_SLACK = timedelta(seconds=2)
"""By how much clocks of processes and the service's whole seconds may differ."""

Entry = tuple[str, str, str]
"""Route, path of the blob (or id of the run), and version of the blob."""


def violations(history: History) -> list[str]:
    """Every promise that the history breaks, in words; empty where all hold."""
    rows = history.ledger()
    found = [*_not_finished(history), *_dispatches(history, rows), *_manifests(history, rows)]
    return [*found, *_turns(history, rows), *_events(history, rows), *_errors(history)]


def _not_finished(history: History) -> Iterator[str]:
    if not history.ended:
        yield f"unfinished: the work does not end ({history.loop.turns} turns, {len(history.queue.messages)} messages)"
    for left in history.unfinished():
        yield f"unfinished: {left}"


def _dispatches(history: History, rows: list[Dispatch]) -> Iterator[str]:
    effective = history.effective()
    for dispatch_id, count in effective.items():
        if count > 1:
            yield f"twice: dispatch {dispatch_id} started {count} runs"
    sendable = {row.id for row in rows if row.state is not State.EMPTY}
    for dispatch_id in effective.keys() - sendable:
        yield f"dispatch: a run was started for {dispatch_id}, which stands for no window and no event"
    workflows = {row.id: row.workflow for row in rows}
    for run in history.github.runs:
        if run.workflow != workflows.get(run.dispatch_id, run.workflow):
            yield f"door: dispatch {run.dispatch_id} belongs to '{workflows[run.dispatch_id]}', not '{run.workflow}'"
    for row in rows:
        if row.state in {State.DONE, State.CONFIRMED} and not effective[row.id] and row.conclusion != "cancelled":
            yield f"dispatch: {row.id} is {row.state} without a run"
        if row.state in {State.PARKED, State.DEAD, State.EMPTY} and not row.reason:
            yield f"dispatch: {row.id} is {row.state} without a reason"


def _manifests(history: History, rows: list[Dispatch]) -> Iterator[str]:
    store = history.store
    for dispatch_id in store.manifests.keys() - {row.id for row in rows}:
        yield f"manifest: {dispatch_id} has no ledger row"
    for row in rows:
        if row.manifest is None:
            continue
        if row.id not in store.manifests:
            yield f"manifest: {row.id} has none"
            continue
        header, body = store.manifests[row.id]
        facts = (hashlib.sha256(body).hexdigest(), body.count(b"\n"), len(body))
        if facts != (row.manifest.sha256, row.manifest.count, row.manifest.bytes):
            yield f"manifest: {row.id} is not what its ledger row says"
        if facts != (header.sha256, header.count, header.size) or row.event_count != header.count:
            yield f"manifest: {row.id} is not what its header says"
    for head in store.heads.values():
        for number in range(1, head.number):
            segments = [blob for name, blob in store.segments.items() if name.startswith(_prefix(head, number))]
            if not segments or not all(blob.sealed for blob in segments):
                yield f"window: {number} of {head.route} '{head.key}' was left without its seal"


def _turns(history: History, rows: list[Dispatch]) -> Iterator[str]:
    """What `hold` and `budget` promise; told of one version of the app, for two may differ in either."""
    for route in history.script.routes if history.script.later_routes is None else ():
        mine = [row for row in rows if row.route == route.name and row.state is not State.EMPTY]
        if route.hold is not None:
            for row in mine:
                before = [one for one in mine if one.key == row.key and one.created < row.created]
                last = max(before, key=lambda one: one.created, default=None)
                if last is None or history.final_since.get(last.id, row.created + _SLACK) < row.created + _SLACK:
                    continue
                if row.created - last.created < route.hold.at_most - _SLACK:
                    yield f"hold: {row.id} was made while {last.id} went on"
        if route.budget is not None:
            given = history.turns.get(route.name, set())
            ids = {row.id for row in mine}
            for moment, dispatch_id in history.github.requests:
                turns = [turn for name, turn in given if name == dispatch_id]
                if dispatch_id in ids and not any(turn <= moment + _SLACK for turn in turns):
                    yield f"budget: {dispatch_id} was sent before its turn"
            moments = sorted(turn for _, turn in given)
            for one, other in zip(moments, moments[route.budget.dispatches :], strict=False):
                if other - one < route.budget.per - _SLACK:
                    yield f"budget: '{route.name}' gave {route.budget.dispatches + 1} turns within {other - one}"


def _prefix(head: Any, number: int) -> str:
    return f"{head.route}/{head.key_digest}/{number:010d}/"


def _events(history: History, rows: list[Dispatch]) -> Iterator[str]:
    listed = _listed(history, rows)
    for entry, count in listed.items():
        if count > 1:
            yield f"twice: {entry} stands in {count} manifests or dispatches"
    newest: dict[tuple[str, str], str] = {}
    for route, path, version in listed:
        newest[route, path] = max(version, newest.get((route, path), ""))
    letters = _letters(history)
    for taken in history.acknowledged:
        for event in taken.delivery.events:
            if event.kind == "foreign":
                if (event.name, event.version) not in letters:
                    yield f"lost: {event.name} of a foreign account is not in the dead letters"
                continue
            for route in taken.routes:
                entry = (route.name, event.name, event.version)
                if not _wants(route, event) or listed[entry]:
                    continue
                if {(event.name, event.version), entry} & letters:
                    continue
                if route.settle is not None and newest.get((route.name, event.name), "") > event.version:
                    continue
                yield f"lost: {entry} was acknowledged and is in no manifest, dispatch or dead letter"
        raw = taken.delivery.raw
        if raw is not None and not taken.delivery.events and not _is_kept(raw, history):
            yield f"lost: the unreadable message {raw!r} is not in the dead letters"


def _is_kept(raw: bytes, history: History) -> bool:
    """Whether a dead letter holds a message that no event could be read from: its bytes, or each of its values."""
    kept = [letter.get("event") for letter in history.store.dead_letters.values() if "event" in letter]
    raws = [letter.get("raw") for letter in history.store.dead_letters.values() if "window" not in letter]
    if base64.b64encode(raw).decode("ascii") in raws:
        return True
    try:
        document = json.loads(raw)
    except ValueError:
        return False
    values = document if isinstance(document, list) else [document]
    return all((value if isinstance(value, dict) else json.dumps(value)) in kept for value in values)


def _wants(route: Route, event: Sent) -> bool:
    """Whether a route of the generator takes an event; told apart from the app's own matching."""
    if event.kind == "run":
        return route.name == "deploy"
    return route.name == "audit" or (route.name in {"train", "each"} and event.name.endswith(".csv"))


def _listed(history: History, rows: list[Dispatch]) -> Counter[Entry]:
    """How often each event stands in what the ledger holds."""
    listed: Counter[Entry] = Counter()
    for row in rows:
        if row.manifest is None:
            listed[
                row.route, str(row.data.get("runId") or _path(row.subject)), str(row.data.get("sequencer") or "")
            ] += 1
        elif row.id in history.store.manifests:
            for line in history.store.manifests[row.id][1].splitlines():
                entry = json.loads(line)
                listed[row.route, _path(entry["subject"]), entry["sequencer"]] += 1
    return listed


def _path(subject: str) -> str:
    return subject.split("/blobs/", 1)[-1]


def _letters(history: History) -> set[tuple[str, str] | Entry]:
    """Events in the dead letters; those of a window's unreadable lines with its route, which alone lacks them."""
    found: set[tuple[str, str] | Entry] = set()
    for letter in history.store.dead_letters.values():
        event: Any = letter.get("event")
        if "window" in letter:
            event = json.loads(read_line(str(letter["raw"])))["event"]
        if not isinstance(event, dict) or not event.get("data"):
            continue
        name = event["data"].get("runId") or _path(event.get("subject", ""))
        version = event["data"].get("sequencer", "")
        found.add((str(letter["window"]).split("/")[0], name, version) if "window" in letter else (name, version))
    return found


def _errors(history: History) -> Iterator[str]:
    for fault in history.loop.faults:
        yield f"error: {fault}"
    for error in history.errors:
        strange_state = history.script.later_format and isinstance(error, ValueError) and "queued" in str(error)
        if not isinstance(error, StorageUnavailable | Conflict) and not strange_state:
            yield f"error: {type(error).__name__}: {error}"
