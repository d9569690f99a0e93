"""The training job as Azure ML v2 knows it: an environment, a component for each step, and the pipeline of them.

Environment and components are registered under a version that is the digest of what is in them, so that the same
content is never registered twice, and a job says for ever which code it ran. Nothing here talks to Azure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from azure.ai.ml import Input, MpiDistribution, Output, PyTorchDistribution, TensorFlowDistribution, dsl, sweep
from azure.ai.ml.entities import (
    CommandComponent,
    Environment,
    JobResourceConfiguration,
    PipelineJob,
)

from mlops import digest, pipeline
from mlops.environment import JobEnvironment
from mlops.report import Fault
from mlops.settings import ROOT, Settings

IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
TRAIN = "train"
"""The step that is swept or distributed."""

# What a step reads from its environment, beside the names that are made for each job.
_HANDED_ON = ("STORAGE_ACCOUNT", "STATE_ACCOUNT", "DATA")
# A cluster tells the client id of its identity under this name, azure-identity reads AZURE_CLIENT_ID.
_AS_THE_CLUSTER = "env ${DEFAULT_IDENTITY_CLIENT_ID:+AZURE_CLIENT_ID=$DEFAULT_IDENTITY_CLIENT_ID}"
_EXPRESSIONS = {
    "choice": sweep.Choice,
    "randint": sweep.Randint,
    "uniform": sweep.Uniform,
    "quniform": sweep.QUniform,
    "loguniform": sweep.LogUniform,
    "qloguniform": sweep.QLogUniform,
    "normal": sweep.Normal,
    "qnormal": sweep.QNormal,
    "lognormal": sweep.LogNormal,
    "qlognormal": sweep.QLogNormal,
}
_POLICIES = {
    "bandit": sweep.BanditPolicy,
    "median_stopping": sweep.MedianStoppingPolicy,
    "truncation_selection": sweep.TruncationSelectionPolicy,
}


def stage(folder: Path) -> Path:
    """Copy what the steps need into `folder`: their code and the settings, nothing else of the project."""
    staged = folder / "signalbox"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for part in ("code", ".cloud/.azure"):
        shutil.copytree(ROOT / part, staged / part, ignore=ignored)
    return staged


def environment(name: str, conda_file: Path, image: str = IMAGE) -> Environment:
    """Return a conda environment on a base image, versioned by the digest of both."""
    content = digest.of_value([image, conda_file.read_text(encoding="utf-8")])
    return Environment(name=name, version=content[:16], image=image, conda_file=str(conda_file))


def components(staged: Path, configuration: Settings, environment_id: str) -> dict[str, CommandComponent]:
    """Return the component of each step; `staged` is what `stage` wrote, `environment_id` a registered environment."""
    content = digest.of_folder(staged)
    made = {}
    for step in pipeline.STEPS:
        hyperparameters = _hyperparameters(configuration) if step.name == TRAIN else {}
        options = [f"--{name} ${{{{inputs.{name}}}}}" for name in step.inputs]
        options += [f"--{name} ${{{{outputs.{name}}}}}" for name in step.outputs]
        options += [f'--parameter "{name}=${{{{inputs.{name}}}}}"' for name in hyperparameters]
        command = " ".join([_AS_THE_CLUSTER, "python", step.script, *options])
        made[step.name] = CommandComponent(
            name=f"signalbox_{step.name}",
            version=digest.of_value([content, environment_id, command])[:16],
            display_name=step.name,
            command=command,
            code=str(staged),
            environment=environment_id,
            inputs={
                **{name: Input(type="uri_folder") for name in step.inputs},
                **{name: Input(type=kind) for name, kind in hyperparameters.items()},
            },
            outputs={name: Output(type="uri_folder") for name in step.outputs},
            is_deterministic=False,  # else Azure ML may answer with an earlier job's data
        )
    return made


def training_job(
    job: JobEnvironment, configuration: Settings, compute: str, made: Mapping[str, CommandComponent]
) -> PipelineJob:
    """Build the pipeline job: a node for each step, its folders wired from output to input."""
    variables = _variables(job, configuration)

    @dsl.pipeline(default_compute=compute)  # type: ignore[call-overload, untyped-decorator, unused-ignore]
    def training() -> None:
        folders: dict[str, Any] = {}
        for step in pipeline.STEPS:
            inputs = {name: folders[name] for name in step.inputs}
            space = _space(configuration) if step.name == TRAIN else {}
            node = made[step.name](**inputs, **space)
            node.environment_variables = variables
            _size(node, configuration, step.name)
            if space:
                node = _swept(node, configuration.run["sweep"])
            node.name = step.name
            folders.update({name: node.outputs[name] for name in step.outputs})

    built: PipelineJob = training()
    built.name = job.job
    built.display_name = job.job
    built.experiment_name = configuration.run["experiment_name"]
    built.tags = pipeline.job_tags(job, configuration.run["tags"])
    return built


def git_variables(job: JobEnvironment, source: Mapping[str, str]) -> dict[str, str]:
    """Return what azure-ai-ml turns into the job's git properties; a runner has no branch checked out to ask."""
    repository = source.get("GITHUB_REPOSITORY", "")
    address = f"{source.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}" if repository else ""
    found = {
        "AZUREML_GIT_REPOSITORY_URI": address,
        "AZUREML_GIT_BRANCH": source.get("GITHUB_REF_NAME", ""),
        "AZUREML_GIT_COMMIT": job.commit,
        "AZUREML_GIT_BUILD_ID": job.workflow_run,
        "AZUREML_GIT_BUILD_URI": f"{address}/actions/runs/{job.workflow_run}" if address and job.workflow_run else "",
    }
    return {name: value for name, value in found.items() if value}


def _variables(job: JobEnvironment, configuration: Settings) -> dict[str, str]:
    """Return the environment of every step; the project's own variables never hide Signalbox's."""
    own = {str(key): str(value) for key, value in configuration.run["environment_variables"].items()}
    return {
        **own,
        **{name: os.environ[name] for name in _HANDED_ON if os.environ.get(name)},
        "ORIGIN": job.origin,
        "FOLDER": job.folder,
        "MANIFEST_SHA256": job.manifest_sha256,
        "JOB_NAME": job.job,
        "GITHUB_SHA": job.commit,
        "GITHUB_RUN_ID": job.workflow_run,
    }


def _size(node: Any, configuration: Settings, step: str) -> None:
    """Set how long a node may run, on what, and on how many machines."""
    seconds = configuration.run["max_run_duration_seconds"]
    if seconds:
        node.set_limits(timeout=seconds)
    distribution = configuration.run["distribution"] if step == TRAIN else {}
    instance_type = configuration.compute["instance_type"] or None
    if distribution:
        node.distribution = _distribution(distribution)
    if distribution or instance_type:
        node.resources = JobResourceConfiguration(
            instance_count=distribution.get("instances", 1), instance_type=instance_type
        )


def _distribution(wanted: Mapping[str, Any]) -> Any:
    processes = wanted.get("processes_per_instance", 1)
    if wanted["type"] == "mpi":
        return MpiDistribution(process_count_per_instance=processes)
    if wanted["type"] == "pytorch":
        return PyTorchDistribution(process_count_per_instance=processes)
    return TensorFlowDistribution(worker_count=wanted["instances"] * processes)


def _space(configuration: Settings) -> dict[str, Any]:
    """Return the search space of run.json's sweep; nothing where there is no sweep."""
    space = {}
    for name, wanted in configuration.run["sweep"].get("parameters", {}).items():
        space[name] = _built(f"sweep.parameters.{name}", wanted, _EXPRESSIONS)
    return space


def _hyperparameters(configuration: Settings) -> dict[str, str]:
    """Return the type of each hyperparameter, as an input of the train step's component."""
    space = configuration.run["sweep"].get("parameters", {})
    return {
        name: "string" if any(isinstance(value, str | bool) for value in wanted.get("values", [])) else "number"
        for name, wanted in space.items()
        if isinstance(wanted, dict)
    }


def _built(where: str, wanted: Any, kinds: Mapping[str, Any]) -> Any:
    """Build one of azure-ai-ml's sweep objects from its own argument names."""
    values = dict(wanted) if isinstance(wanted, dict) else {}
    kind = values.pop("type", None)
    if kind not in kinds:
        raise Fault(f"run.json: {where}.type is {kind!r}; it must be one of: {', '.join(kinds)}.")
    try:
        return kinds[kind](**values)
    except TypeError as error:
        reason = str(error).split(") ", 1)[-1].split("__init__() ")[-1]
        raise Fault(f"run.json: {where} is no {kind}: {reason}.") from None


def _swept(node: Any, wanted: Mapping[str, Any]) -> Any:
    """Turn the node into a sweep; the best trial's outputs go on to the next steps."""
    policy = wanted.get("early_termination")
    return node.sweep(
        primary_metric=wanted["metric"],
        goal=wanted["goal"],
        sampling_algorithm=wanted["sampling"],
        max_total_trials=wanted["max_total_trials"],
        max_concurrent_trials=wanted.get("max_concurrent_trials", 4),
        timeout=wanted.get("timeout_seconds"),
        early_termination_policy=_built("sweep.early_termination", policy, _POLICIES) if policy else None,
    )
