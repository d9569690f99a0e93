"""One machine: the steps as subprocesses in the foreground, over MLflow, and the same event at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient

from mlops import pipeline, report, runevents
from mlops.environment import JobEnvironment
from mlops.models import tracking
from mlops.settings import ROOT, Settings

_FINISHED = "FINISHED"
_MOST_ATTEMPTS = 100


def run(job: JobEnvironment, configuration: Settings) -> None:
    """Run the job to its end and publish it; raises `Fault` if a step failed.

    A job that has already finished is not run again: only its event is published once more, because that may
    be what was lost.
    """
    client = tracking.client()
    experiment = str(configuration.run["experiment_name"])
    experiment_id = tracking.experiment_id(client, experiment)
    job, finished = _named(client, experiment_id, job)
    tags = pipeline.job_tags(job, configuration.run["tags"])
    report.say(f"Job {job.job}")
    failed = None
    if finished:
        report.say("This job has finished before; its event is published again.")
    else:
        run_tags = {**tags, tracking.JOB_TAG: job.job}
        run_id = client.create_run(experiment_id, tags=run_tags, run_name=job.job).info.run_id
        _say_what_is_azures(configuration)
        own = {str(key): str(value) for key, value in configuration.run["environment_variables"].items()}
        failed = _steps(job, run_id, own)
        client.set_terminated(run_id, "FAILED" if failed else _FINISHED)
    runevents.publish(
        job=job.job,
        experiment=experiment,
        experiment_id=experiment_id,
        tags=tags,
        properties={"azureml.runsource": "azureml.PipelineRun", "azureml.defaultComputeName": "local"},
        failed=failed is not None,
    )
    if failed:
        raise report.Fault(f"Job {job.job} failed in step {failed}; what was wrong stands above.")


def _named(client: MlflowClient, experiment_id: str, job: JobEnvironment) -> tuple[JobEnvironment, bool]:
    """Name the job: the workflow's attempt, or the next number where an earlier one of that name broke off."""
    for attempt in range(job.attempt, job.attempt + _MOST_ATTEMPTS):
        name = pipeline.job_name(job.origin, attempt)
        earlier = tracking.job_run(client, experiment_id, name)
        if earlier is None or earlier.info.status == _FINISHED:
            return replace(job, job=name), earlier is not None
    raise report.Fault(f"{_MOST_ATTEMPTS} jobs of origin {job.origin} have failed: mend the cause, then replay it.")


def _say_what_is_azures(configuration: Settings) -> None:
    """Say which settings of run.json do not take part here, so that nobody waits for their effect."""
    for key in ("sweep", "distribution"):
        if configuration.run[key]:
            report.say(f"run.json: {key} is for Azure ML; on one machine the train step runs once, in one process.")


def _steps(job: JobEnvironment, run_id: str, own: Mapping[str, str]) -> str | None:
    """Run the steps one after the other; return the name of the one that failed, or None.

    `own` are run.json's environment_variables; what is set already wins.
    """
    environment = {**own, **os.environ, "JOB_NAME": job.job, "MLFLOW_RUN_ID": run_id, "ORIGIN": job.origin}
    with tempfile.TemporaryDirectory(prefix="signalbox-job-") as folder:
        for step in pipeline.STEPS:
            command = [sys.executable, str(ROOT / step.script)]
            for name in (*step.inputs, *step.outputs):
                command += [f"--{name}", str(Path(folder) / name)]
            with report.group(f"Step {step.name}"):
                status = _call(command, environment)
            if status != 0:
                return step.name
    return None


def _call(command: list[str], environment: dict[str, str]) -> int:
    """Run one step in the foreground; when this process is told to stop, so is the step."""
    with subprocess.Popen(command, env=environment) as process:

        def stop(number: int, _frame: object) -> None:
            process.send_signal(number)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
