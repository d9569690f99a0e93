"""Deployments of registered versions as the workflow makes them: processes of deploy.py and rollback.py, real servers.

The versions are registered with decision records of their own instead of being trained, and tell by what they answer
which of them serves. The tests share one machine; each uses a data set's endpoint from its first version on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import mlflow
import mlflow.sklearn
import pandas as pd
import pytest
import requests
from mlflow import MlflowClient
from mlflow.models import infer_signature
from mlops import digest, settings
from mlops.evaluation import gate, rules
from mlops.models import registry, tracking
from sklearn.dummy import DummyClassifier

from tests.model.machine import ROOT, Machine, until

# SQLAlchemy 2.1 warns of what MLflow still uses; MLflow's own business.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

ENDPOINT, NAME = "signalbox-iris", "signalbox-iris"
ROW = {"data": [[5.1, 3.5, 1.4, 0.2]]}


class Irises:
    """The data set's versions, its production endpoint, and the processes that change it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.client = MlflowClient(machine.environment["MLFLOW_TRACKING_URI"])
        mlflow.set_tracking_uri(machine.environment["MLFLOW_TRACKING_URI"])
        self.configuration = settings.load()
        self.experiment = tracking.experiment_id(self.client, "signalbox")

    def model(self, answer: str) -> Path:
        """Make a model that answers every flower with `answer`."""
        folder = self.machine.folder / f"model-{answer}"
        if not folder.is_dir():
            columns = settings.load_data_set("iris").features
            rows = pd.DataFrame([[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3]], columns=columns)
            fitted = DummyClassifier(strategy="constant", constant=answer).fit(rows, [answer, "virginica"])
            mlflow.sklearn.save_model(
                fitted,
                str(folder),
                signature=infer_signature(rows, fitted.predict(rows)),
                input_example=rows,
                pip_requirements=["scikit-learn"],
            )
        return folder

    def register(self, job: str, model: Path, beats: str | None) -> str:
        """Register what the gate would have promoted over version `beats` (None: as a first model); the version."""
        tags = {tracking.JOB_TAG: job, "data_set": "iris", tracking.ORIGIN_TAG: "sb-made"}
        run = self.client.create_run(self.experiment, tags=tags).info.run_id
        self.client.set_terminated(run)
        rule = rules.today(self.configuration, settings.load_data_set("iris"))
        champion = None
        if beats is not None:
            files = tracking.model_folder(self.client.get_model_version(NAME, beats))
            champion = gate.Measured(digest.of_folder(files), 0.9, beats)
        record = gate.decide(
            rule,
            gate.Circumstances(job, "sb-made", "5" * 64, 100, "iris"),
            gate.Measured(digest.of_folder(model), 0.99),
            champion,
            (0.02, 0.1) if champion else None,
        )
        version = registry.promote(
            self.client,
            self.configuration,
            record,
            model=model,
            run_id=run,
            lineage={tracking.ORIGIN_TAG: "sb-made"},
        )
        return str(version.version)

    def start(self, script: str, **variables: str) -> subprocess.Popen[str]:
        """Start a script of the project as a workflow's step does."""
        return subprocess.Popen(
            [str(self.machine.python), script],
            cwd=ROOT,
            env={**self.machine.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def deploy(self, job: str, stage: str = "production", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run deploy.py for a job's model."""
        return subprocess.run(
            [str(self.machine.python), "code/deploy/deploy.py", "--stage", stage],
            cwd=ROOT,
            env={**self.machine.environment, "RUN_ID": job, "BY_HAND": "false", **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def roll_back(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run rollback.py for the data set."""
        wanted = {"DATA_SET": "iris", "ROLLED_BACK_BY": "somebody", "ROLLBACK_REASON": "wrong flowers", **variables}
        return self.machine.run("code/deploy/rollback.py", **wanted)

    def state(self, endpoint: str = ENDPOINT) -> Any:
        """Return an endpoint as the endpoints part shows it."""
        return requests.get(f"{self.machine.endpoints}/endpoints/{endpoint}", timeout=10).json()

    def tag(self, **tags: str) -> None:
        """Change production's tags by hand."""
        url = f"{self.machine.endpoints}/endpoints/{ENDPOINT}/tags"
        assert requests.put(url, json={"tags": tags}, timeout=10).ok

    def holder(self) -> int:
        """Return the process that holds production's lease: the rollout itself, which its launcher only stands for."""
        found = re.search(r"\.(\d+) id=", self.state()["tags"]["rollout_lease"])
        assert found is not None
        return int(found[1])

    def traffic(self) -> dict[str, int]:
        """Return who has traffic in production."""
        return {name: share for name, share in self.state().get("traffic", {}).items() if share}

    def ask(self) -> str:
        """Ask production for one flower."""
        answer = requests.post(f"{self.machine.endpoints}/endpoints/{ENDPOINT}/score", json=ROW, timeout=10)
        return str(answer.json()["predictions"][0])

    def champion(self) -> str:
        """Return the champion's version."""
        serving = tracking.champion(self.client, NAME)
        return "" if serving is None else str(serving.version)

    def tags(self, version: str) -> dict[str, str]:
        """Return a version's tags."""
        return dict(self.client.get_model_version(NAME, version).tags)


@pytest.fixture(scope="module")
def irises(machine: Machine) -> Irises:
    """Return the data set with a first version in production."""
    made = Irises(machine)
    made.register("train-first", made.model("setosa"), None)
    deployed = made.deploy("train-first")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert (made.champion(), made.ask()) == ("1", "setosa")
    return made


@pytest.fixture(scope="module")
def second(irises: Irises) -> str:
    """Return the version of a second model, which is registered and not yet deployed."""
    return irises.register("train-second", irises.model("versicolor"), "1")


def test_the_stages_before_production_change_nothing_there(irises: Irises, second: str, tmp_path: Path) -> None:
    """Each tries the model at an endpoint of its own; dev keeps nothing, test keeps what it tested."""
    output = tmp_path / "output"
    for stage in ("dev", "test"):
        tried = irises.deploy("train-second", stage, GITHUB_OUTPUT=str(output))
        assert tried.returncode == 0, tried.stdout + tried.stderr
        assert f"endpoint: {ENDPOINT}-{stage}" in tried.stdout
        assert "scoring address: http://127.0.0.1" in tried.stdout
        assert "swagger address: http://127.0.0.1" in tried.stdout
    assert output.read_text().splitlines() == ["deploy=true", "data_set=iris"] * 2
    assert irises.state(f"{ENDPOINT}-dev")["deployments"] == {}
    assert irises.state(f"{ENDPOINT}-test")["traffic"] == {f"model-v{second}": 100}
    assert (irises.champion(), irises.traffic()) == ("1", {"model-v1": 100})
    assert "passed_dev" in irises.tags(second)


def test_a_killed_rollout_ends_in_the_same_state_when_it_is_run_again(irises: Irises, second: str) -> None:
    """SIGKILL in the middle of the traffic's way; the next run goes on, and the champion moves at the end only."""
    variables = {"RUN_ID": "train-second", "GITHUB_RUN_ID": "77"}
    with irises.start("code/deploy/deploy.py", **variables) as process:
        until(lambda: irises.traffic().get(f"model-v{second}") in {10, 50}, "the first step")
        os.kill(irises.holder(), signal.SIGKILL)
        process.wait()
    assert set(irises.traffic()) == {"model-v1", f"model-v{second}"}
    assert irises.champion() == "1"
    again = irises.deploy("train-second", GITHUB_RUN_ID="77", GITHUB_RUN_ATTEMPT="2")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (irises.champion(), irises.traffic(), irises.ask()) == (second, {f"model-v{second}": 100}, "versicolor")
    assert set(irises.state()["deployments"]) == {"model-v1", f"model-v{second}"}
    for line in ("traffic 10 %: ", "traffic 50 %: ", "traffic 100 %: ", "way back: model-v1"):
        assert line in again.stdout


def test_a_replayed_event_deploys_nothing_twice(irises: Irises, second: str) -> None:
    """The champion's event and an earlier one's, sent again, are green and change nothing; no second deployment."""
    before = irises.state()
    for job, words in (("train-second", "serves already"), ("train-first", "was deployed before")):
        replayed = irises.deploy(job)
        assert replayed.returncode == 0, replayed.stdout
        assert words in replayed.stdout
    assert irises.state() == before
    assert irises.champion() == second


def test_two_promotions_at_once(irises: Irises, second: str) -> None:
    """Two challengers of the same champion: one wins, the other is refused as stale; the endpoint has one server's all.

    The same version deployed twice at once is one deployment, and both are green.
    """
    jobs = ("train-third", "train-fourth")
    versions = [irises.register(job, irises.model(f"kind{number}"), second) for number, job in enumerate(jobs)]
    running = [irises.start("code/deploy/deploy.py", RUN_ID=job, BY_HAND="false") for job in (*jobs, jobs[0])]
    said = [process.communicate(timeout=120)[0] for process in running]
    ended = [process.returncode for process in running]
    winner = irises.champion()
    assert winner in versions
    assert irises.traffic() == {f"model-v{winner}": 100}
    assert set(irises.state()["deployments"]) == {f"model-v{second}", f"model-v{winner}"}
    won = winner == versions[0]
    assert ended == ([0, 1, 0] if won else [1, 0, 1]), said
    for text in [said[1]] if won else [said[0], said[2]]:
        assert "the champion has changed since it was evaluated" in text


def test_rollback_goes_to_the_one_before_and_no_further(irises: Irises, second: str) -> None:
    """Traffic and champion go back, by name and with a reason; a replay does not bring the version again."""
    left = irises.champion()
    rolled = irises.roll_back()
    assert rolled.returncode == 0, rolled.stdout + rolled.stderr
    assert (irises.champion(), irises.traffic(), irises.ask()) == (second, {f"model-v{second}": 100}, "versicolor")
    tags = irises.tags(left)
    assert (tags["rolled_back_by"], tags["rolled_back_reason"]) == ("somebody", "wrong flowers")
    assert tags["rolled_back_at"]
    replayed = irises.deploy(tags[tracking.JOB_TAG])
    assert "nothing to do" in replayed.stdout
    further = irises.roll_back()
    assert further.returncode == 1
    assert "has no deployment to go back to" in further.stdout
    assert (irises.champion(), irises.traffic()) == (second, {f"model-v{second}": 100})


def test_a_rollback_gives_traffic_to_no_model_without_its_record(irises: Irises, second: str) -> None:
    """Whatever the endpoint's tag names as the deployment before: its files must still be those that passed."""
    (other,) = set(irises.state()["deployments"]) - {f"model-v{second}"}
    files = tracking.model_folder(irises.client.get_model_version(NAME, other.removeprefix("model-v")))
    good = (files / "requirements.txt").read_text()
    irises.tag(previous=other)
    (files / "requirements.txt").write_text("# swapped\n")
    refused = irises.roll_back()
    (files / "requirements.txt").write_text(good)
    assert refused.returncode == 1
    assert "Production does not go back" in refused.stdout
    assert "its files have the digest" in refused.stdout
    irises.tag(previous="")
    assert (irises.champion(), irises.traffic()) == (second, {f"model-v{second}": 100})
    assert "rollback_to" not in irises.state()["tags"]


def test_a_rollback_ends_a_rollout_under_way(irises: Irises, second: str) -> None:
    """With traffic between two deployments the champion gets all of it, and the rollout stops where it is."""
    job = "train-fifth"
    version = irises.register(job, irises.model("setosa5"), second)
    with irises.start("code/deploy/deploy.py", RUN_ID=job, BY_HAND="false") as process:
        until(lambda: irises.traffic().get(f"model-v{version}") in {10, 50}, "the rollout")
        rollout = irises.holder()
        os.kill(rollout, signal.SIGSTOP)  # it must not get to its end while the rollback starts
        rolled = irises.roll_back(UNFINISHED_ONLY="true")
        os.kill(rollout, signal.SIGCONT)
        said = process.communicate(timeout=60)[0]
    assert rolled.returncode == 0, rolled.stdout
    assert process.returncode == 1
    assert "Another rollout or rollback has taken endpoint" in said
    assert (irises.champion(), irises.traffic()) == (second, {f"model-v{second}": 100})
    idle = irises.roll_back(UNFINISHED_ONLY="true")
    assert (idle.returncode, "nothing to do" in idle.stdout) == (0, True)


def test_a_version_that_production_gave_back_waits_for_a_person(irises: Irises, second: str) -> None:
    """The event of a version that was taken back is green and does nothing; started by hand it is tried again."""
    replayed = irises.deploy("train-fifth")
    assert replayed.returncode == 0
    assert "was given back by production" in replayed.stdout
    chosen = irises.client.search_model_versions(f"name = '{NAME}'")[0]
    again = irises.deploy("", MODEL_VERSION=f"{NAME}/{chosen.version}", BY_HAND="true")
    assert again.returncode == 0, again.stdout
    assert irises.champion() == str(chosen.version)
    assert irises.roll_back().returncode == 0
    assert irises.champion() == second


def test_a_folder_that_is_no_model_is_refused(irises: Irises, second: str) -> None:
    """A passed record for files that are no model: one sentence says so, and the champion stays."""
    rubbish = irises.machine.folder / "rubbish"
    shutil.copytree(irises.model("setosa"), rubbish)
    (rubbish / "MLmodel").write_text("no: model\n")
    irises.register("train-rubbish", rubbish, second)
    shutil.copytree(rubbish, irises.machine.folder / "nothing")
    (irises.machine.folder / "nothing" / "MLmodel").unlink()
    irises.register("train-nothing", irises.machine.folder / "nothing", second)
    for job, words in (("train-rubbish", "did not start"), ("train-nothing", "is no MLflow model")):
        refused = irises.deploy(job, "dev")
        assert refused.returncode == 1
        assert words in refused.stdout
        assert "Traceback" not in refused.stdout + refused.stderr
    assert (irises.champion(), irises.traffic()) == (second, {f"model-v{second}": 100})


def test_what_fails_its_tests_loses_the_traffic_that_an_earlier_run_gave_it(irises: Irises, second: str) -> None:
    """A rollout was cut off at its first step; run again, the deployment does not start: users get the old one."""
    version = tracking.version_of_job(irises.client, NAME, "train-rubbish")
    assert version is not None
    deployment = f"model-v{version.version}"
    by_hand = {"model": str(irises.model("setosa")), "code": str(ROOT / "code/deploy")}
    url = f"{irises.machine.endpoints}/endpoints/{ENDPOINT}"
    assert requests.put(f"{url}/deployments/{deployment}", json=by_hand, timeout=60).ok
    assert requests.put(f"{url}/traffic", json={"traffic": {f"model-v{second}": 90, deployment: 10}}, timeout=10).ok
    refused = irises.deploy("train-rubbish")
    assert refused.returncode == 1
    assert f"All traffic is back at model-v{second}." in refused.stdout
    assert irises.traffic() == {f"model-v{second}": 100}
    assert deployment not in irises.state()["deployments"]


def test_an_endpoint_that_says_otherwise_than_the_registry_stops_a_rollout(irises: Irises, second: str) -> None:
    """A champion's tag that was moved asks less of a new model; another model has another endpoint."""
    for tags, words in (
        (
            {"champion": "model-v99"},
            f"has the champion model-v99 (its tag 'champion'), but in the registry it is model-v{second}",
        ),
        ({"model": "irises"}, "serves the model irises, and signalbox-iris is another one"),
    ):
        before = irises.state()["tags"]
        irises.tag(**tags)
        refused = irises.deploy("train-nothing")
        irises.tag(**{name: before[name] for name in tags})
        assert refused.returncode == 1
        assert words in refused.stdout
    assert (irises.champion(), irises.traffic()) == (second, {f"model-v{second}": 100})


def test_other_files_than_the_evaluated_ones_go_to_no_stage(irises: Irises, second: str) -> None:
    """The digest is taken anew at every stage: one changed byte, and nothing is deployed."""
    version = irises.register("train-tampered", irises.model("setosa6"), second)
    files = tracking.model_folder(irises.client.get_model_version(NAME, version))
    with (files / "requirements.txt").open("a") as file:
        file.write("# one more line\n")
    for stage in ("dev", "production"):
        refused = irises.deploy("train-tampered", stage)
        assert refused.returncode == 1
        assert "its files have the digest" in refused.stdout
    assert f"model-v{version}" not in json.dumps([irises.state(), irises.state(f"{ENDPOINT}-test")])


def test_without_endpoints_or_azure_nothing_is_deployed(irises: Irises, second: str) -> None:
    """A promoted model waits, and the sentence names both settings that could be meant."""
    irises.register("train-homeless", irises.model("kind0"), second)
    refused = irises.deploy("train-homeless", "dev", ENDPOINTS_URL="")
    assert refused.returncode == 1
    assert "AZURE_SUBSCRIPTION_ID is not set" in refused.stdout
    assert "ENDPOINTS_URL" in refused.stdout


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RUN_ID": "../x"}, "RUN_ID is '../x'"),
        ({"RUN_ID": "somebody-elses-run"}, "There is no job 'somebody-elses-run'"),
        ({"MODEL_VERSION": f"{NAME}/999"}, f"There is no model version {NAME}/999"),
    ],
)
def test_what_cannot_be_found_is_named(irises: Irises, variables: dict[str, str], words: str) -> None:
    """A wrong run or version is one sentence that names the variable or the value."""
    refused = irises.deploy("", **variables)
    assert refused.returncode == 1
    assert words in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DATA_SET": "tulips"}, "nothing of data set 'tulips' is in production"),
        ({"ROLLBACK_REASON": ""}, "ROLLBACK_REASON is not set"),
    ],
)
def test_a_rollback_that_makes_no_sense_is_refused(irises: Irises, variables: dict[str, str], words: str) -> None:
    """Nothing is rolled back without knowing what, where and why."""
    refused = irises.roll_back(**variables)
    assert refused.returncode == 1
    assert words in refused.stdout
