"""Runs, models and the registry, all through MLflow: a file database on one machine, the workspace in Azure.

Model folders are saved and logged as plain run artifacts, which every MLflow server keeps (Azure's has no logged
models of MLflow 3). A model version is registered only when its gate has passed; it becomes the champion only when
it really serves, so that the next challenger is compared with what users get today.

Azure ML's registry has no aliases, and searches models by name only (its page "Manage models registry with MLflow").
So the champion is the version with the highest `champion_order` tag, one write with no moment of two or none, and
tags are compared here rather than in a search.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.environment import required
from mlops.report import Fault

# Read when mlflow is imported. Nothing is sent anywhere, and no progress bars stand in a workflow's log.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow would try for minutes to reach a server that is not there.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION_ORDER = "champion_order"
MODEL = "model"
JOB_TAG = "signalbox_job"
ORIGIN_TAG = "signalbox_origin"
TAG_LENGTH = 500
"""Azure ML and MLflow refuse longer tag values on a model version."""
_PARENT_TAG = "mlflow.parentRunId"
_SQLITE = "sqlite:///"


def client() -> MlflowClient:
    """Connect to tracking and registry as `MLFLOW_TRACKING_URI` says."""
    uri = required("MLFLOW_TRACKING_URI", "MLflow's tracking address, e.g. sqlite:////path/mlflow.db")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if uri.startswith(_SQLITE):
        Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        connected = MlflowClient(tracking_uri=uri, registry_uri=uri)
        connected.search_experiments(max_results=1)
    except (MlflowException, OSError, SQLAlchemyError) as error:
        raise Fault(f"MLFLOW_TRACKING_URI ({uri}) cannot be used: {first_line(error)}") from None
    return connected


def experiment_id(tracking: MlflowClient, name: str) -> str:
    """Return the experiment's id, creating it if need be.

    With a file database the artifacts lie beside it: MLflow's own default is the working directory, which on
    a runner is gone after the run.
    """
    found = tracking.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    uri = os.environ["MLFLOW_TRACKING_URI"]
    location = None
    if uri.startswith(_SQLITE):
        location = (Path(uri.removeprefix(_SQLITE)).resolve().parent / "artifacts" / name).as_uri()
    return str(tracking.create_experiment(name, artifact_location=location))


def job_run(tracking: MlflowClient, experiment: str, job: str) -> Run | None:
    """Return the job's own run, or None: the newest that carries its name and is no step of another run.

    In Azure ML a job's name is its run's id, and its steps carry the job's name as a tag.
    """
    own = [run for run in job_runs(tracking, experiment, job) if _PARENT_TAG not in run.data.tags]
    if own:
        return own[0]
    try:
        run = tracking.get_run(job)
    except MlflowException:
        return None
    ours = ORIGIN_TAG in run.data.tags and run.data.tags.get(JOB_TAG, job) == job
    return run if ours and _PARENT_TAG not in run.data.tags else None


def job_runs(tracking: MlflowClient, experiment: str, job: str) -> list[Run]:
    """Return every run that carries the job's name, steps included, newest first."""
    return list(tracking.search_runs([experiment], f"tags.{JOB_TAG} = '{job}'"))


def step_run_id() -> str:
    """Return the run that this step logs into; the backend, or Azure ML itself, sets it."""
    return required("MLFLOW_RUN_ID", "the id of the job's MLflow run (`python code/submit.py` sets it)")


def log_json(tracking: MlflowClient, name: str, value: Any) -> None:
    """Store `value` as the artifact `name` of the step's run."""
    store_json(tracking, step_run_id(), name, value)


def store_json(tracking: MlflowClient, run_id: str, name: str, value: Any) -> None:
    """Store `value` as the artifact `name` of the run `run_id`."""
    tracking.log_text(run_id, json.dumps(value, indent=1, sort_keys=True), name)


def log_model(tracking: MlflowClient, run_id: str, folder: Path) -> None:
    """Store the model's files with the run, unless an earlier step on this machine already did."""
    if not tracking.list_artifacts(run_id, MODEL):
        tracking.log_artifacts(run_id, str(folder), MODEL)


def log_numbers(
    tracking: MlflowClient, run_id: str, *, metrics: Mapping[str, float], params: Mapping[str, object]
) -> None:
    """Log metrics and parameters at once."""
    now = int(time.time() * 1000)
    tracking.log_batch(
        run_id,
        metrics=[Metric(name, float(value), now, 0) for name, value in metrics.items()],
        params=[Param(name, str(value)[:TAG_LENGTH]) for name, value in params.items()],  # type: ignore[no-untyped-call]
    )


def tag_job(tracking: MlflowClient, tags: Mapping[str, str]) -> None:
    """Tag the step's run and, where that is a child, its parent: whoever asks about a job asks the job's own run."""
    run = tracking.get_run(step_run_id())
    parent = run.data.tags.get(_PARENT_TAG)
    for run_id in (run.info.run_id, *([parent] if parent else [])):
        for name, value in tags.items():
            tracking.set_tag(run_id, name, value)


def read_json(run_id: str, name: str) -> Any:
    """Read a run's JSON artifact; raises `Fault` where it is missing or not JSON."""
    try:
        return json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{name}"))
    except (MlflowException, OSError, ValueError) as error:
        raise Fault(f"Run {run_id} has no readable artifact {name}: {first_line(error)}") from None


def register(tracking: MlflowClient, name: str, description: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
    """Register the run's model as a new version, or return the version that this job has already.

    Of two that were made at the same moment the first stays, and the other is taken away by who made it.
    """
    existing = version_of_job(tracking, name, tags[JOB_TAG])
    if existing is not None:
        return existing
    try:  # no search first: MLflow's client adds a condition on tags to it, which Azure ML has not
        tracking.create_registered_model(name, description=description)
    except MlflowException as error:
        if "ALREADY_EXISTS" not in str(error.error_code):
            raise
    source = f"{tracking.get_run(run_id).info.artifact_uri}/{MODEL}"
    made = tracking.create_model_version(name, source=source, run_id=run_id, tags=dict(tags))
    first = version_of_job(tracking, name, tags[JOB_TAG]) or made
    if int(first.version) != int(made.version):
        tracking.delete_model_version(name, str(made.version))
    return first


def version_of_job(tracking: MlflowClient, name: str, job: str) -> ModelVersion | None:
    """Return the version of model `name` that was registered for exactly this job (the first one), or None."""
    named = [version for version in versions(tracking, name) if version.tags.get(JOB_TAG) == job]
    return named[-1] if named else None


def versions(tracking: MlflowClient, name: str) -> list[ModelVersion]:
    """Return all versions of model `name`, newest first; none where there is no such model."""
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = tracking.search_model_versions(f"name = '{name}'", page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: -int(version.version))


def champion(tracking: MlflowClient, name: str) -> ModelVersion | None:
    """Return the version that serves in production, or None before the first deployment."""
    promoted = [version for version in versions(tracking, name) if _champion_order(version)]
    return max(promoted, key=_champion_order, default=None)


def make_champion(tracking: MlflowClient, version: ModelVersion) -> None:
    """Record that `version` serves in production now; made again for the champion it changes nothing."""
    serving = champion(tracking, version.name)
    if serving is None or int(serving.version) != int(version.version):
        order = _champion_order(serving) + 1 if serving is not None else 1
        tracking.set_model_version_tag(version.name, str(version.version), CHAMPION_ORDER, str(order))


def _champion_order(version: ModelVersion) -> int:
    """Return how late this version became the champion, from 1; 0 if it never did."""
    text = version.tags.get(CHAMPION_ORDER, "")
    return int(text) if text.isdecimal() else 0


def model_folder(version: ModelVersion, into: Path | None = None) -> Path:
    """Return the version's files as a local folder: a copy below `into`; without it, a local store's own."""
    try:
        return Path(
            mlflow.artifacts.download_artifacts(artifact_uri=version.source, dst_path=str(into) if into else None)
        )
    except (MlflowException, OSError) as error:
        raise Fault(
            f"Model {version.name} version {version.version} cannot be read from {version.source}: {first_line(error)}"
        ) from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, without MLflow's stack or hints."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def artifact_folder(run_id: str, name: str) -> Path:
    """Return a run's artifact folder as a local folder; a local store hands out its own, without a copy."""
    uri = f"{mlflow.get_run(run_id).info.artifact_uri}/{name}"
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
