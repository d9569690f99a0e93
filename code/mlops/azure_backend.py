"""Azure: the same steps as an Azure ML v2 pipeline job. It is submitted and left alone; its event starts the rest.

Only this module imports azure-ai-ml, and only when a job really goes to Azure (the import takes a second).
"""

from __future__ import annotations

import os
from dataclasses import replace

from azure.ai.ml import Input, MLClient, Output, command, dsl
from azure.ai.ml.entities import AmlCompute, Environment, PipelineJob
from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError

from mlops import pipeline, report
from mlops.environment import JobEnvironment, required
from mlops.settings import ROOT, Settings

# What a step reads from its environment, beside the names that are made for each job.
_HANDED_ON = ("STORAGE_ACCOUNT", "STATE_ACCOUNT")


def submit(job: JobEnvironment, configuration: Settings, compute: str) -> None:
    """Submit the job to the cluster `compute` and return at once. Submitting a job twice is harmless."""
    job = replace(job, job=pipeline.job_name(job.origin, job.attempt))
    workspace = configuration.workspace
    subscription = required("AZURE_SUBSCRIPTION_ID", "the subscription that holds the workspace")
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - the tests build jobs without it

    client = MLClient(DefaultAzureCredential(), subscription, workspace["resource_group"], workspace["name"])
    try:
        _ensure_cluster(client, configuration, compute)
        submitted = client.jobs.create_or_update(training_job(job, configuration, compute))
    except ResourceExistsError:
        report.say(f"Job {job.job} has been submitted before; nothing to do.")
        return
    except AzureError as error:
        raise report.Fault(
            f"Azure ML refused job {job.job} in workspace {workspace['name']}: {(error.message or '').strip()}"
        ) from None
    report.say(f"Submitted {job.job}: {submitted.studio_url}")
    report.summarize(
        "Submitted to Azure ML",
        [
            *report.table([("job", job.job), ("studio", submitted.studio_url), ("compute", compute)]),
            "",
            "This run ends here. The job's RunCompleted event starts the deployment.",
        ],
    )


def training_job(job: JobEnvironment, configuration: Settings, compute: str) -> PipelineJob:
    """Build the pipeline job: a command node per step, its folders wired from output to input."""
    environment = Environment(
        name="signalbox-train",
        image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04",
        conda_file=str(ROOT / "code" / "train" / "environment.yml"),
    )
    variables = {
        **{name: os.environ[name] for name in _HANDED_ON if os.environ.get(name)},
        "ORIGIN": job.origin,
        "FOLDER": job.folder,
        "MANIFEST_SHA256": job.manifest_sha256,
        "JOB_NAME": job.job,
        "GITHUB_SHA": job.commit,
        "GITHUB_RUN_ID": job.workflow_run,
        "AZUREML_GIT_COMMIT": job.commit,
    }

    @dsl.pipeline(default_compute=compute)  # type: ignore[call-overload, untyped-decorator, unused-ignore]
    def training() -> None:
        folders: dict[str, object] = {}
        for step in pipeline.STEPS:
            options = [f"--{name} ${{{{inputs.{name}}}}}" for name in step.inputs]
            options += [f"--{name} ${{{{outputs.{name}}}}}" for name in step.outputs]
            node = command(
                name=step.name,
                display_name=step.name,
                command=" ".join(["python", step.script, *options]),
                code=str(ROOT),
                environment=environment,
                environment_variables=variables,
                inputs={name: Input(type="uri_folder") for name in step.inputs},
                outputs={name: Output(type="uri_folder") for name in step.outputs},
                is_deterministic=False,  # else Azure ML may answer with an earlier job's data
            )(**{name: folders[name] for name in step.inputs})
            node.name = step.name
            folders.update({name: node.outputs[name] for name in step.outputs})

    built: PipelineJob = training()
    built.name = job.job
    built.display_name = job.job
    built.experiment_name = configuration.run["experiment_name"]
    built.tags = pipeline.job_tags(job, configuration.run["tags"])
    return built


def cluster(configuration: Settings, name: str) -> AmlCompute:
    """Build the cluster's definition from compute.json."""
    wanted = configuration.compute
    if wanted["compute_type"] != "amlcluster":
        raise report.Fault(
            f"compute.json: compute_type is {wanted['compute_type']!r}, but training runs on an 'amlcluster'."
        )
    return AmlCompute(
        name=name,
        size=wanted["vm_size"],
        tier=wanted["vm_priority"],
        min_instances=wanted["min_nodes"],
        max_instances=wanted["max_nodes"],
        idle_time_before_scale_down=wanted["idle_seconds_before_scaledown"],
    )


def _ensure_cluster(client: MLClient, configuration: Settings, name: str) -> None:
    """Create the cluster if the workspace has none of that name; an existing one is left as it is."""
    try:
        client.compute.get(name)
    except ResourceNotFoundError:
        report.say(f"Creating the compute cluster {name}")
        client.compute.begin_create_or_update(cluster(configuration, name)).result()
