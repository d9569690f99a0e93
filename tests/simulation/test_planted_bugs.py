"""Known bugs, planted one at a time: the histories find each of them, soon."""

from __future__ import annotations

import pytest

from .bugs import BUGS, Bug
from .history import History
from .invariants import violations
from .script import script

WITHIN = 1_500
"""Histories within which each planted bug shows; the ten thousand of a test run are many times that."""


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a bounded number of histories, and as the broken promise that it is."""
    if bug.patch is not None:
        bug.patch(monkeypatch)
    for seed in range(WITHIN):
        broken = violations(History(script(seed), plant=bug.store).run())
        if any(one.startswith(bug.shows_as) for one in broken):
            return
    pytest.fail(f"{WITHIN} histories did not show that {bug.name}")
