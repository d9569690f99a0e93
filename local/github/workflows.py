"""Reading workflow files: which events start them, the run's title, its concurrency group, its jobs and steps.

Follows GitHub's "Workflow syntax for GitHub Actions". act reads the same files again when it runs them; what stands
here is what GitHub itself decides before a runner sees anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local.github.expressions import evaluate_template, to_text, truthy

_FOREIGN = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?P<folder>/[^@]*)?@(?P<ref>\S+)")


class WorkflowError(ValueError):
    """A workflow file that GitHub could not use; the text names the file and the fault."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 as GitHub reads it: `on`, `yes` and dates are text, only true and false are booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job: `key` is what act calls it (its id, else its place), `name` what GitHub shows."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a workflow; `matrix` says that several jobs can come from it."""

    id: str
    name: str
    steps: tuple[Step, ...]
    matrix: bool


@dataclass(frozen=True, slots=True)
class Action:
    """An action of another repository, as `uses:` names it."""

    name: str
    folder: str
    ref: str


@dataclass(frozen=True, slots=True)
class Concurrency:
    """The group of a run (None: it stands alone) and whether it ends the run before it."""

    group: str | None = None
    cancel_in_progress: bool = False


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow file. `path` is relative to the repository, `document` the parsed file."""

    path: str
    name: str
    document: Mapping[str, Any]

    @property
    def file(self) -> str:
        """The file's name, by which a workflow dispatch may name it."""
        return self.path.rsplit("/", 1)[-1]

    def listens(self, event_type: str) -> bool:
        """Whether a repository_dispatch with this event type starts the workflow."""
        triggers = self.document.get("on")
        if isinstance(triggers, str):
            return triggers == "repository_dispatch"
        if isinstance(triggers, list):
            return "repository_dispatch" in triggers
        if not isinstance(triggers, dict) or "repository_dispatch" not in triggers:
            return False
        types = (triggers["repository_dispatch"] or {}).get("types")
        if types is None:
            return True
        return event_type in ([types] if isinstance(types, str) else types)

    def title(self, contexts: Mapping[str, Any], default: str) -> str:
        """The run's display title; raises ExpressionError."""
        written = self.document.get("run-name")
        text = to_text(evaluate_template(str(written), contexts)).strip() if written is not None else ""
        return text or default

    def concurrency(self, contexts: Mapping[str, Any]) -> Concurrency:
        """The workflow's own concurrency group; raises ExpressionError."""
        written = self.document.get("concurrency")
        if written is None:
            return Concurrency()
        if not isinstance(written, dict):
            written = {"group": written}
        group = to_text(evaluate_template(str(written.get("group", "")), contexts)).strip()
        cancel = written.get("cancel-in-progress", False)
        if isinstance(cancel, str):
            cancel = evaluate_template(cancel, contexts)
            cancel = truthy(cancel) and cancel != "false"
        return Concurrency(group or None, bool(cancel))

    def jobs(self) -> tuple[Job, ...]:
        """The jobs in the file's order."""
        return tuple(_job(name, body) for name, body in _mapping(self.document.get("jobs")).items())

    def actions(self, root: Path) -> tuple[Action, ...]:
        """Every foreign action that the workflow names, through the repository's own composite actions as well."""
        found = {action: None for body in _mapping(self.document.get("jobs")).values() for action in _used(body, root)}
        return tuple(found)


def read_workflow(root: Path, path: Path) -> Workflow:
    """Read one workflow file below `root`; raises WorkflowError."""
    name = path.relative_to(root).as_posix()
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WorkflowError(f"{name} is no readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or not isinstance(document.get("jobs"), dict):
        raise WorkflowError(f"{name} has no jobs; give it `on:` and `jobs:` as GitHub's workflow syntax describes")
    return Workflow(name, str(document.get("name") or name), document)


def read_workflows(root: Path) -> tuple[list[Workflow], list[WorkflowError]]:
    """All workflows of the repository at `root`, by path, and what is wrong with the rest."""
    workflows: list[Workflow] = []
    faults: list[WorkflowError] = []
    folder = root / ".github" / "workflows"
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.suffix in {".yml", ".yaml"}:
            try:
                workflows.append(read_workflow(root, path))
            except WorkflowError as fault:
                faults.append(fault)
    return workflows, faults


def _mapping(value: Any) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _steps(body: Any) -> list[dict[str, Any]]:
    steps = _mapping(body).get("steps")
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def _job(name: str, body: Any) -> Job:
    steps = tuple(Step(str(step.get("id", place)), _step_name(step)) for place, step in enumerate(_steps(body)))
    job = _mapping(body)
    return Job(name, str(job.get("name") or name), steps, "matrix" in _mapping(job.get("strategy")))


def _step_name(step: Mapping[str, Any]) -> str:
    if step.get("name"):
        return str(step["name"])
    if step.get("uses"):
        return f"Run {step['uses']}"
    lines = str(step.get("run", "")).strip().splitlines()
    return f"Run {lines[0]}" if lines else "Run"


def _used(body: Any, root: Path, depth: int = 0) -> Iterator[Action]:
    for step in _steps(body):
        uses = str(step.get("uses", ""))
        found = _FOREIGN.fullmatch(uses)
        if found:
            yield Action(found["name"], (found["folder"] or "").strip("/"), found["ref"])
        elif uses.startswith("./") and depth < 10:
            for file in ("action.yml", "action.yaml"):
                path = root / uses / file
                if path.is_file():
                    document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
                    yield from _used(_mapping(document).get("runs"), root, depth + 1)
