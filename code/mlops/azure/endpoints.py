"""Where models serve in Azure: online endpoints, through azure-ai-ml, as `mlops.endpoints.Endpoints` promises them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from azure.ai.ml import MLClient
from azure.ai.ml.entities import OnlineEndpoint
from azure.core import PipelineClient
from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.policies import BearerTokenCredentialPolicy
from azure.core.rest import HttpRequest

from mlops.azure import (
    backend as azure_backend,
    job as azure_job,
    metrics as azure_metrics,
    serving as azure_serving,
    workspace as azure_workspace,
)
from mlops.deployment.deploy_settings import MOST_MIRRORED, Stage
from mlops.deployment.endpoints import Addresses, Candidate, EndpointState, Observed
from mlops.environment import required
from mlops.report import Fault
from mlops.settings import ROOT, Settings

_ARM = "https://management.azure.com"
_LOG_LINES = 200
_SHOWN_LINES = 20
_KEY_SECONDS = 600.0


def connect(configuration: Settings, stage: Stage) -> AzureEndpoints:
    """Return the endpoints of the workspace that workspace.json names, as the identity that is logged in."""
    required("AZURE_SUBSCRIPTION_ID", "the subscription that holds the workspace, or set ENDPOINTS_URL on one machine")
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - the tests have a credential of their own

    credential = DefaultAzureCredential()
    return AzureEndpoints(azure_workspace.connect(configuration, credential), credential, stage)


@dataclass(frozen=True, slots=True)
class _Door:
    """How an endpoint is asked: its address, and the key or token, for as long as it is good."""

    address: str
    key: str = field(repr=False)
    until: float


class AzureEndpoints:
    """Managed or Kubernetes online endpoints of one workspace; see `mlops.endpoints.Endpoints`."""

    def __init__(self, client: MLClient, credential: TokenCredential, stage: Stage) -> None:
        self._client = client
        self._stage = stage
        self._doors: dict[str, _Door] = {}
        login = BearerTokenCredentialPolicy(credential, f"{_ARM}/.default")
        self._arm: PipelineClient[Any, Any] = PipelineClient(_ARM, policies=[login])
        self._data: PipelineClient[Any, Any] = PipelineClient("", policies=[])

    def state(self, endpoint: str) -> EndpointState:
        """See `Endpoints.state`."""
        found = self._find(endpoint)
        if found is None:
            return EndpointState(frozenset(), {})
        # azure-ai-ml names every deployment here, with 0 where it has no traffic.
        traffic, mirror = dict(found.traffic or {}), dict(found.mirror_traffic or {})
        return EndpointState(
            frozenset([*traffic, *mirror]),
            {name: share for name, share in traffic.items() if share},
            {name: share for name, share in mirror.items() if share},
            {str(key): str(value) for key, value in (found.tags or {}).items()},
        )

    def deploy(self, candidate: Candidate) -> Addresses:
        """See `Endpoints.deploy`."""
        what = f"Deployment {candidate.deployment} of endpoint {candidate.endpoint} did not start"
        found = self._find(candidate.endpoint) or self._create(candidate.endpoint)
        serves = (found.traffic or {}).get(candidate.deployment, 0) > 0
        if not serves and self._broke_off(candidate):
            self.delete(candidate.endpoint, candidate.deployment)  # Azure does not mend a failed one
        try:
            environment = azure_backend.registered(self._client.environments, _environment(candidate))
            built = azure_serving.deployment(candidate, f"azureml:{environment.name}:{environment.version}")
            self._client.online_deployments.begin_create_or_update(built).result()
        except AzureError as error:
            told = azure_workspace.fault(what, error)
            log = self._log(candidate)
            if not serves:
                self.delete(candidate.endpoint, candidate.deployment)
            raise Fault(*told.sentences, *([f"Its log ends with: {log}"] if log else [])) from None
        found = self._find(candidate.endpoint) or found
        return Addresses(str(found.scoring_uri), str(found.openapi_uri))

    def score(self, endpoint: str, deployment: str, body: Any) -> Any:
        """See `Endpoints.score`."""
        what = f"Deployment {deployment} of endpoint {endpoint} gave no prediction"
        door = self._door(endpoint)
        headers = {"Authorization": f"Bearer {door.key}", "azureml-model-deployment": deployment}
        request = HttpRequest("POST", door.address, json=body, headers=headers)
        timeout = self._stage.scoring_timeout
        try:
            response = self._data.send_request(request, connection_timeout=timeout, read_timeout=timeout)
            text = response.text()
        except AzureError as error:
            raise Fault(f"{what}: {(error.message or type(error).__name__).splitlines()[0]}.") from None
        if response.status_code != 200:
            self._doors.pop(endpoint, None)  # the key may have been changed
            raise Fault(f"{what} (HTTP {response.status_code}): {text[:300] or 'no reason given'}")
        try:
            return json.loads(text)
        except ValueError:
            raise Fault(f"{what}: its answer is not JSON: {text[:100]}") from None

    def route(self, endpoint: str, traffic: Mapping[str, int], mirror: Mapping[str, int] | None = None) -> None:
        """See `Endpoints.route`."""
        what = f"The traffic of endpoint {endpoint} was not changed"
        found = self._find(endpoint)
        if found is None:
            raise Fault(f"{what}: there is no such endpoint.")
        copied = {name: share for name, share in (mirror or {}).items() if share}
        if copied and azure_serving.is_kubernetes(found):
            raise Fault(f"{what}: Azure mirrors traffic on managed endpoints only; set mirror_percent to 0.")
        if len(copied) > 1 or sum(copied.values()) > MOST_MIRRORED:
            raise Fault(
                f"{what}: traffic can be mirrored to one deployment, and at most {MOST_MIRRORED} percent of it."
            )
        found.traffic, found.mirror_traffic = dict(traffic), copied
        self._update(found, what)

    def observe(self, endpoint: str, deployment: str, seconds: float) -> Observed:
        """See `Endpoints.observe`."""
        scope = self._client
        resource = (
            f"/subscriptions/{scope.subscription_id}/resourceGroups/{scope.resource_group_name}/providers/"
            f"Microsoft.MachineLearningServices/workspaces/{scope.workspace_name}/onlineEndpoints/{endpoint}"
        )
        try:
            return azure_metrics.observe(self._metrics, resource, deployment, seconds)
        except AzureError as error:
            raise azure_workspace.fault(f"The metrics of endpoint {endpoint} cannot be read", error) from None

    def delete(self, endpoint: str, deployment: str) -> None:
        """See `Endpoints.delete`."""
        try:
            self._client.online_deployments.begin_delete(name=deployment, endpoint_name=endpoint).result()
        except ResourceNotFoundError:
            return
        except AzureError as error:
            raise azure_workspace.fault(
                f"Deployment {deployment} of endpoint {endpoint} was not deleted", error
            ) from None

    def tag(self, endpoint: str, tags: Mapping[str, str], only_if: Mapping[str, str] | None = None) -> bool:
        """See `Endpoints.tag`. Azure has no compare-and-set here: the tags are read just before they are written."""
        found = self._find(endpoint) or self._create(endpoint)
        current = {str(key): str(value) for key, value in (found.tags or {}).items()}
        if any(current.get(key, "") != value for key, value in (only_if or {}).items()):
            return False
        wanted = {key: value for key, value in {**current, **tags}.items() if value}
        if wanted != current:
            found.tags = wanted
            self._update(found, f"Endpoint {endpoint} was not tagged")
        return True

    def _find(self, endpoint: str) -> OnlineEndpoint | None:
        """Return the endpoint as it stands, or None."""
        try:
            found: OnlineEndpoint = self._client.online_endpoints.get(endpoint)
            return found
        except ResourceNotFoundError:
            return None
        except AzureError as error:
            raise azure_workspace.fault(f"Endpoint {endpoint} cannot be read", error) from None

    def _create(self, endpoint: str) -> OnlineEndpoint:
        self._update(azure_serving.endpoint(endpoint, self._stage.options), f"Endpoint {endpoint} was not created")
        return self._find(endpoint) or _vanished(endpoint)

    def _update(self, wanted: OnlineEndpoint, what: str) -> None:
        try:
            self._client.online_endpoints.begin_create_or_update(wanted).result()
        except AzureError as error:
            raise azure_workspace.fault(what, error) from None

    def _broke_off(self, candidate: Candidate) -> bool:
        """Tell whether an earlier try left a failed deployment of this name."""
        try:
            found = self._client.online_deployments.get(candidate.deployment, candidate.endpoint)
        except ResourceNotFoundError:
            return False
        except AzureError as error:
            what = f"Deployment {candidate.deployment} of endpoint {candidate.endpoint} cannot be read"
            raise azure_workspace.fault(what, error) from None
        return azure_workspace.word(found.provisioning_state).lower() == "failed"

    def _log(self, candidate: Candidate) -> str:
        """Return the last lines that the deployment's container wrote, or nothing if it never ran."""
        try:
            text = self._client.online_deployments.get_logs(
                name=candidate.deployment, endpoint_name=candidate.endpoint, lines=_LOG_LINES
            )
        except AzureError:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-_SHOWN_LINES:])

    def _door(self, endpoint: str) -> _Door:
        """Return how to ask the endpoint; a key is asked for again every ten minutes."""
        door = self._doors.get(endpoint)
        if door is None or door.until < time.monotonic():
            found = self._find(endpoint) or _vanished(endpoint)
            try:
                keys = self._client.online_endpoints.get_keys(endpoint)
            except AzureError as error:
                raise azure_workspace.fault(f"The key of endpoint {endpoint} cannot be read", error) from None
            key = getattr(keys, "primary_key", None) or getattr(keys, "access_token", "")
            door = _Door(str(found.scoring_uri), str(key), time.monotonic() + _KEY_SECONDS)
            self._doors[endpoint] = door
        return door

    def _metrics(self, path: str) -> Any:
        response = self._arm.send_request(HttpRequest("GET", f"{_ARM}{path}"))
        if response.status_code != 200:
            raise HttpResponseError(response=response)
        return response.json()


def _vanished(endpoint: str) -> NoReturn:
    raise Fault(f"There is no endpoint {endpoint}: somebody deleted it meanwhile. Start the deployment again.")


def _environment(candidate: Candidate) -> Any:
    """Return what the scoring script runs in: conda_file on custom_base_image, or on Microsoft's base image."""
    file = ROOT / candidate.options.get("conda_file", "code/deploy/environment.yml")
    if not file.is_file():
        raise Fault(f"deploy.json: conda_file {file.relative_to(ROOT).as_posix()!r} is not in this project.")
    image = candidate.options.get("custom_base_image", azure_job.IMAGE)
    return azure_job.environment("signalbox-deploy", file, image)
