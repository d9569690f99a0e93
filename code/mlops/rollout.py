"""Bring a model version into production: beside the old one, asked first, and only then given the traffic.

Whatever fails before the traffic moves leaves the old deployment serving as before. Every step can be made again,
so a deployment that was cut off, or an event that came twice, ends in the same state.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops import report
from mlops.endpoints import Addresses, Candidate, Endpoints

UserTest = Callable[["Service"], None]
"""The project's own test; it raises if the deployment must not have traffic."""


@dataclass(frozen=True, slots=True)
class Service:
    """A deployment as a test sees it, with the attributes that Azure's web services had."""

    endpoints: Endpoints
    endpoint: str
    deployment: str
    scoring_uri: str
    sample: Any
    """A request body made from held-out rows that the model carries with it."""

    def run(self, body: Any) -> Any:
        """Send `body` (an object, or its JSON text) and return the decoded answer."""
        decoded = json.loads(body) if isinstance(body, str | bytes) else body
        return self.endpoints.score(self.endpoint, self.deployment, decoded)


def sample(model: Path) -> dict[str, Any]:
    """Return a scoring request of held-out rows from the input example that stands in the model's folder."""
    try:
        example = json.loads((model / "input_example.json").read_text(encoding="utf-8"))
        return {"data": example["data"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise report.Fault(
            f"The model in {model} has no readable input_example.json: train it again with an input example."
        ) from None


def smoke_test(service: Service) -> list[Any]:
    """Ask for predictions over HTTP; return them if there is exactly one a row."""
    answer = service.run(service.sample)
    predictions = answer.get("predictions") if isinstance(answer, dict) else None
    rows = len(service.sample["data"])
    if not isinstance(predictions, list) or len(predictions) != rows:
        raise report.Fault(
            f"Smoke test: {rows} rows must give {rows} predictions, but {service.deployment} answered "
            f"{json.dumps(answer)[:200]}."
        )
    return predictions


def roll_out(
    endpoints: Endpoints, candidate: Candidate, keep: str | None, user_test: UserTest | None
) -> tuple[Addresses, list[Any]]:
    """Deploy, test, move the traffic; return the addresses and the smoke test's predictions.

    `keep` is the deployment of the champion so far: it stays beside the new one, without traffic, so that a
    rollback needs no start. A deployment that is not needed any more is deleted.
    """
    endpoint, deployment = candidate.endpoint, candidate.deployment
    request = sample(candidate.model)
    serving = endpoints.state(endpoint).traffic.get(deployment, 0) > 0
    addresses = endpoints.deploy(candidate)
    service = Service(endpoints, endpoint, deployment, addresses.scoring, request)
    try:
        predictions = smoke_test(service)
        if user_test is not None:
            user_test(service)
    except report.Fault:
        if not serving:
            endpoints.delete(endpoint, deployment)
        raise
    endpoints.route(endpoint, {deployment: 100})
    for name in sorted(endpoints.state(endpoint).deployments - {deployment, keep}):
        endpoints.delete(endpoint, name)
    return addresses, predictions
