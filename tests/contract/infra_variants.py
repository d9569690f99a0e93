"""The templates in every variant that their users can choose, evaluated once."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.arm.deployment import Declared, outputs_of, resources_of
from local.arm.template import Template, load

INFRA = Path(__file__).resolve().parents[2] / "infra"
CORE, EVENTS = "deploy.core-infra", "deploy_event_grid"
SECRET = "s3cret-that-must-stay"
THEIR_IDENTITY = "22222222-2222-2222-2222-222222222222"

_CLUSTER = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/aks"
_ALL_GIVEN: Mapping[str, Any] = {
    "pat_token": f"{SECRET}-pat",
    "gitHubAppPrivateKey": f"{SECRET}-key",
    "budgetStartDate": "2026-11-01",
    "alertEmail": "owner@example.org",
}
_EXISTING: Mapping[str, Any] = {
    "storageNewOrExisting": "existing",
    "dataAccountName": "theirdata",
    "dataAccountResourceGroup": "theirs",
    "keyVaultNewOrExisting": "existing",
    "keyVaultName": "their-vault",
    "applicationInsightsNewOrExisting": "existing",
    "applicationInsightsName": "their-insights",
    "containerRegistryNewOrExisting": "existing",
    "containerRegistryName": "theirregistry",
}
_SWITCHES: Mapping[str, tuple[Mapping[str, Mapping[str, Any]], ...]] = {
    CORE: (
        {"new": {}, "existing": _EXISTING},
        {
            "workspace": {},
            "their-workspace": {"workspaceNewOrExisting": "existing", "workspaceName": "theirs"},
        },
        {"public": {}, "private": {"privateNetworking": True, "natGatewayId": f"{_CLUSTER}-nat"}},
        {"no-kubernetes": {}, "kubernetes": {"kubernetesClusterId": _CLUSTER}},
        {"own-identity": {}, "their-identity": {"gitHubPrincipalId": THEIR_IDENTITY}},
        {"submits": {}, "deploys": {"gitHubDeploys": True}},
        {"token": {}, "app": {"gitHubAppId": "1", "gitHubAppInstallationId": "2", "easyAuthClientId": "3"}},
    ),
    EVENTS: (
        {"function": {}, "queue": {"delivery": "queue"}},
        {"no-alert": {}, "alert": {"actionGroupName": "ag-signalbox"}},
    ),
}


def template(name: str) -> dict[str, Any]:
    """A copy of the template, to be broken at will."""
    return copy.deepcopy(_loaded(name))


@functools.cache
def _loaded(name: str) -> dict[str, Any]:
    return load(INFRA / f"{name}.json")


def parameters(name: str, *chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The template's parameter file, with values laid over it."""
    given = load(INFRA / f"params.{name}.json")
    every = {**(_ALL_GIVEN if name == CORE else {})}
    for values in chosen:
        every |= values
    given["parameters"] |= {key: {"value": value} for key, value in every.items()}
    return given


def variants(name: str) -> list[str]:
    """The names of all variants of a template, such as `new/workspace/public/…`."""
    return ["/".join(choice) for choice in itertools.product(*_SWITCHES[name])]


def chosen(name: str, variant: str) -> list[Mapping[str, Any]]:
    """The parameter values that make a variant."""
    return [switch[part] for switch, part in zip(_SWITCHES[name], variant.split("/"), strict=True)]


def deployed(name: str, variant: str = "", changed: Mapping[str, Any] | None = None) -> list[Declared]:
    """Every resource of a variant (of `changed`, instead of the template), those that do not exist included."""
    variant = variant or variants(name)[0]
    if changed is None:
        return _deployed(name, variant)
    return resources_of(Template(changed, parameters(name, *chosen(name, variant))))


@functools.cache
def _deployed(name: str, variant: str) -> list[Declared]:
    return resources_of(Template(_loaded(name), parameters(name, *chosen(name, variant))))


def together(variant: str = "", delivery: str = "function", core: Mapping[str, Any] | None = None) -> list[Declared]:
    """Both templates, one after the other: what the first gives out goes into the second, as setup.yml does it."""
    variant = variant or variants(CORE)[0]
    made = {name.lower(): value for name, value in outputs(CORE, variant, core).items()}
    events = _loaded(EVENTS)
    handed = {name: made[name.lower()] for name in events["parameters"] if name.lower() in made}
    given = parameters(EVENTS, handed, {"delivery": delivery})
    return deployed(CORE, variant, core) + resources_of(Template(events, given))


def ids(variant: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Expressions of the core template, evaluated."""
    core = Template(_loaded(CORE), parameters(CORE, *chosen(CORE, variant)))
    return {name: core.value(expression, name) for name, expression in wanted.items()}


def outputs(name: str, variant: str, changed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every output of a variant."""
    return outputs_of(Template(changed or _loaded(name), parameters(name, *chosen(name, variant))))
