"""Serving in Azure, through the real SDK over a workspace in memory: traffic, tags, answers, metrics, a rollout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlops.deployment import rollout
from mlops.deployment.endpoints import EndpointState
from mlops.deployment.lease import Holder, Lease
from mlops.report import Fault

from tests.model.azure_contracts import complaints
from tests.model.azure_fake import WORKSPACE, Sent
from tests.model.azure_scenes import ENDPOINT, ENDPOINT_PUT, NEW, OLD, Serving, serving_in

pytestmark = pytest.mark.filterwarnings("ignore:The `context` parameter")


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Return the endpoints of an empty workspace."""
    with serving_in(tmp_path) as made:
        yield made


def test_traffic_and_mirror_replace_what_was_there(serving: Serving, contracts: Path) -> None:
    """Each change is one put of the endpoint that keeps its tags and fits the published types."""
    serving.deploy(OLD)
    serving.deploy(NEW)
    serving.endpoints.tag(ENDPOINT, {"champion": OLD})
    serving.endpoints.route(ENDPOINT, {OLD: 100}, {NEW: 20})
    assert serving.endpoints.state(ENDPOINT) == EndpointState(
        frozenset({OLD, NEW}), {OLD: 100}, {NEW: 20}, {"champion": OLD}
    )
    serving.endpoints.route(ENDPOINT, {OLD: 90, NEW: 10})
    sent = serving.fake.requests("PUT", ENDPOINT_PUT)[-1]
    assert sent.body["properties"]["traffic"] == {OLD: 90, NEW: 10}
    assert sent.body["properties"]["mirrorTraffic"] == {}
    assert sent.body["tags"] == {"champion": OLD}
    assert complaints(contracts, sent) == ""


@pytest.mark.parametrize("mirror", [{NEW: 51}, {NEW: 10, OLD: 10}])
def test_a_mirror_that_azure_has_not_is_refused(serving: Serving, mirror: dict[str, int]) -> None:
    """At most one deployment, and at most half of the requests."""
    serving.deploy(NEW)
    before = len(serving.fake.requests("PUT", ENDPOINT_PUT))
    with pytest.raises(Fault, match="mirrored to one deployment, and at most 50 percent"):
        serving.endpoints.route(ENDPOINT, {OLD: 100}, mirror)
    assert len(serving.fake.requests("PUT", ENDPOINT_PUT)) == before


def test_kubernetes_mirrors_nothing(serving: Serving) -> None:
    """Azure mirrors on managed endpoints only; the endpoint on the cluster says so."""
    platform = serving.on_kubernetes()
    platform.tag(ENDPOINT, {"a": "b"})
    assert serving.fake.requests("PUT", ENDPOINT_PUT)[0].body["properties"]["compute"] == f"{WORKSPACE}/computes/k8s"
    with pytest.raises(Fault, match="managed endpoints only; set mirror_percent to 0"):
        platform.route(ENDPOINT, {OLD: 100}, {NEW: 10})


def test_tags_are_set_and_compared(serving: Serving) -> None:
    """A tag changes only where the others say so; an empty text takes one away; the same again sends nothing."""
    assert serving.endpoints.tag(ENDPOINT, {"lease": "a"}, {"lease": ""})
    assert not serving.endpoints.tag(ENDPOINT, {"lease": "b"}, {"lease": ""})
    assert serving.endpoints.tag(ENDPOINT, {"champion": NEW, "lease": ""}, {"lease": "a"})
    assert serving.endpoints.state(ENDPOINT).tags == {"champion": NEW}
    before = len(serving.fake.requests("PUT", "."))
    assert serving.endpoints.tag(ENDPOINT, {"champion": NEW})
    assert len(serving.fake.requests("PUT", ".")) == before


@pytest.mark.parametrize(
    ("mode", "call", "answer", "key"),
    [
        ("key", "/listKeys$", {"primaryKey": "first", "secondaryKey": "second"}, "first"),
        ("aml_token", "/token$", {"accessToken": "token-1"}, "token-1"),
    ],
)
def test_one_deployment_is_asked_with_the_endpoints_key(
    serving: Serving, mode: str, call: str, answer: dict[str, str], key: str
) -> None:
    """The request goes to the scoring address, names the deployment, and carries key or token; it is read once."""
    platform = serving.with_options(auth_mode=mode)
    platform.tag(ENDPOINT, {"a": "b"})
    serving.fake.on("POST", call, (200, answer))
    serving.fake.on("POST", "^/score$", lambda sent: (200, {"predictions": [len(sent.body["data"])]}))
    assert platform.score(ENDPOINT, NEW, {"data": [[1], [2]]}) == {"predictions": [2]}
    assert platform.score(ENDPOINT, NEW, {"data": [[1]]}) == {"predictions": [1]}
    asked = serving.fake.requests("POST", "^/score$")[0]
    assert asked.host == f"{ENDPOINT}.westeurope.inference.ml.azure.com"
    assert asked.headers["azureml-model-deployment"] == NEW
    assert asked.headers["Authorization"] == f"Bearer {key}"
    assert len(serving.fake.requests("POST", call)) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((424, {"error": "column x is missing"}), r"gave no prediction \(HTTP 424\): .*column x is missing"),
        ((503, None), r"\(HTTP 503\): no reason given"),
        ((200, "no json"), "its answer is not JSON"),
    ],
)
def test_an_answer_that_is_none_is_a_fault(serving: Serving, answer: Any, words: str) -> None:
    """Whatever is not a 200 with JSON stands in the sentence, and the key never does."""
    serving.endpoints.tag(ENDPOINT, {"a": "b"})
    serving.fake.on("POST", "/listKeys$", (200, {"primaryKey": "secret-key"}))
    serving.fake.on("POST", "^/score$", answer)
    with pytest.raises(Fault, match=words) as fault:
        serving.endpoints.score(ENDPOINT, NEW, {})
    assert "secret-key" not in str(fault.value)


def test_deleting_twice_is_no_fault(serving: Serving) -> None:
    """A deployment that is not there is what was wanted."""
    serving.deploy(NEW)
    serving.endpoints.delete(ENDPOINT, NEW)
    serving.endpoints.delete(ENDPOINT, NEW)
    serving.fake.refuse("DELETE", "/deployments/", 404, "ResourceNotFound", "gone")
    serving.endpoints.delete(ENDPOINT, NEW)
    assert serving.endpoints.state(ENDPOINT).deployments == frozenset()


def test_metrics_are_asked_of_the_endpoint(serving: Serving) -> None:
    """One question counts requests by code, one takes their latency; both name endpoint and deployment."""

    def answer(sent: Sent) -> tuple[int, Any]:
        latency = sent.query["metricnames"] == "RequestLatency_P95"
        label = {"name": {"value": "statusCode"}, "value": "500"}
        points = [{"timeStamp": "x", "average": 120.0 if latency else 7}, {"timeStamp": "y"}]
        return 200, {"value": [{"timeseries": [{"metadatavalues": [] if latency else [label], "data": points}]}]}

    serving.fake.on("GET", "/providers/Microsoft.Insights/metrics$", answer)
    observed = serving.endpoints.observe(ENDPOINT, NEW, 300)
    assert (observed.requests, observed.failed, observed.p95_ms) == (7, 7, 120.0)
    counted, latency = serving.fake.requests("GET", "Microsoft.Insights/metrics$")
    assert counted.path.startswith(f"{WORKSPACE}/onlineEndpoints/{ENDPOINT}/providers/")
    assert counted.query["$filter"] == f"deployment eq '{NEW}' and statusCode eq '*' and modelStatusCode eq '*'"
    assert latency.query["$filter"] == f"deployment eq '{NEW}'"
    assert counted.query["interval"] == "PT1M"
    assert counted.headers["Authorization"].startswith("Bearer ")


def test_metrics_that_may_not_be_read_are_said(serving: Serving) -> None:
    """Without the right to read metrics nobody would notice a broken rollout, so it is a fault."""
    serving.fake.refuse("GET", "Microsoft.Insights/metrics$", 403, "AuthorizationFailed", "no authorization")
    with pytest.raises(Fault, match="metrics of endpoint signalbox-digits cannot be read: the identity"):
        serving.endpoints.observe(ENDPOINT, NEW, 300)


def roll_out(serving: Serving, deployment: str, old: str | None) -> list[tuple[str, str]]:
    """Bring a deployment to production as deploy.py does, with no time to soak."""
    (serving.code / "input_example.json").write_text('{"columns": ["a"], "data": [[1], [2]]}')
    stage = replace(serving.endpoints._stage, soak_seconds=0.0, steps=(10, 100), mirror_percent=20)
    holder = Holder("42", 1, "here", 1)
    lease = Lease(serving.endpoints, ENDPOINT, holder)
    with lease.held(deployment):
        tested = rollout.try_out(serving.endpoints, serving.candidate(deployment), stage, None, None)
        return rollout.move_traffic(serving.endpoints, tested, old, stage, lease)


def test_a_rollout_goes_through_azure_as_through_one_machine(serving: Serving) -> None:
    """The same rollout code mirrors, moves the traffic by steps, and leaves the old one beside the new."""
    serving.fake.on("POST", "/listKeys$", (200, {"primaryKey": "k"}))
    serving.fake.on("POST", "^/score$", lambda sent: (200, {"predictions": [0 for _ in sent.body["data"]]}))
    assert [share for share, _ in roll_out(serving, OLD, None)] == ["100 %"]
    assert [share for share, _ in roll_out(serving, NEW, OLD)] == ["mirrored 20 %", "10 %", "100 %"]
    shares = [sent.body["properties"]["traffic"] for sent in serving.fake.requests("PUT", ENDPOINT_PUT)]
    distinct = [share for share, before in zip(shares[1:], shares, strict=False) if share != before]
    assert distinct == [{OLD: 100}, {OLD: 90, NEW: 10}, {NEW: 100}]
    state = serving.endpoints.state(ENDPOINT)
    assert state == EndpointState(frozenset({OLD, NEW}), {NEW: 100})


def test_a_rollout_that_fails_gives_the_traffic_back(serving: Serving) -> None:
    """A deployment that stops answering once it has traffic loses it and goes; the old one has all of it."""
    serving.fake.on("POST", "/listKeys$", (200, {"primaryKey": "k"}))
    asked: list[str] = []

    def answer(sent: Sent) -> tuple[int, Any]:
        asked.append(sent.headers["azureml-model-deployment"])
        good = asked[-1] == OLD or asked.count(NEW) <= 3
        return (200, {"predictions": [0 for _ in sent.body["data"]]}) if good else (503, None)

    serving.fake.on("POST", "^/score$", answer)
    roll_out(serving, OLD, None)
    with pytest.raises(Fault, match="model-v2 was at 10 % of the traffic"):
        roll_out(serving, NEW, OLD)
    assert serving.endpoints.state(ENDPOINT) == EndpointState(frozenset({OLD}), {OLD: 100})
