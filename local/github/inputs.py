"""The inputs of a workflow_dispatch: what the workflow file declares, and what GitHub makes of the values given.

Follows "on.workflow_dispatch.inputs" of GitHub's "Workflow syntax for GitHub Actions".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from local.github.requests import Refused


def take_inputs(document: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """All inputs of the workflow as texts: the given ones, and defaults for the others.

    Raises Refused where the workflow has no such trigger, or its inputs are others.
    """
    declared = _declared(document)
    if declared is None:
        raise Refused(422, "Workflow does not have 'workflow_dispatch' trigger")
    unexpected = [name for name in given if name not in declared]
    if unexpected:
        raise Refused(422, f"Unexpected inputs provided: {json.dumps(unexpected)}")
    taken: dict[str, str] = {}
    for name, about in declared.items():
        value = _text(name, given[name]) if name in given else _default(about)
        if not value and about.get("required") is True:
            raise Refused(422, f"Required input '{name}' not provided")
        if name in given:
            _check(name, value, about)
        taken[name] = value
    return taken


def typed(document: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
    """The context `inputs` of expressions: booleans and numbers as what they are, everything else as text."""
    declared = _declared(document) or {}
    kinds = {name: about.get("type") for name, about in declared.items()}
    return {name: _typed(kinds.get(name), value) for name, value in inputs.items()}


def _declared(document: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """What the workflow declares of each input; None where nobody can start it by hand."""
    triggers = document.get("on")
    if isinstance(triggers, str | list):
        return {} if "workflow_dispatch" in ([triggers] if isinstance(triggers, str) else triggers) else None
    if not isinstance(triggers, dict) or "workflow_dispatch" not in triggers:
        return None
    trigger = triggers["workflow_dispatch"]
    inputs = trigger.get("inputs") if isinstance(trigger, dict) else None
    if not isinstance(inputs, dict):
        return {}
    return {str(name): about if isinstance(about, dict) else {} for name, about in inputs.items()}


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise Refused(422, f"Invalid request.\n\nFor 'properties/{name}', {json.dumps(value)[:200]} is not a string.")


def _default(about: Mapping[str, Any]) -> str:
    default = about.get("default")
    if isinstance(default, bool):
        return json.dumps(default)
    if default is None:
        return "false" if about.get("type") == "boolean" else ""
    return str(default)


def _check(name: str, value: str, about: Mapping[str, Any]) -> None:
    kind = about.get("type")
    if kind == "choice" and value not in [str(option) for option in about.get("options") or []]:
        raise Refused(422, f"Provided value '{value}' for input '{name}' not in the list of allowed values")
    if kind == "boolean" and value not in {"true", "false"}:
        raise Refused(422, f"Provided value '{value}' for input '{name}' is not a boolean")
    if kind == "number" and math.isnan(_number(value)):
        raise Refused(422, f"Provided value '{value}' for input '{name}' is not a number")


def _typed(kind: Any, value: str) -> Any:
    if kind == "boolean":
        return value == "true"
    return _number(value) if kind == "number" and value else value


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan
