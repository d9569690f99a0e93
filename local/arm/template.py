"""Evaluates the parts of an ARM template that a local run needs: the resources of some types, as plain values.

Only the functions that this project's templates use in those resources are here; any other one is refused by its
name and place, so that a template never means something else on one machine than in Azure. Names of parameters,
variables, functions and properties ignore case, as Azure Resource Manager does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.arm.expressions import Access, ArmError, Call, Expression, is_expression, literal, parse

LOCAL_SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
LOCAL_RESOURCE_GROUP = "local"

_SUBSCRIPTION = {"subscriptionId": LOCAL_SUBSCRIPTION}
_RESOURCE_GROUP = {"name": LOCAL_RESOURCE_GROUP, "location": "local"}


@dataclass(frozen=True, slots=True)
class Resource:
    """One evaluated resource of a template."""

    type: str
    """As the template spells it, for example `Microsoft.EventGrid/systemTopics`."""
    name: str
    """All segments of the name, with slashes between them."""
    properties: Mapping[str, Any]


def load(path: Path) -> dict[str, Any]:
    """Read a template or a parameter file. Raises `ArmError` where it is missing or no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArmError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ArmError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ArmError(f"{path} must hold a JSON object.")
    return content


class Template:
    """A template together with the values given for its parameters.

    Expressions are evaluated when they are asked for, so that resources of other types may use functions that only
    Azure can answer.
    """

    def __init__(self, template: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> None:
        """`given` is the content of a parameter file (`{"parameters": {name: {"value": …}}}`)."""
        self._parameters: Mapping[str, Any] = template.get("parameters", {})
        self._variables: Mapping[str, Any] = template.get("variables", {})
        self._resources: Sequence[Mapping[str, Any]] = template.get("resources", [])
        self._given: Mapping[str, Any] = (given or {}).get("parameters", {})
        self._evaluating: list[str] = []
        for name in self._given:
            if _find(self._parameters, name) is None:
                raise ArmError(f"The parameter file sets {name!r}, which the template does not declare.")

    def resources(self, *types: str) -> list[Resource]:
        """Every resource of these types whose condition holds, in the template's order."""
        wanted = {name.lower() for name in types}
        found = []
        for index, resource in enumerate(self._resources):
            place = f"resources[{index}]"
            if resource["type"].lower() not in wanted:
                continue
            if "copy" in resource:
                raise ArmError(f"{place} is a copy loop, which a local run does not support.")
            if not self.value(resource.get("condition", True), f"{place}.condition"):
                continue
            name = self.value(resource["name"], f"{place}.name")
            properties = self.value(resource.get("properties", {}), f"{place}.properties")
            found.append(Resource(resource["type"], name, properties))
        return found

    def value(self, node: Any, place: str) -> Any:
        """Evaluate every expression in a JSON value; `place` names it in errors."""
        if isinstance(node, str):
            return self._text(node, place)
        if isinstance(node, list):
            return [self.value(item, f"{place}[{index}]") for index, item in enumerate(node)]
        if isinstance(node, dict):
            return {key: self.value(item, f"{place}.{key}") for key, item in node.items()}
        return node

    def _text(self, text: str, place: str) -> Any:
        if not is_expression(text):
            return literal(text)
        try:
            tree = parse(text)
        except ArmError as error:
            raise ArmError(f"{place}: {error}") from error
        return self._evaluate(tree, place)

    def _evaluate(self, tree: Expression, place: str) -> Any:
        if isinstance(tree, Access):
            return _access(self._evaluate(tree.target, place), self._evaluate(tree.key, place), place)
        if isinstance(tree, Call):
            arguments = [self._evaluate(argument, place) for argument in tree.arguments]
            return self._call(tree.function, arguments, place)
        return tree.value

    def _call(self, name: str, arguments: list[Any], place: str) -> Any:
        functions: dict[str, tuple[int, int | None, Callable[..., Any]]] = {
            "parameters": (1, 1, lambda key: self._parameter(key, place)),
            "variables": (1, 1, lambda key: self._variable(key, place)),
            "concat": (1, None, lambda *parts: _concat(parts, place)),
            "resourceid": (2, None, lambda *parts: _resource_id(parts, place)),
            "resourcegroup": (0, 0, lambda: _RESOURCE_GROUP),
            "subscription": (0, 0, lambda: _SUBSCRIPTION),
        }
        if name.lower() not in functions:
            raise ArmError(
                f"{place}: the function {name}() is not known to a local run; local/arm/template.py lists what is."
            )
        least, most, function = functions[name.lower()]
        if len(arguments) < least or (most is not None and len(arguments) > most):
            raise ArmError(f"{place}: {name}() does not take {len(arguments)} arguments.")
        return function(*arguments)

    def _parameter(self, name: Any, place: str) -> Any:
        declared = _find(self._parameters, name)
        if declared is None:
            raise ArmError(f"{place}: there is no parameter {name!r}.")
        given = _find(self._given, name)
        if given is not None:
            if "value" not in given:
                raise ArmError(f"The parameter file gives {name!r} no value that a local run can read.")
            value = given["value"]
        elif "defaultValue" in declared:
            value = self._once(f"parameters.{name}", declared["defaultValue"])
        else:
            raise ArmError(f"The parameter {name!r} has no default: give its value in a parameter file.")
        _check_allowed(str(name), value, declared.get("allowedValues"))
        return value

    def _variable(self, name: Any, place: str) -> Any:
        declared = _find(self._variables, name)
        if declared is None:
            raise ArmError(f"{place}: there is no variable {name!r}.")
        return self._once(f"variables.{name}", declared)

    def _once(self, place: str, node: Any) -> Any:
        """Evaluate a parameter's default or a variable; one that needs itself is refused."""
        if place.lower() in self._evaluating:
            raise ArmError(f"{place} is defined by itself.")
        self._evaluating.append(place.lower())
        try:
            return self.value(node, place)
        finally:
            self._evaluating.pop()


def _find(mapping: Mapping[str, Any], name: Any) -> Any:
    """The value of a key whatever its case; None where there is none."""
    if not isinstance(name, str):
        return None
    return next((value for key, value in mapping.items() if key.lower() == name.lower()), None)


def _check_allowed(name: str, value: Any, allowed: Sequence[Any] | None) -> None:
    if allowed is None:
        return
    for item in value if isinstance(value, list) else [value]:
        if item not in allowed:
            choices = ", ".join(map(str, allowed))
            raise ArmError(f"The parameter {name!r} may not be {item!r}; allowed: {choices}.")


def _access(target: Any, key: Any, place: str) -> Any:
    if isinstance(target, list) and isinstance(key, int) and 0 <= key < len(target):
        return target[key]
    if isinstance(target, dict) and isinstance(key, str):
        for name, value in target.items():
            if name.lower() == key.lower():
                return value
    raise ArmError(f"{place}: there is no {key!r} in {json.dumps(target)[:80]}.")


def _concat(parts: tuple[Any, ...], place: str) -> Any:
    """Strings and numbers to one string, or arrays to one array."""
    if all(isinstance(part, list) for part in parts):
        return [item for part in parts for item in part]
    if any(isinstance(part, list | dict) or part is None for part in parts):
        raise ArmError(f"{place}: concat() takes either strings and numbers, or arrays.")
    return "".join(map(str, parts))


def _resource_id(parts: tuple[Any, ...], place: str) -> str:
    """`[subscription id], [resource group], type, name segments…`; one name for each kind in the type."""
    if not all(isinstance(part, str) for part in parts):
        raise ArmError(f"{place}: resourceId() takes strings only.")
    at = next((index for index, part in enumerate(parts[:3]) if "/" in part), None)
    if at is None:
        raise ArmError(f"{place}: resourceId() names no resource type.")
    provider, *kinds = parts[at].split("/")
    names = parts[at + 1 :]
    if len(kinds) != len(names):
        raise ArmError(f"{place}: resourceId() needs {len(kinds)} names for {parts[at]}, not {len(names)}.")
    group = parts[at - 1] if at >= 1 else LOCAL_RESOURCE_GROUP
    subscription = parts[0] if at == 2 else LOCAL_SUBSCRIPTION
    path = "/".join(f"{kind}/{name}" for kind, name in zip(kinds, names, strict=True))
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{provider}/{path}"
