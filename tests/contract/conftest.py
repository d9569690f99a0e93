"""Fixtures of the contract tests: the set-up's stand-ins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from setup_fakes import FakeCli, Web


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FakeCli]:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda name: FakeCli(folder, name)


@pytest.fixture
def az(cli: Callable[[str], FakeCli]) -> FakeCli:
    return cli("az")


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        yield server
