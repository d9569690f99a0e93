"""Ten seconds without storage, amid traffic."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

from .delivery import Sender, Traffic
from .github import BadGitHub
from .machine import Machine, check_promises, until_finished

SEED = 7
AWAY = 10.0
"""Seconds."""
BEFORE = 2.0
"""Seconds of traffic before storage goes, so that windows are open and dispatches under way."""


def live_through(machine: Machine, github: BadGitHub, fault: AbstractContextManager[None]) -> None:
    """The door acknowledges nothing during `fault`, what it had acknowledged is kept, events go on by themselves."""
    sender = Sender(machine.door)
    traffic = Traffic(sender, ["digits", "iris"], seed=SEED)
    time.sleep(BEFORE)
    with fault:
        gone = time.monotonic()
        time.sleep(AWAY)
        back = time.monotonic()
    traffic.stop()
    met = [one for one in sender.deliveries if gone <= one.began < back]
    assert met, "no delivery met the fault"
    assert [one for one in met if 200 <= one.status < 300 and one.ended < back] == []
    until_finished(machine, github, sender, seconds=120, reconcile=False)
    check_promises(machine, github, sender)
