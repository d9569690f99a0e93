"""Every port call of small scenes fails, waits, or kills its instance, in turn: enumerated, not sampled."""

from __future__ import annotations

import pytest

from . import process
from .history import FAULTS, VISIBILITY, History
from .invariants import violations
from .small import OVERFLOWED, OVERFLOWED_LAST, SCENES, every_fault


@pytest.mark.parametrize("name", SCENES)
def test_a_fault_at_every_call(name: str) -> None:
    """Whichever call of the scene it is, before or after it took effect, the promises hold in the end."""
    undisturbed = History(SCENES[name]).run()
    assert violations(undisturbed) == []
    histories = 0
    for number, fault, broken in every_fault(SCENES[name]):
        histories += 1
        assert broken == [], f"{fault} at call {number} of '{name}'"
    assert histories == len(FAULTS) * len(undisturbed.trace)


def test_an_overflowed_event_that_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed once, although it settles under two keys, whichever call of the one closer is held up."""
    monkeypatch.setattr(process, "LONG", VISIBILITY - 2)
    for number, fault, broken in every_fault(OVERFLOWED):
        assert broken == [], f"{fault} at call {number}"


def test_an_overflow_whose_route_is_gone() -> None:
    """Its window is finished by its kept rule, and what an earlier manifest lists is not listed again."""
    assert violations(History(OVERFLOWED_LAST).run()) == []
