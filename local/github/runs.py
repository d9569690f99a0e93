"""The runs of the repository, kept in sqlite, and the queue that starts them.

Concurrency groups follow GitHub: one run of a group is under way, one is pending, an older pending one is cancelled.
A run is `pending` while its group is taken, `queued` while it waits for one of the machine's runners.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from local.github.actions_runner import ActionsRun, append_log, save_jobs, write_event
from local.github.run_progress import stamp_now
from local.github.workflows import Concurrency

RUNNERS = 2
STOP_SECONDS = 3.0
_DIED = "error: the runner died with the server that held it; the run is closed as a failure"
_STOPPED = "error: the server was stopped while this run was under way; the run is closed as a failure"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """One workflow run; times are ISO 8601 in UTC. The event that started it is `event.json` in its folder."""

    id: int
    run_number: int
    workflow_path: str
    workflow_name: str
    display_title: str
    event_name: str
    head_sha: str
    workspace: str
    concurrency_group: str | None
    status: str
    conclusion: str | None
    created_at: str
    run_started_at: str
    updated_at: str


_COLUMNS = [column.name for column in fields(Run)]
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS runs (
  {", ".join(name if name != "id" else "id INTEGER PRIMARY KEY" for name in _COLUMNS)}
);
CREATE INDEX IF NOT EXISTS runs_by_status ON runs (status);
"""


class RunStore:
    """The table of runs. Every change is committed before it is answered."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def next_id(self) -> int:
        """An id above all given before: beyond 32 bits as GitHub's are, and later ones are larger."""
        (last,) = self._db.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()
        return max(int(last) + 1, int(time.time() * 10))

    def next_number(self, workflow_path: str) -> int:
        """The workflow's own count, from 1."""
        query = "SELECT coalesce(max(run_number), 0) + 1 FROM runs WHERE workflow_path = ?"
        return int(self._db.execute(query, (workflow_path,)).fetchone()[0])

    def add(self, run: Run) -> None:
        """Keep a new run."""
        marks = ", ".join("?" for _ in _COLUMNS)
        statement = f"INSERT INTO runs ({', '.join(_COLUMNS)}) VALUES ({marks})"  # noqa: S608 (names of this module)
        self._db.execute(statement, [getattr(run, name) for name in _COLUMNS])

    def update(self, run_id: int, status: str, conclusion: str | None = None, started: bool = False) -> None:
        """Move a run to another status."""
        now = second()
        statement = (
            "UPDATE runs SET status = ?, conclusion = ?, updated_at = ?, "
            "run_started_at = CASE WHEN ? THEN ? ELSE run_started_at END WHERE id = ?"
        )
        self._db.execute(statement, (status, conclusion, now, started, now, run_id))

    def get(self, run_id: int) -> Run | None:
        """One run."""
        found = self._select("WHERE id = ?", run_id)
        return found[0] if found else None

    def all(self) -> list[Run]:
        """All runs, newest first."""
        return self._select("ORDER BY id DESC")

    def open(self) -> list[Run]:
        """The runs that are not completed, oldest first."""
        return self._select("WHERE status <> 'completed' ORDER BY id")

    def _select(self, rest: str, *values: object) -> list[Run]:
        query = f"SELECT {', '.join(_COLUMNS)} FROM runs {rest}"  # noqa: S608 (fixed text of this module)
        return [Run(*row) for row in self._db.execute(query, values)]


def second() -> str:
    """Now, as GitHub writes the times of a run."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class RunQueue:
    """Starts the runs in their order, at most `RUNNERS` at once, and keeps the concurrency groups."""

    def __init__(self, store: RunStore, folder: Path, hire: Callable[[Run], ActionsRun]) -> None:
        self._store = store
        self._folder = folder
        self._hire = hire
        self._under_way: dict[int, tuple[ActionsRun, asyncio.Task[None]]] = {}
        self._stopping = False

    def folder(self, run_id: int) -> Path:
        """Where the files of a run are."""
        return self._folder / str(run_id)

    def recover(self) -> None:
        """After a restart: close what a dead server left in progress, and go on with the rest."""
        for run in self._store.open():
            if run.status == "in_progress":
                self._close_unfinished(run, _DIED)
        self._advance()

    def add(self, run: Run, event: Mapping[str, Any], concurrency: Concurrency) -> None:
        """Take a new run; its group decides whether it waits and whom it replaces."""
        write_event(self.folder(run.id), event)
        status = "queued"
        if concurrency.group:
            mates = [mate for mate in self._store.open() if _same_group(mate, run)]
            for mate in mates:
                if mate.status == "pending" or concurrency.cancel_in_progress:
                    self._cancel(mate, f"cancelled: run {run.id} of the same concurrency group came after it")
            held = any(_same_group(mate, run) for mate in self._store.open())
            status = "pending" if held else "queued"
        self._store.add(_with_status(run, status))
        self._advance()

    def add_broken(self, run: Run, event: Mapping[str, Any], reason: str) -> None:
        """Keep a run that cannot start, as GitHub does with a workflow whose expressions it cannot evaluate."""
        write_event(self.folder(run.id), event)
        append_log(self.folder(run.id), f"error: {reason}")
        self._store.add(_with_status(run, "completed", "startup_failure"))

    def cancel(self, run: Run) -> None:
        """Cancel a run that is not completed."""
        self._cancel(run, "cancelled: a person or the API asked for it")
        self._advance()

    async def stop(self) -> None:
        """End the runs under way; queued ones stay queued for the next start."""
        self._stopping = True
        tasks = [task for _, task in self._under_way.values()]
        for runner, _ in self._under_way.values():
            runner.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)

    def _cancel(self, run: Run, reason: str) -> None:
        append_log(self.folder(run.id), reason)
        if run.id in self._under_way:
            self._under_way[run.id][0].cancel()
        else:
            self._store.update(run.id, "completed", "cancelled")

    def _advance(self) -> None:
        if self._stopping:
            return
        held: set[str] = {_group(run) for run in self._store.open() if run.status != "pending"}
        for run in self._store.open():
            if run.status == "pending" and _group(run) not in held:
                self._store.update(run.id, "queued")
                held.add(_group(run))
        for run in self._store.open():
            if run.status == "queued" and len(self._under_way) < RUNNERS:
                self._store.update(run.id, "in_progress", started=True)
                runner = self._hire(run)
                self._under_way[run.id] = (runner, asyncio.create_task(self._execute(run, runner)))

    async def _execute(self, run: Run, runner: ActionsRun) -> None:
        try:
            conclusion = await runner.execute()
        except Exception as error:
            _log.exception("run %s ended by a fault of the runner", run.id)
            append_log(self.folder(run.id), f"error: the runner failed: {error}")
            conclusion = "failure"
        del self._under_way[run.id]
        if self._stopping and conclusion == "cancelled":
            self._close_unfinished(run, _STOPPED)
            return
        self._store.update(run.id, "completed", conclusion)
        _log.info("run %s (%s) ended: %s", run.id, run.workflow_path, conclusion)
        self._advance()

    def _close_unfinished(self, run: Run, reason: str) -> None:
        folder = self.folder(run.id)
        append_log(folder, reason)
        jobs = read_jobs(folder)
        for part in [*jobs, *(step for job in jobs for step in job["steps"])]:
            if part["status"] != "completed":
                part["conclusion"] = "failure" if part["status"] == "in_progress" else "skipped"
                part["status"], part["completed_at"] = "completed", stamp_now()
                part["started_at"] = part["started_at"] or part["completed_at"]
        save_jobs(folder, jobs)
        self._store.update(run.id, "completed", "failure")


def _group(run: Run) -> str:
    return (run.concurrency_group or f"run {run.id} alone").casefold()


def _same_group(one: Run, other: Run) -> bool:
    return bool(one.concurrency_group) and _group(one) == _group(other)


def _with_status(run: Run, status: str, conclusion: str | None = None) -> Run:
    return replace(run, status=status, conclusion=conclusion)


def read_jobs(folder: Path) -> list[dict[str, Any]]:
    """The jobs of a run as they stand; empty before it started."""
    try:
        jobs: list[dict[str, Any]] = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return jobs


def run_contexts(
    run: Run,
    event: Mapping[str, Any],
    variables: Mapping[str, str],
    server: Mapping[str, str],
    inputs: Mapping[str, Any],
) -> Any:
    """What `run-name` and `concurrency` may read: github, vars and inputs."""
    github = {
        "event": event,
        "event_name": run.event_name,
        "ref": "refs/heads/main",
        "ref_name": "main",
        "sha": run.head_sha,
        "workflow": run.workflow_name,
        "run_id": str(run.id),
        "run_number": str(run.run_number),
        "run_attempt": "1",
        **server,
    }
    return {"github": github, "vars": dict(variables), "inputs": dict(inputs)}
