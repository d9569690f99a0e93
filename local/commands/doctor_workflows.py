"""`signalbox doctor`: whether the workflows hear what the routes send, and can be found by their runs' names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from functions.core.routes import Route
from local.commands.doctor_findings import Finding, fault, ok, unknown
from local.github.workflows import Workflow

CHECK = "workflow"
INPUTS = ("dispatch_id", "event_type", "key", "manifest_sha256", "payload")
"""What a route that goes via workflow_dispatch gives to its workflow; GitHub refuses inputs that are not declared."""

_ID_BY_DISPATCH = "client_payload.dispatch_id"
_ID_BY_INPUT = "inputs.dispatch_id"


def check(routes: Sequence[Route], workflows: Sequence[Workflow], where: str) -> Iterator[Finding]:
    """Hold the routes of one repository against its workflows; `where` says which these are, for a person."""
    sent = {route.dispatch for route in routes if not route.workflow}
    for kind in sorted(sent):
        hearing = [workflow for workflow in workflows if workflow.listens(kind)]
        if not hearing:
            yield fault(
                CHECK,
                kind,
                f"a route sends it, and no workflow {where} listens: GitHub takes it, and nothing starts",
                f"let a workflow on the default branch have 'on: repository_dispatch: types: [{kind}]'",
            )
        for workflow in hearing:
            yield _name(workflow, _ID_BY_DISPATCH, f"hears {kind}")
    by_file = {workflow.file: workflow for workflow in workflows}
    for route in routes:
        if route.workflow:
            yield from _door(route, by_file.get(route.workflow), where)
    yield from _deaf(sent, workflows)


def _door(route: Route, workflow: Workflow | None, where: str) -> Iterator[Finding]:
    if workflow is None:
        yield fault(
            CHECK,
            route.workflow,
            f"route '{route.name}' starts it, and it is not {where}",
            "mend the route's 'workflow', or add that file",
        )
        return
    declared = _inputs(workflow)
    missing = [name for name in INPUTS if name not in declared]
    if missing:
        yield fault(
            CHECK,
            workflow.path,
            f"route '{route.name}' starts it with inputs that it lacks: {', '.join(missing)}",
            "declare them under 'on: workflow_dispatch: inputs:', all of type string",
        )
    yield _name(workflow, _ID_BY_INPUT, f"started by route '{route.name}'")


def _inputs(workflow: Workflow) -> Mapping[str, Any]:
    triggers = workflow.document.get("on")
    by_hand = triggers.get("workflow_dispatch") if isinstance(triggers, dict) else None
    found = by_hand.get("inputs") if isinstance(by_hand, dict) else None
    return found if isinstance(found, dict) else {}


def _name(workflow: Workflow, wanted: str, does: str) -> Finding:
    if wanted in str(workflow.document.get("run-name", "")):
        return ok(CHECK, workflow.path, f"{does}, and has the dispatch id in its run's name")
    return fault(
        CHECK,
        workflow.path,
        f"{does}, but its run's name lacks the dispatch id: no run of it is ever found, and its dispatches are parked",
        f"write 'run-name: … ${{{{ {'github.event.' if wanted == _ID_BY_DISPATCH else ''}{wanted} }}}}'",
    )


def _deaf(sent: set[str], workflows: Sequence[Workflow]) -> Iterator[Finding]:
    """Types that a workflow names and no route sends: a slip of the pen, or sent by something else."""
    for workflow in workflows:
        triggers = workflow.document.get("on")
        listening = triggers.get("repository_dispatch") if isinstance(triggers, dict) else None
        types = listening.get("types", []) if isinstance(listening, dict) else []
        for kind in [types] if isinstance(types, str) else types:
            if kind not in sent:
                yield unknown(
                    CHECK,
                    workflow.path,
                    f"it listens to {kind}, which no route sends",
                    "add a route, or take the type out, unless something else sends it",
                )
