"""Deploy one registered model version to one stage: `deploy.py --stage dev|test|production`.

This is what each job of the workflow deploy_model.yml calls, with RUN_ID (the job whose model it is) or MODEL_VERSION
(`NAME/VERSION`, chosen by hand). A job without a registered model kept the champion: nothing is deployed, and that is
a normal end. A model goes to no stage without its own passed decision record, for exactly the files that are deployed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlops import environment, report, settings
from mlops.deployment import rollout, serving
from mlops.deployment.deploy_settings import PRODUCTION, STAGES, Stage
from mlops.deployment.endpoints import Candidate, Endpoints
from mlops.deployment.lease import Holder, Lease
from mlops.deployment.watch import Unfit
from mlops.models import admission, tracking

DEPLOYED = "deployed_to"
"""Tag of a version that served in production once."""
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_VERSION = re.compile(r"([^/:\s]{1,200})[/:](\d{1,9})")
_TAG_LENGTH = 500


class _NothingToDoError(Exception):
    """The normal end of a deployment that has nothing to deploy; the sentence says why."""


def main() -> None:
    """Find the version, ask whether it may go, and bring it to the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=STAGES, default=PRODUCTION)
    name: str = parser.parse_args().stage
    # What a cancelled workflow sends; the traffic must go back before this process ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    configuration, client = settings.load(), tracking.client()
    stage = configuration.deploy[name]
    with tempfile.TemporaryDirectory(prefix="signalbox-model-") as copy:
        try:
            version = _chosen(client, configuration)
            _require_something_to_do(client, version, configuration)
            model = admission.admit(client, configuration, version, version.tags[tracking.JOB_TAG], Path(copy))
        except _NothingToDoError as reason:
            _output(deploy="false")
            _done(str(reason))
            return
        platform = serving.endpoints(configuration, stage)
        if name == PRODUCTION:
            _produce(client, configuration, platform, version, stage)
        else:
            _try_out(client, platform, version, model, stage)
    _output(deploy="true", data_set=version.tags["data_set"])


def _done(sentence: str) -> None:
    """Say why there is nothing to do."""
    report.say(sentence)
    report.summarize("Deployment", [report.cell(sentence)])


def _chosen(client: MlflowClient, configuration: settings.Settings) -> ModelVersion:
    """Return the version that MODEL_VERSION names, else the one that the job RUN_ID registered."""
    named = os.environ.get("MODEL_VERSION", "")
    if named:
        found = _VERSION.fullmatch(named)
        if found is None:
            raise report.Fault(f"MODEL_VERSION is {named!r}: write NAME/VERSION, e.g. signalbox-digits/3.")
        try:
            version = client.get_model_version(*found.groups())
        except MlflowException as error:
            raise report.Fault(f"There is no model version {named}: {tracking.first_line(error)}") from None
        if not {tracking.JOB_TAG, tracking.ORIGIN_TAG, "data_set"} <= set(version.tags):
            raise report.Fault(f"Model version {named} was not registered by a Signalbox job; it cannot be deployed.")
        return version
    job = environment.required("RUN_ID", "the name of the job whose model is to be deployed, or set MODEL_VERSION")
    if not _RUN_ID.fullmatch(job):
        raise report.Fault(f"RUN_ID is {job!r}: a job's name has letters, digits, '-' and '_' only.")
    experiment = str(configuration.run["experiment_name"])
    run = tracking.job_run(client, tracking.experiment_id(client, experiment), job)
    if run is None:
        raise report.Fault(
            f"There is no job {job!r} in experiment {experiment!r}: "
            "check RUN_ID, and that MLFLOW_TRACKING_URI is the one that the job used."
        )
    registered = tracking.version_of_job(client, configuration.model_name(run.data.tags.get("data_set", "")), job)
    if registered is None:
        reason = run.data.tags.get("decision_reason", f"The job ended as {run.info.status}, without a decision.")
        raise _NothingToDoError(f"Kept the champion, nothing to deploy. {reason}")
    return registered


def _require_something_to_do(client: MlflowClient, version: ModelVersion, configuration: settings.Settings) -> None:
    """Raise where the version serves already, or served or failed before; a person may ask for those again."""
    what, serving_now = f"{version.name} version {version.version}", tracking.champion(client, version.name)
    if serving_now is not None and int(serving_now.version) == int(version.version):
        endpoint = configuration.endpoint_name(version.tags["data_set"])
        client.set_model_version_tag(version.name, version.version, DEPLOYED, endpoint)
        raise _NothingToDoError(f"{what} serves already; nothing to do.")
    if _by_hand():
        return
    by_hand = "To try again, start deploy_model.yml by hand."
    if DEPLOYED in version.tags:
        by = f"version {serving_now.version}" if serving_now is not None else "no other"
        raise _NothingToDoError(f"{what} was deployed before, and {by} has followed; nothing to do. {by_hand}")
    if rollout.RETURNED_TAG in version.tags:
        raise _NothingToDoError(f"{what} was given back by production: {version.tags[rollout.RETURNED_TAG]} {by_hand}")


def _by_hand() -> bool:
    """Tell whether a person asks: a workflow started by hand, or started again, or no workflow at all."""
    return os.environ.get("BY_HAND") != "false" or os.environ.get("GITHUB_RUN_ATTEMPT", "1") not in {"", "1"}


def _try_out(client: MlflowClient, platform: Endpoints, version: ModelVersion, model: Path, stage: Stage) -> None:
    """Deploy to a stage before production, ask, and leave there what is needed."""
    candidate = serving.candidate(client, version, model, stage)
    with report.group(f"Try {candidate.deployment} at endpoint {candidate.endpoint}"):
        tested = rollout.try_out(platform, candidate, stage, serving.sample_file(stage), serving.user_test(stage))
        rollout.settle_stage(platform, stage, candidate.endpoint, candidate.deployment)
    client.set_model_version_tag(version.name, version.version, f"passed_{stage.name}", _now())
    after = "deleted, as delete_service_after_deployment says" if stage.delete_afterwards else "100 % of the traffic"
    _tell(f"Passed stage {stage.name}", version, tested, {"own test": _own_test(stage), "afterwards": after})


def _produce(
    client: MlflowClient, configuration: settings.Settings, platform: Endpoints, version: ModelVersion, stage: Stage
) -> None:
    """Roll the version out in production, then make it the champion; one rollout of an endpoint at a time."""
    endpoint, deployment = stage.endpoint(version.tags["data_set"]), rollout.deployment_name(version.version)
    lease = Lease(platform, endpoint, Holder.this_process())
    with tempfile.TemporaryDirectory(prefix="signalbox-model-") as copy, lease.held(deployment):
        # While it waited, another rollout may have changed what is true: everything is asked once more.
        version = client.get_model_version(version.name, version.version)
        serving_now = tracking.champion(client, version.name)
        if serving_now is not None and int(serving_now.version) == int(version.version):
            _done(f"{version.name} version {version.version} serves already; nothing to do.")
            return
        model = admission.admit(client, configuration, version, version.tags[tracking.JOB_TAG], Path(copy))
        state = platform.state(endpoint)
        if state.tags.get(rollout.ROLLBACK_TAG):
            raise report.Fault(
                f"A rollback of {endpoint} to {state.tags[rollout.ROLLBACK_TAG]} was cut off: finish it first with "
                f"`signalbox rollback {version.tags['data_set']}`."
            )
        champion = rollout.deployment_name(serving_now.version) if serving_now is not None else ""
        _require_agreement(endpoint, state.tags, version, champion)
        old = champion if champion in state.deployments else _most_traffic(state.traffic, deployment)
        candidate = serving.candidate(client, version, model, stage)
        with report.group(f"Roll out {deployment} to endpoint {endpoint}"):
            tested = _tested_beside(platform, candidate, stage, old if state.traffic.get(deployment) else None, lease)
            try:
                steps = rollout.move_traffic(platform, tested, old, stage, lease)
            except Unfit as fault:
                client.set_model_version_tag(
                    version.name, version.version, rollout.RETURNED_TAG, str(fault)[:_TAG_LENGTH]
                )
                raise
        platform.tag(
            endpoint,
            {rollout.MODEL_TAG: version.name, rollout.CHAMPION_TAG: deployment, rollout.PREVIOUS_TAG: old or ""},
        )
        for key, text in (("deployment", deployment), ("scoring_uri", tested.addresses.scoring)):
            client.set_model_version_tag(version.name, version.version, key, text)
        # Only now: the champion is what serves. DEPLOYED says so to a replay when another has followed.
        tracking.make_champion(client, version)
        client.set_model_version_tag(version.name, version.version, DEPLOYED, endpoint)
        rollout.clean_up(platform, endpoint, {deployment, *([old] if old else [])})
    way_back = f"{old}, which stays without traffic (signalbox rollback)" if old else "none, it is the first"
    watched = {f"traffic {at}": what for at, what in steps}
    _tell("Deployed to production", version, tested, {"own test": _own_test(stage), **watched, "way back": way_back})


def _tested_beside(
    platform: Endpoints, candidate: Candidate, stage: Stage, way_back: str | None, lease: Lease
) -> rollout.Tested:
    """Deploy the candidate beside the others and ask it.

    `way_back` is given where an earlier run was cut off with some of the traffic at the candidate: users must not meet
    what fails its test, so that deployment gets the traffic back first.
    """
    try:
        return rollout.try_out(platform, candidate, stage, serving.sample_file(stage), serving.user_test(stage))
    except report.Fault as fault:
        if way_back is None:
            raise
        lease.renew()
        given_back = rollout.give_back(platform, candidate.endpoint, candidate.deployment, way_back)
        raise report.Fault(*fault.sentences, given_back) from None


def _require_agreement(endpoint: str, tags: Mapping[str, str], version: ModelVersion, champion: str) -> None:
    """Raise where the endpoint's tags say otherwise than the registry's: somebody changed one of them by hand.

    A registry whose champion is made to look older, or absent, would ask less of a new model.
    """
    model, serves = tags.get(rollout.MODEL_TAG, version.name), tags.get(rollout.CHAMPION_TAG, "")
    if model != version.name:
        raise report.Fault(
            f"Endpoint {endpoint} serves the model {model}, and {version.name} is another one: with a new model_name "
            "(registermodel.json) goes a new name of the endpoint (deploy.json), so that the old one serves until its "
            "users have moved."
        )
    if serves not in {"", champion, rollout.deployment_name(version.version)}:
        raise report.Fault(
            f"Endpoint {endpoint} has the champion {serves} (its tag {rollout.CHAMPION_TAG!r}), but in the registry it "
            f"is {champion or 'nobody'}. Where a rollout was cut off, run it again, or `signalbox rollback`; where "
            f"somebody changed a tag {tracking.CHAMPION_ORDER!r}, set it back."
        )


def _own_test(stage: Stage) -> str:
    return f"passed, {stage.user_test[0]}" if stage.user_test else "switched off (test_enabled)"


def _most_traffic(traffic: Mapping[str, int], candidate: str) -> str | None:
    """Return who serves an endpoint whose champion is not deployed there, as after a change by hand."""
    others = {name: share for name, share in traffic.items() if share and name != candidate}
    return max(others, key=lambda name: others[name], default=None)


def _tell(title: str, version: ModelVersion, tested: rollout.Tested, more: Mapping[str, str]) -> None:
    """Print and summarize what was deployed, and where it answers."""
    rows: list[tuple[str, object]] = [
        ("model", f"{version.name} version {version.version}"),
        ("endpoint", tested.service.endpoint),
        ("deployment", tested.service.deployment),
        ("scoring address", tested.addresses.scoring),
        ("swagger address", tested.addresses.swagger),
        ("smoke test's predictions", ", ".join(map(str, tested.predictions))),
        ("smoke test's time", f"{tested.milliseconds:.0f} ms"),
        *more.items(),
    ]
    for name, value in rows:
        report.say(f"{name}: {value}")
    report.summarize(title, report.table(rows))


def _output(**values: str) -> None:
    """Hand values to the workflow's next jobs."""
    path = os.environ.get("GITHUB_OUTPUT")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in values.items())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    report.step("Deployment", main)
