"""Take production back: the traffic to the deployment before, the champion to its version, and a record of it.

What `signalbox rollback` and the workflow rollback.yml call, with DATA_SET, ROLLED_BACK_BY and ROLLBACK_REASON. A
rollout that is under way, or was cut off, is taken back to the champion; with UNFINISHED_ONLY=true that is all it does.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlops import environment, report, settings
from mlops.deployment import rollout, serving
from mlops.deployment.deploy_settings import PRODUCTION
from mlops.deployment.endpoints import EndpointState
from mlops.deployment.lease import Holder, Lease
from mlops.models import admission, tracking

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_DEPLOYMENT = re.compile(r"model-v(\d+)")
_TAG_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Way:
    """From which deployment a rollback goes back to which."""

    left: str | None
    """The deployment that loses its traffic; None where nothing has any."""
    target: str


def main() -> None:
    """Roll the data set's production endpoint back."""
    folder = environment.required("DATA_SET", "the data set whose endpoint is to be rolled back, e.g. digits")
    if not _FOLDER.fullmatch(folder):
        raise report.Fault(f"DATA_SET is {folder!r}: a data set is named with letters, digits, '-' and '_' only.")
    by = environment.required("ROLLED_BACK_BY", "the name of the person who rolls back")
    reason = environment.required("ROLLBACK_REASON", "why it is rolled back; it is written down with the model version")
    only_unfinished = os.environ.get("UNFINISHED_ONLY") == "true"
    configuration, client = settings.load(), tracking.client()
    stage = configuration.deploy[PRODUCTION]
    platform, endpoint = serving.endpoints(configuration, stage), stage.endpoint(folder)
    name = configuration.model_name(folder)
    if not platform.state(endpoint).deployments:
        raise report.Fault(f"Endpoint {endpoint} has no deployment: nothing of data set {folder!r} is in production.")
    lease = Lease(platform, endpoint, Holder.this_process())
    with lease.held("rollback", by_force=True):  # a rollout under way notices, and stops without touching anything
        champion = tracking.champion(client, name)
        state = platform.state(endpoint)
        way = _way(endpoint, state, champion, only_unfinished=only_unfinished)
        if way is None:
            report.say(f"No rollout of {endpoint} is unfinished; nothing to do.")
            return
        version = _version(client, name, way.target)
        if not state.traffic.get(way.target):  # who serves already gets the rest without a question
            what = f"Production does not go back to {name} version {version.version}"
            admission.require_proven(version, what, "Nothing was changed. Start train_model.yml for a new challenger.")
        # Written down first: a rollback that is cut off after the traffic goes on to the same place.
        platform.tag(endpoint, {rollout.ROLLBACK_TAG: way.target})
        platform.route(endpoint, {way.target: 100})
        tracking.make_champion(client, version)
        _record(client, name, way, by, reason)
        platform.tag(endpoint, {rollout.CHAMPION_TAG: way.target, rollout.PREVIOUS_TAG: "", rollout.ROLLBACK_TAG: ""})
    rows: list[tuple[str, object]] = [
        ("data set", folder),
        ("endpoint", endpoint),
        ("left", way.left or "nothing had the traffic"),
        ("serves now", f"{way.target}, 100 % of the traffic"),
        ("champion", f"{version.name} version {version.version}"),
        ("by", by),
        ("reason", reason),
    ]
    for title, value in rows:
        report.say(f"{title}: {value}")
    report.summarize("Rolled back", report.table(rows))


def _way(endpoint: str, state: EndpointState, champion: ModelVersion | None, *, only_unfinished: bool) -> Way | None:
    """Return where to go back to; None where only an unfinished rollout was to be taken back and there is none."""
    at_champion = rollout.deployment_name(champion.version) if champion is not None else ""
    with_traffic = {name for name, share in state.traffic.items() if share} | set(state.mirror)
    left = max(with_traffic - {at_champion}, key=lambda name: state.traffic.get(name, 0), default=None)
    begun = state.tags.get(rollout.ROLLBACK_TAG, "")
    if begun in state.deployments:
        return Way(at_champion if begun != at_champion else left, begun)
    if left is not None and at_champion in state.deployments:
        return Way(left, at_champion)
    if only_unfinished:
        return None
    previous = state.tags.get(rollout.PREVIOUS_TAG, "")
    if previous not in state.deployments or previous == at_champion:
        serving_now = at_champion or "nothing"
        raise report.Fault(
            f"Endpoint {endpoint} has no deployment to go back to: {serving_now} serves, and the one before it is "
            f"{'gone' if previous else 'not known (it was the first, or has been rolled back to)'}. Start "
            "train_model.yml for a new challenger."
        )
    return Way(at_champion or left, previous)


def _version(client: MlflowClient, name: str, deployment: str) -> ModelVersion:
    """Return the version that a deployment serves; raises `Fault` where that is none of ours."""
    found = _DEPLOYMENT.fullmatch(deployment)
    if found is None:
        raise report.Fault(
            f"The deployment before is {deployment}, which is none of Signalbox (model-v<VERSION>): nothing was "
            "changed. Start train_model.yml for a new challenger."
        )
    try:
        return client.get_model_version(name, found[1])
    except MlflowException as error:
        raise report.Fault(
            f"The deployment before is {deployment}, but there is no version {found[1]} of {name} "
            f"({tracking.first_line(error)}): nothing was changed. Start train_model.yml for a new challenger."
        ) from None


def _record(client: MlflowClient, name: str, way: Way, by: str, reason: str) -> None:
    """Write on the version that was left who left it, when and why; a replay of its event deploys it no more."""
    found = _DEPLOYMENT.fullmatch(way.left or "")
    if found is None:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    sentence = f"Rolled back to {way.target} by {by} at {now}: {reason}"
    for key, text in (
        ("rolled_back_by", by),
        ("rolled_back_at", now),
        ("rolled_back_reason", reason),
        (rollout.RETURNED_TAG, sentence),
    ):
        client.set_model_version_tag(name, found[1], key, text[:_TAG_LENGTH])


if __name__ == "__main__":
    report.step("Rollback", main)
