"""Endpoints and deployments in Azure, through the real SDK over a workspace in memory: what creates them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlops.deployment.endpoints import EndpointState
from mlops.report import Fault

from tests.model.azure_contracts import complaints, recorded, shape
from tests.model.azure_fake import WORKSPACE, Sent
from tests.model.azure_scenes import DEPLOYMENT_PUT, ENDPOINT, ENDPOINT_PUT, NEW, OLD, TARGET, Serving, serving_in

pytestmark = pytest.mark.filterwarnings("ignore:The `context` parameter")


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Return the endpoints of an empty workspace."""
    with serving_in(tmp_path) as made:
        yield made


def test_an_endpoint_that_is_not_there_has_nothing(serving: Serving) -> None:
    """Asking about it creates nothing."""
    assert serving.endpoints.state(ENDPOINT) == EndpointState(frozenset(), {})
    assert not serving.fake.requests("PUT", ".")


def test_the_endpoint_is_created_as_the_recorded_one_was(serving: Serving, contracts: Path) -> None:
    """Body and API version are those of the recorded creation, and fit the resource manager's own types."""
    serving.deploy(NEW)
    sent = serving.fake.one("PUT", ENDPOINT_PUT)
    known = recorded(contracts, "online-endpoint.create.json", "PUT", "onlineEndpoints")
    assert shape(sent.body) == shape(known["RequestBody"])
    assert sent.body["properties"]["authMode"] == known["RequestBody"]["properties"]["authMode"]
    assert sent.version == known["RequestUri"].rpartition("api-version=")[2]
    assert complaints(contracts, sent) == ""


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "Key"),
        ({"token_auth_enabled": True}, "AMLToken"),
        ({"auth_mode": "aad_token"}, "AADToken"),
        ({"auth_mode": "key", "token_auth_enabled": True}, "Key"),
    ],
)
def test_who_may_ask_comes_from_settings(serving: Serving, options: dict[str, Any], mode: str) -> None:
    """Key, token of Azure ML or token of Microsoft Entra."""
    serving.with_options(**options).tag(ENDPOINT, {"a": "b"})
    assert serving.fake.requests("PUT", ENDPOINT_PUT)[0].body["properties"]["authMode"] == mode


def test_a_deployment_is_the_registered_model_with_the_scoring_code(serving: Serving) -> None:
    """Model version, code, environment, size and tags stand in the deployment; the endpoint's addresses come back."""
    addresses = serving.endpoints.deploy(serving.candidate(NEW))
    body = serving.fake.one("PUT", DEPLOYMENT_PUT).body
    inner = body["properties"]
    assert inner["model"] == f"{WORKSPACE}/models/signalbox-digits/versions/2"
    assert inner["codeConfiguration"]["scoringScript"] == "score.py"
    assert inner["codeConfiguration"]["codeId"].lower() in serving.fake.resources
    assert inner["environmentId"].lower() in serving.fake.resources
    assert inner["requestSettings"] == {"requestTimeout": "PT10S"}
    assert inner["appInsightsEnabled"] is True
    assert (inner["instanceType"], body["sku"]["capacity"]) == ("Standard_DS3_v2", 1)
    assert body["tags"]["signalbox_job"] == "train-x-1"
    assert addresses.scoring == f"https://{ENDPOINT}.westeurope.inference.ml.azure.com/score"
    assert addresses.swagger.endswith("/swagger.json")
    assert serving.endpoints.state(ENDPOINT) == EndpointState(frozenset({NEW}), {})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "replica_max_concurrent_requests": 4,
            "max_request_wait_time": 500,
            "period_seconds": 10,
            "initial_delay_seconds": 30,
            "timeout_seconds": 2,
            "success_threshold": 1,
            "failure_threshold": 30,
            "description": "ours",
            "properties": {"team": "a"},
        },
        {**TARGET, "cpu_cores": 0.5, "memory_gb": 2, "gpu_cores": 1},
        {
            **TARGET,
            "autoscale_enabled": True,
            "autoscale_min_replicas": 1,
            "autoscale_max_replicas": 4,
            "autoscale_target_utilization": 60,
        },
    ],
    ids=["plain", "everything", "kubernetes", "autoscale"],
)
def test_a_deployment_fits_the_published_types(serving: Serving, contracts: Path, options: dict[str, Any]) -> None:
    """What deploy.json can say ends in a body that the resource manager's own types allow."""
    platform = serving.on_kubernetes() if TARGET.items() <= options.items() else serving.endpoints
    platform.deploy(serving.candidate(NEW, **options))
    assert complaints(contracts, serving.fake.one("PUT", DEPLOYMENT_PUT)) == ""
    assert complaints(contracts, serving.fake.one("PUT", ENDPOINT_PUT)) == ""


def test_probes_sizes_and_scaling_are_what_settings_say(serving: Serving) -> None:
    """Seconds, cores and percents of deploy.json arrive in the units that Azure takes."""
    probed = serving.deploy(OLD, period_seconds=10, failure_threshold=30)["properties"]
    assert probed["livenessProbe"] == probed["readinessProbe"] == {"period": "PT10S", "failureThreshold": 30}
    wanted = {**TARGET, "cpu_cores": 0.5, "memory_gb": 2, "autoscale_enabled": True, "autoscale_max_replicas": 4}
    sent = serving.deploy(NEW, **wanted)["properties"]
    assert sent["endpointComputeType"] == "Kubernetes"
    size = {"cpu": "0.5", "memory": "2Gi"}
    assert sent["containerResourceRequirements"] == {
        "containerResourceRequests": size,
        "containerResourceLimits": size,
    }
    assert sent["scaleSettings"] == {
        "scaleType": "TargetUtilization",
        "minInstances": 1,
        "maxInstances": 4,
        "pollingInterval": "PT1S",
        "targetUtilizationPercentage": 70,
    }


def test_data_collection_keeps_requests_and_answers(serving: Serving, contracts: Path) -> None:
    """model_data_collection_enabled registers where they go. The SDK writes the mode in its own spelling."""
    sent = serving.deploy(NEW, model_data_collection_enabled=True)
    kept = sent["properties"]["dataCollector"]["collections"]
    assert {name: one["dataCollectionMode"] for name, one in kept.items()} == {
        "request": "enabled",
        "response": "enabled",
    }
    assert all(one["dataId"].lower() in serving.fake.resources for one in kept.values())
    for one in kept.values():
        one["dataCollectionMode"] = "Enabled"
    assert complaints(contracts, serving.fake.one("PUT", DEPLOYMENT_PUT)) == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cpu_cores": 1}, "cpu_cores is for Kubernetes"),
        ({"autoscale_enabled": True}, "autoscale_enabled is for Kubernetes .*Azure Monitor autoscale"),
        (
            {**TARGET, "instance_type": "Standard_DS3_v2"},
            "instance_type 'Standard_DS3_v2' is a size of virtual machines",
        ),
        ({**TARGET, "model_data_collection_enabled": True}, "model_data_collection_enabled is for managed"),
        ({"conda_file": "gone.yml"}, "conda_file 'gone.yml' is not in this project"),
    ],
)
def test_options_that_do_not_go_together_are_refused(serving: Serving, options: dict[str, Any], words: str) -> None:
    """An option of one kind of endpoint is not dropped silently on the other; nothing is deployed."""
    with pytest.raises(Fault, match=words):
        serving.deploy(NEW, **options)
    assert not serving.fake.requests("PUT", DEPLOYMENT_PUT)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({**TARGET, "auth_mode": "aad_token"}, "'aad_token' is for managed endpoints"),
        ({"auth_mode": "none"}, "auth_mode is 'none'; it must be one of: key"),
    ],
)
def test_an_auth_mode_that_cannot_be_is_refused(serving: Serving, options: dict[str, Any], words: str) -> None:
    """The endpoint is not created open, nor with a mode that its platform has not."""
    with pytest.raises(Fault, match=words):
        serving.with_options(**options).tag(ENDPOINT, {"a": "b"})
    assert not serving.fake.requests("PUT", ".")


def test_what_the_sdk_finds_wrong_is_one_plain_sentence(serving: Serving) -> None:
    """Its coloured pages of advice are cut down to the fault itself; nothing is created."""
    with pytest.raises(Fault) as fault:
        serving.endpoints.tag("signalbox-" + "x" * 40, {"a": "b"})
    assert str(fault.value).endswith(
        "was not created: The name for an endpoint must be at least 3 and at most 32 characters long "
        "(inclusive of both limits)."
    )
    with pytest.raises(Fault, match=r"did not start: Failed to open scoring script \S+gone\.py\.$"):
        serving.endpoints.deploy(replace(serving.candidate(NEW), entry_script="gone.py"))
    assert not serving.fake.requests("PUT", DEPLOYMENT_PUT)


def test_a_deployment_that_does_not_start_tells_its_log_and_goes(serving: Serving) -> None:
    """The container's last lines stand in the sentence; the broken deployment is deleted, the old one untouched."""
    serving.deploy(OLD)
    serving.endpoints.route(ENDPOINT, {OLD: 100})
    serving.fake.refuse("PUT", f"/deployments/{NEW}$", 400, "BadArgument", "User container has crashed.")
    log = "start\n" * 50 + "ModuleNotFoundError: No module named 'skops'\n"
    serving.fake.on("POST", f"/deployments/{NEW}/getLogs$", (200, {"content": log}))
    with pytest.raises(Fault, match=r"did not start: User container has crashed.*No module named 'skops'") as fault:
        serving.deploy(NEW)
    assert len(str(fault.value)) < 1000
    assert len(serving.fake.requests("DELETE", f"/deployments/{NEW}$")) == 1
    assert serving.endpoints.state(ENDPOINT).traffic == {OLD: 100}


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_a_long_operation_is_followed_to_its_end(serving: Serving, end: str) -> None:
    """Azure answers 201 and goes on working; what it says at the end counts."""
    states = iter(["InProgress", "InProgress", end])
    operation = "https://management.azure.com/operations/1"

    def begin(sent: Sent) -> Any:
        status, body = serving.fake._resource(sent)
        return status, body, {"Azure-AsyncOperation": operation}

    def poll(_: Sent) -> Any:
        error = {"code": "ResourceNotReady", "message": "The container never became healthy."}
        return 200, {"status": next(states), "error": error}

    serving.fake.on("PUT", DEPLOYMENT_PUT, begin)
    serving.fake.on("GET", "^/operations/1$", poll)
    if end == "Succeeded":
        serving.deploy(NEW)
        assert serving.endpoints.state(ENDPOINT).deployments == {NEW}
    else:
        with pytest.raises(Fault, match="did not start: The container never became healthy"):
            serving.deploy(NEW)
        assert serving.endpoints.state(ENDPOINT).deployments == frozenset()
    assert len(serving.fake.requests("GET", "^/operations/1$")) == 3


def test_what_a_cut_off_rollout_left_is_made_anew(serving: Serving) -> None:
    """A failed deployment of that name is deleted first; a sound one is only updated."""
    serving.deploy(NEW)
    serving.deploy(NEW)
    assert not serving.fake.requests("DELETE", ".")
    (left,) = [body for path, body in serving.fake.resources.items() if path.endswith(f"/deployments/{NEW}")]
    left["properties"]["provisioningState"] = "Failed"
    serving.deploy(NEW)
    changes = [sent.method for sent in serving.fake.sent if sent.path.endswith(f"/deployments/{NEW}")]
    assert [method for method in changes if method != "GET"] == ["PUT", "PUT", "DELETE", "PUT"]


def test_a_deployment_that_serves_is_never_deleted_by_a_failed_update(serving: Serving) -> None:
    """Deploying the serving one again and failing leaves it with its traffic."""
    serving.deploy(NEW)
    serving.endpoints.route(ENDPOINT, {NEW: 100})
    serving.fake.refuse("PUT", f"/deployments/{NEW}$", 409, "Conflict", "Another operation is going on.")
    with pytest.raises(Fault, match="Another operation is going on"):
        serving.deploy(NEW)
    assert not serving.fake.requests("DELETE", ".")


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", ENDPOINT_PUT, f"Endpoint {ENDPOINT} cannot be read: the identity"),
        ("PUT", ENDPOINT_PUT, f"Endpoint {ENDPOINT} was not created: the identity"),
        ("PUT", "/environments/", "did not start: the identity"),
    ],
)
def test_what_the_identity_may_not_do_is_said(serving: Serving, method: str, path: str, words: str) -> None:
    """A missing role is one sentence that says where to look."""
    serving.fake.refuse(method, path, 403, "AuthorizationFailed", "no authorization")
    with pytest.raises(Fault, match=words):
        serving.deploy(NEW)
