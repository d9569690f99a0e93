"""What can be wrong in a template beside its schema. Each check gives sentences, none where all is well.

The names' rules are those of "Naming rules and restrictions for Azure resources"
(https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules) and of each service's page.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from local.arm.deployment import Declared

_DNS_LABELS = r"(?=.{1,63}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_CONTAINER = r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"
_GUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NAME_RULES: Mapping[str, str] = {
    "Microsoft.Authorization/roleAssignments": _GUID,
    "Microsoft.Consumption/budgets": r"[A-Za-z0-9_-]{1,63}",
    "Microsoft.ContainerRegistry/registries": r"[A-Za-z0-9]{5,50}",
    "Microsoft.EventGrid/systemTopics": r"[A-Za-z0-9-]{3,128}",
    "Microsoft.EventGrid/systemTopics/eventSubscriptions": r"[A-Za-z0-9-]{3,64}",
    "Microsoft.EventGrid/topics": r"[A-Za-z0-9-]{3,50}",
    "Microsoft.EventGrid/topics/eventSubscriptions": r"[A-Za-z0-9-]{3,64}",
    "Microsoft.Insights/actionGroups": r"[^:<>+/&%\\?|]{1,259}[^:<>+/&%\\?|. ]",
    "Microsoft.Insights/components": r"[^%&\\?/]{1,259}[^%&\\?/. ]",
    "Microsoft.Insights/metricAlerts": r"[^*#&+:<>?@%{}\\/|]{1,259}[^*#&+:<>?@%{}\\/|. ]",
    "Microsoft.Insights/scheduledQueryRules": r"[^*<>%{}&:\\?/#|]{1,259}[^*<>%{}&:\\?/#|. ]",
    "Microsoft.KeyVault/vaults": r"(?!.*--)[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]",
    "Microsoft.KeyVault/vaults/secrets": r"[A-Za-z0-9-]{1,127}",
    "Microsoft.MachineLearningServices/workspaces": r"[A-Za-z0-9][A-Za-z0-9_-]{2,32}",
    "Microsoft.MachineLearningServices/workspaces/computes": r"[A-Za-z][A-Za-z0-9-]{0,22}[A-Za-z0-9]",
    "Microsoft.ManagedIdentity/userAssignedIdentities": r"[A-Za-z0-9][A-Za-z0-9_-]{2,127}",
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": r"[A-Za-z0-9][A-Za-z0-9_-]{2,119}",
    "Microsoft.Network/privateDnsZones": _DNS_LABELS,
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": r"[A-Za-z0-9][A-Za-z0-9._-]{0,78}[A-Za-z0-9_]",
    "Microsoft.Network/privateEndpoints": r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}[A-Za-z0-9_]",
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": r"default",
    "Microsoft.Network/virtualNetworks": r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}[A-Za-z0-9_]",
    "Microsoft.OperationalInsights/workspaces": r"[A-Za-z0-9][A-Za-z0-9-]{2,61}[A-Za-z0-9]",
    "Microsoft.Resources/deployments": r"[A-Za-z0-9_.()-]{1,64}",
    "Microsoft.Storage/storageAccounts": r"[a-z0-9]{3,24}",
    "Microsoft.Storage/storageAccounts/blobServices": r"default",
    "Microsoft.Storage/storageAccounts/blobServices/containers": _CONTAINER,
    "Microsoft.Storage/storageAccounts/managementPolicies": r"default",
    "Microsoft.Storage/storageAccounts/queueServices": r"default",
    "Microsoft.Storage/storageAccounts/queueServices/queues": _CONTAINER,
    "Microsoft.Storage/storageAccounts/tableServices": r"default",
    "Microsoft.Storage/storageAccounts/tableServices/tables": r"[A-Za-z][A-Za-z0-9]{2,62}",
    "Microsoft.Web/serverfarms": r"[A-Za-z0-9-]{1,60}",
    "Microsoft.Web/sites": r"[A-Za-z0-9][A-Za-z0-9-]{0,58}[A-Za-z0-9]",
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": r"ftp|scm",
    "Microsoft.Web/sites/config": r"appsettings|authsettingsV2",
}
_KNOWN_BY_NAME = {
    "Microsoft.Storage/storageAccounts",
    "Microsoft.KeyVault/vaults",
    "Microsoft.KeyVault/vaults/secrets",
}
"""Types that a setting may name without their id."""

_NOT_ON_FLEX = {
    "properties": {"containerSize", "isReserved", "isXenon", "reserved"},
    "siteConfig": {
        *("alwaysOn", "ftpsState", "functionsRuntimeScaleMonitoringEnabled", "javaVersion", "linuxFxVersion"),
        *("netFrameworkVersion", "powerShellVersion", "preWarmedInstanceCount", "pythonVersion"),
        *("use32BitWorkerProcess", "vnetPrivatePortsCount", "windowsFxVersion"),
    },
    "appsettings": {
        *("ENABLE_ORYX_BUILD", "FUNCTIONS_EXTENSION_VERSION", "FUNCTIONS_WORKER_RUNTIME"),
        *("FUNCTIONS_WORKER_RUNTIME_VERSION", "SCM_DO_BUILD_DURING_DEPLOYMENT", "WEBSITE_CONTENTSHARE"),
        *("WEBSITE_CONTENTAZUREFILECONNECTIONSTRING", "WEBSITE_CONTENTOVERVNET", "WEBSITE_DNS_SERVER"),
        *("WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT", "WEBSITE_RUN_FROM_PACKAGE", "WEBSITE_VNET_ROUTE_ALL"),
    },
}
"""What Azure refuses in a Flex Consumption site with 400, although its schema has it: "Flex Consumption plan
deprecations" of the app settings reference, and Azure/azure-cli issue 31414."""

_UPSTREAM_FAULTS = (
    # The schema's base type of metric criteria takes objects only, whatever its concrete types say; the other pass,
    # the type model, checks them.
    ("Microsoft.Insights/metricAlerts", "/properties/criteria"),
)


def name_faults(resources: Iterable[Declared]) -> list[str]:
    """Names that Azure would refuse, and types without a rule here."""
    faults = []
    for resource in resources:
        rule = NAME_RULES.get(resource.type)
        name = resource.name.rpartition("/")[2]
        if rule is None:
            faults.append(f"{resource.type} has no rule for its names")
        elif not re.fullmatch(rule, name):
            faults.append(f"{resource.place}: '{name}' is no name for {resource.type} ({rule})")
    return faults


def dependency_faults(resources: Sequence[Declared]) -> list[str]:
    """Resources that name another one without waiting for it, and circles of those that wait for each other."""
    there = {resource.id.lower(): resource for resource in resources if resource.exists}
    waits = {key: _all_awaited(key, there) for key in there}
    faults = [f"{there[key].place} waits for itself" for key, awaited in waits.items() if key in awaited]
    for key, resource in there.items():
        text = json.dumps({"body": resource.body, "parent": _parent(resource)}).lower()
        for other, target in there.items():
            apart = other not in (key, resource.deployment.lower())
            if apart and other not in waits[key] and (_names(text, other, target) or _lets(target, resource)):
                faults.append(f"{resource.place} names {target.type} {target.name}, but does not wait for it")
    return faults


def _names(text: str, key: str, target: Declared) -> bool:
    if key in text and re.search(re.escape(key) + r"(?![\w.-])", text):
        return True
    name = target.name.rpartition("/")[2].lower()
    known = target.type in _KNOWN_BY_NAME and name in text
    return known and bool(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text))


def _lets(role: Declared, subscription: Declared) -> bool:
    """Whether a role assignment lets the topic of an event subscription deliver: Event Grid tries it at once."""
    if role.type != "Microsoft.Authorization/roleAssignments" or not subscription.type.endswith("/eventSubscriptions"):
        return False
    return _parent(subscription).lower() in str(role.body["properties"]["principalId"]).lower()


def _parent(resource: Declared) -> str:
    """The id of what a child resource stands in; an extension's is its scope, which its body has."""
    if "scope" in resource.body or resource.type.count("/") < 2:
        return ""
    return resource.id.rpartition("/")[0].rpartition("/")[0]


def _all_awaited(key: str, there: Mapping[str, Declared]) -> set[str]:
    """Everything that `key` waits for, directly or not; a part of a nested deployment waits for what that waits for."""
    found: set[str] = set()
    left = [key]
    while left:
        resource = there[left.pop()]
        inherited = list(there[resource.deployment.lower()].waits_for) if resource.deployment else []
        for awaited in (*resource.waits_for, *inherited):
            low = awaited.lower()
            if low in there and low not in found:
                found.add(low)
                left.append(low)
    return found


def flex_faults(resources: Iterable[Declared]) -> list[str]:
    """Properties and settings of a function app that are refused on a Flex Consumption plan."""
    faults = []
    for resource in resources:
        body = resource.body.get("properties", {})
        given: Mapping[str, Iterable[str]] = {}
        if resource.type == "Microsoft.Web/sites":
            given = {"properties": body, "siteConfig": body.get("siteConfig", {})}
        elif resource.type == "Microsoft.Web/sites/config" and resource.name.endswith("/appsettings"):
            given = {"appsettings": body}
        for where, names in given.items():
            faults += [f"{resource.place}: {name} is refused on Flex" for name in names if name in _NOT_ON_FLEX[where]]
    return faults


def secret_faults(resources: Iterable[Declared], outputs: Mapping[str, Any], secret: str) -> list[str]:
    """Where a value that holds `secret` stands, other than in a key vault's secret; and calls that read keys."""
    faults = [f"output {name} holds a secret" for name, value in outputs.items() if secret in json.dumps(value)]
    for resource in resources:
        if resource.type != "Microsoft.KeyVault/vaults/secrets" and secret in json.dumps(
            [resource.name, resource.body]
        ):
            faults.append(f"{resource.place} ({resource.type}) holds a secret")
    return faults


class ArmCheck:
    """The published contracts' own check, on evaluated resources: no expression hides anything from it there."""

    def __init__(self, contracts: Path) -> None:
        spec = importlib.util.spec_from_file_location("armcheck", contracts / "tools/armcheck.py")
        assert spec is not None
        assert spec.loader is not None
        self._tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._tool)
        self._judged: dict[str, list[str]] = {}

    def faults(self, resource: Declared) -> list[str]:
        """The errors of both passes, schemas and type models."""
        body = {"type": resource.type, "name": resource.name, **_without_nothing(resource.body)}
        if resource.type in ("Microsoft.Web/sites/config", "Microsoft.Web/sites/basicPublishingCredentialsPolicies"):
            body["name"] = resource.name.rpartition("/")[2]  # the schemas tell these types apart by it
        text = json.dumps(body, sort_keys=True)
        if text not in self._judged:
            context = self._tool.Ctx()
            self._tool.schema_check(body, context, "")
            self._tool.bicep_check(body, context, "")
            self._judged[text] = [
                f"{resource.place} ({resource.type}){where}: {message}"
                for level, where, message in context.msgs
                if level == "ERROR" and not _is_upstream(resource.type, where, message)
            ]
        return self._judged[text]

    def versions(self, kind: str) -> list[str]:
        """The stable API versions of a type that the contracts know, oldest first."""
        known = {tuple(name.rsplit("@", 1)) for name in self._tool.BICEP} | set(self._tool.INDEX)
        return sorted(version for name, version in known if name == kind.lower() and "preview" not in version)


def _is_upstream(kind: str, where: str, message: str) -> bool:
    return message.startswith("schema: ") and any(
        kind == faulty and where.startswith(place) for faulty, place in _UPSTREAM_FAULTS
    )


def _without_nothing(value: Any) -> Any:
    """Azure drops what is null."""
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    return [_without_nothing(item) for item in value] if isinstance(value, list) else value
