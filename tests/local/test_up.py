"""`signalbox up` as a process of its own: one line of JSON, the Functions host's door, restarts, clear refusals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loopback
import psutil
import pytest
import requests
from azure.storage.blob import BlobServiceClient

SIGNALBOX = Path(sys.executable).parent / "signalbox"
ROUTES = """
routes:
  - name: quick
    on: Microsoft.Storage.BlobCreated
    where: {container: training-data}
    key: folder
    settle: {quiet: 1s, max_wait: 5s}
    dispatch: storage-blobcreated
"""


class Up:
    """A running `signalbox up`."""

    def __init__(self, folder: Path, environment: dict[str, str], *options: str) -> None:
        command = [str(SIGNALBOX), "up", "--json", "--dir", str(folder), *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, error = self.process.communicate(timeout=20)
            pytest.fail(f"signalbox up did not start: {error}")
        self.ready: dict[str, Any] = json.loads(line)

    @property
    def intake(self) -> str:
        return f"{self.ready['functions']}/runtime/webhooks/eventgrid?functionName=intake"

    def stop(self, number: int = signal.SIGINT) -> tuple[str, str]:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.communicate(timeout=30)


class FakeGitHub(loopback.Server):
    """Accepts dispatches, and lists a finished run for each."""

    def __init__(self) -> None:
        self.dispatches: list[dict[str, Any]] = []
        outer = self

        class Handler(loopback.Handler):
            def post(self) -> None:
                outer.dispatches.append(json.loads(self.body()))
                self.reply(204)

            def get(self) -> None:
                runs = [
                    {"id": number, "display_title": f"train {sent['client_payload']['dispatch_id']}",
                     "status": "completed", "conclusion": "success", "html_url": ""}
                    for number, sent in enumerate(outer.dispatches, start=1)
                ]  # fmt: skip
                self.reply(200, {"total_count": len(runs), "workflow_runs": runs})

        super().__init__(Handler)


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path, github: FakeGitHub) -> dict[str, str]:
    routes = tmp_path / "routes.yml"
    routes.write_text(ROUTES)
    return {"SIGNALBOX_ROUTES": str(routes), "GITHUB_API_URL": github.url, "GITHUB_REPOSITORY": "octo/models"}


def event(name: str, folder: str = "digits") -> dict[str, Any]:
    return {
        "id": name,
        "eventType": "Microsoft.Storage.BlobCreated",
        "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/devstoreaccount1",
        "subject": f"/blobServices/default/containers/training-data/blobs/{folder}/{name}.csv",
        "eventTime": "2026-11-20T10:00:00Z",
        "data": {"api": "PutBlob", "url": f"http://127.0.0.1:1/devstoreaccount1/training-data/{folder}/{name}.csv"},
        "dataVersion": "",
        "metadataVersion": "1",
    }


def eventually(check: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def manifest_events(storage: str) -> list[str]:
    container = BlobServiceClient.from_connection_string(storage).get_container_client("manifests")
    return [
        json.loads(line)["event_id"]
        for blob in container.list_blobs()
        for line in container.download_blob(blob.name).readall().splitlines()
    ]


def post(address: str, events: list[dict[str, Any]]) -> bool:
    """True once Event Grid would count the delivery as done."""
    try:
        answer = requests.post(address, json=events, headers={"aeg-event-type": "Notification"}, timeout=40)
    except requests.RequestException:
        return False
    return answer.status_code in {200, 202}


def test_events_posted_to_the_door_become_one_dispatch(
    tmp_path: Path, environment: dict[str, str], github: FakeGitHub
) -> None:
    """Anything that can post an event can test the app; `--only` starts just what is named, `--json` says where."""
    up = Up(tmp_path / "state", environment, "--only", "storage,functions")
    try:
        assert set(up.ready["pids"]) == {"storage", "functions"}
        assert up.ready["github"] == github.url
        assert post(up.intake, [event(f"e{number}") for number in range(40)])
        eventually(lambda: bool(github.dispatches), "no dispatch came")
        time.sleep(1.5)
        (sent,) = github.dispatches
        assert sent["event_type"] == "storage-blobcreated"
        assert sent["client_payload"]["manifest"]["count"] == 40
        assert sorted(manifest_events(up.ready["storage"])) == sorted(f"e{number}" for number in range(40))
    finally:
        out, _ = up.stop()
    assert out == ""
    assert up.process.returncode == 0


def test_a_killed_part_is_started_again_at_its_address(tmp_path: Path, environment: dict[str, str]) -> None:
    """`up` goes on after the crash of a part, says so, and no acknowledged event is lost by it."""
    up = Up(tmp_path / "state", environment, "--only", "storage,functions")
    try:
        assert post(up.intake, [event("before")])
        os.kill(up.ready["pids"]["functions"], signal.SIGKILL)
        eventually(lambda: post(up.intake, [event("after")]), "the Functions host did not come back")
        eventually(lambda: sorted(manifest_events(up.ready["storage"])) == ["after", "before"], "an event is missing")
    finally:
        _, error = up.stop()
    assert "functions was ended by signal 9" in error


def test_the_same_folder_goes_on_after_everything_was_killed(
    tmp_path: Path, environment: dict[str, str], github: FakeGitHub
) -> None:
    """With `--dir`, a run that was killed as a whole is gone on from: same addresses, nothing lost, nothing twice."""
    first = Up(tmp_path / "state", environment, "--only", "storage,functions")
    assert post(first.intake, [event(f"e{number}") for number in range(25)])
    first.process.kill()
    first.process.communicate(timeout=10)
    second = Up(tmp_path / "state", environment, "--only", "storage,functions")
    try:
        assert second.ready["functions"] == first.ready["functions"]
        eventually(lambda: len(manifest_events(second.ready["storage"])) == 25, "events are missing")
        eventually(lambda: bool(github.dispatches), "no dispatch came")
        assert len({sent["client_payload"]["dispatch_id"] for sent in github.dispatches}) == 1
    finally:
        second.stop()


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path, environment: dict[str, str]) -> None:
    """After Ctrl-C every part has ended, Azurite included."""
    up = Up(tmp_path / "state", environment, "--only", "storage,functions")
    family = psutil.Process(up.process.pid).children(recursive=True)
    assert len(family) >= 3
    up.stop()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def refused(folder: Path, environment: dict[str, str], *options: str) -> str:
    command = [str(SIGNALBOX), "up", "--dir", str(folder), *options]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_taken_port_is_named_with_its_owner(tmp_path: Path, environment: dict[str, str]) -> None:
    """A port that somebody else listens on gives a sentence with the port, its use, its owner, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(tmp_path / "state", environment, "--port", f"functions={port}")
    assert f"port {port} (functions) is taken by process {os.getpid()}" in said
    assert "--port functions=NUMBER" in said


@pytest.mark.parametrize(
    ("options", "change", "sentence"),
    [
        (["--only", "storage,function"], {}, "--only names function; the parts are storage"),
        (["--port", "web=1"], {}, "--port web=1: write NAME=NUMBER"),
        ([], {"GITHUB_REPOSITORY": "models"}, "GITHUB_REPOSITORY is 'models': write the repository as OWNER/NAME"),
        ([], {"GITHUB_API_URL": "http://example.com", "PAT_TOKEN": "t"}, "must be https, or http on loopback"),
        ([], {"GITHUB_API_URL": "https://example.com", "PAT_TOKEN": ""}, "PAT_TOKEN is needed"),
        ([], {"SIGNALBOX_ROUTES": "none.yml"}, "none.yml"),
    ],
)
def test_wrong_settings_are_refused_with_the_mend(
    tmp_path: Path, environment: dict[str, str], options: list[str], change: dict[str, str], sentence: str
) -> None:
    """Each wrong option or setting is named before anything is started."""
    assert sentence in refused(tmp_path / "state", {**environment, **change}, *options)


def test_second_run_in_one_folder_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    """Two runs never share a folder's state."""
    up = Up(tmp_path / "state", environment, "--only", "storage")
    try:
        assert f"(process {up.process.pid})" in refused(tmp_path / "state", environment, "--only", "storage")
    finally:
        up.stop()


def test_upload_reaches_the_container_and_raises_the_event(
    tmp_path: Path, environment: dict[str, str], github: FakeGitHub
) -> None:
    """`signalbox upload` needs only the folder of `up`; the dispatch's manifest lists the files."""
    up = Up(tmp_path / "state", environment, "--only", "storage,eventgrid,functions")
    try:
        files = [tmp_path / f"{name}.csv" for name in ("a", "b")]
        for file in files:
            file.write_text("x\n1\n")
        command = [str(SIGNALBOX), "upload", *map(str, files), "--folder", "mine", "--dir", str(tmp_path / "state")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.splitlines() == ["uploaded mine/a.csv", "uploaded mine/b.csv"]
        eventually(lambda: bool(github.dispatches), "no dispatch came")
        assert github.dispatches[0]["client_payload"]["key"] == "mine"
        assert github.dispatches[0]["client_payload"]["manifest"]["count"] == 2
        example = [str(SIGNALBOX), "upload", "--example", "iris", "--dir", str(tmp_path / "state")]
        done = subprocess.run(example, capture_output=True, text=True, timeout=60, check=True)
        eventually(lambda: len(github.dispatches) == 2, "no dispatch came for the example")
        assert github.dispatches[1]["client_payload"]["key"] == "iris"
        assert github.dispatches[1]["client_payload"]["manifest"]["count"] == len(done.stdout.splitlines())
    finally:
        up.stop()


def test_upload_without_a_run_says_what_to_do(tmp_path: Path) -> None:
    """Uploading where nothing runs is a sentence that names the command to start."""
    command = [str(SIGNALBOX), "upload", str(Path(__file__)), "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "start 'signalbox up' first" in done.stderr
