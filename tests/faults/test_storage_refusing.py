"""Storage that refuses for a while."""

from __future__ import annotations

from collections.abc import Callable

from .github import BadGitHub
from .machine import Machine
from .outage import live_through


def test_storage_refusing_for_ten_seconds(start: Callable[[BadGitHub], Machine]) -> None:
    """Every blob request is answered 503. Nothing is lost or comes twice."""
    github = BadGitHub()
    machine = start(github)
    live_through(machine, github, machine.refusing_storage())
