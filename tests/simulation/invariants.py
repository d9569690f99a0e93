"""What must hold once faults have stopped. Judged from what stands in storage, not with the app's own identities."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from functions.core.dispatch import Dispatch, State
from functions.core.routes import Route
from functions.flow.ports import Conflict, StorageUnavailable

from .history import History
from .script import Sent
from .store import read_line

Entry = tuple[str, str, str]
"""Route, path of the blob (or id of the run), and version of the blob."""


def violations(history: History) -> list[str]:
    """Every promise that the history breaks, in words; empty where all hold."""
    rows = history.ledger()
    found = [*_not_finished(history), *_dispatches(history, rows), *_manifests(history, rows)]
    return [*found, *_events(history, rows), *_errors(history)]


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
                if not _wants(route, event) or listed[entry] or (event.name, event.version) in letters:
                    continue
                if route.settle is not None and newest.get((route.name, event.name), "") > event.version:
                    continue
                yield f"lost: {entry} was acknowledged and is in no manifest, dispatch or dead letter"
        is_malformed = taken.delivery.raw is not None and not taken.delivery.events
        if is_malformed and not history.store.dead_letters:
            yield "lost: an unreadable message is not in the dead letters"


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


def _letters(history: History) -> set[tuple[str, str]]:
    found = set()
    for letter in history.store.dead_letters.values():
        event: Any = letter.get("event")
        if "window" in letter:
            event = json.loads(read_line(str(letter["raw"])))["event"]
        if isinstance(event, dict) and event.get("data"):
            found.add((_path(event.get("subject", "")), event["data"].get("sequencer", "")))
    return found


def _errors(history: History) -> Iterator[str]:
    for fault in history.loop.faults:
        yield f"error: {fault}"
    for error in history.errors:
        strange_state = history.script.later_format and isinstance(error, ValueError) and "queued" in str(error)
        if not isinstance(error, StorageUnavailable | Conflict) and not strange_state:
            yield f"error: {type(error).__name__}: {error}"
