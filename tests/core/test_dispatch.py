"""The ledger's next step, from every state and for every answer."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from functions.core.dispatch import (
    HEARD_WITHIN,
    MOST_UNSTARTED,
    RUN_SETTLES,
    SENDING_TIMEOUT,
    WORKFLOW_SENDING_TIMEOUT,
    Dispatch,
    State,
    Step,
    after_answer,
    after_listing,
    after_no_start,
    are_found,
    begin,
    next_look,
    to_look_into,
)
from functions.core.github import Dead, Park, Retry, Run, Sent, Unknown
from functions.core.values import format_time

from .strategies import NOW, a_dispatch, dispatches

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
SENDING = a_dispatch(state=State.SENDING, attempts=1, sending_since=NOW)
SENT = a_dispatch(state=State.SENT, attempts=1, sending_since=NOW, sent=NOW)


def a_run(number: int = 1, *, status: str = "completed", conclusion: str = "success", title: str = SENT.id) -> Run:
    """A run whose name holds the dispatch's id."""
    return Run(number, f"train {title}", status, conclusion, f"https://github/{number}")


class TestRow:
    """A row travels as text."""

    @given(dispatches)
    def test_is_read_back(self, dispatch: Dispatch) -> None:
        """Every field, whatever it holds, in ASCII; the version is the store's."""
        assert Dispatch.from_text(dispatch.to_text(), "v") == replace(dispatch, version="v")
        assert Dispatch.from_text(dispatch.to_text(), "v").version == "v"
        assert dispatch.to_text().isascii()

    def test_leaves_out_what_it_does_not_know(self) -> None:
        """A row of a later version with a further key is read."""
        row = {**json.loads(SENT.to_text()), "budget": 7}
        assert Dispatch.from_text(json.dumps(row), "v") == SENT

    def test_of_an_earlier_version(self) -> None:
        """A row that lacks what came later has its defaults."""
        row = json.loads(SENT.to_text())
        for later in ("parked", "probes", "unheard", "unstarted", "restarts", "replays", "workflow", "ref"):
            del row[later]
        assert Dispatch.from_text(json.dumps(row), "v") == SENT

    @pytest.mark.parametrize("state", State)
    def test_another_door_is_closed_to_an_earlier_version(self, state: State) -> None:
        """That would send it to the repository: until it is final, it has no state that such a version knows."""
        row = a_dispatch(state=state, workflow="train.yml", ref="main")
        written = json.loads(row.to_text())["state"]
        assert (written in set(map(str, State))) == row.is_final
        assert json.loads(a_dispatch(state=state).to_text())["state"] == state

    def test_doors(self) -> None:
        """A workflow's runs are listed under another event, and its door is its own."""
        row = a_dispatch(workflow="train.yml", ref="main")
        assert (row.trigger, row.door) == ("workflow_dispatch", (row.repository, "train.yml", "main"))
        assert (SENT.trigger, SENT.door) == ("repository_dispatch", (SENT.repository, "", ""))

    @pytest.mark.parametrize("state", State)
    def test_is_final_or_not(self, state: State) -> None:
        """A state is final, or waits for a run, or neither; never both."""
        dispatch = a_dispatch(state=state)
        assert dispatch.is_final == (state in {State.DONE, State.DEAD, State.EMPTY})
        assert dispatch.waits_for_run == (state in {State.SENDING, State.SENT, State.CONFIRMED})


class TestBegin:
    """Whether it may be sent now."""

    def test_ready_becomes_sending(self) -> None:
        """One more attempt, from now, and the last reason is gone."""
        ready = a_dispatch(attempts=2, reason="limit", not_before=NOW, sent=NOW)
        assert begin(ready, NOW) == Step(
            replace(ready, state=State.SENDING, attempts=3, reason="", not_before=None, sending_since=NOW, sent=None)
        )

    @given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=9)))
    def test_never_before_its_time(self, left: timedelta) -> None:
        """A message that comes early is put back for exactly what is left."""
        ready = a_dispatch(not_before=NOW + left)
        assert begin(ready, NOW) == Step(ready, left)

    @pytest.mark.parametrize("state", [state for state in State if state is not State.READY])
    def test_nothing_else_is_sent(self, state: State) -> None:
        """A late or repeated message does nothing; of one in sending, only a look at GitHub's runs may say more."""
        dispatch = a_dispatch(state=state)
        step = begin(dispatch, NOW)
        assert step.dispatch is dispatch
        assert step.again is None


class TestAfterAnswer:
    """What follows from GitHub's answer."""

    @pytest.mark.parametrize(
        ("verdict", "changes", "again"),
        [
            (Sent(), {"state": State.SENT, "sent": NOW + SECOND}, None),
            (
                Sent(7, "u"),
                {"state": State.CONFIRMED, "sent": NOW + SECOND, "run_id": 7, "run_url": "u"},
                None,
            ),
            (Retry(MINUTE, "x"), {"state": State.READY, "not_before": NOW + SECOND + MINUTE, "reason": "x"}, MINUTE),
            (
                Unknown("502", MINUTE),
                {"sending_since": NOW + SECOND, "not_before": NOW + SECOND + MINUTE, "reason": "502"},
                None,
            ),
            (Park("token"), {"state": State.PARKED, "parked": NOW + SECOND, "reason": "token"}, None),
            (Dead("422"), {"state": State.DEAD, "reason": "422"}, None),
        ],
    )  # fmt: skip
    def test_each_verdict(self, verdict: object, changes: dict[str, object], again: timedelta | None) -> None:
        """Sent waits for its run, retry for its time, unknown for a look, parked for a person, dead for nobody."""
        expected = Step(replace(SENDING, **changes), again)  # type: ignore[arg-type]
        assert after_answer(SENDING, verdict, NOW + SECOND) == expected  # type: ignore[arg-type]

    @given(st.timedeltas(min_value=SECOND, max_value=timedelta(days=9)), st.timedeltas(timedelta(), timedelta(days=9)))
    def test_retry_is_kept_until_its_time(self, after: timedelta, since: timedelta) -> None:
        """Whenever its message comes, it is not sent before GitHub allowed it."""
        retried = after_answer(SENDING, Retry(after, "limit"), NOW).dispatch
        step = begin(retried, NOW + since)
        assert (step.dispatch.state is State.SENDING) == (since >= after)


class TestAfterListing:
    """What a listing of runs says."""

    @pytest.mark.parametrize("dispatch", [SENDING, SENT, replace(SENT, state=State.CONFIRMED)])
    def test_a_run_confirms(self, dispatch: Dispatch) -> None:
        """Its run is noted; it goes on, so it is confirmed and not done."""
        found = after_listing(dispatch, (a_run(7, status="in_progress"),), NOW)
        assert (found.state, found.run_id, found.run_url, found.conclusion) == (
            State.CONFIRMED,
            7,
            "https://github/7",
            "",
        )
        assert (found.sent, found.looked, found.reason) == (NOW, NOW, "")

    @pytest.mark.parametrize("conclusion", ["success", "failure", "cancelled"])
    def test_an_ended_run_is_done(self, conclusion: str) -> None:
        """Done says that the run ended, and its conclusion how."""
        done = after_listing(SENT, (a_run(conclusion=conclusion),), NOW)
        assert (done.state, done.conclusion) == (State.DONE, conclusion)

    def test_several_runs(self) -> None:
        """The oldest run stands for all; it is done when all ended; the worst news is told."""
        runs = (a_run(9, conclusion="failure"), a_run(3), a_run(5, conclusion=""))
        done = after_listing(SENT, runs, NOW)
        assert (done.state, done.run_id, done.conclusion) == (State.DONE, 3, "unknown")
        assert done.other_runs == (5, 9)
        assert after_listing(SENT, runs[:2], NOW).conclusion == "failure"
        going = after_listing(SENT, (*runs, a_run(4, status="queued")), NOW)
        assert (going.state, going.conclusion) == (State.CONFIRMED, "")

    def test_runs_of_others_say_nothing(self) -> None:
        """Only a run whose name holds this id counts."""
        step = after_listing(SENT, (a_run(title="sb-bbbbbbbbbbbbbbbbbbbb"),), NOW)
        assert step == replace(SENT, looked=NOW)

    @pytest.mark.parametrize(
        ("workflow", "reason", "patience"),
        [("", "", SENDING_TIMEOUT), ("w.yml", "", WORKFLOW_SENDING_TIMEOUT), ("w.yml", "reset", RUN_SETTLES)],
    )
    def test_without_a_run_an_unknown_is_sent_again_in_time(
        self, workflow: str, reason: str, patience: timedelta
    ) -> None:
        """A run may still appear for a while; only after that it is ready again."""
        unknown = replace(SENDING, reason=reason, workflow=workflow)
        early = after_listing(unknown, (), NOW + patience - SECOND)
        assert early == replace(unknown, looked=NOW + patience - SECOND)
        step = after_listing(unknown, (), NOW + patience)
        assert step.state is State.READY
        assert "attempt 1 started no run" in step.reason

    def test_unheard(self) -> None:
        """Accepted, but no run in time: parked, with what the workflow must do."""
        assert after_listing(SENT, (), NOW + HEARD_WITHIN).state is State.SENT
        parked = after_listing(SENT, (), NOW + HEARD_WITHIN + SECOND)
        assert parked.state is State.PARKED
        assert parked.reason.startswith("unheard")
        assert "run-name" in parked.reason
        assert SENT.event_type in parked.reason
        assert parked.parked == NOW + HEARD_WITHIN + SECOND
        assert parked.is_unheard

    def test_unheard_by_one_workflow(self) -> None:
        """Then its name lacks the id."""
        sent = replace(SENT, workflow="train.yml", ref="v1")
        reason = after_listing(sent, (), NOW + HEARD_WITHIN + SECOND).reason
        assert reason.endswith(f"holds {SENT.id}. Put inputs.dispatch_id into the run-name of train.yml on v1")

    def test_a_run_that_github_named(self) -> None:
        """It is known by its number, whatever its name; a listing may lack it for half a minute."""
        named = after_answer(SENDING, Sent(7, "u"), NOW).dispatch
        ended = after_listing(named, (a_run(7, title="by hand"), a_run(8, title="by hand")), NOW + SECOND)
        assert (ended.state, ended.run_id, ended.conclusion) == (State.DONE, 7, "success")
        assert after_listing(named, (), NOW + RUN_SETTLES) == replace(named, looked=NOW + RUN_SETTLES)
        gone = after_listing(named, (), NOW + RUN_SETTLES + SECOND)
        assert gone.reason == "run 7 is not listed any more"

    def test_runs_that_never_began_do_not_count(self) -> None:
        """Once it is sent again, only the new run confirms it."""
        dispatch = replace(SENT, unstarted=(1, 2))
        old = (a_run(1, conclusion="cancelled"), a_run(2, conclusion="cancelled"))
        assert after_listing(dispatch, old, NOW) == replace(dispatch, looked=NOW)
        assert after_listing(dispatch, (*old, a_run(3)), NOW).run_id == 3

    def test_a_run_that_never_began_is_run_again(self) -> None:
        """By a person: it counts from then on, until it is cancelled before it began once more."""
        dispatch = replace(SENDING, unstarted=(1, 2))
        again = after_listing(
            dispatch, (a_run(1, conclusion="cancelled"), a_run(2, status="queued", conclusion="")), NOW
        )
        assert (again.state, again.run_id, again.unstarted) == (State.CONFIRMED, 2, (1,))
        assert to_look_into(again, (a_run(2, conclusion="cancelled"),)) == (2,)

    def test_a_run_that_github_named_is_run_again(self) -> None:
        """Via workflow_dispatch its name need not hold the id: the work is being done, so nothing is sent again."""
        named = replace(SENT, state=State.CONFIRMED, run_id=7, workflow="w.yml")
        waiting = after_no_start(named, (7,), NOW)
        again = after_listing(waiting, (a_run(7, title="deploy", status="queued", conclusion=""),), NOW + 60 * MINUTE)
        assert (again.state, again.run_id, again.unstarted) == (State.CONFIRMED, 7, ())

    def test_a_confirmed_dispatch_stays_so(self) -> None:
        """One listing without its run does not take back what was seen."""
        confirmed = replace(SENT, state=State.CONFIRMED, run_id=1)
        assert after_listing(confirmed, (), NOW + timedelta(days=1)).state is State.CONFIRMED


def test_all_of_its_runs_are_found() -> None:
    """One at least, and every one that it is known to have; runs of others say nothing."""
    known = replace(SENT, run_id=1, other_runs=(2,))
    assert not are_found(SENT, ())
    assert not are_found(SENT, (a_run(1, title="sb-bbbbbbbbbbbbbbbbbbbb"),))
    assert are_found(SENT, (a_run(1),))
    assert not are_found(known, (a_run(1),))
    assert not are_found(known, (a_run(2), a_run(3)))
    assert are_found(known, (a_run(1), a_run(2), a_run(3)))


class TestNoStart:
    """A run that was cancelled before it began."""

    def test_only_cancelled_runs_are_looked_into(self) -> None:
        """No run, a run that goes on or one that ended otherwise: nothing to look into."""
        cancelled = a_run(1, conclusion="cancelled")
        assert to_look_into(SENT, (cancelled, a_run(2, conclusion="cancelled"), a_run(3, title="x"))) == (1, 2)
        assert to_look_into(SENT, ()) == ()
        assert to_look_into(SENT, (cancelled, a_run(2))) == ()
        assert to_look_into(SENT, (cancelled, a_run(2, status="queued", conclusion=""))) == ()

    def test_it_is_sent_again_three_times(self) -> None:
        """After 5, 20 and 80 minutes; its run is forgotten, and says so. Then a cancelled run is its end."""
        dispatch = SENT
        for number, minutes in enumerate((5, 20, 80), 1):
            assert to_look_into(dispatch, (a_run(number, conclusion="cancelled"),)) == (number,)
            dispatch = after_no_start(replace(dispatch, run_id=number, run_url="u"), (number,), NOW)
            assert (dispatch.state, dispatch.not_before) == (State.SENDING, NOW + minutes * MINUTE)
            assert after_listing(dispatch, (), NOW + minutes * MINUTE - SECOND).state is State.SENDING
            assert after_listing(dispatch, (), NOW + minutes * MINUTE).state is State.READY
            assert (dispatch.run_id, dispatch.run_url, dispatch.conclusion, dispatch.looked) == (None, "", "", NOW)
            until = format_time(NOW + minutes * MINUTE)
            assert dispatch.reason == f"run {number} was cancelled before it began, so it is sent again after {until}"
        assert dispatch.unstarted == (1, 2, 3)
        assert dispatch.restarts == MOST_UNSTARTED
        assert to_look_into(dispatch, (a_run(4, conclusion="cancelled"),)) == ()

    def test_a_deleted_run_may_have_begun(self) -> None:
        """One of two workflows was done and its run deleted; the other never began: sent again, the first ran twice."""
        known = replace(SENT, state=State.CONFIRMED, run_id=1, other_runs=(2,))
        cancelled = (a_run(2, conclusion="cancelled"),)
        assert to_look_into(known, cancelled) == ()
        seen_before = after_listing(known, (a_run(2, status="queued", conclusion=""),), NOW)
        assert (seen_before.state, seen_before.other_runs) == (State.CONFIRMED, ())
        assert to_look_into(seen_before, cancelled) == ()

    def test_several_runs_of_one_sending_count_once(self) -> None:
        """Three workflows listen, and all of their runs were displaced: that is the first time, not the third."""
        dispatch = after_no_start(SENT, (1, 2, 3), NOW)
        assert to_look_into(dispatch, (a_run(4, conclusion="cancelled"),)) == (4,)
        assert after_no_start(dispatch, (4, 5, 6), NOW).not_before == NOW + 20 * MINUTE


@pytest.mark.parametrize(
    ("ages", "delay"),
    [
        ([], 3 * SECOND),
        ([SECOND], 3 * SECOND),
        ([2 * MINUTE], 15 * SECOND),
        ([15 * MINUTE], MINUTE),
        ([timedelta(days=1), SECOND], 3 * SECOND),
    ],
)
def test_looks_often_while_a_dispatch_is_fresh(ages: list[timedelta], delay: timedelta) -> None:
    """The youngest decides; a listing of many pages is made more rarely."""
    waiting = [replace(SENT, sent=NOW - age) for age in ages]
    assert next_look(waiting, NOW, pages=1) == delay
    assert next_look(waiting, NOW, pages=4) == 4 * delay


@pytest.mark.parametrize("name", ["sent", "sending_since", "created"])
def test_age_counts_from_the_last_step_that_is_known(name: str) -> None:
    """Sent, else sending, else created."""
    times: dict[str, datetime | None] = {"sent": None, "sending_since": None, "created": NOW - timedelta(days=1)}
    waiting = replace(SENT, **{**times, name: NOW})  # type: ignore[arg-type]
    assert next_look([waiting], NOW, pages=1) == 3 * SECOND
