"""What every test of real faults uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .github import BadGitHub
from .machine import Machine

ROUTES = """
routes:
  - name: burst
    on: Microsoft.Storage.BlobCreated
    where: {container: training-data}
    key: folder
    settle: {quiet: 1s, max_wait: 4s}
    dispatch: storage-blobcreated
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[BadGitHub], Machine]]:
    """Starts a machine that talks to the given GitHub; both end with the test."""
    running: list[tuple[Machine, BadGitHub]] = []

    def begin(github: BadGitHub, routes: str = ROUTES) -> Machine:
        machine = Machine(tmp_path / "state", routes, github.url)
        running.append((machine, github))
        return machine

    yield begin
    for machine, github in running:
        machine.stop()
        github.close()
