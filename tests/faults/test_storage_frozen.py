"""Storage that neither answers nor refuses for a while.

Apart from test_storage_refusing.py so that both can run at the same time.
"""

from __future__ import annotations

from collections.abc import Callable

from .github import BadGitHub
from .machine import Machine
from .outage import live_through


def test_storage_frozen_for_ten_seconds(start: Callable[[BadGitHub], Machine]) -> None:
    """Azurite is stopped: calls hang, time out, and may take effect once it goes on. Nothing is lost or comes twice."""
    github = BadGitHub()
    machine = start(github)
    live_through(machine, github, machine.frozen_storage())
