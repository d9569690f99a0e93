"""`signalbox trace`: the way back from an endpoint, over the real endpoints part and a real model registry."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
import requests
from mlflow import MlflowClient
from test_endpoints import SCORE, Part

from local.commands.models import Models

# SQLAlchemy 2.1 warns of what MLflow still uses; MLflow's own business.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

JOBS = {"model-v1": "train-sb-one-1", "model-v2": "train-sb-two-1"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """Two registered versions, deployed side by side; the second has the traffic, in production and in dev."""
    folder = tmp_path_factory.mktemp("traced")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    registry = MlflowClient(tracking_uri=uri, registry_uri=uri)
    registry.create_registered_model("digits")
    scoring = folder / "scoring"
    scoring.mkdir()
    (scoring / "score.py").write_text(SCORE)
    (scoring / "model.json").write_text(json.dumps({"weight": 1}))
    part = Part(folder)
    for deployment, job in JOBS.items():
        tags = {"signalbox_job": job, "signalbox_origin": job[6:-2]}
        registry.create_model_version("digits", "file:///model", tags=tags)
        for endpoint in ("digits", "digits-dev"):
            body = {"model": str(scoring), "code": str(scoring), "env": {}, "tags": tags}
            url = f"{part.url}/{endpoint}/deployments/{deployment}"
            assert requests.put(url, json=body, timeout=60).status_code == 201
    for endpoint in ("digits-dev", "digits"):
        shares = {"traffic": {"model-v1": 10, "model-v2": 90}}
        assert requests.put(f"{part.url}/{endpoint}/traffic", json=shares, timeout=20).ok
    registry.set_model_version_tag("digits", "1", "rollout_returned", "Rolled back to model-v2 by ada: too slow")
    yield Models(uri, part.url.removesuffix("/endpoints"))
    part.stop()


@pytest.mark.parametrize(("deployment", "version"), [("", "2"), ("model-v2", "2"), ("model-v1", "1")])
def test_an_endpoint_leads_to_its_model_and_job(models: Models, deployment: str, version: str) -> None:
    """By the deployment that is named, or else by the one that most requests reach."""
    side = models.of_endpoint("digits", deployment)
    assert (side.model, side.version, side.job) == ("digits", version, JOBS[f"model-v{version}"])
    assert side.origin == ("sb-one" if version == "1" else "sb-two")


def test_a_version_leads_to_production_first(models: Models) -> None:
    """The other stages serve the same version; users are asked by production."""
    assert models.of_version("digits", "2").endpoint == "digits"


def test_a_version_that_was_given_back_says_so(models: Models) -> None:
    """Who rolled back and why stands beside the version."""
    assert models.of_version("digits", "1").afterwards == "Rolled back to model-v2 by ada: too slow"
    assert models.of_version("digits", "2").afterwards == ""


@pytest.mark.parametrize(("endpoint", "deployment"), [("irises", ""), ("digits", "model-v9")])
def test_what_does_not_serve_is_named(models: Models, endpoint: str, deployment: str) -> None:
    """Nothing is made up about an endpoint or a deployment that is not there."""
    side = models.of_endpoint(endpoint, deployment)
    assert not side.version
    assert any(f"endpoint {endpoint}" in note for note in side.notes)


def test_endpoints_that_do_not_answer_are_named(models: Models) -> None:
    """They are away, and not the model store."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        side = Models(models._mlflow, url).of_endpoint("digits", "")
    assert side.notes == [f"the endpoints at {url} do not answer"]


def test_without_local_endpoints_the_reason_is_given() -> None:
    """In the cloud nobody is asked for endpoints, and the trace says so."""
    assert "only those of 'signalbox up'" in Models("sqlite:///nowhere", "").of_endpoint("digits", "").notes[0]
