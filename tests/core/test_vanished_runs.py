"""What the ledger does about a confirmed run that GitHub lists no longer, and about rows that it cannot read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

from functions.core.dispatch import GONE_FOR, State, after_answer, after_listing, readable
from functions.core.github import Run, Sent

from .strategies import NOW, a_dispatch

CONFIRMED = a_dispatch(state=State.CONFIRMED, sent=NOW, looked=NOW, run_id=7, run_url="https://github/7")
SECOND = timedelta(seconds=1)


def test_the_first_listing_without_the_run_only_notes_it() -> None:
    """A listing can err, so the run gets time to come back; the note says since when it is missed."""
    later = NOW + timedelta(minutes=5)
    missed = after_listing(CONFIRMED, (), later)
    assert missed == replace(CONFIRMED, looked=later, reason="run 7 is not listed any more")


def test_the_time_runs_from_the_first_listing_without_it() -> None:
    """Further listings do not start it anew."""
    missed = after_listing(CONFIRMED, (), NOW)
    assert after_listing(missed, (), NOW + GONE_FOR - SECOND) == missed


def test_a_run_that_stays_away_is_done_with_an_unknown_conclusion() -> None:
    """It was confirmed, so nothing is sent again; what became of it is not known."""
    missed = after_listing(CONFIRMED, (), NOW)
    gone = after_listing(missed, (), NOW + GONE_FOR)
    assert gone == replace(missed, state=State.DONE, conclusion="unknown", reason="run 7 was deleted")


def test_a_run_that_comes_back_is_as_if_it_had_never_been_away() -> None:
    """The note goes, so that a later absence gets its whole time again."""
    missed = after_listing(CONFIRMED, (), NOW)
    back = Run(7, f"train {CONFIRMED.id}", "in_progress", "", "https://github/7")
    assert after_listing(missed, (back,), NOW + SECOND) == replace(CONFIRMED, looked=NOW + SECOND)


def test_an_accepted_dispatch_has_no_complaint_left() -> None:
    """The reason of an earlier attempt does not stand beside a state that it does not explain."""
    sending = a_dispatch(state=State.SENDING, attempts=2, sending_since=NOW, reason="GitHub answered 502")
    assert after_answer(sending, Sent(), NOW).dispatch == replace(sending, state=State.SENT, sent=NOW, reason="")


def test_rows_of_a_later_version_are_left_to_it() -> None:
    """Each readable row is read with its own version, also after an unreadable one."""
    other = a_dispatch(id="sb-bbbbbbbbbbbbbbbbbbbb")
    unknown_state = json.dumps({**json.loads(other.to_text()), "state": "postponed"})
    rows = [(CONFIRMED.to_text(), "1"), (unknown_state, "2"), ("no JSON", "3"), (other.to_text(), "4")]
    assert readable(rows) == [replace(CONFIRMED, version="1"), replace(other, version="4")]
