"""Whose turn comes when."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given, strategies as st

from functions.core.budget import Spending, claim
from functions.core.routes import LARGEST_BUDGET, Budget

from .strategies import NOW

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def turns(budget: Budget, moments: list[datetime]) -> tuple[list[datetime], Spending]:
    """The turns of dispatches that claim at these moments, one after the other."""
    spending, found = Spending("r"), []
    for number, moment in enumerate(moments):
        spending, turn = claim(spending, budget, f"sb-{number}", moment)
        found.append(turn)
    return found, spending


def test_turns_follow_one_another() -> None:
    """Two an hour: the first two at once, the third an hour after the first, and so on."""
    moments = [NOW, NOW + 10 * MINUTE, NOW + 20 * MINUTE, NOW + 20 * MINUTE, NOW + 21 * MINUTE]
    found, _ = turns(Budget(2, HOUR), moments)
    assert found == [NOW, NOW + 10 * MINUTE, NOW + HOUR, NOW + 70 * MINUTE, NOW + 2 * HOUR]


@given(
    st.integers(1, 5),
    st.lists(st.timedeltas(timedelta(), timedelta(hours=3)), min_size=1, max_size=30),
)
def test_never_more_than_the_budget_in_any_span(dispatches: int, pauses: list[timedelta]) -> None:
    """Whenever they are claimed: no turn is before its claim, none overtakes, and no span holds too many."""
    moments, moment = [], NOW
    for pause in pauses:
        moment += pause
        moments.append(moment)
    found, _ = turns(Budget(dispatches, HOUR), moments)
    assert found == sorted(found)
    assert all(turn >= claimed for turn, claimed in zip(found, moments, strict=True))
    assert all(later - earlier >= HOUR for earlier, later in zip(found, found[dispatches:], strict=False))


@given(st.integers(1, 3), st.integers(1, 20))
def test_whoever_comes_late_goes_all_the_same(dispatches: int, late: int) -> None:
    """Messages come seconds after their turn: however short the span, all that wait go, each when it comes."""
    budget, spending = Budget(dispatches, timedelta(seconds=1)), Spending("r")
    for number in range(10):
        spending, _ = claim(spending, budget, f"sb-{number}", NOW)
    for number, (name, turn) in enumerate(spending.slots):
        moment = max(turn, NOW) + timedelta(seconds=late)
        spending, again = claim(spending, budget, name, moment)
        assert again == moment, number


def test_a_claim_is_kept() -> None:
    """Asking again, early or at the turn, is the same slot; once it is older than the span, it is a new one."""
    budget = Budget(1, HOUR)
    found, spending = turns(budget, [NOW, NOW])
    assert found == [NOW, NOW + HOUR]
    for moment in (NOW, NOW + 30 * MINUTE, NOW + HOUR):
        assert claim(spending, budget, "sb-1", moment) == (spending, NOW + HOUR)
    assert claim(spending, budget, "sb-1", NOW + 90 * MINUTE) == (spending, NOW + 90 * MINUTE)
    later, turn = claim(spending, budget, "sb-1", NOW + 2 * HOUR)
    assert (later.slots, turn) == ((("sb-1", NOW + 2 * HOUR),), NOW + 2 * HOUR)


def test_a_full_row_takes_no_more() -> None:
    """The claim is made again once the first slot is gone; nothing is dropped."""
    budget = Budget(LARGEST_BUDGET, HOUR)
    _, spending = turns(budget, [NOW] * LARGEST_BUDGET)
    again, turn = claim(spending, budget, "sb-x", NOW + MINUTE)
    assert again is spending
    assert turn == NOW + HOUR
    assert claim(spending, budget, "sb-x", turn)[1] == turn


def test_it_is_read_back() -> None:
    """A row travels as ASCII text."""
    _, spending = turns(Budget(1, HOUR), [NOW, NOW])
    assert Spending.from_text("r", spending.to_text(), "v") == Spending("r", spending.slots, "v")
    assert spending.to_text().isascii()
