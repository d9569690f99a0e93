"""The endpoints part with Azure ML's real inference server and tiny scoring scripts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from functions_app import PROJECT, eventually

from local.sockets import free_port

SCORE = """
import json, os
from pathlib import Path

def init():
    global weight
    weight = json.loads((Path(os.environ["AZUREML_MODEL_DIR"]) / "model.json").read_text())["weight"]

def run(raw):
    return {"prediction": json.loads(raw)["x"] * weight, "pid": os.getpid(), "env": os.environ.get("EXTRA")}
"""


class Part:
    """The endpoints part as its own process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/endpoints"
        self.start()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        command = [
            sys.executable,
            "-m",
            "local.endpoints.server",
            "--port",
            str(self.port),
            "--dir",
            str(self.folder / "state"),
        ]
        with (self.folder / "part.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log)
        eventually(self._ready, 60)

    def _ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "part.log").read_text()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{self.port}/healthz", timeout=5).ok
        return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop with a signal; answers the exit status."""
        self.process.send_signal(number)
        return self.process.wait(20)

    def deploy(self, deployment: str, weight: int, endpoint: str = "digits", score: str = SCORE) -> requests.Response:
        """PUT a deployment whose prediction is x times weight."""
        code, model = self.folder / f"code-{deployment}", self.folder / f"model-{deployment}-{weight}"
        code.mkdir(exist_ok=True)
        model.mkdir(exist_ok=True)
        (code / "score.py").write_text(score)
        (model / "model.json").write_text(json.dumps({"weight": weight}))
        body = {"model": str(model), "code": str(code), "env": {"EXTRA": "e"}, "tags": {"version": str(weight)}}
        return requests.put(f"{self.url}/{endpoint}/deployments/{deployment}", json=body, timeout=60)

    def traffic(self, **shares: int) -> requests.Response:
        """PUT the traffic of endpoint digits."""
        return self.put("traffic", {"traffic": shares})

    def put(self, what: str, body: Any) -> requests.Response:
        """PUT something of endpoint digits."""
        return requests.put(f"{self.url}/digits/{what}", json=body, timeout=20)

    def observed(self, deployment: str, seconds: float) -> dict[str, Any]:
        """What users' requests got from a deployment of endpoint digits."""
        address = f"{self.url}/digits/deployments/{deployment}/observed"
        found: dict[str, Any] = requests.get(address, {"seconds": seconds}, timeout=20).json()
        return found

    def score(self, x: int = 1, deployment: str | None = None) -> requests.Response:
        """Ask endpoint digits for a prediction."""
        headers = {"azureml-model-deployment": deployment} if deployment else {}
        return requests.post(f"{self.url}/digits/score", json={"x": x}, headers=headers, timeout=20)

    def pids(self) -> list[int]:
        """Process ids of all scoring servers."""
        endpoints = requests.get(self.url, timeout=20).json()["endpoints"]
        return [d["pid"] for endpoint in endpoints for d in endpoint["deployments"].values()]


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Part]:
    """A part with deployments blue (times 2) and green (times 3) of endpoint digits."""
    running = Part(tmp_path_factory.mktemp("endpoints"))
    try:
        with ThreadPoolExecutor(2) as pool:
            for answer in pool.map(running.deploy, ("blue", "green"), (2, 3)):
                assert answer.status_code == 201, answer.text
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def _gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_deployment_answers_what_azure_would_tell(part: Part) -> None:
    """The API shows addresses, state, tags and traffic; the swagger document is the server's own."""
    view: dict[str, Any] = requests.get(f"{part.url}/digits", timeout=20).json()
    assert view["scoring_uri"] == f"{part.url}/digits/score"
    assert {name: d["state"] for name, d in view["deployments"].items()} == {"blue": "Healthy", "green": "Healthy"}
    assert view["deployments"]["blue"]["tags"] == {"version": "2"}
    part.traffic(blue=100)
    assert requests.get(view["swagger_uri"], timeout=20).json()["swagger"] == "2.0"


def test_traffic_is_split_by_weight(part: Part) -> None:
    """Ten percent is one request in ten; the answer names its deployment."""
    assert part.traffic(blue=90, green=10).json()["traffic"] == {"blue": 90, "green": 10}
    answers = [part.score(5) for _ in range(20)]
    counted = Counter((a.headers["azureml-model-deployment"], a.json()["prediction"]) for a in answers)
    assert counted == {("blue", 10): 18, ("green", 15): 2}


def test_a_header_picks_a_deployment(part: Part) -> None:
    """The header wins over the traffic, also with none at all; an unknown one is 404."""
    assert part.traffic(blue=0, green=0).status_code == 200
    picked = part.score(7, "green")
    assert (picked.json()["prediction"], picked.json()["env"]) == (21, "e")
    assert part.score(7).status_code == 404
    assert part.score(7, "red").status_code == 404


@pytest.mark.parametrize("shares", [{"blue": 50}, {"blue": 110, "green": -10}, {"red": 100}, {"blue": "100"}])
def test_traffic_that_makes_no_sense_is_refused(part: Part, shares: dict[str, Any]) -> None:
    """Shares must be percents of known deployments that add up to 100 or 0."""
    before = requests.get(f"{part.url}/digits", timeout=20).json()["traffic"]
    answer = part.put("traffic", {"traffic": shares})
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]
    assert requests.get(f"{part.url}/digits", timeout=20).json()["traffic"] == before


def test_users_requests_are_counted_and_probes_are_not(part: Part) -> None:
    """What `observe` tells is what users got; a request that picks its deployment by header is not theirs.

    A script that raises is answered 424 with its own status, as on Azure, and counts as failed; one that refuses a
    request by itself (4xx) does not.
    """
    odd = SCORE.replace("def run(raw):", "def run(raw):\n    if raw.count('9'):\n        return refuse()")
    odd += (
        "\ndef refuse():\n    from azureml_inference_server_http.api.aml_response import AMLResponse\n"
        "    return AMLResponse('no nines', 400)\n"
    )
    assert part.deploy("odd", 2, score=odd).status_code == 201
    part.traffic(odd=100)
    assert [part.score(5, "odd").status_code for _ in range(3)] == [200] * 3
    assert part.observed("odd", 60)["requests"] == 0
    answers = [requests.post(f"{part.url}/digits/score", data=body, timeout=20) for body in ('{"x": 1}', "oops", "9")]
    assert [answer.status_code for answer in answers] == [200, 424, 424]
    assert [answer.headers.get("ms-azureml-model-error-statuscode") for answer in answers] == [None, "500", "400"]
    found = part.observed("odd", 60)
    assert (found["requests"], found["failed"]) == (3, 1)
    assert found["p95_ms"] > 0
    part.traffic(blue=100)
    assert requests.delete(f"{part.url}/digits/deployments/odd", timeout=20).status_code == 204


def test_a_share_of_the_requests_is_copied(part: Part) -> None:
    """The mirrored deployment gets half of them; users hear the other one only."""
    assert part.put("traffic", {"traffic": {"blue": 100}, "mirror": {"green": 50}}).status_code == 200
    before = part.observed("green", 600)["requests"]
    assert {part.score(5).json()["prediction"] for _ in range(10)} == {10}
    eventually(lambda: part.observed("green", 600)["requests"] == before + 5)
    part.traffic(blue=100)


def test_a_broken_scoring_script_is_told_with_its_log(part: Part) -> None:
    """422 with the script, the last lines of the server's log and the log's path; what was there stays."""
    part.traffic(blue=100)
    answer = part.deploy("blue", 9, score="def init():\n    raise RuntimeError('no such model')\n\ndef run(raw): ...\n")
    sentence = answer.json()["error"]
    assert answer.status_code == 422
    assert "no such model" in sentence
    assert "score.py" in sentence
    assert "digits.blue.log" in sentence
    assert part.score(5).json()["prediction"] == 10


@pytest.mark.parametrize(
    ("name", "body", "word"),
    [
        ("ok-name", {"model": "/no/such", "code": "/no/such"}, "/no/such"),
        ("ok-name", {"model": "/", "code": "/", "entry_script": "absent.py"}, "absent.py"),
        ("ok-name", {"surprise": 1}, "entry_script"),
        ("1x", {"model": "/", "code": "/"}, "1x"),
    ],
)
def test_requests_that_cannot_be_served(part: Part, tmp_path: Path, name: str, body: dict[str, Any], word: str) -> None:
    """400 with a sentence that names what to mend."""
    if name == "1x":
        (tmp_path / "score.py").touch()
        body = {"model": str(tmp_path), "code": str(tmp_path)}
    answer = requests.put(f"{part.url}/digits/deployments/{name}", json=body, timeout=20)
    assert answer.status_code == 400
    assert word in answer.json()["error"]


def test_replacing_and_removing(part: Part) -> None:
    """A PUT replaces a deployment; DELETE is refused while it has traffic, then stops its process."""
    assert part.deploy("red", 4).status_code == 201
    first = part.score(1, "red").json()
    assert part.deploy("red", 5).status_code == 201
    second = part.score(1, "red").json()
    assert (first["prediction"], second["prediction"]) == (4, 5)
    assert _gone(first["pid"])
    part.traffic(red=100)
    address = f"{part.url}/digits/deployments/red"
    refused = requests.delete(address, timeout=20)
    assert refused.status_code == 409
    assert "100 %" in refused.json()["error"]
    part.traffic(blue=100)
    assert requests.delete(address, timeout=20).status_code == 204
    assert _gone(second["pid"])
    assert part.score(1, "red").status_code == 404


def test_a_server_that_dies_is_started_again(part: Part) -> None:
    """After the death of a scoring process the deployment comes back by itself."""
    part.traffic(green=100)
    pid = requests.get(f"{part.url}/digits", timeout=20).json()["deployments"]["green"]["pid"]
    workers = psutil.Process(pid).children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in part.pids() and part.score(2).status_code == 200, 30)
    assert part.score(2).json()["prediction"] == 6
    assert workers
    assert all(_gone(worker.pid) for worker in workers)


def test_the_preloaded_process_may_die(part: Part) -> None:
    """Servers are forked from it as soon as it has loaded; when it dies they come back as processes of their own."""
    children = psutil.Process(part.process.pid).children()
    (nursery,) = [child for child in children if "nursery" in child.cmdline()]

    def forked() -> bool:
        assert part.deploy("forked", 7).status_code == 201
        return bool(nursery.children())

    eventually(forked, 60)
    server = part.score(1, "forked").json()["pid"]
    assert psutil.Process(server).parents()[1].pid == nursery.pid
    nursery.kill()
    eventually(lambda: _gone(server) and part.score(1, "forked").status_code == 200, 30)
    assert part.score(2, "forked").json()["prediction"] == 14
    assert requests.delete(f"{part.url}/digits/deployments/forked", timeout=20).status_code == 204


def test_death_and_restart(part: Part) -> None:
    """No server outlives the part, killed or stopped; a restart brings deployments and traffic back."""
    part.put("traffic", {"traffic": {"blue": 100}, "mirror": {"green": 10}})
    assert part.put("tags", {"tags": {"champion": "blue"}, "only_if": {"champion": ""}}).status_code == 200
    assert part.put("tags", {"tags": {"champion": "green"}, "only_if": {"champion": ""}}).status_code == 412
    before = [pid for pid in part.pids() if pid]
    assert part.stop(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: all(_gone(pid) for pid in before))
    part.start()
    assert part.score(5).json()["prediction"] == 10
    view = requests.get(f"{part.url}/digits", timeout=20).json()
    assert (view["traffic"], view["mirror"], view["tags"]) == ({"blue": 100}, {"green": 10}, {"champion": "blue"})
    again = part.pids()
    assert part.stop() == 0
    assert all(_gone(pid) for pid in again)
