"""Which endpoints there are, and what a deployment of a model version is made of."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from mlops import report, settings
from mlops.deployment import rollout
from mlops.deployment.deploy_settings import Stage
from mlops.deployment.endpoints import Candidate, Endpoints, LocalEndpoints
from mlops.models import tracking
from mlops.settings import Settings


def endpoints(configuration: Settings, stage: Stage) -> Endpoints:
    """Return the serving platform that the environment names: one machine's (`ENDPOINTS_URL`), else Azure ML's."""
    url = os.environ.get("ENDPOINTS_URL")
    if url:
        return LocalEndpoints(url, stage.scoring_timeout)
    from mlops.azure import endpoints as azure_endpoints  # noqa: PLC0415 - azure-ai-ml takes a second, and one machine needs none of it

    return azure_endpoints.connect(configuration, stage)


def candidate(client: MlflowClient, version: ModelVersion, model: Path, stage: Stage) -> Candidate:
    """Return what is to be deployed of a model version whose files are in `model`."""
    if not (model / "MLmodel").is_file():
        raise report.Fault(
            f"Model {version.name} version {version.version} is no MLflow model: its folder has no file MLmodel. "
            "Nothing was deployed; train it again."
        )
    # Stored with the model's run: it says later what served. What is deployed is the checkout's own, to which nobody
    # who may write to the run can add a file.
    client.log_artifacts(str(version.run_id), str(settings.ROOT / stage.source), f"scoring-v{version.version}")
    return Candidate(
        endpoint=stage.endpoint(version.tags["data_set"]),
        deployment=rollout.deployment_name(version.version),
        model=model,
        code=settings.ROOT / stage.source,
        entry_script=stage.entry_script,
        tags={
            **stage.tags,
            "model": f"{version.name}:{version.version}",
            tracking.JOB_TAG: version.tags[tracking.JOB_TAG],
            tracking.ORIGIN_TAG: version.tags[tracking.ORIGIN_TAG],
        },
        options=stage.options,
    )


def sample_file(stage: Stage) -> Path | None:
    """Return the file with the smoke test's request, where the settings name one."""
    return settings.ROOT / stage.sample_file if stage.sample_file else None


def user_test(stage: Stage) -> rollout.UserTest | None:
    """Load the project's own test, if the settings switch it on."""
    if stage.user_test is None:
        return None
    file, function = stage.user_test
    test = _function(file, function)

    def call(service: rollout.Service) -> None:
        try:
            test(service)
        except report.Fault:
            raise
        except Exception as error:  # whatever the project's own test raises means no
            raise report.Fault(f"{file} refuses {service.deployment}: {error}") from None

    return call


def _function(file: str, name: str) -> Callable[[rollout.Service], Any]:
    path = settings.ROOT / file
    spec = importlib.util.spec_from_file_location("user_test", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise report.Fault(f"deploy.json: test_file_path {file!r} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[[rollout.Service], Any] | None = getattr(module, name, None)
    if not callable(function):
        raise report.Fault(f"deploy.json: {file} has no function {name!r}.")
    return function
