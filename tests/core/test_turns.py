"""Who goes when: alarms, holds, budgets with several slots, probes; and what a row forgets when it goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from functions.core.budget import Spending, claim
from functions.core.dispatch import RUN_SETTLES, State, after_answer, after_listing, after_no_start
from functions.core.github import Sent
from functions.core.parking import wake
from functions.core.routes import LARGEST_BUDGET, Budget, Hold
from functions.core.windows import Head, Wait, held

from .strategies import NOW, a_dispatch

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
SENDING = a_dispatch(state=State.SENDING, attempts=1, sending_since=NOW)
REFUSED = a_dispatch(state=State.PARKED, created=NOW - HOUR, parked=NOW - HOUR, reason="401")


class TestAlarms:
    """Of all alarms of a window only the one counts whose token its head names."""

    def test_an_opened_head_names_its_alarm(self) -> None:
        """Without the token the alarm would be let go as an old one, and the window closed only by the timer."""
        head = Head("train", "digits", "epoch").opened("one")
        assert (head.is_open, head.alarm, head.marked) == (True, "one", False)

    def test_another_alarm_is_no_marker(self) -> None:
        """Only a marker shortens the quiet time; the next look at a window does not."""
        head = Head("train", "digits", "epoch").opened("one").rearmed("two")
        assert (head.alarm, head.marked) == ("two", False)
        assert head.rearmed("three", marked=True).marked


def test_a_hold_says_why() -> None:
    """The closer logs the reason for which a window waits."""
    assert held(Hold(HOUR), NOW - HOUR + SECOND, NOW) == Wait(SECOND, "the last run is still going")


def test_a_full_row_of_slots_waits_for_the_first() -> None:
    """Slots a second apart: the first one that ends makes room, not a later one."""
    slots = tuple((f"sb-{number}", NOW + number * SECOND) for number in range(LARGEST_BUDGET))
    spending = Spending("train", slots)
    assert claim(spending, Budget(LARGEST_BUDGET, HOUR), "sb-x", NOW + 10 * MINUTE) == (spending, NOW + HOUR)


class TestProbes:
    """Parked dispatches that go on."""

    def test_a_probe_goes_at_once(self) -> None:
        """Whatever moment its row named before it was parked, that is over."""
        (probe,) = wake([replace(REFUSED, not_before=NOW + HOUR)], NOW)
        assert (probe.state, probe.not_before, probe.probes) == (State.READY, None, 1)

    def test_only_what_was_accepted_later_shows_that_the_cause_is_gone(self) -> None:
        """Accepted in the very moment of the refusal says nothing yet."""
        parked = replace(REFUSED, parked=NOW - MINUTE)
        accepted = a_dispatch(id="sb-z", state=State.CONFIRMED, sent=NOW - MINUTE)
        assert wake([parked, accepted], NOW) == []
        later = replace(accepted, sent=NOW - MINUTE + SECOND)
        assert [row.id for row in wake([parked, later], NOW)] == [parked.id]


class TestForgotten:
    """A row that goes on says nothing of what is over."""

    @pytest.mark.parametrize("verdict", [Sent(), Sent(7, "u")])
    def test_what_was_wrong_before_it_was_accepted(self, verdict: Sent) -> None:
        """Accepted, with a run or without: no reason of an earlier attempt remains."""
        assert after_answer(replace(SENDING, reason="502"), verdict, NOW).dispatch.reason == ""

    def test_why_its_run_could_not_be_looked_for(self) -> None:
        """Once runs are listed again, the refusal of an earlier listing is over."""
        sent = a_dispatch(state=State.SENT, sent=NOW, reason="its run cannot be looked for, GitHub answered 403")
        assert after_listing(sent, (), NOW + SECOND) == replace(sent, looked=NOW + SECOND, reason="")

    def test_the_wait_before_it_is_sent_again(self) -> None:
        """What started no run may go at once: the wait that GitHub asked for is over by then."""
        unknown = replace(SENDING, reason="502", not_before=NOW + RUN_SETTLES)
        again = after_listing(unknown, (), NOW + RUN_SETTLES)
        assert (again.state, again.not_before) == (State.READY, None)

    def test_the_end_of_a_run_that_never_began(self) -> None:
        """Its conclusion goes with its id and address: the dispatch's own run is still to come."""
        ended = replace(SENDING, run_id=7, run_url="u", other_runs=(8,), conclusion="cancelled")
        again = after_no_start(ended, (7,), NOW)
        assert (again.run_id, again.run_url, again.other_runs, again.conclusion) == (None, "", (), "")
