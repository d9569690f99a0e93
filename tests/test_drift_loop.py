"""Drift from end to end, as a user meets it: new files that no route trains on, a check by hand, one retraining."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from local.lineage import GitHubReader
from local.run_config import REPOSITORY, RUNNER_FILE

SIGNALBOX = Path(sys.executable).with_name("signalbox")
ROUTES = """
routes:
  - name: train
    on: Microsoft.Storage.BlobCreated
    where: {container: training-data, prefix: iris/iris-}
    key: folder
    settle: {quiet: 1s, max_wait: 5s}
    dispatch: storage-blobcreated
  - name: deploy
    on: Microsoft.MachineLearningServices.RunCompleted
    where: {root_run: true, tag: signalbox_origin}
    settle: none
    dispatch: machinelearningservices-runcompleted
  - name: retrain-on-drift
    on: Microsoft.MachineLearningServices.DatasetDriftDetected
    settle: none
    dispatch: machinelearningservices-datasetdriftdetected
"""


def upload(*what: str, folder: Path) -> None:
    """Put data in with the command."""
    command = [str(SIGNALBOX), "upload", *what, "--dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def traced(run: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the one chain of a run, once the ledger has it: GitHub may be ahead of it by a listing."""
    command = [str(SIGNALBOX), "trace", str(run["id"]), "--json", "--dir", str(folder)]
    until = time.monotonic() + 60
    while True:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            (chain,) = json.loads(done.stdout)["chains"]
            assert isinstance(chain, dict)
            return chain
        assert time.monotonic() < until, done.stderr


def ended(github: GitHubReader, workflow: str, number: int) -> dict[str, Any]:
    """Wait for the workflow's run of this number, counted from 1, and return it once it has succeeded."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        runs = sorted(github.runs(workflow), key=lambda run: int(run["id"]))
        if len(runs) >= number and runs[number - 1]["status"] == "completed":
            assert runs[number - 1]["conclusion"] == "success", runs[number - 1]
            return runs[number - 1]
        time.sleep(0.2)
    raise AssertionError(f"no run {number} of {workflow} ended")


def big_irises() -> str:
    """Flowers that are all larger than those that the first model learned from."""
    chance = random.Random(1)
    rows = [
        f"{chance.uniform(7, 7.9):.1f},{chance.uniform(4, 4.4):.1f},{chance.uniform(1, 6):.1f},"
        f"{chance.uniform(0.1, 2.4):.1f},{chance.choice(('setosa', 'versicolor', 'virginica'))}"
        for _ in range(90)
    ]
    return "\n".join(["sepal_length,sepal_width,petal_length,petal_width,species", *rows]) + "\n"


def test_drift_that_a_check_finds_retrains_the_folder(tmp_path: Path) -> None:
    """The check publishes an event; its route starts one training of that folder, and the trace tells why."""
    (tmp_path / "routes.yml").write_text(ROUTES)
    (tmp_path / "big.csv").write_text(big_irises())
    folder = tmp_path / "up"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "PAT_"))}
    environment["SIGNALBOX_ROUTES"] = str(tmp_path / "routes.yml")
    command = [str(SIGNALBOX), "up", "--json", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as up:
        try:
            assert up.stdout is not None
            api = json.loads(up.stdout.readline())["github"]
            token = json.loads((folder / RUNNER_FILE).read_text())["secrets"]["RUN_EVENTS_KEY"]
            github = GitHubReader(api, REPOSITORY, token)
            upload("--example", "iris", folder=folder)
            ended(github, "deploy_model.yml", 1)
            upload(str(tmp_path / "big.csv"), "--folder", "iris", folder=folder)
            asked = requests.post(
                f"{api}/repos/{REPOSITORY}/actions/workflows/check_data.yml/dispatches",
                json={"ref": "main", "inputs": {"key": "iris"}},
                headers={"Authorization": f"Bearer {token}", "User-Agent": "test"},
                timeout=10,
            )
            assert asked.status_code == 204, asked.text
            ended(github, "check_data.yml", 1)
            retrained = ended(github, "train_model.yml", 2)
            chain = traced(retrained, folder)
            assert chain["dispatch"]["route"] == "retrain-on-drift"
            assert chain["decision"], "the retraining came to no decision"
        finally:
            up.terminate()
            up.communicate(timeout=30)
