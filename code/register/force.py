"""Promote a model that the gate kept back: by name, with a reason, and written down (docs/gate.md).

Reads RUN_ID (the job whose model it is; JOB is the same), FORCED_BY and FORCE_REASON. It registers exactly the model
that was evaluated, with a record of who overruled the gate and why; the usual deployment does the rest.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlops import digest, environment, report, settings
from mlops.evaluation import gate
from mlops.models import admission, registry, tracking

FORCED_JOB_TAG = "signalbox_forced_job"
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
# Tags of the evaluated run that are not its lineage: the platform's own, and the decision that is overruled.
_NO_LINEAGE = ("mlflow.", "azureml.", "decision_")


def main() -> None:
    """Read who forces which job's model and why, and register it."""
    job = os.environ.get("RUN_ID") or environment.required(
        "JOB", "the name of the job whose model is forced, or RUN_ID"
    )
    by = environment.required("FORCED_BY", "the name of the person who forces the promotion")
    reason = environment.required("FORCE_REASON", "the reason; it is kept with the model for ever")
    version = force(tracking.client(), settings.load(), job, by, reason)
    report.say(f"Registered {version.name} version {version.version}: {version.tags['decision_reason']}")
    report.summarize(
        "Forced promotion",
        [
            f"`{version.name}` version {version.version} goes on to deployment although the gate kept it back.",
            "",
            *report.table(sorted(version.tags.items())),
        ],
    )


def force(client: MlflowClient, configuration: settings.Settings, job: str, by: str, reason: str) -> ModelVersion:
    """Register the model of `job` by a person's demand. Made again for the same job it returns that version."""
    if not _JOB.fullmatch(job):
        raise report.Fault(f"RUN_ID is {job!r}: a job's name has letters, digits, '-' and '_' only.")
    if not by.strip() or not reason.strip():
        raise report.Fault("FORCED_BY and FORCE_REASON must say something: a forced promotion has a name and a reason.")
    evaluated = _evaluated(client, configuration, job)
    record = tracking.read_json(evaluated.info.run_id, gate.RECORD)
    what = f"The model of job {job} is not forced"
    if digest.of_value(record) != evaluated.data.tags.get("decision_sha256"):
        raise report.Fault(f"{what}: its decision record is not the one that the evaluation wrote.")
    name = configuration.model_name(str(record["data_set"]))
    registered = tracking.version_of_job(client, name, job)
    if registered is not None:
        if registered.tags.get("decision_outcome") != gate.FORCED:
            raise report.Fault(
                f"{what}: it is registered already, as {name} version {registered.version}; deploy that."
            )
        report.say(f"{name} version {registered.version} was forced before; nothing to do.")
        return registered
    model = tracking.artifact_folder(evaluated.info.run_id, tracking.MODEL)
    serving = admission.champion(client, name)
    replaced = digest.of_folder(tracking.model_folder(serving)) if serving else None
    try:
        forced = gate.force(record, by, reason, datetime.now(UTC), replaced)
    except ValueError as error:
        raise report.Fault(f"{what}: {error}.") from None
    return _register(client, configuration, evaluated, forced, model)


def _evaluated(client: MlflowClient, configuration: settings.Settings, job: str) -> Run:
    """Return the newest run of the job, or of its steps, that holds a model and its decision record."""
    experiment = str(configuration.run["experiment_name"])
    runs = tracking.job_runs(client, tracking.experiment_id(client, experiment), job)
    for run in runs:
        if {gate.RECORD, tracking.MODEL} <= {file.path for file in client.list_artifacts(run.info.run_id)}:
            return run
    raise report.Fault(
        f"Job {job!r} has no evaluated model in experiment {experiment!r}"
        + (": only a model that reached the gate can be forced." if runs else ": check RUN_ID and MLFLOW_TRACKING_URI.")
    )


def _register(
    client: MlflowClient,
    configuration: settings.Settings,
    evaluated: Run,
    forced: dict[str, object],
    model: Path,
) -> ModelVersion:
    """Keep model and forced record in a run of their own, and register from there; the evaluation stays as it was."""
    job = str(forced["job"])
    tags = {FORCED_JOB_TAG: job, registry.DATA_SET_TAG: str(forced["data_set"])}
    run = client.create_run(evaluated.info.experiment_id, tags=tags, run_name=f"force-{job}").info.run_id
    lineage = {name: text for name, text in evaluated.data.tags.items() if not name.startswith(_NO_LINEAGE)}
    status = "FAILED"
    try:
        version = registry.promote(client, configuration, forced, model=model, run_id=run, lineage=lineage)
        status = "FINISHED"
    finally:
        client.set_terminated(run, status)
    return version


if __name__ == "__main__":
    report.step("Forced promotion", main)
