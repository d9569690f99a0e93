"""Evaluates an ARM template: its resources, conditions and copy loops, as plain values.

Only the functions that this project's templates use are here; any other one is refused by its name and place, so
that a template never means something else on one machine than in Azure. Names of parameters, variables, functions
and properties ignore case, as Azure Resource Manager does. `local.arm.deployment` evaluates a template as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.arm.expressions import Access, ArmError, Call, Expression, is_expression, literal, parse
from local.arm.functions import FUNCTIONS, Function, Runtime, access, is_type, provider_path, same_key

LOCAL_SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
LOCAL_RESOURCE_GROUP = "local"
LOCAL_GROUP_ID = f"/subscriptions/{LOCAL_SUBSCRIPTION}/resourceGroups/{LOCAL_RESOURCE_GROUP}"

_SUBSCRIPTION = {
    "id": f"/subscriptions/{LOCAL_SUBSCRIPTION}",
    "subscriptionId": LOCAL_SUBSCRIPTION,
    "tenantId": "11111111-1111-1111-1111-111111111111",
}
_RESOURCE_GROUP = {"id": LOCAL_GROUP_ID, "name": LOCAL_RESOURCE_GROUP, "location": "local"}
_ENVIRONMENT = {
    "authentication": {"loginEndpoint": "https://login.microsoftonline.com/"},
    "suffixes": {"storage": "core.windows.net"},
}


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
        self.parameters: Mapping[str, Any] = template.get("parameters", {})
        self._variables: Mapping[str, Any] = template.get("variables", {})
        self.declared: Sequence[Mapping[str, Any]] = template.get("resources", [])
        self.outputs: Mapping[str, Any] = template.get("outputs", {})
        self._given: Mapping[str, Any] = (given or {}).get("parameters", {})
        self._evaluating: list[str] = []
        self._known: dict[str, Any] = {}
        self._turns: list[tuple[str, int]] = []
        for name in self._given:
            if _find(self.parameters, name) is None:
                raise ArmError(f"The parameter file sets {name!r}, which the template does not declare.")

    def resources(self, *types: str) -> list[Resource]:
        """Every resource of these types whose condition holds, of those at the template's top and in its order."""
        wanted = {name.lower() for name in types}
        found = []
        for resource, place in self.turns([item for item in self.declared if item["type"].lower() in wanted]):
            if not self.value(resource.get("condition", True), f"{place}.condition"):
                continue
            name = self.value(resource["name"], f"{place}.name")
            properties = self.value(resource.get("properties", {}), f"{place}.properties")
            found.append(Resource(resource["type"], name, properties))
        return found

    def turns(self, resources: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Each resource and its place, once for every turn of its copy loop; copyIndex() is that turn meanwhile."""
        for resource in resources:
            place = self._place(resource)
            if "copy" not in resource:
                yield resource, place
                continue
            loop = resource["copy"]
            for turn in range(self.value(loop["count"], f"{place}.copy.count")):
                self._turns.append((loop["name"].lower(), turn))
                try:
                    yield resource, f"{place}({turn})"
                finally:
                    self._turns.pop()

    def _place(self, wanted: Mapping[str, Any]) -> str:
        """Where a resource stands; those inside of another one are named by their type."""
        at = next((index for index, resource in enumerate(self.declared) if resource is wanted), None)
        return f"{wanted['type']} in resources" if at is None else f"resources[{at}]"

    def value(self, node: Any, place: str) -> Any:
        """Evaluate every expression in a JSON value; `place` names it in errors."""
        if isinstance(node, str):
            return self._text(node, place)
        if isinstance(node, list):
            return [self.value(item, f"{place}[{index}]") for index, item in enumerate(node)]
        if isinstance(node, dict):
            found = {
                self._text(key, place): self.value(item, f"{place}.{key}")
                for key, item in node.items()
                if key != "copy" or not isinstance(item, list)
            }
            loops = node.get("copy")
            for loop in loops if isinstance(loops, list) else []:
                found[loop["name"]] = self._items(loop, f"{place}.{loop['name']}")
            return found
        return node

    def _items(self, loop: Mapping[str, Any], place: str) -> list[Any]:
        """The elements that a property's copy loop makes."""
        items = []
        for turn in range(self.value(loop["count"], f"{place}.count")):
            self._turns.insert(0, (loop["name"].lower(), turn))  # copyIndex() without a name stays the resource's
            try:
                items.append(self.value(loop["input"], f"{place}[{turn}]"))
            finally:
                self._turns.pop(0)
        return items

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
            target, key = self._evaluate(tree.target, place), self._evaluate(tree.key, place)
            try:
                return access(target, key)
            except KeyError:
                raise ArmError(f"{place}: there is no {key!r} in {json.dumps(target)[:80]}.") from None
        if not isinstance(tree, Call):
            return tree.value
        if tree.function.lower() == "if" and len(tree.arguments) == 3:
            # Only the branch that is taken is looked at: the other one may name what is not there.
            taken = 1 if self._evaluate(tree.arguments[0], place) is True else 2
            return self._evaluate(tree.arguments[taken], place)
        arguments = [self._evaluate(argument, place) for argument in tree.arguments]
        return self._call(tree.function, arguments, place)

    def _call(self, name: str, arguments: list[Any], place: str) -> Any:
        own: dict[str, Function] = {
            "copyindex": Function(0, 1, self._turn),
            "environment": Function(0, 0, lambda: _ENVIRONMENT),
            "extensionresourceid": Function(3, None, _extension_id),
            "parameters": Function(1, 1, lambda key: self._parameter(key, place)),
            "reference": Function(1, 3, _reference),
            "resourcegroup": Function(0, 0, lambda: _RESOURCE_GROUP),
            "resourceid": Function(2, None, _resource_id),
            "subscription": Function(0, 0, lambda: _SUBSCRIPTION),
            "subscriptionresourceid": Function(2, None, _subscription_id),
            "variables": Function(1, 1, lambda key: self._variable(key, place)),
        }
        function = own.get(name.lower()) or FUNCTIONS.get(name.lower())
        if function is None:
            raise ArmError(
                f"{place}: the function {name}() is not known to a local run; local/arm/functions.py lists what is."
            )
        if len(arguments) < function.least or (function.most is not None and len(arguments) > function.most):
            raise ArmError(f"{place}: {name}() does not take {len(arguments)} arguments.")
        if name.lower() in {"parameters", "variables"}:
            return function.call(*arguments)
        return _called(function.call, name, arguments, place)

    def _turn(self, loop: Any = None) -> int:
        for name, turn in reversed(self._turns):
            if loop is None or name == str(loop).lower():
                return turn
        raise ArmError(f"stands in no copy loop {loop or ''}".rstrip())

    def _parameter(self, name: Any, place: str) -> Any:
        declared = _find(self.parameters, name)
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
        key = place.lower()
        if key in self._evaluating:
            raise ArmError(f"{place} is defined by itself.")
        if key not in self._known:
            self._evaluating.append(key)
            try:
                self._known[key] = self.value(node, place)
            finally:
                self._evaluating.pop()
        return self._known[key]


def _find(mapping: Mapping[str, Any], name: Any) -> Any:
    """The value of a key whatever its case; None where there is none."""
    key = same_key(mapping, name)
    return None if key is None else mapping[key]


def _called(call: Callable[..., Any], name: str, arguments: list[Any], place: str) -> Any:
    try:
        return call(*arguments)
    except (ArmError, TypeError) as error:
        raise ArmError(f"{place}: {name}() {error}.") from error


def _check_allowed(name: str, value: Any, allowed: Sequence[Any] | None) -> None:
    if allowed is None:
        return
    for item in value if isinstance(value, list) else [value]:
        if item not in allowed:
            choices = ", ".join(map(str, allowed))
            raise ArmError(f"The parameter {name!r} may not be {item!r}; allowed: {choices}.")


def _reference(resource: Any, *_: Any) -> Runtime:
    """What Azure says of a resource; its API version and 'Full' only choose which part of it."""
    return Runtime(str(resource))


def _resource_id(*parts: Any) -> str:
    """`[subscription id], [resource group], type, name segments…`; one name for each kind in the type."""
    at = next((index for index, part in enumerate(parts[:3]) if is_type(part)), len(parts))
    path = provider_path(parts, at)
    group = parts[at - 1] if at >= 1 else LOCAL_RESOURCE_GROUP
    subscription = parts[0] if at == 2 else LOCAL_SUBSCRIPTION
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{path}"


def _subscription_id(*parts: Any) -> str:
    """`type, name segments…` of a resource that belongs to the subscription, such as a role's definition."""
    return f"/subscriptions/{LOCAL_SUBSCRIPTION}/providers/{provider_path(parts, 0)}"


def _extension_id(scope: Any, *parts: Any) -> str:
    """`type, name segments…` of a resource that stands on another one."""
    return f"{scope}/providers/{provider_path(parts, 0)}"
