"""What a model version must show before it is deployed, or believed as the champion.

Every question about a version is asked here, with digests computed from what is stored now: nothing that a tag, an
alias or an event says is taken for an answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from mlops import digest, settings
from mlops.evaluation import gate, rules
from mlops.models import registry, tracking
from mlops.report import Fault


def admit(
    client: MlflowClient, configuration: settings.Settings, version: ModelVersion, job: str, into: Path | None = None
) -> Path:
    """Return the version's model folder, if its own record lets exactly these files of `job` out today.

    What is asked about and returned is a copy below `into`, where that is given: files that are swapped in the store
    a moment later do not go out.

    Raises `Fault` where the record is missing, damaged, edited, another job's or another model's; where the gate said
    no and nobody forced it; where another rule than today's decided; where the champion has changed since.
    """
    what = f"{version.name} version {version.version} is not deployed"
    folder, record = tracking.model_folder(version, into), _record(version, what)
    objection = _objection(configuration, version, record, job, folder)
    if objection:
        raise Fault(f"{what}: {objection}.")
    data_set = settings.load_data_set(record["data_set"])
    if gate.outdated(record, rules.today(configuration, data_set)):
        raise Fault(
            f"{what}: the gate's rule has changed since it was evaluated (registermodel.json, "
            f"code/data/{data_set.name}.json). Start train_model.yml again to have it judged by today's rule."
        )
    serving = champion(client, version.name)
    if gate.stale(record, digest.of_folder(tracking.model_folder(serving)) if serving else None):
        raise Fault(
            f"{what}: the champion has changed since it was evaluated. Start train_model.yml again to compare "
            "it with the champion of today."
        )
    return folder


def champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """Return the version that serves in production, or None; raises `Fault` where that one has no record of its own.

    A challenger that only had to beat a version which somebody marked by hand would have shown nothing.
    """
    serving = tracking.champion(client, name)
    if serving is None:
        return None
    mend = f"Take its tag {tracking.CHAMPION_ORDER!r} away, so that the champion before it is the champion again."
    require_proven(
        serving, f"{name} version {serving.version} is marked as the champion, but cannot be compared with", mend
    )
    return serving


def require_proven(version: ModelVersion, what: str, mend: str) -> None:
    """Raise `Fault` unless the version passed its gate once, or was forced, with the files that it has now.

    `what` begins the sentence and `mend` follows it. That its rule and its champion are today's is not asked.
    """
    job = version.tags.get(tracking.JOB_TAG, "")
    objection = gate.objection(_record(version, what), job, digest.of_folder(tracking.model_folder(version)))
    if objection:
        raise Fault(f"{what}: {objection}. {mend}")


def _record(version: ModelVersion, what: str) -> Any:
    """Return the record that the version was registered with; `what` begins the sentence where there is none."""
    if not version.run_id:
        raise Fault(f"{what}: it was registered without a run, and so without a decision record.")
    record = tracking.read_json(str(version.run_id), gate.RECORD)
    if digest.of_value(record) != version.tags.get(registry.DECISION_TAG):
        raise Fault(f"{what}: its decision record is not the one that it was registered with.")
    return record


def _objection(
    configuration: settings.Settings, version: ModelVersion, record: Any, job: str, folder: Path
) -> str | None:
    """Return why the record does not let this version out under this name and job, or None."""
    if version.tags.get(tracking.JOB_TAG) != job:
        return f"it was registered for the job {version.tags.get(tracking.JOB_TAG)!r}, not for {job}"
    objection = gate.objection(record, job, digest.of_folder(folder))
    if objection:
        return objection
    data_set = record["data_set"]
    if data_set != version.tags.get(registry.DATA_SET_TAG) or version.name != configuration.model_name(data_set):
        return f"its decision record was made for a model of the data set {data_set!r}"
    return None
