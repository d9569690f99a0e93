"""The keys of deploy.json, and what each stage makes of them.

deploy.json is production, and the default for every stage; deploy.dev.json and deploy.test.json hold only what
differs there. On one machine deploy.local.json has the last word in every stage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlops.azure.settings import Kind
from mlops.report import Fault

DEV, TEST, PRODUCTION = "dev", "test", "production"
STAGES = (DEV, TEST, PRODUCTION)
FILE, LOCAL_FILE = "deploy.json", "deploy.local.json"
LONGEST_SOAK = 3600
MOST_MIRRORED = 50
AUTH_MODES = ("key", "aml_token", "aad_token")
NUMBER: Kind = (int, float)
_ENDPOINT = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{1,30}[a-zA-Z0-9]")
"""Azure ML's rule for the name of an endpoint."""
Read = Callable[[str, Mapping[str, Any]], dict[str, Any]]
"""Reads and checks the settings file of that name over these values; a file that is not there changes nothing."""

REQUIRED: dict[str, Kind] = {
    "name": str,
    "inference_source_directory": str,
    "inference_entry_script": str,
    "tags": dict,
    "scoring_timeout_ms": int,
    "test_enabled": bool,
    "test_file_path": str,
    "test_file_function_name": str,
}
DEFAULTS: dict[str, tuple[Kind, Any]] = {
    "sample_file": (str, ""),
    "smoke_test_ms": (NUMBER, 5000),
    "delete_service_after_deployment": (bool, False),
    "mirror_percent": (int, 0),
    "traffic_steps": (list, [10, 50, 100]),
    "soak_seconds": (NUMBER, 300),
    "maximum_error_share": (NUMBER, 0.01),
    "maximum_p95_ms": (NUMBER, 2000),
    "minimum_requests": (int, 20),
}
OPTIONS: dict[str, Kind] = {
    # Where and how large (Azure ML: managed online endpoints; Kubernetes where a compute target is named).
    "deployment_compute_target": str,
    "instance_type": str,
    "instance_count": int,
    "cpu_cores": NUMBER,
    "memory_gb": NUMBER,
    "gpu_cores": int,
    # What it runs in.
    "conda_file": str,
    "custom_base_image": str,
    "description": str,
    "properties": dict,
    # Who may ask, and what is kept of it.
    "auth_mode": str,
    "token_auth_enabled": bool,
    "app_insights_enabled": bool,
    "model_data_collection_enabled": bool,
    # How many requests, and how long each may wait.
    "scoring_timeout_ms": int,
    "replica_max_concurrent_requests": int,
    "max_request_wait_time": int,
    # Liveness and readiness.
    "period_seconds": int,
    "initial_delay_seconds": int,
    "timeout_seconds": int,
    "success_threshold": int,
    "failure_threshold": int,
    # Kubernetes only: replicas by load.
    "autoscale_enabled": bool,
    "autoscale_min_replicas": int,
    "autoscale_max_replicas": int,
    "autoscale_refresh_seconds": int,
    "autoscale_target_utilization": int,
}
"""Keys that are handed to the platform (`Candidate.options`); left out, "" or 0 is the platform's own default."""
_NOTHING: dict[Kind, Any] = {str: "", int: 0, NUMBER: 0, dict: {}, bool: False}
REPLACED = {
    "num_replicas": "write instance_count",
    "enable_gpu": "choose an instance_type with a GPU, and for Kubernetes set gpu_cores",
    "authentication_enabled": "online endpoints always ask for a key or a token; see token_auth_enabled",
    "namespace": "it belongs to the attached cluster: namespace in compute.json",
    "profiling_enabled": "model profiling ended with SDK v1; choose instance_type by the metrics of stage test",
    "profiling_dataset": "model profiling ended with SDK v1; leave it out",
}
KINDS: dict[str, Kind] = {**OPTIONS, **REQUIRED, **{key: kind for key, (kind, _) in DEFAULTS.items()}}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a new deployment must keep to while it has traffic, or copies of it."""

    error_share: float
    """Share of failed requests that is still good, from 0 to 1."""
    p95_ms: float
    """95 of 100 requests must take no longer than this."""
    requests: int
    """Fewer requests than this prove nothing; the probes decide then."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: where its endpoint is, how it is tested, and how it gets its traffic."""

    name: str
    endpoint_pattern: str
    """Name of the endpoint, with `{dataset}` in it."""
    source: str
    """Folder of the scoring code, from the project's root."""
    entry_script: str
    tags: Mapping[str, str]
    scoring_timeout: float
    """Seconds."""
    sample_file: str
    """JSON file with the smoke test's request, from the project's root; "" takes the model's input example."""
    smoke_test_ms: float
    """A warmed-up deployment must answer the sample in this time."""
    user_test: tuple[str, str] | None
    """File and function of the project's own test, where it is switched on."""
    delete_afterwards: bool
    """Whether the deployment goes when it has passed (`delete_service_after_deployment`)."""
    mirror_percent: int
    steps: tuple[int, ...]
    """Percent of the traffic, step by step; the last is 100."""
    soak_seconds: float
    """How long each step is watched."""
    limits: Limits
    options: Mapping[str, Any]
    """For the platform; see `OPTIONS`."""

    def endpoint(self, folder: str) -> str:
        """Return the name of the stage's endpoint for the data set of `folder`; raises `Fault` where that is none."""
        name = self.endpoint_pattern.replace("{dataset}", folder)
        name = name if self.name == PRODUCTION else f"{name}-{self.name}"
        if not _ENDPOINT.fullmatch(name):
            raise Fault(
                f"The endpoint of data set {folder!r} for stage {self.name} would be called {name!r} ({FILE}: name), "
                "but a name has 3 to 32 letters, digits and dashes: no underscore, a letter first, no dash last. "
                f"Rename the folder and code/data/{folder}.json, or give {FILE} a shorter name."
            )
        return name


def stages(read: Read, *, one_machine: bool) -> dict[str, Stage]:
    """Read all stages; raises `Fault` that names file and key."""
    nothing = {key: _NOTHING[kind] for key, kind in OPTIONS.items()}
    base = read(FILE, {**nothing, **{key: default for key, (_, default) in DEFAULTS.items()}})
    found = {}
    for name in STAGES:
        values = base if name == PRODUCTION else read(f"deploy.{name}.json", base)
        found[name] = _stage(name, values)  # also on one machine, which must not hide what is wrong for Azure
        if one_machine:
            found[name] = _stage(name, read(LOCAL_FILE, values))
    return found


def _stage(name: str, values: Mapping[str, Any]) -> Stage:
    where = FILE if name == PRODUCTION else f"{FILE} with deploy.{name}.json"
    _require_sense(where, values)
    if name == PRODUCTION and values["delete_service_after_deployment"]:
        raise Fault(f"{FILE}: delete_service_after_deployment is for deploy.dev.json and deploy.test.json.")
    return Stage(
        name=name,
        endpoint_pattern=values["name"],
        source=values["inference_source_directory"],
        entry_script=values["inference_entry_script"],
        tags={str(key): str(value) for key, value in values["tags"].items()},
        scoring_timeout=values["scoring_timeout_ms"] / 1000,
        sample_file=values["sample_file"],
        smoke_test_ms=float(values["smoke_test_ms"]),
        user_test=(values["test_file_path"], values["test_file_function_name"]) if values["test_enabled"] else None,
        delete_afterwards=values["delete_service_after_deployment"],
        mirror_percent=values["mirror_percent"],
        steps=tuple(values["traffic_steps"]),
        soak_seconds=float(values["soak_seconds"]),
        limits=Limits(values["maximum_error_share"], float(values["maximum_p95_ms"]), values["minimum_requests"]),
        options={key: values[key] for key, kind in OPTIONS.items() if values[key] != _NOTHING[kind]},
    )


def _require_sense(where: str, values: Mapping[str, Any]) -> None:
    """Refuse values of the right type that would check nothing, or never end."""
    steps = values["traffic_steps"]
    whole = all(type(step) is int and 0 < step <= 100 for step in steps)
    if not whole or not steps or steps[-1] != 100 or sorted(set(steps)) != steps:
        raise Fault(f"{where}: traffic_steps must be rising whole percents that end with 100, e.g. [10, 50, 100].")
    if not 0 <= values["mirror_percent"] <= MOST_MIRRORED:
        raise Fault(f"{where}: mirror_percent must lie between 0 and {MOST_MIRRORED}, Azure's limit.")
    if values["mirror_percent"] and values["deployment_compute_target"]:
        raise Fault(f"{where}: mirror_percent needs a managed endpoint; leave it out with deployment_compute_target.")
    if not 0 <= values["soak_seconds"] <= LONGEST_SOAK:
        raise Fault(f"{where}: soak_seconds must lie between 0 and {LONGEST_SOAK}.")
    if not 0 <= values["maximum_error_share"] < 1:
        raise Fault(f"{where}: maximum_error_share is a share: 0 or more, and less than 1 (0.01 is one in a hundred).")
    for key in ("maximum_p95_ms", "smoke_test_ms", "scoring_timeout_ms", "minimum_requests"):
        if isinstance(values[key], bool) or values[key] <= 0:
            raise Fault(f"{where}: {key} must be a number above 0.")
    if values["auth_mode"] not in ("", *AUTH_MODES):
        raise Fault(f"{where}: auth_mode is {values['auth_mode']!r}; it must be one of: {', '.join(AUTH_MODES)}.")
    if values["name"].count("{dataset}") != 1:
        raise Fault(f"{where}: name must hold {{dataset}} once, so that each data set has an endpoint of its own.")
