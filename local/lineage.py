"""One model's way, read back from where each part keeps it: files, dispatch, runs, job, model version, endpoint."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import requests

from functions.core.dispatch import Dispatch

# Read when mlflow is imported: nothing is sent anywhere, and no progress bar breaks the list of steps.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.artifacts import load_text
from mlflow.exceptions import MlflowException

_TIMEOUT = 5  # seconds; every address here is on loopback


@dataclass(slots=True)
class Lineage:
    """The way of one upload; what has not come about yet is empty."""

    title: str
    files: int
    dispatch: Dispatch | None = None
    train_run: dict[str, Any] = field(default_factory=dict)
    deploy_run: dict[str, Any] = field(default_factory=dict)
    job: str = ""
    decision: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    version: str = ""
    endpoint: str = ""
    deployment: str = ""
    prediction: str = ""

    def rows(self) -> list[tuple[str, str]]:
        """(what, which) from the files to the prediction."""
        dispatch, decision = self.dispatch, self.decision
        champion = decision.get("champion")
        metric = decision.get("rule", {}).get("metric", "")
        measured = f"{metric} {decision.get('challenger', 0):.4f}" if decision else ""
        if champion:
            measured += f" (champion {champion['value']:.4f})"
        return [
            ("files", str(self.files)),
            ("events", str(dispatch.event_count) if dispatch else ""),
            ("dispatch", dispatch.id if dispatch else ""),
            ("workflow run", _run(self.train_run)),
            ("job", self.job),
            ("metrics", measured),
            ("decision", str(decision.get("outcome", "")).replace("_", " ")),
            ("model version", f"{self.model} {self.version}" if self.version else "none, the champion stays"),
            ("rollout", _run(self.deploy_run)),
            ("endpoint", f"{self.endpoint} / {self.deployment}" if self.deployment else ""),
            ("prediction", self.prediction),
        ]


def _run(run: dict[str, Any]) -> str:
    return f"{run['id']} {run.get('conclusion') or run.get('status')}" if run else ""


class GitHubReader:
    """Reads runs and their steps, by the same REST calls on one machine and at GitHub."""

    def __init__(self, api_url: str, repository: str, token: str) -> None:
        """`api_url` without a slash at its end."""
        self._runs = f"{api_url}/repos/{repository}/actions/runs"
        self._session = requests.Session()
        self._session.headers.update({"Authorization": f"Bearer {token}", "User-Agent": "signalbox"})

    def runs(self, workflow: str) -> list[dict[str, Any]]:
        """Runs of a workflow file, newest first."""
        listed = self._get(self._runs, {"per_page": "100"})["workflow_runs"]
        return [run for run in listed if run["path"].endswith(f"/{workflow}")]

    def run(self, run_id: int) -> dict[str, Any]:
        """One run."""
        return self._get(f"{self._runs}/{run_id}", {})

    def jobs(self, run_id: int) -> list[dict[str, Any]]:
        """The run's jobs, in order."""
        listed: list[dict[str, Any]] = self._get(f"{self._runs}/{run_id}/jobs", {})["jobs"]
        return listed

    def steps(self, run_id: int) -> list[dict[str, Any]]:
        """Steps of all the run's jobs, in order."""
        return [step for job in self.jobs(run_id) for step in job["steps"] or []]

    def _get(self, url: str, query: dict[str, str]) -> dict[str, Any]:
        answer = self._session.get(url, params=query, timeout=_TIMEOUT)
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document


class ModelReader:
    """Reads jobs, decisions and model versions from MLflow."""

    def __init__(self, uri: str) -> None:
        """`uri` names tracking store and registry."""
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def job_of(self, origin: str) -> tuple[str, dict[str, Any]]:
        """The newest job of an origin and its decision record; ("", {}) where there is none."""
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        runs = self._client.search_runs(experiments, f"tags.signalbox_origin = '{origin}'", max_results=1)
        if not runs:
            return "", {}
        try:
            decision = json.loads(load_text(f"{runs[0].info.artifact_uri}/decision.json"))
        except (MlflowException, OSError, ValueError):
            decision = {}
        return str(runs[0].data.tags.get("signalbox_job", "")), decision

    def version_of(self, job: str) -> Any | None:
        """The model version that was registered for the job, or None."""
        found = self._client.search_model_versions(f"tags.signalbox_job = '{job}'")
        return found[0] if found else None

    def version(self, name: str, number: str) -> Any | None:
        """The model version of this name and number, or None."""
        try:
            return self._client.get_model_version(name, number)
        except MlflowException:
            return None


def endpoint_of(endpoints_url: str, deployment_version: Any) -> tuple[str, str]:
    """(endpoint, deployment) that serve a model version now, or ("", ""); production before the other stages."""
    answer = requests.get(f"{endpoints_url}/endpoints", timeout=_TIMEOUT)
    answer.raise_for_status()
    # The other stages' names are production's with an ending.
    for endpoint in sorted(answer.json()["endpoints"], key=lambda one: len(one["endpoint"])):
        for name, deployment in endpoint.get("deployments", {}).items():
            tags = deployment.get("tags", {})
            serves = endpoint.get("traffic", {}).get(name, 0) > 0
            if serves and str(tags.get("signalbox_job")) == str(deployment_version.tags.get("signalbox_job")):
                return str(endpoint["endpoint"]), str(name)
    return "", ""


def job_at(endpoints_url: str, endpoint: str, deployment: str = "") -> str:
    """Job whose model a deployment serves, or the deployment with most of the traffic; "" where there is none."""
    answer = requests.get(f"{endpoints_url}/endpoints/{quote(endpoint)}", timeout=_TIMEOUT)
    if answer.status_code == 404:
        return ""
    answer.raise_for_status()
    found = answer.json()
    traffic = found.get("traffic", {})
    serving = deployment or max(traffic, key=lambda name: traffic[name], default="")
    return str(found["deployments"].get(serving, {}).get("tags", {}).get("signalbox_job", ""))
