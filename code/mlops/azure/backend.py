"""Azure: the same steps as an Azure ML v2 pipeline job. It is submitted and left alone; its event starts the rest.

Only the modules azure_backend, azure_endpoints and what they import know azure-ai-ml, and they are imported only when
something really goes to Azure (the import takes a second).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from azure.ai.ml import MLClient
from azure.ai.ml.entities import PipelineJob
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from mlops import pipeline, report
from mlops.azure import job as azure_job, workspace as azure_workspace
from mlops.environment import JobEnvironment
from mlops.settings import ROOT, Settings

_BROKEN_OFF = frozenset({"failed", "canceled", "notresponding"})
_MOST_ATTEMPTS = 100


def submit(job: JobEnvironment, configuration: Settings, compute: str, client: MLClient | None = None) -> None:
    """Submit the job to `compute` and return at once (or wait, where run.json says so).

    Submitting a job twice is harmless: one that runs or has finished is left alone, and one that broke off is
    followed by the next attempt, as on one machine.
    """
    client = client or azure_workspace.connect(configuration)
    azure_workspace.ensure_workspace(client, configuration)
    job, known = _named(client, job)
    if known:
        _tell_known(job, known)
        return
    azure_workspace.ensure_compute(client, configuration, compute)
    os.environ.update(azure_job.git_variables(job, os.environ))
    try:
        submitted = _submit(client, job, configuration, compute)
    except AzureError as error:
        # Two of the same may come at once; Azure takes the first of a name and refuses the other.
        known = _status(client, job.job) if _refused(error) else ""
        if not known:
            raise azure_workspace.fault(f"Job {job.job} was not submitted to compute {compute}", error) from None
        _tell_known(job, known)
        return
    report.say(f"Submitted {job.job}: {submitted.studio_url}")
    report.summarize(
        "Submitted to Azure ML",
        [
            *report.table([("job", job.job), ("studio", submitted.studio_url), ("compute", compute)]),
            "",
            "The job's RunCompleted event starts the deployment.",
        ],
    )
    if configuration.run["wait_for_completion"]:
        _wait(client, job)


def _named(client: MLClient, job: JobEnvironment) -> tuple[JobEnvironment, str]:
    """Name the job: the workflow's attempt, or the next number where an earlier one of that name broke off.

    Returns the job, and the status of the one that has this name already (empty: there is none).
    """
    for attempt in range(job.attempt, job.attempt + _MOST_ATTEMPTS):
        name = pipeline.job_name(job.origin, attempt)
        status = _status(client, name)
        if status.lower() not in _BROKEN_OFF:
            return replace(job, job=name), status
    raise report.Fault(f"{_MOST_ATTEMPTS} jobs of origin {job.origin} have failed: mend the cause, then replay it.")


def _status(client: MLClient, name: str) -> str:
    """Return the status of a job, or nothing where there is no such job."""
    try:
        return azure_workspace.word(client.jobs.get(name).status)
    except ResourceNotFoundError:
        return ""
    except AzureError as error:
        raise azure_workspace.fault(f"Job {name} cannot be looked up", error) from None


def _submit(client: MLClient, job: JobEnvironment, configuration: Settings, compute: str) -> PipelineJob:
    """Register what the job is made of, and submit it."""
    with tempfile.TemporaryDirectory(prefix="signalbox-code-") as folder:
        staged = azure_job.stage(Path(folder))
        wanted = azure_job.environment("signalbox-train", ROOT / "code" / "train" / "environment.yml")
        environment = registered(client.environments, wanted)
        made = azure_job.components(staged, configuration, f"azureml:{environment.name}:{environment.version}")
        made = {name: registered(client.components, component) for name, component in made.items()}
        built = azure_job.training_job(job, configuration, compute, made)
        return client.jobs.create_or_update(built)  # type: ignore[return-value, no-any-return, unused-ignore]


def registered(operations: Any, asset: Any) -> Any:
    """Return the asset as the workspace has it: of this name and version already, or registered now."""
    try:
        return operations.get(asset.name, asset.version)
    except ResourceNotFoundError:
        pass
    try:
        return operations.create_or_update(asset)
    except HttpResponseError as error:
        if not _refused(error):
            raise
        try:  # another job may have registered the same meanwhile; what is registered never changes
            return operations.get(asset.name, asset.version)
        except ResourceNotFoundError:
            raise error from None


def _refused(error: AzureError) -> bool:
    """Tell whether Azure refused a request as it does where something of that name is there already."""
    return isinstance(error, HttpResponseError) and error.status_code in {400, 409}


def _tell_known(job: JobEnvironment, status: str) -> None:
    report.say(f"Job {job.job} has been submitted before and is {status}; nothing to do.")
    report.summarize(
        "Submitted to Azure ML before",
        [f"Job `{job.job}` is {status}. If its deployment never started, start deploy_model.yml with this name."],
    )


def _wait(client: MLClient, job: JobEnvironment) -> None:
    """Show the job's log until it ends; raises `Fault` if it failed."""
    try:
        client.jobs.stream(job.job)
    except AzureError as error:
        raise azure_workspace.fault(f"Job {job.job} did not complete", error) from None
