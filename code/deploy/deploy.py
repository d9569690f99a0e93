"""Deploy the model that one job registered. This is what the workflow deploy_model.yml calls, with RUN_ID.

A job without a registered model kept the champion: nothing is deployed, and that is a normal end. A model goes out
only with its own passed decision record, for exactly the files that are deployed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlops import digest, environment, gate, report, rollout, settings, tracking
from mlops.endpoints import Candidate, Endpoints, LocalEndpoints

DEPLOYED = "deployed_to"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")


def main() -> None:
    """Find the job's model, hold it against its record, and roll it out."""
    job = environment.required("RUN_ID", "the name of the job whose model is to be deployed")
    if not _RUN_ID.fullmatch(job):
        raise report.Fault(f"RUN_ID is {job!r}: a job's name has letters, digits, '-' and '_' only.")
    configuration, client = settings.load(), tracking.client()
    versions = client.search_model_versions(f"tags.{tracking.JOB_TAG} = '{job}'")
    if not versions:
        _nothing_to_deploy(client, configuration, job)
        return
    version = client.get_model_version(versions[0].name, versions[0].version)  # with its aliases
    name, serving = version.name, tracking.champion(client, version.name)
    if serving is not None and str(serving.version) == str(version.version):
        client.set_model_version_tag(
            name, version.version, DEPLOYED, configuration.endpoint_name(version.tags["data_set"])
        )
        _done(f"{name} version {version.version} serves already; nothing to do.")
        return
    if DEPLOYED in version.tags:
        by = f"version {serving.version}" if serving is not None else "no other"
        _done(f"{name} version {version.version} was deployed before, and {by} has followed; nothing to do.")
        return
    model = tracking.model_folder(version)
    _require_passed(version, job, model, serving)
    _deploy(client, configuration, version, model, serving)


def _done(sentence: str) -> None:
    report.say(sentence)
    report.summarize("Deployment", [report.cell(sentence)])


def _nothing_to_deploy(client: MlflowClient, configuration: settings.Settings, job: str) -> None:
    """Say why the job registered no model; a job that nobody knows is a fault."""
    experiment = tracking.experiment_id(client, str(configuration.run["experiment_name"]))
    run = tracking.job_run(client, experiment, job)
    if run is None:
        raise report.Fault(
            f"There is no job {job!r} in experiment {configuration.run['experiment_name']!r}: "
            "check RUN_ID, and that MLFLOW_TRACKING_URI is the one that the job used."
        )
    reason = run.data.tags.get("decision_reason", f"The job ended as {run.info.status}, without a decision.")
    _done(f"Kept the champion, nothing to deploy. {reason}")


def _require_passed(version: ModelVersion, job: str, model: Path, serving: ModelVersion | None) -> None:
    """Refuse the version unless its stored record passed, for these files and against today's champion."""
    what = f"{version.name} version {version.version} is not deployed"
    record = tracking.read_json(str(version.run_id), gate.RECORD)
    if digest.of_value(record) != version.tags.get("decision_sha256"):
        raise report.Fault(f"{what}: its decision record is not the one that it was registered with.")
    objection = gate.objection(record, job, digest.of_folder(model))
    if objection:
        raise report.Fault(f"{what}: {objection}.")
    if gate.stale(record, digest.of_folder(tracking.model_folder(serving)) if serving else None):
        raise report.Fault(
            f"{what}: the champion has changed since it was evaluated. Start train_model.yml again to compare "
            "it with the champion of today."
        )


def _deploy(
    client: MlflowClient,
    configuration: settings.Settings,
    version: ModelVersion,
    model: Path,
    serving: ModelVersion | None,
) -> None:
    """Roll the version out, then make it the champion."""
    wanted = configuration.deploy
    candidate = Candidate(
        endpoint=configuration.endpoint_name(version.tags["data_set"]),
        deployment=f"model-v{version.version}",
        model=model,
        code=_scoring_code(client, version, settings.ROOT / wanted["inference_source_directory"]),
        entry_script=wanted["inference_entry_script"],
        tags={
            **{str(key): str(value) for key, value in wanted["tags"].items()},
            "model": f"{version.name}:{version.version}",
            tracking.JOB_TAG: version.tags[tracking.JOB_TAG],
            tracking.ORIGIN_TAG: version.tags[tracking.ORIGIN_TAG],
        },
    )
    keep = f"model-v{serving.version}" if serving is not None else None
    with report.group(f"Roll out {candidate.deployment} to endpoint {candidate.endpoint}"):
        addresses, predictions = rollout.roll_out(_endpoints(configuration), candidate, keep, _user_test(configuration))
    # The traffic has moved. The alias is what a replay looks at first; DEPLOYED says so when another has followed.
    client.set_registered_model_alias(version.name, tracking.CHAMPION, version.version)
    for key, text in (
        (DEPLOYED, candidate.endpoint),
        ("deployment", candidate.deployment),
        ("scoring_uri", addresses.scoring),
    ):
        client.set_model_version_tag(version.name, version.version, key, text)
    rows: list[tuple[str, object]] = [
        ("model", f"{version.name} version {version.version}"),
        ("endpoint", candidate.endpoint),
        ("deployment", f"{candidate.deployment}, 100 % of the traffic"),
        ("scoring address", addresses.scoring),
        ("swagger address", addresses.swagger),
        ("smoke test's predictions", ", ".join(map(str, predictions))),
    ]
    for title, value in rows:
        report.say(f"{title}: {value}")
    report.summarize("Deployed", report.table(rows))


def _scoring_code(client: MlflowClient, version: ModelVersion, source: Path) -> Path:
    """Store the scoring code with the model's run and return that copy.

    It says later what really served, and it outlives the runner's checkout.
    """
    name = f"scoring-v{version.version}"
    client.log_artifacts(str(version.run_id), str(source), name)
    return tracking.artifact_folder(str(version.run_id), name)


def _endpoints(configuration: settings.Settings) -> Endpoints:
    """Return the serving platform that the environment names."""
    url = os.environ.get("ENDPOINTS_URL")
    if not url:
        raise report.Fault(
            "ENDPOINTS_URL is not set, and managed online endpoints are not supported yet: set ENDPOINTS_URL to an "
            "endpoints part (`signalbox up` prints its address) and start deploy_model.yml again with this RUN_ID."
        )
    return LocalEndpoints(url, configuration.deploy["scoring_timeout_ms"] / 1000)


def _user_test(configuration: settings.Settings) -> rollout.UserTest | None:
    """Load the project's own test, if deploy.json switches it on."""
    wanted = configuration.deploy
    if not wanted["test_enabled"]:
        return None
    path, function = settings.ROOT / wanted["test_file_path"], wanted["test_file_function_name"]
    spec = importlib.util.spec_from_file_location("user_test", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise report.Fault(f"deploy.json: test_file_path {wanted['test_file_path']!r} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise report.Fault(f"deploy.json: {wanted['test_file_path']} has no function {function!r}.")

    def call(service: rollout.Service) -> None:
        try:
            getattr(module, function)(service)
        except report.Fault:
            raise
        except Exception as error:  # whatever the project's own test raises means no
            raise report.Fault(f"{wanted['test_file_path']} refuses {service.deployment}: {error}") from None

    return call


if __name__ == "__main__":
    report.step("Deployment", main)
