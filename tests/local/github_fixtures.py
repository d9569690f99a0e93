"""Starts the GitHub stand-in as the supervisor does, over a small repository in a temporary folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]
OWNER, NAME = "octo-org", "signal-box"
TOKEN = "made-up-token"
WAIT_SECONDS = 30.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One stand-in over `folder`/project and `folder`/state; it can be killed and started again."""

    def __init__(self, folder: Path, workflows: dict[str, str], machine: dict[str, Any] | None = None) -> None:
        self.project, self.state = folder / "project", folder / "state"
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.api = f"{self.base}/repos/{OWNER}/{NAME}"
        self._process: subprocess.Popen[bytes] | None = None
        (self.project / ".github/workflows").mkdir(parents=True)
        for name, text in workflows.items():
            (self.project / ".github/workflows" / name).write_text(text, encoding="utf-8")
        own = {"path": [str(Path(sys.executable).parent)], **(machine or {})}
        (folder / "runner.json").write_text(json.dumps(own), encoding="utf-8")
        self._log = (folder / "server.log").open("ab")
        self._folder = folder

    def start(self) -> Server:
        """Start it and wait until it answers."""
        options = ["--port", str(self.port), "--dir", str(self.state), "--repository", f"{OWNER}/{NAME}"]
        options += ["--project", str(self.project), "--runner", str(self._folder / "runner.json")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.github.server", *options],
            cwd=ROOT,
            env={**os.environ, "SIGNALBOX_GITHUB_TOKEN": TOKEN, "SERVERS_OWN_SETTING": "not for workflows"},
            stdout=self._log,
            stderr=self._log,
        )
        self.until(self._answers)
        return self

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self._folder / "server.log").read_text()
        try:
            return requests.get(f"{self.base}/healthz", timeout=5).ok
        except requests.ConnectionError:
            return False

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, as the supervisor stops it."""
        assert self._process
        self._process.terminate()
        self._process.wait(15)
        self._log.close()

    def until(self, holds: Any) -> Any:
        """Wait until `holds()` is true and hand on its value."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            value = holds()
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"did not come to pass in {WAIT_SECONDS} s: {(self._folder / 'server.log').read_text()}")

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """One call of the API with the right headers; `headers` replaces some of them (None leaves one out)."""
        headers = {"Authorization": f"Bearer {TOKEN}", "User-Agent": "tests", **options.pop("headers", {})}
        return requests.request(method, self.api + path, headers=headers, timeout=10, **options)

    def dispatch(self, event_type: str, **payload: Any) -> None:
        """A repository dispatch that must be taken."""
        body = {"event_type": event_type, "client_payload": payload}
        answer = self.call("POST", "/dispatches", json=body)
        assert answer.status_code == 204, answer.text

    def runs(self, **query: str) -> list[dict[str, Any]]:
        """The runs, oldest first."""
        listed = self.call("GET", "/actions/runs", params={"per_page": "100", **query}).json()
        return list(reversed(listed["workflow_runs"]))

    def settled(self, count: int) -> list[dict[str, Any]]:
        """The runs, once there are `count` of them and all are completed."""

        def all_done() -> list[dict[str, Any]]:
            runs = self.runs()
            done = len(runs) == count and all(run["status"] == "completed" for run in runs)
            return runs if done else []

        return self.until(all_done)

    def started(self, run_id: int, step: str) -> bool:
        """Whether a step of a run is under way."""
        jobs = self.jobs(run_id)
        return any(s["name"] == step and s["status"] == "in_progress" for job in jobs for s in job["steps"])

    def jobs(self, run_id: int) -> list[dict[str, Any]]:
        """The jobs of a run."""
        return self.call("GET", f"/actions/runs/{run_id}/jobs").json()["jobs"]

    def text(self, run_id: int, file: str = "log.txt") -> str:
        """A file of a run."""
        return (self.state / "runs" / str(run_id) / file).read_text(encoding="utf-8")
