"""The registry in Azure: MLflow's client with Azure's plug-in, over a server that knows only what Azure ML documents.

"Manage models registry with MLflow" lists it: no aliases, search by name only. Whatever else is asked is refused here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import loopback
import pytest
from mlflow import MlflowClient
from mlflow.utils.rest_utils import MlflowHostCreds
from mlops.models import tracking

from tests.model.azure_fake import WORKSPACE

NAME = "signalbox-digits"
URI = f"azureml://westeurope.api.azureml.ms/mlflow/v2.0{WORKSPACE}"
ARTIFACTS = f"{URI}/experiments/signalbox/runs/step-run/artifacts"
BY_NAME = re.compile(r"name ?= ?'([^']*)'")
PAGE = 2


class Registry(loopback.Server):
    """Model versions and their tags, as MLflow's REST protocol knows them."""

    def __init__(self) -> None:
        self.models: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        super().__init__(_Handler)

    def answer(self, call: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer one call, or refuse it as something that Azure does not have."""
        self.asked.append((call, body))
        known = getattr(self, "_" + re.sub(r"\W", "_", call), None)
        if known is None:
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": f"Azure ML has no {call}."}
        answered: tuple[int, dict[str, Any]] = known(body)
        return answered

    def _experiments_search(self, _: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"experiments": []}

    def _runs_get(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        info = {"run_id": body["run_id"], "experiment_id": "1", "status": "RUNNING", "artifact_uri": ARTIFACTS}
        return 200, {"run": {"info": info, "data": {}}}

    def _registered_models_create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["name"] in self.models:
            return 400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": f"There is {body['name']} already."}
        self.models[body["name"]] = []
        return 200, {"registered_model": {"name": body["name"]}}

    def _registered_models_get(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"registered_model": {"name": body["name"]}}

    def _model_versions_create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        versions = self.models[body["name"]]
        made = {**body, "version": str(len(versions) + 1), "status": "READY"}
        versions.append(made)
        return 200, {"model_version": made}

    def _model_versions_get(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"model_version": self.models[body["name"]][int(body["version"]) - 1]}

    def _model_versions_search(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        named = BY_NAME.fullmatch(body.get("filter", ""))
        if named is None:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": f"unknown filter {body.get('filter')}"}
        versions, start = self.models.get(named[1], []), int(body.get("page_token") or 0)
        more = {"next_page_token": str(start + PAGE)} if start + PAGE < len(versions) else {}
        return 200, {"model_versions": versions[start : start + PAGE], **more}

    def _model_versions_set_tag(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        tags = self.models[body["name"]][int(body["version"]) - 1].setdefault("tags", [])
        tags[:] = [tag for tag in tags if tag["key"] != body["key"]]
        tags.append({"key": body["key"], "value": body["value"]})
        return 200, {}


class _Handler(loopback.Handler):
    def post(self) -> None:
        registry = self.server
        assert isinstance(registry, Registry)
        address = urlsplit(self.path)
        body = json.loads(self.body() or "{}")
        body |= {key: values[0] for key, values in parse_qs(address.query).items()}
        self.reply(*registry.answer(address.path.split("/mlflow/", 1)[1], body))

    get = post


@pytest.fixture(scope="module")
def server() -> Iterator[Registry]:
    """Start a registry, and let Azure's plug-in find it under the workspace's address (MLflow keeps its stores)."""
    from azureml.mlflow._store.azureml_reststore import AzureMLAbstractRestStore

    with Registry() as started, pytest.MonkeyPatch.context() as patch:
        credentials = MlflowHostCreds(started.url)
        patch.setattr(AzureMLAbstractRestStore, "get_host_credentials", lambda _: credentials)
        yield started


@pytest.fixture
def registry(server: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Return the registry with nothing in it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    server.models.clear()
    server.asked.clear()
    return server


@pytest.fixture
def client(registry: Registry) -> MlflowClient:
    """Connect as the steps do."""
    connected = tracking.client()
    assert type(connected._get_registry_client().store).__name__ == "AzureMLflowModelRegistry"
    return connected


def register(client: MlflowClient, job: str) -> Any:
    """Register the model of a job."""
    return tracking.register(client, NAME, "ours", "step-run", {tracking.JOB_TAG: job, "data_set": "digits"})


def test_a_model_is_registered_from_its_run_with_its_tags(registry: Registry, client: MlflowClient) -> None:
    """The request names the run, its artifact folder and every tag, as MLflow's protocol has them."""
    version = register(client, "train-a-1")
    assert (version.name, str(version.version)) == (NAME, "1")
    (body,) = [body for call, body in registry.asked if call == "model-versions/create"]
    assert body["name"] == NAME
    assert body["run_id"] == "step-run"
    assert body["source"] == f"{ARTIFACTS}/model"
    assert {tag["key"]: tag["value"] for tag in body["tags"]} == {tracking.JOB_TAG: "train-a-1", "data_set": "digits"}


def test_a_job_registers_once(registry: Registry, client: MlflowClient) -> None:
    """The same job finds its version again, also behind a page of others."""
    numbers = [register(client, f"train-{letter}-1").version for letter in "abcde"]
    assert len(set(numbers)) == 5
    assert register(client, "train-a-1").version == numbers[0]
    found = tracking.version_of_job(client, NAME, "train-c-1")
    assert found is not None
    assert found.version == numbers[2]
    assert tracking.version_of_job(client, NAME, "train-z-1") is None
    assert len(registry.models[NAME]) == 5


def test_the_champion_moves_forward_and_back(registry: Registry, client: MlflowClient) -> None:
    """One tag on one version makes it the champion; a rollback is the same on the old version; again is no change."""
    assert tracking.champion(client, NAME) is None
    first, second = register(client, "train-a-1"), register(client, "train-b-1")
    assert tracking.champion(client, NAME) is None
    for version in (first, second, first, first):
        tracking.make_champion(client, version)
        serving = tracking.champion(client, NAME)
        assert serving is not None
        assert serving.version == version.version
    written = [body for call, body in registry.asked if call == "model-versions/set-tag"]
    assert [(body["version"], body["value"]) for body in written] == [("1", "1"), ("2", "2"), ("1", "3")]


def test_nothing_is_asked_that_azure_does_not_have(registry: Registry, client: MlflowClient) -> None:
    """The server refuses aliases and searches by tag, as a control shows; our own way needs neither."""
    tracking.make_champion(client, register(client, "train-a-1"))
    assert tracking.champion(client, NAME) is not None
    assert not [call for call, _ in registry.asked if "alias" in call]
    with pytest.raises(Exception, match="unknown filter"):
        client.search_model_versions(f"tags.{tracking.JOB_TAG} = 'train-a-1'")
    with pytest.raises(Exception, match="Azure ML has no registered-models/alias"):
        client.set_registered_model_alias(NAME, "champion", "1")
