"""Storage that does what it was asked, and does not say so."""

from __future__ import annotations

import time
from collections.abc import Callable

from .delivery import Sender, Traffic
from .github import BadGitHub
from .machine import Machine, check_promises, until_finished

SEED = 11


def test_answers_of_storage_that_never_come(start: Callable[[BadGitHub], Machine]) -> None:
    """Appends, seals and manifests that took effect without an answer are made again, and count once."""
    github = BadGitHub()
    machine = start(github)
    sender = Sender(machine.door)
    traffic = Traffic(sender, ["digits", "iris"], seed=SEED)
    for request, count in {"comp=appendblock": 10, "comp=seal": 1, "PUT /devstoreaccount1/manifests/": 1}.items():
        machine.add_fault(match=request, count=count, drop=True)
    time.sleep(4)
    traffic.stop()
    until_finished(machine, github, sender, seconds=120, reconcile=False)
    check_promises(machine, github, sender)
