"""Where models serve. One machine: the endpoints part, spoken to over HTTP, with Azure's own terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a deployment answers."""

    scoring: str
    swagger: str


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What an endpoint holds: its deployments, and the share of traffic each has, in percent."""

    deployments: frozenset[str]
    traffic: Mapping[str, int]


class Endpoints(Protocol):
    """What a rollout needs of a serving platform; every method raises `Fault` with the platform's reason."""

    def state(self, endpoint: str) -> EndpointState:
        """Return the endpoint's deployments and traffic; nothing of either if there is no such endpoint."""
        ...

    def deploy(self, candidate: Candidate) -> Addresses:
        """Start a deployment beside the others, without traffic, and wait until it is healthy."""
        ...

    def score(self, endpoint: str, deployment: str, body: Any) -> Any:
        """Ask one deployment, whatever traffic it has; return its decoded JSON answer."""
        ...

    def route(self, endpoint: str, traffic: Mapping[str, int]) -> None:
        """Split the endpoint's traffic, in percent of 100."""
        ...

    def delete(self, endpoint: str, deployment: str) -> None:
        """Delete a deployment that has no traffic."""
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
        return EndpointState(frozenset(found["deployments"]), dict(found["traffic"]))

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

    def route(self, endpoint: str, traffic: Mapping[str, int]) -> None:
        """See `Endpoints.route`."""
        response = self._call("PUT", f"{self._path(endpoint)}/traffic", dict(traffic))
        self._decoded(response, f"The traffic of endpoint {endpoint} was not changed")

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
        raise Fault(f"{failure} (HTTP {response.status_code}): {reason or response.text[:300] or 'no reason given'}")
