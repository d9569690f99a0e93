"""Storage and the Functions host as processes of their own, and what they have left behind in storage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient, ContainerClient

from local import ports
from local.provision import provision
from local.run_config import PROJECT, RunConfig, new_token
from local.sockets import free_port, owns_port

from .delivery import Sender
from .github import BadGitHub

READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest as it lies in storage."""

    dispatch_id: str
    sha256: str
    lines: tuple[dict[str, Any], ...]


class Machine:
    """A storage part and a Functions host over one folder; either can be hit while the other goes on."""

    def __init__(self, folder: Path, routes: str, github_url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        routes_file = folder / "routes.yml"
        routes_file.write_text(routes)
        environment = {
            **os.environ,
            "SIGNALBOX_ROUTES": str(routes_file),
            "GITHUB_API_URL": github_url,
            "GITHUB_REPOSITORY": "octo/models",
        }
        taken = {name: free_port() for name in ports.NAMES}
        self.config = RunConfig(folder, taken, ("storage", "functions"), environment, new_token())
        self.functions: subprocess.Popen[bytes] | None = None
        self._manifests: dict[str, Manifest] = {}
        (folder / "logs").mkdir(exist_ok=True)
        self.storage = self._start("storage")
        try:
            self._until_ready("storage", self.storage)
            provision(self.config.storage)
            self.start_functions()
        except BaseException:
            self.stop()
            raise

    @property
    def door(self) -> str:
        """Where Event Grid delivers."""
        return f"{self.config.url('functions')}/runtime/webhooks/eventgrid?functionName=intake"

    @property
    def azurite_pid(self) -> int:
        return int((self.config.state("storage") / "azurite" / "azurite.pid").read_text())

    @property
    def _faults(self) -> str:
        return f"{self.config.url('storage')}/_faults"

    def start_functions(self) -> None:
        self.functions = self._start("functions")
        self._until_ready("functions", self.functions)

    def kill_functions(self) -> None:
        """Kill -9."""
        assert self.functions is not None
        self.functions.send_signal(signal.SIGKILL)
        self.functions.wait()

    @contextlib.contextmanager
    def frozen_storage(self) -> Iterator[None]:
        """Azurite neither answers nor refuses in here: SIGSTOP, then SIGCONT."""
        pid = self.azurite_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def refusing_storage(self) -> Iterator[None]:
        """Every blob request is answered 503 in here."""
        self.add_fault(count=1_000_000, status=503)
        try:
            yield
        finally:
            requests.delete(self._faults, timeout=10).raise_for_status()

    def add_fault(self, **fault: object) -> None:
        """Let blob requests meet a fault of local/storage/faults.py."""
        requests.post(self._faults, json=fault, timeout=10).raise_for_status()

    def ring_reconcile(self) -> None:
        """The slow timer, rung by hand as an operator can, so that a test need not wait for its five minutes."""
        with contextlib.suppress(requests.RequestException):
            requests.post(f"{self.config.url('functions')}/admin/functions/reconcile", json={}, timeout=30)

    def status(self) -> dict[str, Any]:
        answer = requests.get(f"{self.config.url('functions')}/api/status", timeout=30)
        answer.raise_for_status()
        said: dict[str, Any] = answer.json()
        return said

    def is_quiet(self) -> bool:
        """The status page knows of no open window and no unfinished dispatch."""
        try:
            said = self.status()
        except requests.RequestException:
            return False
        return not said["open_windows"] and not said["unfinished_windows"] and not said["dispatches"]

    def manifests(self) -> dict[str, Manifest]:
        """All manifests by their dispatch id. They are written once, so each is read once."""
        container = self._container("manifests")
        for name in container.list_blob_names():
            dispatch_id = name.removesuffix(".jsonl")
            if dispatch_id not in self._manifests:
                body = container.download_blob(name).readall()
                lines = tuple(json.loads(line) for line in body.splitlines())
                self._manifests[dispatch_id] = Manifest(dispatch_id, hashlib.sha256(body).hexdigest(), lines)
        return self._manifests

    def filled_manifests(self) -> set[str]:
        """Dispatch ids of the manifests that hold an event; the others repeat only what came before."""
        return {manifest.dispatch_id for manifest in self.manifests().values() if manifest.lines}

    def listed_events(self) -> Counter[str]:
        """How often each event id stands in any manifest."""
        return Counter(line["event_id"] for manifest in self.manifests().values() for line in manifest.lines)

    def windows(self) -> set[str]:
        """Names of all windows that ever took a line: route, key and number."""
        return {blob.name.rpartition("/")[0] for blob in self._container("windows").list_blobs() if blob.size}

    def dead_letters(self) -> list[str]:
        return list(self._container("dead-letters").list_blob_names())

    def stop(self) -> None:
        for process in (self.functions, self.storage):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _container(self, name: str) -> ContainerClient:
        return BlobServiceClient.from_connection_string(self.config.storage).get_container_client(name)

    def _start(self, part: str) -> subprocess.Popen[bytes]:
        self.config.state(part).mkdir(exist_ok=True)
        with self.config.log(part).open("ab") as log:
            return subprocess.Popen(
                self.config.command(part),
                cwd=PROJECT,
                env=self.config.part_environment(part),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _until_ready(self, part: str, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready(part, process.pid):
            log = self.config.log(part)
            assert process.poll() is None, f"{part} ended while it started: {log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"{part} is not ready after {READY_SECONDS:.0f} s, its log is {log}"
            time.sleep(0.05)

    def _is_ready(self, part: str, pid: int) -> bool:
        try:
            return requests.get(f"{self.config.url(part)}/healthz", timeout=2).ok and owns_port(
                pid, self.config.ports[part]
            )
        except requests.RequestException:
            return False


def until(check: Callable[[], bool], what: Callable[[], str], seconds: float) -> None:
    """Wait for `check`; a passing error of storage counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(AzureError):
            if check():
                return
        if time.monotonic() > deadline:
            pytest.fail(f"not after {seconds:.0f} s: {what()}")
        time.sleep(0.25)


def until_finished(machine: Machine, github: BadGitHub, sender: Sender, *, seconds: float, reconcile: bool) -> None:
    """Wait until every acknowledged event is in a manifest, each manifest is dispatched, and nothing is under way.

    With `reconcile` the slow timer rings every few seconds; without it the events have to go on by themselves.
    """
    rung = 0.0

    def finished() -> bool:
        nonlocal rung
        if reconcile and time.monotonic() - rung > 3:
            machine.ring_reconcile()
            rung = time.monotonic()
        return (
            sender.acknowledged <= set(machine.listed_events())
            and machine.filled_manifests() <= set(github.effective())
            and machine.is_quiet()
        )

    until(finished, lambda: report(machine, github, sender), seconds)


def report(machine: Machine, github: BadGitHub, sender: Sender) -> str:
    """What is missing, and GitHub's side of the history."""
    said: object = "no answer"
    with contextlib.suppress(requests.RequestException):
        said = machine.status()
    missing = sorted(sender.acknowledged - set(machine.listed_events()))
    unsent = machine.filled_manifests() - set(github.effective())
    return (
        f"{len(missing)} acknowledged events are in no manifest {missing[:10]}; manifests not dispatched: "
        f"{sorted(unsent)}; status {said}; logs in {machine.config.folder / 'logs'}; GitHub saw:\n{github.history()}"
    )


def check_promises(machine: Machine, github: BadGitHub, sender: Sender) -> None:
    """Nothing lost, nothing twice: events, manifests and effective dispatches agree one to one."""
    check_events(machine, sender)
    effective = github.effective()
    assert _repeated(effective) == {}, f"effective more than once:\n{github.history()}"
    assert set(effective) == machine.filled_manifests(), f"dispatches and manifests differ:\n{github.history()}"
    assert len(effective) <= len(machine.windows()), "more dispatches than windows"
    check_payloads(machine, github, sender)


def check_events(machine: Machine, sender: Sender) -> None:
    """Every acknowledged event is in exactly one manifest, once, and nothing else is in any."""
    listed = machine.listed_events()
    assert sender.acknowledged - set(listed) == set(), "acknowledged, but in no manifest"
    assert _repeated(listed) == {}, "in more than one manifest, or twice in one"
    assert set(listed) <= set(sender.sent), "in a manifest, but never sent"
    assert machine.dead_letters() == []


def check_payloads(machine: Machine, github: BadGitHub, sender: Sender) -> None:
    """Each payload names the manifest that lies in storage, and that holds only events of the payload's key."""
    for post in github.posts:
        manifest = machine.manifests()[post.dispatch_id]
        assert post.payload["manifest"]["sha256"] == manifest.sha256
        assert post.payload["manifest"]["count"] == len(manifest.lines)
        assert {sender.sent[line["event_id"]] for line in manifest.lines} == {post.key}, "events of another key"


def _repeated(counted: Iterable[str] | Counter[str]) -> dict[str, int]:
    return {name: count for name, count in Counter(counted).items() if count > 1}
