"""What the tests of the model side share: the step server, and a machine to run jobs on."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local import azurite as emulator
from local.sockets import free_port
from tests.model.machine import ROOT, EventSink, Machine, answers, until

if TYPE_CHECKING:
    from tests.model.registry_world import World

sys.path.insert(0, str(ROOT / "code"))  # as the scripts themselves do


@pytest.fixture(scope="session")
def registry_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tracking store that is made once; each test uses names of its own in it."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def mlflow_world(registry_folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> World:
    """Return a model name and an experiment of this test's own in that store."""
    from mlops.models import tracking

    from tests.model.registry_world import World

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry_folder}/mlflow.db")
    return World(tracking.client(), registry_folder, f"m{zlib.crc32(request.node.nodeid.encode())}")


@pytest.fixture(params=["mlflow", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a model name in MLflow's own store, and then in the one in memory on which the long histories run."""
    from tests.model import memory_tracking
    from tests.model.registry_world import World

    if request.param == "memory":
        return World(memory_tracking.connect(tmp_path, monkeypatch), tmp_path, "m")
    made: World = request.getfixturevalue("mlflow_world")
    return made


def point_mlflow_at(uri: str, patch: pytest.MonkeyPatch) -> None:
    """MLflow keeps its addresses for the whole process, so that another module's would be asked otherwise."""
    import mlflow

    patch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


@pytest.fixture(scope="session")
def step_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a step server; yields its launcher."""
    folder = tmp_path_factory.mktemp("steps")
    command = [sys.executable, "-m", "local.steps.server", "--dir", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        launcher = Path(process.stdout.readline().strip())
        try:
            yield launcher
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def machine(step_server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Start storage, endpoints and an event sink; yields a machine with nothing on it."""
    folder = tmp_path_factory.mktemp("machine")
    running = emulator.start(folder / "azurite", *(free_port() for _ in range(3)))
    port = free_port()
    log = (folder / "endpoints.log").open("wb")
    command = [sys.executable, "-m", "local.endpoints.server", "--port", str(port), "--dir", str(folder / "endpoints")]
    endpoints = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    sink = EventSink()
    url = f"http://127.0.0.1:{port}"
    made = Machine(folder, running.connection_string, url, sink, step_server)
    made.environment = {
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "TRAINING_COMPUTE": "local",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow/mlflow.db",
        "STORAGE_CONNECTION_STRING": running.connection_string,
        "RUN_EVENTS_ENDPOINT": sink.url,
        "RUN_EVENTS_KEY": "made-up-key",
        "ENDPOINTS_URL": url,
        "WORKSPACE_ID": "/subscriptions/s/resourceGroups/r/providers/Microsoft.MachineLearningServices/workspaces/w",
        "GITHUB_SHA": "c" * 40,
        "GITHUB_RUN_ID": "42",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    for container in ("training-data", "manifests"):
        made.blobs.create_container(container)
    try:
        until(lambda: answers(f"{url}/healthz"), "the endpoints part")
        with pytest.MonkeyPatch.context() as patch:
            point_mlflow_at(made.environment["MLFLOW_TRACKING_URI"], patch)
            yield made
    finally:
        sink.close()
        endpoints.terminate()
        endpoints.wait()
        log.close()
        running.stop()
