"""What act reports, turned into GitHub's picture of a run: jobs with steps, a readable log, the job summaries.

Decides only; it is handed act's lines and the time, and keeps the state. Nothing here touches a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from local.github.workflows import Job, Workflow

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_SHOWN_COMMANDS = {"error", "warning", "notice", "debug", "group"}
_NOISE = ("Couldn't get a valid docker connection", "Actions YAML Schema Validation Error detected", "For more inf")
SET_UP, COMPLETE = "Set up job", "Complete job"


@dataclass(slots=True)
class StepState:
    """One step as GitHub's jobs answer shows it; times are ISO 8601 with milliseconds, in UTC."""

    name: str
    number: int
    status: str = "queued"
    conclusion: str | None = None
    started_at: str | None = None
    completed_at: str | None = None


@dataclass(slots=True)
class JobState:
    """One job as GitHub's jobs answer shows it."""

    job_id: str
    name: str
    steps: list[StepState] = field(default_factory=list)
    status: str = "queued"
    conclusion: str | None = None
    started_at: str | None = None
    completed_at: str | None = None


def masker(secrets: Iterable[str]) -> re.Pattern[str] | None:
    """Pattern of everything to hide: each line of each secret, the longest first."""
    lines = {line.strip() for secret in secrets for line in [secret, *secret.splitlines()] if line.strip()}
    return re.compile("|".join(re.escape(line) for line in sorted(lines, key=len, reverse=True))) if lines else None


class Progress:
    """State of one run while act reports on it."""

    def __init__(self, workflow: Workflow, secrets: Iterable[str]) -> None:
        self._workflow = workflow
        self._mask = masker(secrets)
        self._planned = {job.id: job for job in workflow.jobs()}
        self._states: dict[str, JobState] = {
            job.id: _planned_state(job) for job in self._planned.values() if not job.matrix
        }
        self._keys: dict[str, list[str]] = {job.id: [step.key for step in job.steps] for job in workflow.jobs()}
        self._forgiven: set[tuple[str, int]] = set()
        self.cancelling = False
        self.unsupported = False

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs with their steps, as plain values."""
        return [asdict(job) for job in self._states.values()]

    def hide(self, text: str) -> str:
        """The text without secrets and without what would move a terminal's cursor."""
        return _CONTROL.sub("", self._mask.sub("***", text) if self._mask else text)

    def take(self, line: str, now: datetime) -> tuple[list[str], str]:
        """One line of act's output: the log lines and the piece of job summary that it brings."""
        try:
            report = json.loads(line)
        except ValueError:
            report = None
        if not isinstance(report, dict):
            text = line.strip()
            return ([] if not text or text.startswith(_NOISE) else self._log(now, "", text)), ""
        job = self._state(report)
        if job is None:
            text = str(report.get("msg", ""))
            hidden = report.get("level") == "info" or text.startswith(_NOISE)
            return ([] if hidden else self._log(now, "", text)), ""
        lines = self._job_change(job, report, now) + self._step_change(job, report, now)
        if report.get("command") == "summary":
            return lines, self.hide(str(report.get("content", "")))
        return lines + self._output(job, report, now), ""

    def close(self, conclusion: str, now: datetime) -> str:
        """End everything that act left open; the run's conclusion (skipped where no job ran)."""
        left = "cancelled" if conclusion == "cancelled" else "skipped"
        broken = "cancelled" if conclusion == "cancelled" else "failure"
        for job in self._planned.values():
            if job.matrix and not any(state.job_id == job.id for state in self._states.values()):
                self._states[job.id] = _planned_state(job)
        for state in self._states.values():
            if state.status != "completed":
                _end_job(state, broken if state.status == "in_progress" else left, now)
        if conclusion == "success" and all(state.conclusion == "skipped" for state in self._states.values()):
            return "skipped"
        return conclusion

    def _state(self, report: dict[str, Any]) -> JobState | None:
        name = str(report.get("jobID", ""))
        planned = self._planned.get(name)
        if planned is None:
            return None
        label = str(report.get("job", "")).strip()
        key = f"{name}\0{label}" if planned.matrix else name
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = _planned_state(planned)
            if planned.name == planned.id:
                values = ", ".join(str(value) for value in (report.get("matrix") or {}).values())
                state.name = f"{planned.id} ({values})"
        if "${{" in planned.name:
            state.name = self.hide(label.removeprefix(f"{self._workflow.name}/"))
        return state

    def _job_change(self, job: JobState, report: dict[str, Any], now: datetime) -> list[str]:
        if "Skipping unsupported platform" in str(report.get("msg")):
            self.unsupported = True
            _start(job, now)
            _end_job(job, "failure", now)
            return self._log(
                now, job.name, "error: this job asks for a runner that this machine is not; use runs-on: ubuntu-latest"
            )
        if job.status == "queued":
            _start(job, now)
        result = report.get("jobResult")
        if not result:
            return []
        conclusion = "cancelled" if self.cancelling and result != "success" else str(result)
        _end_job(job, conclusion, now)
        return self._log(now, job.name, f"job ended: {conclusion}")

    def _step_change(self, job: JobState, report: dict[str, Any], now: datetime) -> list[str]:
        step = self._step(job, report)
        if step is None:
            return []
        if step.status == "queued":
            _start(step, now)
            if step.name not in {SET_UP, COMPLETE}:
                named = str(report.get("step", "")).strip().splitlines()
                if "${{" in step.name and named:
                    step.name = self.hide(named[0] if not step.name.startswith("Run ") else f"Run {named[0]}")
                return self._log(now, job.name, f"> {step.name}")
        if report.get("msg") == "Failed but continue next step":
            self._forgiven.add((job.name, step.number))
        result = report.get("stepResult")
        if not result or step.status == "completed":
            return []
        conclusion = "cancelled" if self.cancelling and result == "failure" else str(result)
        if (job.name, step.number) in self._forgiven and conclusion == "failure":
            # continue-on-error: GitHub's conclusion of such a step is success, whatever its outcome.
            conclusion = "success"
            lines = self._log(now, job.name, "  failed, and the job continues on error")
        else:
            lines = []
        step.status, step.conclusion, step.completed_at = "completed", conclusion, stamp(now)
        if step.name in {SET_UP, COMPLETE} and conclusion == "success":
            return []
        return lines + self._log(now, job.name, f"  {conclusion}: {step.name}")

    def _step(self, job: JobState, report: dict[str, Any]) -> StepState | None:
        inner = report.get("stepid") or []
        if inner == ["--setup-job"]:
            return job.steps[0]
        if inner == ["--complete-job"]:
            return job.steps[-1]
        keys, path = self._keys[job.job_id], report.get("stepID") or []
        if report.get("stage") != "Main" or len(path) != 1 or path[0] not in keys:
            return None
        return job.steps[1 + keys.index(path[0])]

    def _output(self, job: JobState, report: dict[str, Any], now: datetime) -> list[str]:
        text, command = str(report.get("msg", "")), report.get("command")
        if report.get("raw_output"):
            return self._log(now, job.name, text.rstrip("\n"), "    ")
        if command in _SHOWN_COMMANDS:
            return self._log(now, job.name, f"{command}: {report.get('arg', '')}", "    ")
        if command is None and report.get("level") == "error":
            return self._log(now, job.name, f"error: {text.strip()}", "    ")
        return []

    def _log(self, now: datetime, job: str, text: str, indent: str = "") -> list[str]:
        head = f"{now:%H:%M:%S} " + (f"{self.hide(job)} | " if job else "")
        return [f"{head}{indent}{line}" for line in self.hide(text).splitlines() or [""]]


def stamp(moment: datetime) -> str:
    """A time as GitHub writes it, with milliseconds so that short steps have a length."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stamp_now() -> str:
    """This moment, as `stamp` writes it."""
    return stamp(datetime.now(UTC))


def _planned_state(job: Job) -> JobState:
    names = [SET_UP, *(step.name for step in job.steps), COMPLETE]
    return JobState(job.id, job.name, [StepState(name, number) for number, name in enumerate(names, 1)])


def _start(part: JobState | StepState, now: datetime) -> None:
    part.status, part.started_at = "in_progress", stamp(now)


def _end_job(job: JobState, conclusion: str, now: datetime) -> None:
    if job.status == "queued":
        job.steps = []  # GitHub shows no steps of a job that never started
    for step in job.steps:
        if step.status != "completed":
            step.conclusion = "skipped" if step.status == "queued" else conclusion
            step.status, step.completed_at = "completed", stamp(now)
            step.started_at = step.started_at or step.completed_at
    job.status, job.conclusion, job.completed_at = "completed", conclusion, stamp(now)
    job.started_at = job.started_at or job.completed_at
