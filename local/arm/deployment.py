"""A whole template as Azure Resource Manager sees it: every resource with its id, its body, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local.arm.expressions import ArmError
from local.arm.template import LOCAL_RESOURCE_GROUP, LOCAL_SUBSCRIPTION, Template

DEPLOYMENT = "Microsoft.Resources/deployments"

_EVALUATED_APART = {"condition", "copy", "dependsOn", "name", "resources", "type"}


@dataclass(frozen=True, slots=True)
class Declared:
    """One resource of a template; each turn of a copy loop is one.

    Attributes:
        id: its resource id.
        type, name: in full, those of its parents first.
        place: where it stands in the template.
        exists: False where its condition does not hold; then it has no body.
        body: everything but type, name, condition, dependsOn and children.
        waits_for: ids (of resources that may not exist) that its dependsOn names.
        group: subscription and resource group that it goes into.
        deployment: id of the nested deployment that it is part of; "" for the template's own.
    """

    id: str
    type: str
    name: str
    place: str
    exists: bool
    body: Mapping[str, Any]
    waits_for: tuple[str, ...]
    group: tuple[str, str]
    deployment: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    resource: Declared
    loop: str
    depends_on: Sequence[str]

    @property
    def called(self) -> tuple[str, str, str]:
        """By what a dependsOn may name it, in lower case."""
        return self.resource.id.lower(), self.resource.name.lower(), self.loop


def resources_of(template: Template) -> list[Declared]:
    """Every resource, evaluated. Raises ArmError, also where dependsOn names what the template does not declare."""
    found = list(_walk(template, template.declared, _Parent()))
    return [_resolved(item, found) for item in found]


def outputs_of(template: Template) -> dict[str, Any]:
    """Every output by name, evaluated."""
    return {name: template.value(output["value"], f"outputs.{name}") for name, output in template.outputs.items()}


@dataclass(frozen=True, slots=True)
class _Parent:
    """What a resource inherits from what it stands in."""

    type: str = ""
    name: str = ""
    exists: bool = True
    group: tuple[str, str] = (LOCAL_SUBSCRIPTION, LOCAL_RESOURCE_GROUP)
    deployment: str = ""


def _walk(template: Template, resources: Sequence[Mapping[str, Any]], parent: _Parent) -> Iterator[_Found]:
    for resource, place in template.turns(resources):
        found = _found(template, resource, place, parent)
        declared = found.resource
        yield found
        below = _Parent(declared.type, declared.name, declared.exists, declared.group, declared.deployment)
        yield from _walk(template, resource.get("resources", []), below)
        if declared.type.lower() == DEPLOYMENT.lower():
            yield from _walk_nested(template, resource, declared)


def _walk_nested(template: Template, resource: Mapping[str, Any], declared: Declared) -> Iterator[_Found]:
    """The resources of a nested deployment, whose expressions are evaluated in the outer template (ARM's default)."""
    if resource["properties"].get("expressionEvaluationOptions"):
        raise ArmError(f"{declared.place}: a nested deployment with a scope of its own is not known to a local run.")
    group = (declared.body.get("subscriptionId", declared.group[0]), declared.body.get("resourceGroup", ""))
    inside = _Parent(exists=declared.exists, group=(group[0], group[1] or declared.group[1]), deployment=declared.id)
    yield from _walk(template, resource["properties"]["template"]["resources"], inside)


def _found(template: Template, resource: Mapping[str, Any], place: str, parent: _Parent) -> _Found:
    kind = f"{parent.type}/{resource['type']}" if parent.type else resource["type"]
    own_name = template.value(resource["name"], f"{place}.name")
    name = f"{parent.name}/{own_name}" if parent.name else own_name
    exists = parent.exists and template.value(resource.get("condition", True), f"{place}.condition")
    body: dict[str, Any] = {}
    if exists:
        for key, node in resource.items():
            if key == "properties" and kind.lower() == DEPLOYMENT.lower():
                node = {name: part for name, part in node.items() if name != "template"}  # noqa: PLW2901
            if key not in _EVALUATED_APART:
                body[key] = template.value(node, f"{place}.{key}")
    scope = template.value(resource["scope"], f"{place}.scope") if "scope" in resource else None
    declared = Declared(
        id=_id(kind, name, parent.group, scope, place),
        type=kind,
        name=name,
        place=place,
        exists=exists,
        body=body,
        waits_for=(),
        group=parent.group,
        deployment=parent.deployment,
    )
    depends_on = template.value(resource.get("dependsOn", []), f"{place}.dependsOn") if exists else []
    return _Found(declared, str(resource.get("copy", {}).get("name", "")).lower(), depends_on)


def _id(kind: str, name: str, group: tuple[str, str], scope: str | None, place: str) -> str:
    provider, *kinds = kind.split("/")
    names = name.split("/")
    if len(kinds) != len(names):
        raise ArmError(f"{place}: {kind} needs a name of {len(kinds)} parts, not '{name}'.")
    path = "/".join(f"{one}/{its_name}" for one, its_name in zip(kinds, names, strict=True))
    standing_on = scope or f"/subscriptions/{group[0]}/resourceGroups/{group[1]}"
    return f"{standing_on}/providers/{provider}/{path}"


def _resolved(item: _Found, found: Sequence[_Found]) -> Declared:
    """The resource with the ids that its dependsOn stands for: of an id, a copy loop's name or a resource's name."""
    waits_for: list[str] = []
    declared = item.resource
    for wanted in item.depends_on:
        low = wanted.lower()
        ids = [
            one.resource.id for one in found if low in (one.resource.id.lower(), one.loop, one.resource.name.lower())
        ]
        if not ids:
            raise ArmError(f"{declared.place}.dependsOn names {wanted}, which the template does not declare.")
        waits_for += ids
    return Declared(
        declared.id,
        declared.type,
        declared.name,
        declared.place,
        declared.exists,
        declared.body,
        tuple(waits_for),
        declared.group,
        declared.deployment,
    )
