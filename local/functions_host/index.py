"""Loads a function app of the Python v2 model and reads what it declares.

The app's own metadata (`app.get_functions()`) is the only source: nothing is listed twice. What Microsoft's runtime
would refuse when it indexes the app (no app object, two of them, a parameter without binding, an annotation that its
converter does not accept) is refused here too, in one sentence.
https://learn.microsoft.com/azure/azure-functions/functions-reference-python
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func

from local.functions_host.bindings import converter

SCRIPT = "function_app.py"
TRIGGERS = ("eventGridTrigger", "httpTrigger", "queueTrigger", "timerTrigger")
HTTP_OUTPUT = "http"


class FunctionAppError(ValueError):
    """The function app cannot be served; the sentence says what and where, and how to mend it."""


@dataclass(frozen=True, slots=True)
class HostedFunction:
    """One function of the app."""

    name: str
    """As Azure lists it."""
    call: Callable[..., Any]
    """The user's function."""
    trigger: Mapping[str, Any]
    """The trigger's binding, with the keys of function.json; `%SETTING%` is already replaced."""
    is_async: bool
    """Runs on the host's loop; otherwise in its thread pool."""
    wants_context: bool
    """Has a parameter `context` that is no binding."""
    returns: bool
    """May return a value (an HTTP function)."""
    directory: Path
    """Folder of the app."""

    @property
    def trigger_type(self) -> str:
        """Type of the trigger's binding, such as `queueTrigger`."""
        return str(self.trigger["type"])

    @property
    def parameter(self) -> str:
        """Name of the parameter that receives what triggered the function."""
        return str(self.trigger["name"])


def load_function_app(root: Path) -> list[HostedFunction]:
    """Import ROOT/function_app.py, with ROOT first on `sys.path`, and read its functions.

    Raises FunctionAppError when it cannot be imported or served.
    """
    script = root / SCRIPT
    if not script.is_file():
        raise FunctionAppError(f"{script} does not exist: --app must name the folder that holds {SCRIPT}.")
    sys.path.insert(0, str(root))
    try:
        module = importlib.import_module(script.stem)
        registered = _app_object(module).get_functions()
    except FunctionAppError:
        raise
    except BaseException as error:
        raise FunctionAppError(_load_failure(root, error)) from error
    return [_hosted(function, root) for function in registered]


def _app_object(module: ModuleType) -> func.FunctionRegister:
    found = {id(value): value for value in vars(module).values() if isinstance(value, func.FunctionRegister)}
    if len(found) != 1:
        raise FunctionAppError(
            f"{SCRIPT} must define exactly one func.FunctionApp at its top level; it defines {len(found)}."
        )
    return next(iter(found.values()))


def _load_failure(root: Path, error: BaseException) -> str:
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{SCRIPT} could not be loaded: {error.msg} ({error.filename}, line {error.lineno})."
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(root)]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{SCRIPT} could not be loaded: {reason.rstrip('.')}{where}."


def _hosted(function: Any, root: Path) -> HostedFunction:
    name = str(function.get_function_name())
    bindings = [
        {key: _resolved(value, name) for key, value in binding.items()}
        for binding in function.get_bindings_dict()["bindings"]
    ]
    triggers = [binding for binding in bindings if binding["type"] in TRIGGERS]
    others = [b["type"] for b in bindings if b["type"] not in TRIGGERS and b["type"] != HTTP_OUTPUT]
    if others or len(triggers) != 1:
        raise FunctionAppError(
            f"Function {name} has bindings that this host does not serve "
            f"({', '.join(others) or 'no trigger'}); it serves {', '.join(TRIGGERS)} and HTTP output. "
            "Use Azure Functions Core Tools for others."
        )
    call = function.get_user_function()
    trigger = triggers[0]
    wants_context = _check_parameters(name, call, trigger)
    return HostedFunction(
        name=name,
        call=call,
        trigger=trigger,
        is_async=inspect.iscoroutinefunction(call),
        wants_context=wants_context,
        returns=trigger["type"] == "httpTrigger",
        directory=root,
    )


def _resolved(value: Any, name: str) -> Any:
    """Replace `%SETTING%` by the app setting, as the platform does in queue names and schedules."""
    if not isinstance(value, str):
        return value

    def setting(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise FunctionAppError(
                f"Function {name} refers to the app setting {match[1]} as %{match[1]}%, which is not set."
            )
        return os.environ[match[1]]

    return re.sub(r"%([A-Za-z_][A-Za-z0-9_.:-]*)%", setting, value)


def _check_parameters(name: str, call: Callable[..., Any], trigger: Mapping[str, Any]) -> bool:
    """True when the function takes a context; refuses parameters that the runtime would refuse."""
    names = set(inspect.signature(call).parameters)
    parameter = trigger["name"]
    if parameter not in names or names - {parameter, "context"}:
        raise FunctionAppError(
            f"Function {name} takes ({', '.join(sorted(names))}), but its trigger hands over ({parameter}); "
            "the names must be the same (a parameter named context may be added)."
        )
    annotation = typing.get_type_hints(call).get(parameter)
    if annotation is not None and not converter(trigger["type"]).check_input_type_annotation(annotation):
        raise FunctionAppError(
            f"Function {name}: the annotation {getattr(annotation, '__name__', annotation)} of {parameter} does not "
            f"match its {trigger['type']}."
        )
    return "context" in names
