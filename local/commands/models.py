"""The model side of a trace: job, model version and endpoint, as far as their places can be asked from here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from functions.core.trace import ORIGIN_TAG
from functions.core.values import JsonObject

if TYPE_CHECKING:
    from local.lineage import ModelReader

JOB_TAG = "signalbox_job"
_SQLITE = "sqlite:///"


@dataclass(slots=True)
class ModelSide:
    """What became of one origin; empty where nothing did, or where nobody could be asked (`notes` says so)."""

    origin: str = ""
    job: str = ""
    decision: str = ""
    model: str = ""
    version: str = ""
    endpoint: str = ""
    deployment: str = ""
    afterwards: str = ""
    """Why production gave the version back, if it did: its rollout failed, or a person rolled back."""
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> JsonObject:
        """For `--json`."""
        return {
            "job": self.job,
            "decision": self.decision,
            "model": self.model,
            "version": self.version,
            "endpoint": self.endpoint,
            "deployment": self.deployment,
            "afterwards": self.afterwards,
        }


class Models:
    """Reads the model registry and the endpoints; imports MLflow at the first question."""

    def __init__(self, mlflow: str, endpoints: str) -> None:
        """`mlflow`: tracking store and registry; `endpoints`: address of the local endpoints. "" where not known."""
        self._mlflow, self._endpoints = mlflow, endpoints
        self._reader: ModelReader | None = None

    def of_origin(self, origin: str, job: str = "") -> ModelSide:
        """What an origin led to; of the newest job, or of the one that is named."""
        side = ModelSide(origin, job)

        def read(reader: ModelReader) -> Any | None:
            newest, decision = reader.job_of(origin)
            side.job = job or newest
            if side.job == newest and decision:
                side.decision = f"{decision.get('outcome', '')}: {decision.get('reason', '')}"
            return reader.version_of(side.job) if side.job else None

        self._ask(side, read)
        return side

    def of_version(self, name: str, number: str) -> ModelSide:
        """The way back from a model version; without origin where its tags name none."""
        side = ModelSide()

        def read(reader: ModelReader) -> Any | None:
            version = reader.version(name, number)
            if version is None:
                side.notes.append(f"there is no model version {name}/{number} in {self._mlflow}")
                return None
            side.origin, side.job = version.tags.get(ORIGIN_TAG, ""), version.tags.get(JOB_TAG, "")
            return version

        self._ask(side, read)
        return side

    def of_endpoint(self, endpoint: str, deployment: str) -> ModelSide:
        """The way back from what an endpoint serves, or from one of its deployments."""
        side = ModelSide(endpoint=endpoint, deployment=deployment)
        if not self._endpoints:
            side.notes.append("endpoints were not asked: only those of 'signalbox up' can be")
            return side

        def read(reader: ModelReader) -> Any | None:
            from local import lineage  # noqa: PLC0415 - it imports mlflow

            try:
                job = lineage.job_at(self._endpoints, endpoint, deployment)
            except requests.RequestException:
                side.notes.append(f"the endpoints at {self._endpoints} do not answer")
                return None
            version = reader.version_of(job) if job else None
            if version is None:
                side.notes.append(
                    f"no model of ours serves at endpoint {endpoint}" + (f" / {deployment}" * bool(deployment))
                )
            else:
                side.origin, side.job = version.tags.get(ORIGIN_TAG, ""), job
            return version

        self._ask(side, read)
        return side

    def _ask(self, side: ModelSide, read: Any) -> None:
        reason = self._unreadable()
        if reason:
            side.notes.append(reason)
            return
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds, for those who need it only

        from local import lineage  # noqa: PLC0415

        try:
            if self._reader is None:
                self._reader = lineage.ModelReader(self._mlflow)
            version = read(self._reader)
        except (MlflowException, requests.RequestException) as error:
            side.notes.append(f"the models of {self._mlflow} cannot be read: {(str(error).splitlines() or [''])[0]}")
            return
        if version is None:
            return
        side.model, side.version = str(version.name), str(version.version)
        tags = version.tags
        side.decision = side.decision or f"{tags.get('decision_outcome', '')}: {tags.get('decision_reason', '')}"
        side.afterwards = str(tags.get("rollout_returned", ""))
        if not self._endpoints:
            side.notes.append("endpoints were not asked: only those of 'signalbox up' can be")
            return
        try:
            side.endpoint, side.deployment = lineage.endpoint_of(self._endpoints, version)
        except requests.RequestException:
            side.notes.append(f"the endpoints at {self._endpoints} do not answer")

    def _unreadable(self) -> str:
        """Why the models cannot be asked for; "" where they can."""
        if not self._mlflow:
            return "jobs and models were not asked for: MLFLOW_TRACKING_URI is not set"
        if self._mlflow.startswith(_SQLITE) and not Path(self._mlflow.removeprefix(_SQLITE)).is_file():
            return "no job has run yet: there is no model store"
        return ""
