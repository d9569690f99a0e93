"""The keys of workspace, compute, run and registermodel.json: which there are, their defaults, what they may hold.

Keys that users know from SDK v1 projects and that have no place in v2 are refused with what took their place.
Nothing here imports azure-ai-ml: one machine reads these files too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlops.report import Fault

Kind = type | tuple[type, ...]


@dataclass(frozen=True, slots=True)
class File:
    """What one settings file may hold."""

    required: Mapping[str, Kind]
    optional: Mapping[str, tuple[Kind, Any]]
    """Type and default of each key that may be left out."""
    replaced: Mapping[str, str] = field(default_factory=dict)
    """Keys of older projects, and the sentence that says what to do instead."""
    check: Callable[[Mapping[str, Any]], None] = lambda _: None
    """Raises `Fault` where values that are right by themselves do not go together."""

    @property
    def kinds(self) -> dict[str, Kind]:
        """Return the type of every key that the file may hold."""
        return {**self.required, **{key: kind for key, (kind, _) in self.optional.items()}}

    @property
    def defaults(self) -> dict[str, Any]:
        """Return the value of each key that was left out."""
        return {key: default for key, (_, default) in self.optional.items()}


AMLCLUSTER = "amlcluster"
KUBERNETES = "kubernetes"
PRIORITIES = {"dedicated": "dedicated", "low_priority": "low_priority", "lowpriority": "low_priority"}
"""Spellings of vm_priority (SDK v1 wrote lowpriority), and Azure's own."""
SAMPLINGS = ("random", "grid", "bayesian")
DISTRIBUTIONS = ("mpi", "pytorch", "tensorflow")


def _choice(file: str, values: Mapping[str, Any], key: str, known: Collection[str]) -> None:
    if values[key] not in known:
        raise Fault(f"{file}: {key} is {values[key]!r}; it must be one of: {', '.join(known)}.")


def _compute(values: Mapping[str, Any]) -> None:
    file = "compute.json"
    if values["compute_type"] == "akscluster":
        raise Fault(
            f"{file}: compute_type 'akscluster' was SDK v1's, which has ended: install the Azure ML extension on the "
            "AKS cluster, write compute_type 'kubernetes' and the cluster's ARM id as resource_id."
        )
    _choice(file, values, "compute_type", (AMLCLUSTER, KUBERNETES))
    if values["compute_type"] == KUBERNETES:
        if not values["resource_id"]:
            raise Fault(f"{file}: compute_type 'kubernetes' needs resource_id, the ARM id of the AKS or Arc cluster.")
        return
    _choice(file, values, "vm_priority", tuple(PRIORITIES))
    if not 0 <= values["min_nodes"] <= values["max_nodes"]:
        raise Fault(f"{file}: min_nodes must be at least 0 and no more than max_nodes.")
    if bool(values["vnet_name"]) != bool(values["subnet_name"]):
        raise Fault(f"{file}: vnet_name and subnet_name belong together; set both, or none.")
    if values["vnet_resource_group_name"] and not values["vnet_name"]:
        raise Fault(f"{file}: vnet_resource_group_name names a group, but vnet_name and subnet_name are not set.")
    _choice(file, values, "identity_type", ("None", "SystemAssigned", "UserAssigned"))
    if (values["identity_type"] == "UserAssigned") != bool(values["identity_id"]):
        raise Fault(f"{file}: identity_type 'UserAssigned' and identity_id (the identity's ARM id) belong together.")


def _workspace(values: Mapping[str, Any]) -> None:
    file = "workspace.json"
    if values["create_workspace"] and not values["location"]:
        raise Fault(f"{file}: create_workspace needs location, the Azure region to create the workspace in.")
    if bool(values["cmk_key_vault"]) != bool(values["resource_cmk_uri"]):
        raise Fault(f"{file}: cmk_key_vault and resource_cmk_uri belong together; set both, or none.")


def _part(name: str, values: Mapping[str, Any], needed: Mapping[str, Kind], more: Mapping[str, Kind]) -> None:
    """Check one object inside run.json by its own keys."""
    known = {**needed, **more}
    for key in values:
        if key not in known:
            raise Fault(f"run.json: {name} has no setting {key!r} (known: {', '.join(known)}).")
    for key, kind in known.items():
        if key not in values:
            if key in needed:
                raise Fault(f"run.json: {name} needs the setting {key!r}.")
        elif not isinstance(values[key], kind) or isinstance(values[key], bool):
            raise Fault(f"run.json: {key!r} in {name} must be a JSON value of type {type_name(kind)}.")


def _run(values: Mapping[str, Any]) -> None:
    sweep, distribution = values["sweep"], values["distribution"]
    if sweep:
        _part(
            "sweep",
            sweep,
            {"sampling": str, "parameters": dict, "metric": str, "goal": str, "max_total_trials": int},
            {"max_concurrent_trials": int, "timeout_seconds": int, "early_termination": dict},
        )
        _choice("run.json: sweep", sweep, "sampling", SAMPLINGS)
        _choice("run.json: sweep", sweep, "goal", ("maximize", "minimize"))
    if distribution:
        _part("distribution", distribution, {"type": str, "instances": int}, {"processes_per_instance": int})
        _choice("run.json: distribution", distribution, "type", DISTRIBUTIONS)
    if sweep and distribution:
        raise Fault("run.json: sweep and distribution exclude each other here; keep one of them.")
    if values["max_run_duration_seconds"] < 0:
        raise Fault("run.json: max_run_duration_seconds must not be negative; 0 means no limit.")


def type_name(kind: Kind) -> str:
    """Return a type's name as a settings sentence says it."""
    return kind.__name__ if isinstance(kind, type) else "number"


_V1_SERVING = "it belonged to SDK v1's AKS targets; leave it out, and attach the cluster with compute_type 'kubernetes'"
_V1_RUN = "the steps and their order stand in code/mlops/pipeline.py; leave it out"

FILES = {
    "workspace.json": File(
        required={"name": str, "resource_group": str},
        optional={
            "create_workspace": (bool, False),
            "location": (str, ""),
            "friendly_name": (str, ""),
            "storage_account": (str, ""),
            "key_vault": (str, ""),
            "app_insights": (str, ""),
            "container_registry": (str, ""),
            "hbi_workspace": (bool, False),
            "cmk_key_vault": (str, ""),
            "resource_cmk_uri": (str, ""),
        },
        replaced={
            "create_resource_group": "resource groups are made by the workflow setup.yml, never by a training job",
            "sku": "Azure has one kind of workspace only; leave it out",
        },
        check=_workspace,
    ),
    "compute.json": File(
        required={"name": str, "compute_type": str},
        optional={
            "vm_size": (str, "Standard_DS3_v2"),
            "vm_priority": (str, "dedicated"),
            "min_nodes": (int, 0),
            "max_nodes": (int, 2),
            "idle_seconds_before_scaledown": (int, 600),
            "vnet_resource_group_name": (str, ""),
            "vnet_name": (str, ""),
            "subnet_name": (str, ""),
            "identity_type": (str, "None"),
            "identity_id": (str, ""),
            "location": (str, ""),
            "resource_id": (str, ""),
            "namespace": (str, "default"),
            "instance_type": (str, ""),
        },
        replaced=dict.fromkeys(
            (
                "cluster_purpose",
                "agent_count",
                "load_balancer_type",
                "load_balancer_subnet",
                "ssl_enabled",
                "ssl_cname",
                "ssl_leaf_domain_label",
                "ssl_overwrite_existing_domain",
                "ssl_cert_pem_file",
                "ssl_key_pem_file",
            ),
            _V1_SERVING,
        ),
        check=_compute,
    ),
    "run.json": File(
        required={"experiment_name": str, "tags": dict, "default_folder": str},
        optional={
            "wait_for_completion": (bool, False),
            "max_run_duration_seconds": (int, 0),
            "environment_variables": (dict, {}),
            "sweep": (dict, {}),
            "distribution": (dict, {}),
        },
        replaced={
            "runconfig_python_file": _V1_RUN,
            "runconfig_python_function_name": _V1_RUN,
            "runconfig_yaml_file": _V1_RUN,
            "pipeline_yaml_file": _V1_RUN,
            "pipeline_publish": "published pipelines ended with SDK v1; each step is registered as a component, "
            "versioned by its content",
            "pipeline_name": "jobs are named after their origin, so that events find their way back; leave it out",
            "pipeline_version": "components are versioned by their content; leave it out",
            "pipeline_continue_on_step_failure": "each step needs what the one before it wrote; leave it out",
            "download_artifacts": "artifacts stay with the job in the workspace: `az ml job download --name JOB --all`",
            "profiling_enabled": "model profiling ended with SDK v1; choose instance_type in deploy.json",
        },
        check=_run,
    ),
    "registermodel.json": File(
        required={
            "model_name": str,
            "model_description": str,
            "model_tags": dict,
            "metrics_max": list,
            "metrics_min": list,
        },
        optional={},
        replaced={
            "model_file_name": "a model is the MLflow folder that the train step writes; leave it out",
            "model_framework": "the MLflow model says by itself what it was made with; leave it out",
            "model_framework_version": "the MLflow model says by itself what it was made with; leave it out",
            "model_properties": "write them into model_tags, which MLflow's registry keeps",
            "datasets": "the exact files are recorded as a snapshot, and tagged on the version; leave it out",
            "cpu_cores": "sizes belong to the deployment: deploy.json",
            "memory_gb": "sizes belong to the deployment: deploy.json",
            "force_registration": "a model that did not pass is promoted by name and with a reason, for one job: "
            "code/register/force.py",
            "pipeline_child_run_name": "the job's own register step registers its model; leave it out",
        },
    ),
}
