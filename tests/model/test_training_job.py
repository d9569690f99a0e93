"""Whole jobs through real parts: Azurite, MLflow, the scoring server, the step server, and published events.

The tests of this module share one machine and run in order, as a team's week does.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlops.models import tracking

from local import datasets
from tests.model.machine import Machine

# SQLAlchemy 2.1 warns of what MLflow still uses; MLflow's own business.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

FIRST, SECOND, THIRD, BAD = (f"sb-{letter * 20}" for letter in "abcd")
MODEL = "signalbox-digits"


def registry(machine: Machine) -> MlflowClient:
    """Return a client of the machine's registry."""
    mlflow.set_tracking_uri(machine.environment["MLFLOW_TRACKING_URI"])
    return MlflowClient(machine.environment["MLFLOW_TRACKING_URI"])


def champion(machine: Machine) -> str:
    """Return the champion's version."""
    serving = tracking.champion(registry(machine), MODEL)
    assert serving is not None
    return str(serving.version)


def traffic(machine: Machine) -> Any:
    """Return the endpoint's traffic as the endpoints part tells it."""
    return requests.get(f"{machine.endpoints}/endpoints/{MODEL}", timeout=10).json()["traffic"]


def test_a_first_model_is_trained_registered_and_served(machine: Machine) -> None:
    """An upload becomes a registered version with its lineage, an event, and a prediction over HTTP."""
    sha256 = machine.upload("digits", datasets.first_digits(), FIRST)
    trained = machine.train(FIRST, "digits", sha256)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    (event,) = machine.sink.events
    assert event["eventType"] == "Microsoft.MachineLearningServices.RunCompleted"
    assert event["topic"] == machine.environment["WORKSPACE_ID"]
    assert event["data"]["runTags"]["signalbox_origin"] == FIRST
    assert event["data"]["runType"] == "azureml.PipelineRun"
    job = event["data"]["runId"]
    assert job == f"train-{FIRST}-1"
    (version,) = registry(machine).search_model_versions(f"name = '{MODEL}'")
    assert version.tags["signalbox_origin"] == FIRST
    assert version.tags["manifest_sha256"] == sha256
    assert version.tags["manifest_count"] == "24"
    assert version.tags["git_commit"] == "c" * 40

    deployed = machine.deploy(job)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert "scoring address: http://127.0.0.1:" in deployed.stdout
    assert "swagger address: http://127.0.0.1:" in deployed.stdout
    assert champion(machine) == "1"
    address = f"{machine.endpoints}/endpoints/{MODEL}/score"
    answer = requests.post(address, json={"data": [[0.0] * 64]}, timeout=10)
    assert answer.json()["predictions"][0] in list("0123456789")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b'{"data": []}', "must be"),
        (b'{"data": [[1, 2]]}', "Row 0 has 2 values, but the model takes 64"),
        (b'{"data": [[' + b'"x",' * 63 + b'"x"]]}', "not a number"),
        (b'{"input_data": {"columns": ["a"], "data": [[1]]}}', "columns must be"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(machine: Machine, body: bytes, words: str) -> None:
    """The scoring script says what is wrong with a request, and stays alive; as on Azure its 400 comes as a 424."""
    answer = requests.post(
        f"{machine.endpoints}/endpoints/{MODEL}/score",
        data=body,
        headers={"Content-Type": "application/json"},
        timeout=10,
    )
    assert (answer.status_code, answer.headers["ms-azureml-model-error-statuscode"]) == (424, "400")
    assert words in answer.text


def test_a_better_challenger_is_promoted_and_rolled_out(machine: Machine) -> None:
    """More data make a better model: it is compared on held-out rows, promoted, and takes the traffic."""
    sha256 = machine.upload("digits", datasets.second_digits(), SECOND)
    trained = machine.train(SECOND, "digits", sha256)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "promoted: The challenger is better" in trained.stdout
    assert champion(machine) == "1"  # registered is not yet deployed
    deployed = machine.deploy(f"train-{SECOND}-1")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert champion(machine) == "2"
    assert traffic(machine) == {"model-v2": 100}


def test_a_worse_challenger_ends_green_and_changes_nothing(machine: Machine) -> None:
    """Mislabelled data make a worse model: the job is green, says why, and nothing is deployed."""
    sha256 = machine.upload("digits", datasets.third_digits(), THIRD)
    trained = machine.train(THIRD, "digits", sha256)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "kept_champion: Kept the champion" in trained.stdout
    deployed = machine.deploy(f"train-{THIRD}-1")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert "Kept the champion, nothing to deploy." in deployed.stdout
    assert champion(machine) == "2"
    assert "Decision: kept champion" in machine.summary()


def test_a_replay_does_nothing_twice(machine: Machine) -> None:
    """The same dispatch trains once but tells its end again; the same RunCompleted deploys once."""
    before = len(machine.sink.events)
    sha256 = registry(machine).get_model_version(MODEL, "2").tags["manifest_sha256"]
    again = machine.train(SECOND, "digits", sha256)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [event["data"]["runId"] for event in machine.sink.events[before:]] == [f"train-{SECOND}-1"]
    assert len(registry(machine).search_model_versions(f"name = '{MODEL}'")) == 2
    for origin, words in ((SECOND, "serves already"), (FIRST, "was deployed before")):
        replayed = machine.deploy(f"train-{origin}-1")
        assert replayed.returncode == 0, replayed.stdout
        assert words in replayed.stdout
    assert traffic(machine) == {"model-v2": 100}


def test_bad_data_is_red_and_the_champion_stays(machine: Machine) -> None:
    """A file with a missing column fails the job with its name in the summary, and tells the failure as an event."""
    sha256 = machine.upload("digits", [("bad.csv", b"pixel_0_0,label\n1,2\n")], BAD)
    failed = machine.train(BAD, "digits", sha256)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "digits/bad.csv: line 1: column 'pixel_0_1'" in machine.summary()
    event = machine.sink.events[-1]
    assert event["eventType"] == "Microsoft.MachineLearningServices.RunStatusChanged"
    assert event["data"]["runStatus"] == "Failed"
    assert champion(machine) == "2"
    machine.blobs.get_blob_client("training-data", "digits/bad.csv").delete_blob()


def test_a_changed_manifest_trains_nothing(machine: Machine) -> None:
    """A manifest that is not the dispatch's own is refused by its sha256."""
    origin = "sb-" + "e" * 20
    machine.upload("digits", [], origin)
    failed = machine.train(origin, "digits", "0" * 64)
    assert failed.returncode == 1
    assert f"manifests/{origin}.jsonl has the sha256" in failed.stdout


def test_an_event_that_cannot_be_published_fails_the_run(machine: Machine) -> None:
    """Nobody would ever deploy what nobody heard of: the run is red and names the setting."""
    origin = "sb-" + "f" * 20
    sha256 = machine.upload("digits", [], origin)
    failed = machine.train(origin, "digits", sha256, RUN_EVENTS_ENDPOINT="http://127.0.0.1:9/api/events")
    assert failed.returncode == 1
    assert "could not be published to RUN_EVENTS_ENDPOINT" in failed.stdout
    assert machine.train(origin, "digits", sha256).returncode == 0
    assert machine.sink.events[-1]["data"]["runId"] == f"train-{origin}-1"


def test_the_small_example_goes_the_same_way(machine: Machine) -> None:
    """Irises, with their own settings, train to a first model of their own name."""
    origin = "push-" + "c" * 40 + "-7-1"
    machine.upload("iris", datasets.iris(), "sb-unused")
    trained = machine.train(origin, "iris", "")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "Registered signalbox-iris version 1" in trained.stdout
    (version,) = registry(machine).search_model_versions("name = 'signalbox-iris'")
    assert version.tags["signalbox_origin"] == origin


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"MLFLOW_TRACKING_URI": ""}, "MLFLOW_TRACKING_URI is not set"),
        ({"MLFLOW_TRACKING_URI": "nowhere://x"}, "MLFLOW_TRACKING_URI (nowhere://x) cannot be used"),
        ({"STORAGE_CONNECTION_STRING": "nonsense"}, "STORAGE_CONNECTION_STRING is not a connection string"),
        ({"STORAGE_CONNECTION_STRING": ""}, "STORAGE_ACCOUNT is not set"),
        ({"FOLDER": "tulips"}, "no settings for the data of folder 'tulips'"),
    ],
)
def test_a_wrong_setting_is_named_without_a_traceback(machine: Machine, variables: dict[str, str], words: str) -> None:
    """Each setting that cannot work is answered with its name and the mend."""
    origin = "sb-" + "g" * 20
    failed = machine.run("code/submit.py", **{"ORIGIN": origin, "FOLDER": "digits", **variables})
    assert failed.returncode == 1
    assert words in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
