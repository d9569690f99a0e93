"""Bring a model version to its users: beside the old one, asked first, and only then, step by step, given the traffic.

Whatever fails before the traffic moves leaves the old deployment serving as before; whatever fails later gives the
traffic back first and explains afterwards. Every step can be made again, so a rollout that was cut off, or an event
that came twice, ends in the same state.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops import report
from mlops.deployment.deploy_settings import Stage
from mlops.deployment.endpoints import Addresses, Candidate, Endpoints
from mlops.deployment.lease import Lease, LeaseLost
from mlops.deployment.watch import Unfit, Watched, watch

UserTest = Callable[["Service"], None]
"""The project's own test; it raises if the deployment must not have traffic."""
CHAMPION_TAG, PREVIOUS_TAG, ROLLBACK_TAG = "champion", "previous", "rollback_to"
"""Tags of a production endpoint: its deployments now and before, and where a rollback under way is going."""
MODEL_TAG = "model"
"""Tag of a production endpoint: the registered model whose versions its deployments are named after."""
RETURNED_TAG = "rollout_returned"
"""Tag of a model version that production gave back, by itself or rolled back: why."""
_MARGIN_SECONDS = 600.0


def deployment_name(version: object) -> str:
    """Return the deployment of a model version, on every endpoint."""
    return f"model-v{version}"


@dataclass(frozen=True, slots=True)
class Service:
    """A deployment as a test sees it, with the attributes that Azure's web services had."""

    endpoints: Endpoints
    endpoint: str
    deployment: str
    scoring_uri: str
    sample: Any
    """A request body: the settings' own, or rows that the model carries with it."""

    def run(self, body: Any) -> Any:
        """Send `body` (an object, or its JSON text) and return the decoded answer."""
        decoded = json.loads(body) if isinstance(body, str | bytes) else body
        return self.endpoints.score(self.endpoint, self.deployment, decoded)

    def predictions(self) -> list[Any]:
        """Ask for the sample's predictions; raises `Fault` unless there is exactly one a row."""
        answer = self.run(self.sample)
        predictions = answer.get("predictions") if isinstance(answer, dict) else None
        rows = _rows(self.sample)
        if not isinstance(predictions, list) or len(predictions) != rows:
            raise report.Fault(
                f"Smoke test: {rows} rows must give {rows} predictions, but {self.deployment} answered "
                f"{json.dumps(answer)[:200]}."
            )
        return predictions


@dataclass(frozen=True, slots=True)
class Tested:
    """A deployment that has passed its tests, and what it said."""

    service: Service
    addresses: Addresses
    predictions: list[Any]
    milliseconds: float


def sample(model: Path, file: Path | None) -> Any:
    """Return a scoring request: the file's, or held-out rows from the input example in the model's folder."""
    source = file or model / "input_example.json"
    try:
        found = json.loads(source.read_text(encoding="utf-8"))
        request = found if file else {"data": found["data"]}
        _rows(request)
    except (OSError, ValueError, KeyError, TypeError):
        if file:
            raise report.Fault(f'sample_file {file}: it must be a JSON request such as {{"data": [[…], …]}}.') from None
        raise report.Fault(
            f"The model in {model} has no readable input_example.json: train it again with an input example."
        ) from None
    return request


def _rows(request: Any) -> int:
    """Return how many rows a request asks about; raises KeyError or TypeError for one that is none."""
    rows = request["data"] if "data" in request else request["input_data"]
    return len(rows["data"] if isinstance(rows, dict) else rows)


def try_out(
    endpoints: Endpoints, candidate: Candidate, stage: Stage, sample_file: Path | None, user_test: UserTest | None
) -> Tested:
    """Deploy beside the others and ask: health, shape, latency, the project's own test. No traffic moves.

    A deployment that does not pass is deleted, unless it has traffic already (see `give_back`).
    """
    endpoint, deployment = candidate.endpoint, candidate.deployment
    request = sample(candidate.model, sample_file)
    serving = endpoints.state(endpoint).traffic.get(deployment, 0) > 0
    addresses = endpoints.deploy(candidate)
    service = Service(endpoints, endpoint, deployment, addresses.scoring, request)
    try:
        predictions = service.predictions()  # warms it up; the next one is timed
        began = time.perf_counter()
        service.predictions()
        milliseconds = (time.perf_counter() - began) * 1000
        if milliseconds > stage.smoke_test_ms:
            raise report.Fault(
                f"Smoke test: {deployment} took {milliseconds:.0f} ms to answer the sample, and smoke_test_ms is "
                f"{stage.smoke_test_ms:g}."
            )
        if user_test is not None:
            user_test(service)
    except report.Fault:
        if not serving:
            endpoints.delete(endpoint, deployment)
        raise
    return Tested(service, addresses, predictions, milliseconds)


def settle_stage(endpoints: Endpoints, stage: Stage, endpoint: str, deployment: str) -> None:
    """Leave on a stage's endpoint what is needed: the deployment that passed, or nothing where settings say so."""
    before = endpoints.state(endpoint).traffic
    if stage.delete_afterwards:
        if before.get(deployment):  # it stayed here once, before the setting was changed
            endpoints.route(endpoint, {})
        endpoints.delete(endpoint, deployment)
        return
    endpoints.route(endpoint, {deployment: 100})
    # Only what had the traffic goes: another rollout may be testing its own deployment here at this moment.
    for name in sorted(name for name, share in before.items() if share and name != deployment):
        endpoints.delete(endpoint, name)


def move_traffic(
    endpoints: Endpoints, tested: Tested, old: str | None, stage: Stage, lease: Lease
) -> list[tuple[str, str]]:
    """Give the traffic to the deployment step by step, watching each; return (share, what it showed) a step.

    At the first broken limit, and at anything else that goes wrong, also when this process is told to stop, the
    traffic goes back to `old` first, then the deployment is deleted. Without an old one there is nothing to compare
    with: all of the traffic in one step, and none for anybody if that fails. A rollout that was cut off goes on with
    the step that it had reached.

    Raises `Unfit` where a limit was broken, `LeaseLost` where somebody else took over, `Fault` for anything else.
    """
    service, lines = tested.service, list[tuple[str, str]]()
    endpoint, deployment = service.endpoint, service.deployment
    share = endpoints.state(endpoint).traffic.get(deployment, 0)
    steps: list[tuple[str, dict[str, int], dict[str, int]]] = []
    if old is None:
        steps = [("100 %", {deployment: 100}, {})]
    else:
        if stage.mirror_percent and not share:
            steps.append((f"mirrored {stage.mirror_percent} %", {old: 100}, {deployment: stage.mirror_percent}))
        for step in stage.steps:
            if step >= share:
                rest = {old: 100 - step} if step < 100 else {}
                steps.append((f"{step} %", {deployment: step, **rest}, {}))
    at = ""
    try:
        for at, traffic, mirror in steps:
            lease.renew(stage.soak_seconds + _MARGIN_SECONDS)
            endpoints.route(endpoint, traffic, mirror)
            watched = _watch(endpoints, service, stage)
            lines.append((at, str(watched)))
            report.say(f"{deployment} at {at}: {watched}")
        lease.renew()
    except LeaseLost:
        raise
    except report.Fault as fault:
        kind, what = (Unfit, "it was found unfit") if isinstance(fault, Unfit) else (report.Fault, "the rollout failed")
        raise kind(
            f"{deployment} was at {at} of the traffic of {endpoint} when {what}: {str(fault).rstrip('.')}.",
            give_back(endpoints, endpoint, deployment, old),
        ) from None
    except BaseException:
        report.say(give_back(endpoints, endpoint, deployment, old))
        raise
    return lines


def clean_up(endpoints: Endpoints, endpoint: str, keep: set[str]) -> None:
    """Delete every deployment that is not needed any more."""
    for name in sorted(endpoints.state(endpoint).deployments - keep):
        endpoints.delete(endpoint, name)


def _watch(endpoints: Endpoints, service: Service, stage: Stage) -> Watched:
    return watch(
        service.predictions,
        lambda seconds: endpoints.observe(service.endpoint, service.deployment, seconds),
        stage.soak_seconds,
        stage.limits,
    )


def give_back(endpoints: Endpoints, endpoint: str, deployment: str, old: str | None) -> str:
    """Take all traffic from the deployment, delete it, and say what serves now."""
    try:
        endpoints.route(endpoint, {old: 100} if old else {})
    except report.Fault as fault:
        return f"Its traffic could NOT be given back: run `signalbox rollback`. {fault}"
    with contextlib.suppress(report.Fault):  # it has no traffic; the next success deletes it
        endpoints.delete(endpoint, deployment)
    if old is None:
        return f"There was no deployment before it: endpoint {endpoint} answers nobody now."
    return f"All traffic is back at {old}."
