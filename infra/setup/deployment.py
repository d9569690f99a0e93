"""The two deployments: the core infrastructure, and, once the function is there, the event subscriptions.

What the second needs comes out of the first: each output whose name is a parameter's goes into it, so nobody has to
write a name twice.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.setup import providers
from infra.setup.azure_cli import AzureFault, NotThere, az
from infra.setup.faults import SetupFault
from infra.setup.patience import Patience
from infra.setup.values import PROJECT, Values, cloud_settings

CORE, EVENTS = "signalbox-core", "signalbox-events"
"""Names of the deployments in the resource group."""

CORE_TEMPLATE = PROJECT / "infra/deploy.core-infra.json"
EVENTS_TEMPLATE = PROJECT / "infra/deploy_event_grid.json"
TEMPLATES = (CORE_TEMPLATE, EVENTS_TEMPLATE)

_OF_THE_NETWORK = "Microsoft.App"  # whose environments the subnet of a Flex Consumption app is delegated to

_SETTINGS = {
    "workspaceName": ("workspace", "name"),
    "computeName": ("compute", "name"),
    "computeVmSize": ("compute", "vm_size"),
    "computeMaxNodes": ("compute", "max_nodes"),
}
"""Parameter: where `.cloud/.azure` says the same for the training, so that both mean one workspace and one cluster."""


def needed_providers() -> list[str]:
    """The resource providers of both templates, as they are chosen in the parameter files. Raises SetupFault."""
    private = _file_parameters(CORE_TEMPLATE).get("privateNetworking", {}).get("value") is True
    return sorted({*providers.namespaces(TEMPLATES), *([_OF_THE_NETWORK] if private else [])})


def ensure_group(group: str) -> str:
    """Make the resource group where it is missing and workspace.json has a region; gives it. Raises SetupFault."""
    try:
        return str(az("group", "show", "--name", group)["location"])
    except NotThere:
        location = str(cloud_settings("workspace").get("location") or "")
        if not location:
            raise SetupFault(
                f"There is no resource group '{group}': make it with 'az group create', or write a location "
                "into .cloud/.azure/workspace.json."
            ) from None
    return str(az("group", "create", "--name", group, "--location", location)["location"])


def core_parameters(values: Values, server_url: str, subjects: Sequence[str], principal: str = "") -> dict[str, Any]:
    """The parameters of the core template: the file's, over them what only the set-up knows.

    `subjects` are those of the GitHub tokens that may sign in; () leaves them to the template. `principal` is the
    object id of an identity that people brought along; "" for the template's own. Raises SetupFault.
    """
    ours: dict[str, Any] = {
        "pat_token": values.token,
        "repo_name": values.repository,
        "GitHubURL": f"{server_url}/{values.repository}",
    }
    if values.app_key:
        ours["gitHubAppPrivateKey"] = values.app_key
    if principal:
        ours["gitHubPrincipalId"] = principal
    if subjects:
        ours["gitHubSubjects"] = list(subjects)
    chosen = _file_parameters(CORE_TEMPLATE)
    for name, (file, key) in _SETTINGS.items():
        value = cloud_settings(file).get(key)
        given = chosen.get(name, {}).get("value", value)
        if value is not None and given != value:
            raise SetupFault(
                f"infra/params.{CORE_TEMPLATE.name} says {name} '{given}', but .cloud/.azure/{file}.json says {key} "
                f"'{value}', which training goes by: write the same in both, or leave it to the second."
            )
        if value is not None:
            ours[name] = value
    return chosen | {name: {"value": value} for name, value in ours.items()}


def event_parameters(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the second template: the file's, and over them what the first deployment made.

    A region in the file stays: a topic lives where its source is, and accounts that stood already may be elsewhere.
    """
    by_name = {name.lower(): value for name, value in outputs.items()}
    chosen, declared = _file_parameters(EVENTS_TEMPLATE), _declared(EVENTS_TEMPLATE)
    made = {name: {"value": by_name[name.lower()]} for name in declared if name.lower() in by_name}
    return chosen | made | {name: value for name, value in chosen.items() if name == "location"}


def preview(group: str, name: str, template: Path, parameters: Mapping[str, Any]) -> str:
    """What the deployment would change, as the Azure CLI tells it. Raises SetupFault."""
    with _parameter_file(parameters) as file:
        changes = az(*_deployment("what-if", group, name, template, file), "--no-pretty-print")
    counted: dict[str, int] = {}
    for change in changes.get("changes", []):
        counted[change["changeType"]] = counted.get(change["changeType"], 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counted.items())) or "nothing"


def deploy(group: str, name: str, template: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Deploy, wait until it is done; gives the outputs. Raises SetupFault."""
    with _parameter_file(parameters) as file:
        return _outputs(az(*_deployment("create", group, name, template, file)))


def deploy_patiently(group: str, parameters: Mapping[str, Any], patience: Patience, say: Callable[[str], None]) -> None:
    """Deploy the event subscriptions, again for a while: a topic's new role is not known everywhere at once.

    Event Grid tries the dead-letter target and the queue when a subscription is made. Raises SetupFault: a fault whose
    mend is known at once, any other after `patience`.
    """
    deadline = time.monotonic() + patience.longest
    while True:
        try:
            deploy(group, EVENTS, EVENTS_TEMPLATE, parameters)
            return
        except AzureFault as fault:
            if fault.code or time.monotonic() > deadline:
                raise
            say(f"not yet, trying again in {patience.pace:.0f} s: {fault}")
        time.sleep(patience.pace)


def outputs(group: str) -> dict[str, Any]:
    """The outputs of the last core deployment. Raises NotThere where there was none."""
    return _outputs(az("deployment", "group", "show", "--resource-group", group, "--name", CORE))


def _outputs(deployed: Mapping[str, Any]) -> dict[str, Any]:
    given = deployed["properties"].get("outputs") or {}
    return {name: output["value"] for name, output in given.items()}


def _deployment(verb: str, group: str, name: str, template: Path, file: Path) -> list[str]:
    return [
        *("deployment", "group", verb, "--resource-group", group, "--name", name),
        *("--template-file", str(template), "--parameters", f"@{file}"),
    ]


@contextmanager
def _parameter_file(parameters: Mapping[str, Any]) -> Iterator[Path]:
    """The parameters as a file that only this user may read: one of them is the token, and a command line is public."""
    descriptor, name = tempfile.mkstemp(prefix="signalbox-", suffix=".json")  # 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentParameters.json#"
            json.dump({"$schema": schema, "contentVersion": "1.0.0.0", "parameters": dict(parameters)}, file)
        yield Path(name)
    finally:
        Path(name).unlink()


def _declared(template: Path) -> dict[str, Any]:
    declared: dict[str, Any] = json.loads(template.read_text(encoding="utf-8")).get("parameters", {})
    return declared


def _file_parameters(template: Path) -> dict[str, Any]:
    """The values of `params.<template>` that the template declares."""
    path = template.with_name(f"params.{template.name}")
    document = json.loads(path.read_text(encoding="utf-8"))
    given: dict[str, Any] = document["parameters"]
    unknown = sorted(set(given) - set(_declared(template)))
    if unknown:
        raise SetupFault(f"infra/{path.name} sets {', '.join(unknown)}, which infra/{template.name} does not know.")
    return given
