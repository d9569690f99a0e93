"""What the champion was trained on: the profile and the snapshot that its own data step logged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlops.data import lineage
from mlops.drift import profile as drift_profile
from mlops.drift.profile import Profile
from mlops.models import tracking


@dataclass(frozen=True, slots=True)
class Trained:
    """The champion's training data."""

    version: str
    """Of the registered model."""
    profile: Profile
    """Of the rows that it was trained on."""
    snapshot_sha256: str
    taken_at: datetime
    files: frozenset[tuple[str, str]]
    """(name, ETag) of each file of its snapshot."""


def load(client: MlflowClient, model: str) -> Trained | str:
    """Return the data of the champion of `model`, or a sentence that says why there is nothing to compare with."""
    serving = tracking.champion(client, model)
    if serving is None:
        return f"There is no champion of {model} yet, so there is nothing to compare with."
    run = serving.tags.get(lineage.PROFILE_RUN)
    if not run:
        return f"{model} version {serving.version} was registered without a profile: its successor will have one."
    profile, snapshot = _read(run, drift_profile.ARTIFACT), _read(run, lineage.SNAPSHOT)
    if profile is None or snapshot is None:
        return f"The profile of {model} version {serving.version} cannot be read from run {run} any more."
    return Trained(
        version=str(serving.version),
        profile=drift_profile.from_json(profile),
        snapshot_sha256=snapshot["sha256"],
        taken_at=datetime.fromisoformat(snapshot["taken_at"]),
        files=frozenset((file["name"], file["etag"]) for file in snapshot["files"]),
    )


def _read(run: str, name: str) -> Any:
    """Return a run's JSON artifact, or None where it has been deleted."""
    try:
        return json.loads(mlflow.artifacts.load_text(f"runs:/{run}/{name}"))
    except (MlflowException, OSError, ValueError):
        return None
