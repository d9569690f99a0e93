"""Where models serve. One machine: the endpoints part, spoken to over HTTP, with Azure's own terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import requests

from mlops.report import Fault

# The part answers once the scoring server is healthy, and that one imports mlflow first.
_START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be rolled out."""

    endpoint: str
    deployment: str
    """Name of the new deployment, made from the model version."""
    model: Path
    """The model's folder, in MLflow's format."""
    code: Path
    """Folder with the entry script."""
    entry_script: str
    tags: Mapping[str, str]
    """Tags of the deployment: what model, job and origin it serves."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Sizes and switches of the platform, by their names in deploy*.json (`deploy_settings.OPTIONS`); a key that is
    not there is the platform's own default. One machine has no sizes and reads none of them."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a deployment answers."""

    scoring: str
    swagger: str


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What an endpoint holds at this moment."""

    deployments: frozenset[str]
    traffic: Mapping[str, int]
    """Share of the users' requests by deployment, in percent; a deployment that is not named has none."""
    mirror: Mapping[str, int] = field(default_factory=dict)
    """Share of the requests that is copied to a deployment, in percent; its answers are dropped."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """The endpoint's own tags; an empty text is as good as no tag."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What users' own requests got from one deployment.

    Probes that pick it by header are not counted where the platform can tell; copies of mirrored traffic are.
    """

    requests: int
    failed: int
    """Requests that the deployment owed an answer: 5xx, no answer in time, or Azure's 424. A request that the scoring
    script itself refuses (its own 4xx) is the user's fault, and not counted here."""
    p95_ms: float | None
    """95 of 100 requests took no longer than so many milliseconds; None where nothing was measured."""


class Endpoints(Protocol):
    """What a rollout needs of a serving platform; every method raises `Fault` with the platform's reason.

    All of them can be made again: the second call with the same values changes nothing.
    """

    def state(self, endpoint: str) -> EndpointState:
        """Return the endpoint's deployments, traffic and tags; nothing of each if there is no such endpoint."""
        ...

    def deploy(self, candidate: Candidate) -> Addresses:
        """Start a deployment beside the others and wait until it is healthy; a missing endpoint is created.

        A new deployment has no traffic; one of this name that has some keeps it, and is replaced without a gap.
        """
        ...

    def score(self, endpoint: str, deployment: str, body: Any) -> Any:
        """Ask one deployment, whatever traffic it has; return its decoded JSON answer. Not 200 is a `Fault`."""
        ...

    def route(self, endpoint: str, traffic: Mapping[str, int], mirror: Mapping[str, int] | None = None) -> None:
        """Split the endpoint's traffic, in percents that add up to 100 (or to 0), and copy `mirror` percent of it.

        Both replace what was set before; no mirror means that nothing is copied. At most one deployment is mirrored to,
        with at most 50 percent, and it has no traffic of its own (Azure's rules, for managed endpoints only).
        """
        ...

    def observe(self, endpoint: str, deployment: str, seconds: float) -> Observed:
        """Return what users' own requests got from the deployment in the last `seconds`.

        One machine: its router counts. Azure: the endpoint's metrics in Azure Monitor, which come in whole minutes.
        """
        ...

    def delete(self, endpoint: str, deployment: str) -> None:
        """Delete a deployment that has no traffic; one that is not there is no fault."""
        ...

    def tag(self, endpoint: str, tags: Mapping[str, str], only_if: Mapping[str, str] | None = None) -> bool:
        """Set some of the endpoint's tags and keep the others; a missing endpoint is created.

        Changes nothing and returns False where a tag named in `only_if` has not the value given there ("" for none):
        atomically where the platform can compare and set (one machine), else by reading just before (Azure, where the
        workflow's concurrency group keeps two rollouts of one data set apart). An empty text takes a tag away.
        """
        ...


class LocalEndpoints:
    """The endpoints part at `url` (`ENDPOINTS_URL`)."""

    def __init__(self, url: str, scoring_timeout: float) -> None:
        self._url = url.rstrip("/")
        self._scoring_timeout = scoring_timeout
        self._session = requests.Session()
        # On one machine everything is loopback; a proxy of the environment must not see it.
        self._session.trust_env = False

    def state(self, endpoint: str) -> EndpointState:
        """See `Endpoints.state`."""
        response = self._call("GET", self._path(endpoint))
        if response.status_code == 404:
            return EndpointState(frozenset(), {})
        found = self._decoded(response, f"Endpoint {endpoint} cannot be read")
        return EndpointState(frozenset(found["deployments"]), found["traffic"], found["mirror"], found["tags"])

    def deploy(self, candidate: Candidate) -> Addresses:
        """See `Endpoints.deploy`."""
        body = {
            "model": str(candidate.model),
            "code": str(candidate.code),
            "entry_script": candidate.entry_script,
            "env": {},
            "tags": dict(candidate.tags),
        }
        endpoint, deployment = candidate.endpoint, candidate.deployment
        response = self._call("PUT", self._path(endpoint, deployment), body, _START_SECONDS)
        started = self._decoded(response, f"Deployment {deployment} of endpoint {endpoint} did not start")
        return Addresses(str(started["scoring_uri"]), str(started["swagger_uri"]))

    def score(self, endpoint: str, deployment: str, body: Any) -> Any:
        """See `Endpoints.score`."""
        response = self._call(
            "POST",
            f"{self._path(endpoint)}/score",
            body,
            self._scoring_timeout,
            {"azureml-model-deployment": deployment},
        )
        return self._decoded(response, f"Deployment {deployment} of endpoint {endpoint} gave no prediction")

    def route(self, endpoint: str, traffic: Mapping[str, int], mirror: Mapping[str, int] | None = None) -> None:
        """See `Endpoints.route`."""
        body = {"traffic": dict(traffic), "mirror": dict(mirror or {})}
        response = self._call("PUT", f"{self._path(endpoint)}/traffic", body)
        self._decoded(response, f"The traffic of endpoint {endpoint} was not changed")

    def observe(self, endpoint: str, deployment: str, seconds: float) -> Observed:
        """See `Endpoints.observe`."""
        response = self._call("GET", f"{self._path(endpoint, deployment)}/observed?seconds={seconds:.3f}")
        found = self._decoded(response, f"Deployment {deployment} of endpoint {endpoint} cannot be observed")
        return Observed(found["requests"], found["failed"], found["p95_ms"])

    def tag(self, endpoint: str, tags: Mapping[str, str], only_if: Mapping[str, str] | None = None) -> bool:
        """See `Endpoints.tag`."""
        body = {"tags": dict(tags), "only_if": dict(only_if or {})}
        response = self._call("PUT", f"{self._path(endpoint)}/tags", body)
        if response.status_code == 412:
            return False
        self._decoded(response, f"Endpoint {endpoint} was not tagged")
        return True

    def delete(self, endpoint: str, deployment: str) -> None:
        """See `Endpoints.delete`."""
        response = self._call("DELETE", self._path(endpoint, deployment))
        if response.status_code != 404:
            self._decoded(response, f"Deployment {deployment} of endpoint {endpoint} was not deleted")

    def _path(self, endpoint: str, deployment: str = "") -> str:
        path = f"{self._url}/endpoints/{quote(endpoint, safe='')}"
        return f"{path}/deployments/{quote(deployment, safe='')}" if deployment else path

    def _call(
        self,
        method: str,
        url: str,
        body: Any = None,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        try:
            return self._session.request(method, url, json=body, headers=headers, timeout=timeout)
        except requests.RequestException as error:
            raise Fault(
                f"The endpoints part does not answer at {self._url} ({type(error).__name__}): check ENDPOINTS_URL, "
                "and that `signalbox up` runs."
            ) from None

    @staticmethod
    def _decoded(response: requests.Response, failure: str) -> Any:
        """Return the JSON of a successful answer (None without one); else raise with the reason in it."""
        try:
            content = response.json() if response.content else None
        except ValueError:
            content = None
        if response.ok:
            return content
        reason = content.get("error") if isinstance(content, dict) else None
        told = str(reason or response.text[:300] or "no reason given").splitlines()[0]
        raise Fault(f"{failure} (HTTP {response.status_code}): {told}")
