"""A rollout's traffic under load: real scoring servers behind the real router, users who never stop asking.

What is asserted are counts of answers by deployment and status, and the endpoint's state; times are settings only.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from mlops import settings
from mlops.deployment import rollout, serving
from mlops.deployment.deploy_settings import Limits, Stage
from mlops.deployment.endpoints import Candidate, LocalEndpoints
from mlops.deployment.lease import TAG, Holder, Lease, LeaseLost
from mlops.report import Fault

from local.sockets import free_port
from tests.model.machine import ROOT, answers, until

# Answers twice the first number of each row. What its model does with rows from `from` on is in the model's folder.
SCORE = """
import json, os, signal, time
from pathlib import Path

def init():
    global model
    model = json.loads((Path(os.environ["AZUREML_MODEL_DIR"]) / "model.json").read_text())

def run(raw):
    rows = json.loads(raw)["data"]
    if any(row[0] >= 50 for row in rows):
        if model.get("does") == "fails":
            raise ValueError("a value this model has never seen")
        if model.get("does") == "is slow":
            time.sleep(0.4)
        if model.get("does") == "dies":
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(1)
    return {"predictions": [2 * row[0] for row in rows]}
"""
OLD = "model-v1"


@dataclass
class Users:
    """Users of an endpoint: some threads that ask one question after the other, half of them with large numbers."""

    url: str
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Answers by (deployment, status)."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Users:
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()
        until(lambda: self.count() > 20, "the users")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        session = requests.Session()
        while not self._stop.wait(0.005):
            number = (number + 37) % 100
            answer = session.post(f"{self.url}/score", json={"data": [[number]]}, timeout=30)
            with self._lock:
                self.answered[answer.headers["azureml-model-deployment"], answer.status_code] += 1

    def count(self, deployment: str = "", *, failed: bool = False) -> int:
        """How many answers there were: all, one deployment's, or only those that are no answer."""
        with self._lock:
            return sum(
                number
                for (name, status), number in self.answered.items()
                if deployment in {"", name} and (status != 200 or not failed)
            )


@dataclass
class Endpoint:
    """An endpoint of the endpoints part, with what a rollout needs."""

    part: str
    name: str
    folder: Path

    def __post_init__(self) -> None:
        """Connect, and take deploy.json with short times."""
        self.endpoints = LocalEndpoints(self.part, 20)
        self.url = f"{self.part}/endpoints/{self.name}"
        self.stage: Stage = replace(
            settings.load().deploy["production"], soak_seconds=0.5, limits=Limits(0.02, 250.0, 10), mirror_percent=0
        )

    def candidate(self, deployment: str, does: str = "") -> Candidate:
        """Make a model that behaves in one way for small numbers, and in `does` for large ones."""
        code, model = self.folder / "code", self.folder / deployment
        for made in (code, model):
            made.mkdir(parents=True, exist_ok=True)
        (code / "score.py").write_text(SCORE)
        (model / "model.json").write_text(json.dumps({"does": does}))
        (model / "input_example.json").write_text('{"data": [[1], [2]]}')
        return Candidate(self.name, deployment, model, code, "score.py", {})

    def try_out(self, candidate: Candidate) -> rollout.Tested:
        """Deploy and smoke-test."""
        return rollout.try_out(self.endpoints, candidate, self.stage, None, None)

    def lease(self) -> Lease:
        """A lease in this process's name."""
        return Lease(self.endpoints, self.name, Holder.this_process())

    def roll_out(self, candidate: Candidate, old: str | None = OLD) -> list[tuple[str, str]]:
        """Roll out as deploy.py does, without a registry."""
        lease = self.lease()
        with lease.held(candidate.deployment):
            return rollout.move_traffic(self.endpoints, self.try_out(candidate), old, self.stage, lease)

    @property
    def traffic(self) -> dict[str, int]:
        """Who has traffic now."""
        return {name: share for name, share in self.endpoints.state(self.name).traffic.items() if share}


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the endpoints part; yields its address."""
    folder, port = tmp_path_factory.mktemp("endpoints"), free_port()
    command = [sys.executable, "-m", "local.endpoints.server", "--port", str(port), "--dir", str(folder / "state")]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as process:
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), "the endpoints part")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def digits(part: str, tmp_path_factory: pytest.TempPathFactory) -> Endpoint:
    """Return an endpoint that a healthy first deployment serves."""
    made = Endpoint(part, "digits", tmp_path_factory.mktemp("digits"))
    made.roll_out(made.candidate(OLD), None)
    assert made.traffic == {OLD: 100}
    return made


@pytest.mark.parametrize(
    ("changes", "sample", "words"),
    [
        ({}, {"data": [[80]]}, "gave no prediction"),
        ({}, {"input_data": {"columns": ["a"], "data": [[1], [2]]}}, "gave no prediction"),
        ({}, [1], "must be a JSON request"),
        ({"smoke_test_ms": 0.001}, {"data": [[1]]}, "smoke_test_ms is 0.001"),
        ({}, None, "not this one"),
    ],
)
def test_a_deployment_that_fails_its_tests_is_deleted(
    digits: Endpoint, tmp_path: Path, changes: dict[str, Any], sample: Any, words: str
) -> None:
    """No answer, a slow one, or the project's own no: the old one keeps all traffic, and the new one is gone."""

    def refuse(service: rollout.Service) -> None:
        assert service.run(service.sample) == service.run(json.dumps(service.sample)) == {"predictions": [2, 4]}
        raise Fault("not this one")

    file = tmp_path / "sample.json" if sample else None
    if file:
        file.write_text(json.dumps(sample))
    stage = replace(digits.stage, **changes)
    with pytest.raises(Fault, match=words):
        rollout.try_out(digits.endpoints, digits.candidate("model-refused", "fails"), stage, file, refuse)
    state = digits.endpoints.state("digits")
    assert (state.deployments, digits.traffic) == ({OLD}, {OLD: 100})


def test_the_users_test_is_switched_on_by_setting(digits: Endpoint, tmp_path: Path) -> None:
    """The file and function that deploy.json names are called; what cannot be called is named."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def main(webservice):\n    assert webservice.scoring_uri, 1\n    raise KeyError('mine')\n")
    service = rollout.Service(digits.endpoints, "digits", OLD, f"{digits.url}/score", {"data": [[1]]})
    own = serving.user_test(replace(digits.stage, user_test=("code/test/test.py", "main")))
    assert own is not None
    own(service)
    mine = serving.user_test(replace(digits.stage, user_test=(str(wrong), "main")))
    assert mine is not None
    with pytest.raises(Fault, match="refuses model-v1: 'mine'"):
        mine(service)
    assert serving.user_test(replace(digits.stage, user_test=None)) is None
    for file, function, words in ((str(wrong), "absent", "has no function"), ("absent.py", "main", "no Python file")):
        with pytest.raises(Fault, match=words):
            serving.user_test(replace(digits.stage, user_test=(file, function)))


@pytest.mark.parametrize(
    ("does", "words"), [("fails", "requests failed"), ("is slow", "took"), ("dies", "failed")], ids=str
)
def test_a_broken_model_goes_back_at_the_first_step(digits: Endpoint, does: str, words: str) -> None:
    """It passes its smoke test and breaks on users' rows: nobody but the first step's share ever meets it.

    Of all requests while it was there, no more than a tenth failed; afterwards the old one has everything and the new
    one is gone.
    """
    deployment = f"model-{does.replace(' ', '-')}"
    digits.stage = replace(digits.stage, soak_seconds=20)  # a limit is noticed long before
    candidate = digits.candidate(deployment, does)
    with Users(digits.url) as users, pytest.raises(Fault) as fault:
        digits.roll_out(candidate)
    assert "at 10 % of the traffic" in str(fault.value)
    assert words in str(fault.value)
    assert f"All traffic is back at {OLD}." in str(fault.value)
    assert 0 < users.count(deployment) <= users.count() / 10 + 1
    assert users.count(failed=True) <= users.count() / 10
    assert users.count(OLD, failed=True) == 0
    assert digits.traffic == {OLD: 100}
    assert deployment not in digits.endpoints.state("digits").deployments


def test_no_request_is_lost_while_healthy_traffic_moves(digits: Endpoint) -> None:
    """Through all steps to the new one, and back, and while deployments are replaced and deleted, all are answered."""
    digits.stage = replace(digits.stage, soak_seconds=0.5, limits=Limits(0.0, 5000.0, 5))
    with Users(digits.url) as users:
        steps = digits.roll_out(digits.candidate("model-v2"))
        digits.try_out(digits.candidate("model-v2"))  # the serving one is replaced
        digits.endpoints.route("digits", {OLD: 100})
        digits.endpoints.delete("digits", "model-v2")
    assert [at for at, _ in steps] == ["10 %", "50 %", "100 %"]
    assert users.count(failed=True) == 0
    assert users.count("model-v2") > 0


def test_copies_show_a_broken_model_before_any_user_meets_it(digits: Endpoint) -> None:
    """Mirrored traffic is a check of its own: its answers are dropped, its failures count."""
    digits.stage = replace(digits.stage, soak_seconds=20, mirror_percent=50, limits=Limits(0.02, 5000.0, 10))
    with Users(digits.url) as users, pytest.raises(Fault, match="at mirrored 50 % of the traffic"):
        digits.roll_out(digits.candidate("model-mirrored", "fails"))
    assert users.count("model-mirrored") == 0
    assert users.count(failed=True) == 0
    state = digits.endpoints.state("digits")
    assert (state.traffic, state.mirror) == ({OLD: 100}, {})


def test_an_interrupted_rollout_gives_the_traffic_back(digits: Endpoint) -> None:
    """What cancels a workflow run, a signal to the process, ends it with the old one serving."""
    digits.stage = replace(digits.stage, soak_seconds=20, mirror_percent=0)

    def interrupt() -> None:
        until(lambda: len(digits.traffic) == 2, "the first step")
        signal.raise_signal(signal.SIGINT)

    watching = threading.Thread(target=interrupt)
    # A process that a shell started in the background ignores this signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watching.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            digits.roll_out(digits.candidate("model-stopped"))
    finally:
        signal.signal(signal.SIGINT, before)
    watching.join()
    assert digits.traffic == {OLD: 100}
    assert digits.endpoints.state("digits").tags.get(TAG, "") == ""


def test_a_rollout_that_lost_its_lease_touches_nothing_more(digits: Endpoint) -> None:
    """A rollback takes the lease over: the rollout stops and does not even give the traffic back."""
    digits.stage = replace(digits.stage, soak_seconds=1)
    candidate = digits.candidate("model-overtaken")

    def overtake() -> None:
        until(lambda: len(digits.traffic) == 2, "the first step")
        with digits.lease().held("rollback", by_force=True):
            digits.endpoints.route("digits", {"model-overtaken": 100})

    watching = threading.Thread(target=overtake)
    watching.start()
    with pytest.raises(LeaseLost, match="leaves the traffic to it"):
        digits.roll_out(candidate)
    watching.join()
    assert digits.traffic == {"model-overtaken": 100}
    digits.endpoints.route("digits", {OLD: 100})
    digits.endpoints.delete("digits", "model-overtaken")


def test_a_rollout_goes_on_with_the_step_that_it_had_reached(digits: Endpoint) -> None:
    """After a crash at half of the traffic, the next run never lowers the share that users have."""
    digits.stage = replace(digits.stage, soak_seconds=0.2)
    candidate = digits.candidate("model-v3")
    digits.try_out(candidate)
    digits.endpoints.route("digits", {OLD: 50, "model-v3": 50})
    assert [at for at, _ in digits.roll_out(candidate)] == ["50 %", "100 %"]
    digits.endpoints.route("digits", {OLD: 100})


def test_a_stage_that_keeps_nothing_any_more_lets_go_of_what_serves(digits: Endpoint) -> None:
    """A version that stayed there with the traffic, and is tried again after the setting was changed, is deleted."""
    stays = Endpoint(digits.part, "digits-test", digits.folder)
    stays.try_out(stays.candidate("model-v4"))
    rollout.settle_stage(stays.endpoints, stays.stage, stays.name, "model-v4")
    assert stays.traffic == {"model-v4": 100}
    rollout.settle_stage(stays.endpoints, replace(stays.stage, delete_afterwards=True), stays.name, "model-v4")
    assert stays.endpoints.state(stays.name).deployments == frozenset()


def test_the_lease_lets_one_in_and_waits_only_for_the_living(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A holder that lives is waited for; one whose process or run attempt has ended, or whose time is over, is not."""
    endpoints = LocalEndpoints(part, 5)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = Holder.this_process()
    for gone in (replace(here, pid=ended.pid), replace(here, run="7", attempt=1, machine="elsewhere")):
        first = Lease(endpoints, "leases", gone)
        later = Lease(endpoints, "leases", replace(here, run="7", attempt=2))
        with first.held("model-v1"), later.held("model-v2"), pytest.raises(LeaseLost):
            first.renew()
    began: list[str] = []
    with Lease(endpoints, "leases", here).held("model-v3"):
        waiting = threading.Thread(target=lambda: _hold(Lease(endpoints, "leases", here), began))
        waiting.start()
        until(lambda: "waiting for its end" in capsys.readouterr().out, "the second holder")
        assert began == []
    waiting.join()
    assert began == ["held"]
    overdue = Lease(endpoints, "leases", replace(here, machine="elsewhere"), clock=lambda: 0.0)
    with overdue.held("model-v4"):
        _hold(Lease(endpoints, "leases", here), began)
    assert began == ["held", "held"]


def _hold(lease: Lease, began: list[Any]) -> None:
    with lease.held("model-v5"):
        began.append("held")
