"""Runs, models and the registry, all through MLflow: a file database on one machine, the workspace in Azure.

Model folders are saved and logged as plain run artifacts, which every MLflow server keeps (Azure's has no logged
models of MLflow 3). A model version is registered only when its gate has passed; the alias `champion` moves only
when that version really serves, so that the next challenger is compared with what users get today.
"""

from __future__ import annotations

import json
import logging
import os
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
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
MODEL = "model"
JOB_TAG = "signalbox_job"
ORIGIN_TAG = "signalbox_origin"
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
    """Return the newest run of the job called `job`, or None."""
    runs = tracking.search_runs([experiment], f"tags.{JOB_TAG} = '{job}'", max_results=1)
    return runs[0] if runs else None


def step_run_id() -> str:
    """Return the run that this step logs into; the backend, or Azure ML itself, sets it."""
    return required("MLFLOW_RUN_ID", "the id of the job's MLflow run (`python code/submit.py` sets it)")


def log_json(tracking: MlflowClient, name: str, value: Any) -> None:
    """Store `value` as the run's artifact `name`."""
    tracking.log_text(step_run_id(), json.dumps(value, indent=1, sort_keys=True), name)


def read_json(run_id: str, name: str) -> Any:
    """Read a run's JSON artifact; raises `Fault` where it is missing or not JSON."""
    try:
        return json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{name}"))
    except (MlflowException, OSError, ValueError) as error:
        raise Fault(f"Run {run_id} has no readable artifact {name}: {first_line(error)}") from None


def register(tracking: MlflowClient, name: str, description: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
    """Register the run's model as a new version, or return the version that this job has already."""
    existing = version_of_job(tracking, name, tags[JOB_TAG])
    if existing is not None:
        return existing
    if not tracking.search_registered_models(f"name = '{name}'", max_results=1):
        tracking.create_registered_model(name, description=description)
    source = f"{tracking.get_run(run_id).info.artifact_uri}/{MODEL}"
    return tracking.create_model_version(name, source=source, run_id=run_id, tags=dict(tags))


def version_of_job(tracking: MlflowClient, name: str, job: str) -> ModelVersion | None:
    """Return the model version that was registered for exactly this job, or None."""
    versions = tracking.search_model_versions(f"name = '{name}' and tags.{JOB_TAG} = '{job}'")
    return versions[0] if versions else None


def champion(tracking: MlflowClient, name: str) -> ModelVersion | None:
    """Return the version that serves in production, or None before the first deployment."""
    try:
        return tracking.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise


def model_folder(version: ModelVersion) -> Path:
    """Return the version's files as a local folder; a local store hands out its own, without a copy."""
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=version.source))
    except (MlflowException, OSError) as error:
        raise Fault(
            f"Model {version.name} version {version.version} cannot be read from {version.source}: {first_line(error)}"
        ) from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, without MLflow's stack or hints."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def artifact_folder(run_id: str, name: str) -> Path:
    """Return a run's artifact folder as a local folder; a local store hands out its own, without a copy."""
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name))
