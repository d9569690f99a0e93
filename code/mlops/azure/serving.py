"""Online endpoints and deployments as Azure ML v2 knows them, built from a candidate; nothing here talks to Azure.

Managed online endpoints, or Kubernetes online endpoints where `deployment_compute_target` names an attached cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azure.ai.ml.entities import (
    CodeConfiguration,
    DataCollector,
    DefaultScaleSettings,
    DeploymentCollection,
    KubernetesOnlineDeployment,
    KubernetesOnlineEndpoint,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    OnlineEndpoint,
    OnlineRequestSettings,
    ProbeSettings,
    ResourceRequirementsSettings,
    ResourceSettings,
    TargetUtilizationScaleSettings,
)

from mlops.deployment.endpoints import Candidate
from mlops.report import Fault

Options = Mapping[str, Any]
MODEL_TAG = "model"
"""Tag of a candidate that names the registered model, as `NAME:VERSION`."""
AUTH_MODES = ("key", "aml_token", "aad_token")
_KUBERNETES_ONLY = (
    "cpu_cores",
    "memory_gb",
    "gpu_cores",
    "autoscale_enabled",
)


def endpoint(name: str, options: Options) -> OnlineEndpoint:
    """Return a new endpoint without deployments; `options` are the stage's, from deploy*.json."""
    target = options.get("deployment_compute_target")
    mode = options.get("auth_mode") or ("aml_token" if options.get("token_auth_enabled") else "key")
    if mode not in AUTH_MODES:
        raise Fault(f"deploy.json: auth_mode is {mode!r}; it must be one of: {', '.join(AUTH_MODES)}.")
    description = options.get("description")
    if not target:
        return ManagedOnlineEndpoint(name=name, auth_mode=mode, description=description, tags={})
    if mode == "aad_token":
        raise Fault("deploy.json: auth_mode 'aad_token' is for managed endpoints; on Kubernetes use key or aml_token.")
    return KubernetesOnlineEndpoint(name=name, compute=target, auth_mode=mode, description=description, tags={})


def is_kubernetes(found: OnlineEndpoint) -> bool:
    """Tell whether an endpoint that was read runs on an attached cluster."""
    return isinstance(found, KubernetesOnlineEndpoint)


def deployment(candidate: Candidate, environment_id: str) -> ManagedOnlineDeployment | KubernetesOnlineDeployment:
    """Return the candidate's deployment, with the model version that the registry holds."""
    options = candidate.options
    common: dict[str, Any] = {
        "name": candidate.deployment,
        "endpoint_name": candidate.endpoint,
        "description": options.get("description"),
        "properties": {str(key): str(value) for key, value in options.get("properties", {}).items()},
        "tags": dict(candidate.tags),
        "model": f"azureml:{candidate.tags[MODEL_TAG]}",
        "environment": environment_id,
        "code_configuration": CodeConfiguration(code=str(candidate.code), scoring_script=candidate.entry_script),
        "app_insights_enabled": options.get("app_insights_enabled", False),
        "instance_count": options.get("instance_count", 1),
        "request_settings": OnlineRequestSettings(
            request_timeout_ms=options.get("scoring_timeout_ms"),
            max_concurrent_requests_per_instance=options.get("replica_max_concurrent_requests"),
            max_queue_wait_ms=options.get("max_request_wait_time"),
        ),
        "liveness_probe": _probe(options),
        "readiness_probe": _probe(options),
    }
    if options.get("deployment_compute_target"):
        return _on_kubernetes(common, options)
    return _managed(common, options)


def _managed(common: dict[str, Any], options: Options) -> ManagedOnlineDeployment:
    for key in _KUBERNETES_ONLY:
        if options.get(key):
            raise Fault(
                f"deploy.json: {key} is for Kubernetes (deployment_compute_target). A managed endpoint is sized by "
                "instance_type and instance_count, and scaled by an Azure Monitor autoscale rule (docs/azure-ml.md)."
            )
    collector = None
    if options.get("model_data_collection_enabled"):
        # What goes in and out over HTTP; it needs nothing of the scoring script.
        collections = {name: DeploymentCollection(enabled="true") for name in ("request", "response")}
        collector = DataCollector(collections=collections, sampling_rate=1)
    return ManagedOnlineDeployment(
        **common,
        instance_type=options.get("instance_type", "Standard_DS3_v2"),
        scale_settings=DefaultScaleSettings(),
        data_collector=collector,
    )


def _on_kubernetes(common: dict[str, Any], options: Options) -> KubernetesOnlineDeployment:
    kind = options.get("instance_type")
    if kind and kind.lower().startswith("standard_"):
        raise Fault(
            f"deploy.json: instance_type {kind!r} is a size of virtual machines. On Kubernetes it names one of the "
            'cluster\'s own instance types; write that, or "" for its default.'
        )
    if options.get("model_data_collection_enabled"):
        raise Fault("deploy.json: model_data_collection_enabled is for managed endpoints; leave it out on Kubernetes.")
    return KubernetesOnlineDeployment(
        **common, instance_type=kind, resources=_resources(options), scale_settings=_scale(options)
    )


def _probe(options: Options) -> ProbeSettings | None:
    """Return the probe that deploy.json describes; what it leaves out is Azure's default (seconds)."""
    names = {
        "period": "period_seconds",
        "initial_delay": "initial_delay_seconds",
        "timeout": "timeout_seconds",
        "success_threshold": "success_threshold",
        "failure_threshold": "failure_threshold",
    }
    wanted = {name: options[key] for name, key in names.items() if options.get(key)}
    return ProbeSettings(**wanted) if wanted else None


def _resources(options: Options) -> ResourceRequirementsSettings | None:
    """Return requests and limits of each replica: cores, and memory in gigabytes."""
    if not any(options.get(key) for key in ("cpu_cores", "memory_gb", "gpu_cores")):
        return None
    size = {
        "cpu": f"{options['cpu_cores']:g}" if options.get("cpu_cores") else None,
        "memory": f"{options['memory_gb']:g}Gi" if options.get("memory_gb") else None,
        "gpu": str(options["gpu_cores"]) if options.get("gpu_cores") else None,
    }
    return ResourceRequirementsSettings(requests=ResourceSettings(**size), limits=ResourceSettings(**size))


def _scale(options: Options) -> DefaultScaleSettings | TargetUtilizationScaleSettings:
    """Return the scaling by load of a Kubernetes deployment; without it instance_count stays as it is."""
    if not options.get("autoscale_enabled"):
        return DefaultScaleSettings()
    return TargetUtilizationScaleSettings(
        min_instances=options.get("autoscale_min_replicas", 1),
        max_instances=options.get("autoscale_max_replicas", 10),
        polling_interval=options.get("autoscale_refresh_seconds", 1),
        target_utilization_percentage=options.get("autoscale_target_utilization", 70),
    )
