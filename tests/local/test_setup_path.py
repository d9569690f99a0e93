"""The proof of setup.yml, and notify.yml, on one machine: the real path, this project's own workflow files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.setup import proof
from infra.setup.patience import Patience
from local.run_config import REPOSITORY, RUNNER_FILE

SIGNALBOX = Path(sys.executable).with_name("signalbox")
PATIENCE = Patience(longest=60, pace=0.2)


@dataclass
class Machine:
    """A running `signalbox up` without the parts that train."""

    folder: Path
    ready: dict[str, Any]

    @property
    def token(self) -> str:
        """The token that the local GitHub takes."""
        return str(json.loads((self.folder / RUNNER_FILE).read_text())["secrets"]["RUN_EVENTS_KEY"])

    @property
    def topic(self) -> str:
        """Address of the custom topic, whatever the template calls it."""
        listed = requests.get(f"{self.ready['eventgrid']}/deliveries", timeout=10).json()["subscriptions"]
        (name,) = {one["topic"] for one in listed.values()} - {"storage", "workspace"}
        return f"{self.ready['eventgrid']}/{name}/api/events"

    def run(self, part_of_title: str) -> dict[str, Any]:
        """The completed workflow run with this in its name."""
        return proof.await_run(self.ready["github"], REPOSITORY, self.token, part_of_title, PATIENCE)

    def summary(self, run: dict[str, Any]) -> str:
        """What the run wrote for people."""
        return (self.folder / "github/runs" / str(run["id"]) / "summary.md").read_text()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("up")
    command = [str(SIGNALBOX), "up", "--json", "--only", "storage,eventgrid,functions,github", "--dir", str(folder)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "PAT_"))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as up:
        try:
            assert up.stdout is not None
            yield Machine(folder, json.loads(up.stdout.readline()))
        finally:
            up.terminate()
            up.communicate(timeout=30)


def test_the_probe_goes_the_whole_way_once(machine: Machine) -> None:
    """Topic, subscription, function, ledger, dispatch, workflow: a repeated probe starts no second run."""
    probe = proof.new_probe()
    for _ in range(2):
        proof.send(machine.topic, probe, "not asked for here", PATIENCE)
    run = machine.run(probe)
    assert run["path"] == ".github/workflows/setup_probe.yml"
    assert probe in machine.summary(run)
    other = proof.new_probe()
    proof.send(machine.topic, other, "not asked for here", PATIENCE)
    machine.run(other)
    listed = requests.get(
        f"{machine.ready['github']}/repos/{REPOSITORY}/actions/runs",
        headers={"Authorization": f"Bearer {machine.token}", "User-Agent": "tests"},
        timeout=10,
    ).json()["workflow_runs"]
    assert sum(probe in one["display_title"] for one in listed) == 1


def test_a_failed_job_is_reported_in_the_summary(machine: Machine) -> None:
    """Where there are no issues, notify.yml is green and says which job failed; nothing of the event is carried out."""
    dispatch_id = f"sb-{time.time_ns()}"
    data = {"runId": "train-1`$(touch /tmp/no)", "runStatus": "Failed", "experimentName": "signalbox", "runTags": {}}
    payload = {"dispatch_id": dispatch_id, "event_type": "machinelearningservices-runstatuschanged", "data": data}
    answer = requests.post(
        f"{machine.ready['github']}/repos/{REPOSITORY}/dispatches",
        json={"event_type": payload["event_type"], "client_payload": payload},
        headers={"Authorization": f"Bearer {machine.token}", "User-Agent": "tests"},
        timeout=30,
    )
    assert answer.status_code == 204
    summary = machine.summary(machine.run(dispatch_id))
    assert "job `train-1'$(touch /tmp/no)` ended as `Failed`" in summary
    assert "no issue tracker on one machine" in summary
