"""The second example, scientific texts by topic, goes the same way as a table of numbers: from files to an answer."""

from __future__ import annotations

import mlflow
import pytest
import requests
from mlops.models import tracking

from local import datasets
from tests.model.machine import Machine

# SQLAlchemy 2.1 warns of what MLflow still uses; MLflow's own business.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

FOLDER, MODEL = "abstracts", "signalbox-abstracts"
ORIGIN = "sb-" + "t" * 20


def test_texts_are_checked_learned_judged_registered_and_served(machine: Machine) -> None:
    """A burst of texts becomes a version whose record shows every floor and slice, and answers over HTTP."""
    sha256 = machine.upload(FOLDER, datasets.abstracts(), ORIGIN)
    trained = machine.train(ORIGIN, FOLDER, sha256)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    mlflow.set_tracking_uri(machine.environment["MLFLOW_TRACKING_URI"])
    client = mlflow.MlflowClient(machine.environment["MLFLOW_TRACKING_URI"])
    (version,) = client.search_model_versions(f"name = '{MODEL}'")
    artifacts = {file.path for file in client.list_artifacts(version.run_id, "plots")}
    assert {"plots/families.png", "plots/confusion_matrix.png"} <= artifacts
    record = tracking.read_json(version.run_id, "decision.json")
    assert {name for name, _, _ in record["rule"]["floors"]} == {"error_rate", "f1_macro"}
    assert {(one["column"], one["value"]) for one in record["slices"]} == {("form", "class"), ("form", "function")}

    deployed = machine.deploy(f"train-{ORIGIN}-1")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    address = f"{machine.endpoints}/endpoints/{MODEL}/score"
    asked = [["function", "Compute the eigenvalues of a symmetric matrix."], ["class", "A normal random variable."]]
    answer = requests.post(address, json={"data": asked}, timeout=10)
    assert answer.json() == {"predictions": ["linear_algebra", "statistics"]}
    refused = requests.post(address, json={"data": [["function", 7]]}, timeout=10)
    assert not refused.ok
    assert "column 'abstract': 7 is not text" in refused.text


def test_a_model_that_was_kept_back_goes_out_by_name_and_reason_only(machine: Machine) -> None:
    """The same texts again are no better; the job ends well, and only a person's demand brings its model out."""
    again = "sb-" + "u" * 20
    sha256 = machine.upload(FOLDER, datasets.abstracts(), again)
    trained = machine.train(again, FOLDER, sha256)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "kept_champion: Kept the champion" in trained.stdout
    job = f"train-{again}-1"
    nothing = machine.deploy(job)
    assert nothing.returncode == 0, nothing.stdout
    assert "nothing to deploy" in nothing.stdout

    nameless = machine.run("code/register/force.py", RUN_ID=job, FORCED_BY=" ", FORCE_REASON="because")
    assert nameless.returncode == 1
    assert "FORCED_BY and FORCE_REASON must say something" in nameless.stdout
    forced = machine.run("code/register/force.py", RUN_ID=job, FORCED_BY="ada", FORCE_REASON="the first one leaks")
    assert forced.returncode == 0, forced.stdout + forced.stderr
    deployed = machine.deploy(job)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    mlflow.set_tracking_uri(machine.environment["MLFLOW_TRACKING_URI"])
    champion = tracking.champion(mlflow.MlflowClient(machine.environment["MLFLOW_TRACKING_URI"]), MODEL)
    assert champion is not None
    assert (champion.tags["signalbox_job"], champion.tags["forced_by"]) == (job, "ada")
