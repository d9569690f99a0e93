"""Registration: one version for one job's model, with its decision record and its whole lineage.

Both ways into the registry lead through `promote`: the gate's own (code/register/register.py) and the one that a
person forces by name (code/register/force.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from mlops import digest
from mlops.evaluation import gate
from mlops.models import tracking
from mlops.report import Fault
from mlops.settings import Settings

DATA_SET_TAG = "data_set"
DECISION_TAG = "decision_sha256"
MODEL_TAG = "model_sha256"


def promote(
    client: MlflowClient,
    configuration: Settings,
    record: Mapping[str, Any],
    *,
    model: Path,
    run_id: str,
    lineage: Mapping[str, str],
) -> ModelVersion:
    """Register the files in `model` for the job of `record`, with run `run_id` as the place where both are kept.

    Raises `Fault` unless the record lets exactly these files pass. Made again, it returns the version that is there.
    """
    job, name = str(record["job"]), configuration.model_name(str(record["data_set"]))
    sha256 = digest.of_folder(model)
    objection = gate.objection(record, job, sha256)
    if objection:
        raise Fault(f"The model of job {job} is not registered: {objection}.")
    tracking.log_model(client, run_id, model)
    tracking.store_json(client, run_id, gate.RECORD, record)
    tags = {
        **{str(key): str(value) for key, value in configuration.model["model_tags"].items()},
        **lineage,
        **_decision_tags(record),
        tracking.JOB_TAG: job,
        DATA_SET_TAG: str(record["data_set"]),
        MODEL_TAG: sha256,
        DECISION_TAG: digest.of_value(record),
    }
    version = tracking.register(client, name, configuration.model["model_description"], run_id, tags)
    if version.tags.get(DECISION_TAG) != tags[DECISION_TAG] or version.tags.get(MODEL_TAG) != sha256:
        raise Fault(
            f"{name} version {version.version} carries the name of job {job}, but was registered for another decision "
            "or other files: delete that version, then start this again."
        )
    return version


def _decision_tags(record: Mapping[str, Any]) -> dict[str, str]:
    champion = record["champion"]
    tags = {
        "decision_outcome": record["outcome"],
        "decision_reason": record["reason"][: tracking.TAG_LENGTH],
        "rule_sha256": digest.of_value(record["rule"]),
        "metric": record["rule"]["metric"],
        "metric_challenger": str(record["challenger"]),
        "metric_champion": str(champion["value"]) if champion else "",
        **{f"metric_{name}": str(value) for name, value in record["metrics"].items()},
    }
    if record["outcome"] == gate.FORCED:
        tags["forced_by"] = record["forced"]["by"][: tracking.TAG_LENGTH]
        tags["forced_reason"] = record["forced"]["reason"][: tracking.TAG_LENGTH]
        tags["forced_at"] = record["forced"]["at"]
    return {name: str(value) for name, value in tags.items()}
