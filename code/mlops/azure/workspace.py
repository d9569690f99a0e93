"""The workspace in Azure and its compute: connect, create what settings ask for, and put refusals into words."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from azure.ai.ml import MLClient
from azure.ai.ml.entities import (
    AmlCompute,
    CustomerManagedKey,
    IdentityConfiguration,
    KubernetesCompute,
    ManagedIdentityConfiguration,
    NetworkSettings,
    Workspace,
)
from azure.core.credentials import TokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from mlops import report
from mlops.azure import settings as azure_settings
from mlops.environment import required
from mlops.settings import Settings

_COLOUR = re.compile(r"\x1b\[\d+m")
_MARKED = re.compile(r"\(x\) (.+?)(?=\n\s*\n|\n\s*Resolutions|\n\s*\(x\)|\Z)", re.DOTALL)


def connect(configuration: Settings, credential: TokenCredential | None = None) -> MLClient:
    """Return a client of the workspace that workspace.json names, in subscription `AZURE_SUBSCRIPTION_ID`."""
    subscription = required("AZURE_SUBSCRIPTION_ID", "the subscription that holds the workspace")
    if credential is None:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - 150 ms that a given credential saves

        credential = DefaultAzureCredential()
    # It prints warnings of its own experiments and validations; what matters comes back as an error.
    logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
    return MLClient(
        credential,
        subscription,
        configuration.workspace["resource_group"],
        configuration.workspace["name"],
        enable_telemetry=False,
        show_progress=False,
    )


def fault(doing: str, error: AzureError) -> report.Fault:
    """Return the one sentence for what Azure refused while `doing` (a clause: "Job x was not submitted")."""
    if isinstance(error, ClientAuthenticationError) or _status(error) == 401:
        return report.Fault(
            f"{doing}: Azure does not accept the login. Check AZURE_CLIENT_ID, AZURE_TENANT_ID and that the identity's "
            f"federated credential names this repository and branch or environment ({_reason(error)})."
        )
    if _status(error) == 403:
        return report.Fault(
            f"{doing}: the identity behind AZURE_CLIENT_ID may not do that. Give it the role that docs/azure-ml.md "
            f"names; a new role takes some minutes to work ({_reason(error)})."
        )
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return report.Fault(f"{doing}: Azure cannot be reached ({_reason(error)}). Start this run's job again.")
    return report.Fault(f"{doing}: {_reason(error)}.")


def word(value: Any) -> str:
    """Return the word for a status that the SDK gives as text in one place and as an enumeration in another."""
    return str(getattr(value, "value", value))


def _status(error: AzureError) -> int | None:
    return error.status_code if isinstance(error, HttpResponseError) else None


def _reason(error: AzureError) -> str:
    """Return Azure's own words: the message and, where it only points at them, its details."""
    told = getattr(error, "error", None)
    message = str(getattr(told, "message", None) or error.message or type(error).__name__)
    details = [str(detail.message) for detail in getattr(told, "details", None) or [] if detail.message]
    text = _COLOUR.sub("", "\n".join([message, *details[:3]]))
    # What the SDK itself finds wrong comes with advice for its own YAML files; the fault is marked by an (x).
    return " ".join(" ".join(_MARKED.findall(text) or [text]).split())[:1000].rstrip(".")


def ensure_workspace(client: MLClient, configuration: Settings) -> None:
    """Raise `Fault` unless the workspace is there; create it where workspace.json says so."""
    wanted = configuration.workspace
    where = f"{wanted['name']} in resource group {wanted['resource_group']}"
    try:
        client.workspaces.get(wanted["name"])
        return
    except ResourceNotFoundError:
        if not wanted["create_workspace"]:
            raise report.Fault(
                f"There is no workspace {where} of subscription {client.subscription_id}: check name and "
                "resource_group in workspace.json and AZURE_SUBSCRIPTION_ID, run the workflow setup.yml, or set "
                "create_workspace."
            ) from None
    except AzureError as error:
        raise fault(f"Workspace {where} cannot be read", error) from None
    report.say(f"Creating workspace {where}")
    try:
        client.workspaces.begin_create(workspace(wanted)).result()
    except AzureError as error:
        raise fault(f"Workspace {where} was not created", error) from None


def workspace(wanted: Mapping[str, Any]) -> Workspace:
    """Build the workspace's definition from workspace.json."""
    key = None
    if wanted["cmk_key_vault"]:
        key = CustomerManagedKey(key_vault=wanted["cmk_key_vault"], key_uri=wanted["resource_cmk_uri"])
    return Workspace(
        name=wanted["name"],
        display_name=wanted["friendly_name"] or wanted["name"],
        location=wanted["location"],
        resource_group=wanted["resource_group"],
        hbi_workspace=wanted["hbi_workspace"],
        storage_account=wanted["storage_account"] or None,
        key_vault=wanted["key_vault"] or None,
        application_insights=wanted["app_insights"] or None,
        container_registry=wanted["container_registry"] or None,
        customer_managed_key=key,
    )


def ensure_compute(client: MLClient, configuration: Settings, name: str) -> None:
    """Create or attach the compute if the workspace has none of that name; an existing one is left as it is."""
    try:
        found = client.compute.get(name)
        if word(found.provisioning_state).lower() == "failed":
            raise report.Fault(
                f"Compute {name} is there, but its provisioning failed ({found.provisioning_errors or 'no reason'}): "
                "delete it in the studio and start this again; it is then made as compute.json says."
            )
        return
    except ResourceNotFoundError:
        pass
    except AzureError as error:
        raise fault(f"Compute {name} cannot be read", error) from None
    try:
        if configuration.compute["compute_type"] == azure_settings.KUBERNETES:
            report.say(f"Attaching the Kubernetes cluster as {name}")
            client.compute.begin_attach(kubernetes(configuration.compute, name)).result()
        else:
            report.say(f"Creating the compute cluster {name}")
            made = cluster(configuration.compute, name, client.subscription_id)
            client.compute.begin_create_or_update(made).result()
    except AzureError as error:
        raise fault(f"Compute {name} was not created", error) from None


def cluster(wanted: Mapping[str, Any], name: str, subscription: str) -> AmlCompute:
    """Build a compute cluster's definition from compute.json."""
    return AmlCompute(
        name=name,
        size=wanted["vm_size"],
        tier=azure_settings.PRIORITIES[wanted["vm_priority"]],
        location=wanted["location"] or None,
        min_instances=wanted["min_nodes"],
        max_instances=wanted["max_nodes"],
        idle_time_before_scale_down=wanted["idle_seconds_before_scaledown"],
        network_settings=_network(wanted, subscription),
        identity=_identity(wanted),
    )


def kubernetes(wanted: Mapping[str, Any], name: str) -> KubernetesCompute:
    """Build the attachment of an AKS (or Arc) cluster that has the Azure ML extension."""
    return KubernetesCompute(name=name, resource_id=wanted["resource_id"], namespace=wanted["namespace"])


def _network(wanted: Mapping[str, Any], subscription: str) -> NetworkSettings | None:
    if not wanted["subnet_name"]:
        return None
    group = wanted["vnet_resource_group_name"]
    if not group:
        return NetworkSettings(vnet_name=wanted["vnet_name"], subnet=wanted["subnet_name"])
    network = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Network/virtualNetworks"
    return NetworkSettings(subnet=f"{network}/{wanted['vnet_name']}/subnets/{wanted['subnet_name']}")


def _identity(wanted: Mapping[str, Any]) -> IdentityConfiguration | None:
    kind = wanted["identity_type"]
    if kind == "None":
        return None
    if kind == "SystemAssigned":
        return IdentityConfiguration(type="system_assigned")
    identity = ManagedIdentityConfiguration(resource_id=wanted["identity_id"])
    return IdentityConfiguration(type="user_assigned", user_assigned_identities=[identity])
