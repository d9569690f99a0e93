"""Small function apps in temporary folders, and the host that serves them as its own process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from local.sockets import free_port

PROJECT = Path(__file__).resolve().parents[1]
START_SECONDS = 30.0

PRELUDE = """
import json, os, pathlib, time, asyncio, logging
import azure.functions as func

RECORD = pathlib.Path(os.environ["RECORD"])

def record(kind, **values):
    with RECORD.open("a") as file:
        file.write(json.dumps({"kind": kind, **values}, default=str) + "\\n")

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
"""


def eventually(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first truthy answer of `check`; fails when there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = check()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"nothing within {seconds} s")


class RunningHost:
    """The Functions host of one app, in a process of its own, and what its functions recorded."""

    def __init__(
        self, folder: Path, source: str | None, settings: Mapping[str, str], host_json: Mapping[str, Any]
    ) -> None:
        self.app = PROJECT
        self.settings = settings
        if source is not None:
            self.app = folder / "app"
            self.app.mkdir(parents=True, exist_ok=True)
            (self.app / "function_app.py").write_text(PRELUDE + source)
            (self.app / "host.json").write_text(json.dumps({"version": "2.0", **host_json}))
        self.record_file = folder / "record.jsonl"
        self.record_file.touch()
        self.log_file = folder / "host.log"
        self.directory = folder / "state"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {**os.environ, "RECORD": str(self.record_file), **settings}
        self.start()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        command = [sys.executable, "-m", "local.functions_host.server", "--port", str(self.port)]
        command += ["--dir", str(self.directory), "--app", str(self.app)]
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=PROJECT, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        eventually(self._ready, START_SECONDS)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/healthz", timeout=5).ok
        return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the process with a signal; answers its exit status."""
        self.process.send_signal(number)
        return self.process.wait(15)

    def log(self) -> str:
        """What the host has logged until now."""
        return self.log_file.read_text()

    def records(self, kind: str, **equal: Any) -> list[dict[str, Any]]:
        """What functions recorded with this kind and these values, in order."""
        lines = (json.loads(line) for line in self.record_file.read_text().splitlines())
        return [x for x in lines if x["kind"] == kind and all(x.get(k) == v for k, v in equal.items())]

    def post_event(self, body: Any, function: str = "on_event", **headers: str) -> requests.Response:
        """Deliver to the Event Grid address as Event Grid does."""
        given = {"Content-Type": "application/json", "aeg-event-type": "Notification"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        address = f"{self.url}/runtime/webhooks/eventgrid"
        return requests.post(address, params={"functionName": function}, data=data, headers=given, timeout=60)


@contextlib.contextmanager
def running_host(
    folder: Path,
    source: str | None,
    settings: Mapping[str, str] | None = None,
    host_json: Mapping[str, Any] | None = None,
) -> Iterator[RunningHost]:
    """Serve an app made of `source`, or the project's own app, until the block ends."""
    host = RunningHost(folder, source, settings or {}, host_json or {})
    try:
        yield host
    finally:
        if host.process.poll() is None:
            host.stop(signal.SIGKILL)
