"""Fixtures that every test may use: the published contracts, a free port, a real Azurite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local import azurite as emulator, sockets

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def contracts() -> Path:
    """Folder of the platforms' published contracts, which stand beside the project and are not part of it."""
    folder = PROJECT.parent / "shared/contracts"
    if not folder.is_dir():
        pytest.skip(f"the published contracts are not here: {folder} is missing")
    return folder


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives a free TCP port of 127.0.0.1 each time it is called."""
    return sockets.free_port


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Connection string of a real Azurite that lives as long as the test session."""
    ports = [sockets.free_port() for _ in range(3)]
    running = emulator.start(tmp_path_factory.mktemp("azurite"), *ports)
    yield running.connection_string
    running.stop()
