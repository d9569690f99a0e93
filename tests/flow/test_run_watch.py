"""Looking for the runs of dispatches: who looks, when, and what a listing proves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from functions.core.dispatch import (
    MOST_UNSTARTED,
    RUN_SETTLES,
    UNSTARTED_PAUSE,
    State,
)
from functions.core.github import Answer, NoAnswer
from functions.core.trace import fate

from .scenes import DEPLOY, HOUR, MINUTE, SECOND, dispatched, pauses, run_completed
from .simulation import Call, Fault, World, on


@pytest.fixture
def world() -> World:
    """A world with one route that settles nothing, so that an event is a dispatch."""
    return World([DEPLOY])


async def test_no_listing_is_no_proof(world: World) -> None:
    """While GitHub does not answer the search, an unknown outcome is not sent again."""
    world.plan = lambda call: Fault.FAIL_BEFORE if call.method == "list_runs" else None
    world.github.answers.append(NoAnswer("reset", reached=True))
    await world.deliver(run_completed())
    await world.run_for(20 * MINUTE)
    assert len(world.github.requests) == 1
    world.plan = lambda _: None
    await world.finish()
    assert set(world.github.effective.values()) == {1}


async def test_a_slow_listing_is_no_proof_either(world: World) -> None:
    """A run that appeared while the listing was under way is not on it: that must not count as "no run"."""
    world.slow["list_runs"] = 6 * SECOND
    world.github.starts_after = RUN_SETTLES - SECOND
    world.github.answers.append(NoAnswer("reset", reached=True))

    def hurry(call: Call) -> Fault | None:
        """The first look comes 27 seconds after the lost answer."""
        if call.method == "lead_watch" and world.github.requests:
            for message in world.queue.messages:
                message.visible = min(message.visible, world.github.requests[0][0] + 27 * SECOND)
        return None

    world.plan = hurry
    await world.deliver(run_completed())
    app = world.start()
    await world.run_for(SECOND, app)
    world.plan = lambda _: None
    world.now = world.github.requests[0][0] + RUN_SETTLES - 4 * SECOND
    await app.app.sender.watch("octo/models", world.store.watches["octo/models"].token)
    await world.finish()
    assert set(world.github.effective.values()) == {1}


async def test_one_listing_confirms_many(world: World) -> None:
    """A hundred and fifty dispatches wait; one look of two pages finds all their runs."""
    world.github.takes = timedelta()
    await world.deliver(*(run_completed(f"train-{number}") for number in range(150)))
    app = world.start()
    for row in world.ledger():
        await app.app.sender.send(row.id)
    world.pass_time(5 * SECOND)
    before = len(world.calls)
    await app.app.sender.watch("octo/models", world.store.watches["octo/models"].token)
    assert sum(call.method == "list_runs" for call in world.calls[before:]) == 2
    assert {row.state for row in world.ledger()} == {State.DONE}


async def test_only_the_newest_watch_goes_on(world: World) -> None:
    """However many watches were started, one chain of messages remains."""
    world.github.takes = HOUR
    await world.deliver(*(run_completed(f"train-{number}") for number in range(20)))
    await world.run_for(4 * MINUTE)
    assert sum('"watch"' in message.body for message in world.queue.messages) == 1


async def test_a_steady_stream_is_watched(world: World) -> None:
    """One dispatch a second: none of them keeps the look from coming that the one before it asked for."""
    app = world.start()
    for number in range(180):
        await world.deliver(run_completed(f"train-{number}"), by=app)
        await world.run_for(SECOND, app)
    assert sum(call.method == "list_runs" for call in world.calls) > 40
    assert sum(row.state is State.DONE for row in world.ledger()) > 100


async def test_a_look_that_was_lost_is_made_good(world: World) -> None:
    """The leader's message is gone: the next dispatch waits for it no longer than a minute."""
    await world.deliver(run_completed("train-1"))
    await world.start().app.sender.send(world.ledger()[0].id)
    world.queue.messages.clear()
    lost = world.store.watches["octo/models"]
    for moment, stands in ((30 * SECOND, True), (MINUTE, False)):
        world.pass_time(moment)
        await world.start().app.sender.start_watch("octo/models")
        assert (world.store.watches["octo/models"] == lost) is stands
    await world.finish()
    assert world.is_idle()


async def test_a_run_that_was_deleted_does_not_hold_for_ever(world: World) -> None:
    """Somebody deletes a run that goes on: the dispatch ends, with that as its reason."""
    world.github.takes = HOUR
    await world.deliver(run_completed())
    await world.run_for(MINUTE)
    world.github.runs.clear()
    await world.finish(within=timedelta(days=3))
    assert world.is_idle()


@pytest.mark.parametrize("lost", [None, "list_jobs"])
async def test_a_run_cancelled_before_it_began_is_made_good(world: World, lost: str | None) -> None:
    """A newer run of its concurrency group displaced it: it is sent again later, and its next run confirms it."""
    world.github.fates.append("unstarted")
    if lost:
        world.plan = on(lost, Fault.FAIL_BEFORE)
    row = await dispatched(world)
    assert (row.state, row.conclusion, row.attempts, row.run_id) == (State.DONE, "success", 2, 2)
    assert row.unstarted == (1,)
    assert pauses(world)[0] >= UNSTARTED_PAUSE


async def test_a_run_cancelled_before_it_began_that_a_person_runs_again(world: World) -> None:
    """Before its dispatch is sent again: then the work is done, and must not be done twice."""
    world.github.fates.append("unstarted")
    await world.deliver(run_completed())
    await world.run_for(3 * MINUTE)
    world.github.runs[0] = replace(world.github.runs[0], fate="success", ends=world.now + 3 * MINUTE)
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.conclusion, row.attempts, row.run_id, row.unstarted) == (State.DONE, "success", 1, 1, ())


@pytest.mark.parametrize("lost", [None, "list_jobs"])
async def test_a_run_that_a_person_ran_again_and_cancelled(world: World, lost: str | None) -> None:
    """It began and was cancelled, all of it between two looks: a part of its work is done, so a person decides."""
    world.github.fates.append("unstarted")
    await world.deliver(run_completed())
    await world.run_for(3 * MINUTE)
    world.github.runs[0] = replace(world.github.runs[0], fate="cancelled")
    if lost:
        world.plan = on(lost, Fault.FAIL_BEFORE)
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.conclusion, row.attempts, row.run_id) == (State.DONE, "cancelled", 1, 1)


async def test_a_second_run_that_comes_after_the_first_was_cancelled(world: World) -> None:
    """Two workflows listen; the run of the one is cancelled before it began, before that of the other is listed."""
    world.github.fates.append("unstarted")
    await world.deliver(run_completed())
    await world.run_for(2 * MINUTE)
    first = world.github.runs[0]
    world.github.runs.append(replace(first, id=2, created=world.now, ends=world.now + HOUR, fate="success"))
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.attempts, row.run_id) == (State.DONE, 1, 2)


async def test_a_run_that_is_never_let_begin(world: World) -> None:
    """Four runs in a row are cancelled before they began: then that is how it ended."""
    world.github.fates.extend(["unstarted"] * 9)
    row = await dispatched(world, within=12 * HOUR)
    assert (row.state, row.conclusion, row.attempts) == (State.DONE, "cancelled", 1 + MOST_UNSTARTED)


@pytest.mark.parametrize("lost", [None, "list_jobs"])
async def test_a_run_that_began_is_not_repeated(world: World, lost: str | None) -> None:
    """Somebody cancelled it in its middle: it did a part of its work, so a person decides."""
    world.github.fates.append("cancelled")
    if lost:
        world.plan = on(lost, Fault.FAIL_BEFORE)
    row = await dispatched(world)
    assert (row.state, row.conclusion, row.attempts) == (State.DONE, "cancelled", 1)


async def test_a_listing_that_is_refused_is_told(world: World) -> None:
    """The token may send, but not look: the row says what to mend, and once that is done the run is found."""
    world.github.listing = Answer(403, {}, '{"message": "Resource not accessible by personal access token"}')
    await world.deliver(run_completed())
    await world.run_for(20 * MINUTE)
    (row,) = world.ledger()
    assert row.state is State.SENT
    assert "'Actions: read' on octo/models" in row.reason
    assert "Resource not accessible" in row.reason
    assert row.reason in fate(row)
    world.github.listing = None
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.reason, row.attempts) == (State.DONE, "", 1)


def listings(world: World) -> int:
    """How often GitHub was asked for runs."""
    return sum(call.method == "list_runs" for call in world.calls)


async def test_a_listing_comes_no_earlier_than_github_asked(world: World) -> None:
    """Ten minutes; a dispatch that comes meanwhile starts a watch of its own, and that waits as well."""
    world.github.listing = Answer(429, {"retry-after": "600"})
    await world.deliver(run_completed("train-1"))
    await world.run_for(10 * SECOND)
    world.github.listing = None
    await world.deliver(run_completed("train-2"))
    await world.run_for(9 * MINUTE)
    assert listings(world) == 1
    await world.run_for(2 * MINUTE)
    assert {row.state for row in world.ledger()} == {State.DONE}


async def test_a_limit_of_dispatches_holds_for_listings(world: World) -> None:
    """The run of one goes on while GitHub asks another one to come later: its runs are not asked for meanwhile."""
    world.github.takes = 2 * MINUTE
    await world.deliver(run_completed("train-1"))
    await world.run_for(30 * SECOND)
    world.github.answers.append(Answer(403, {"retry-after": "600"}))
    await world.deliver(run_completed("train-2"))
    await world.run_for(10 * SECOND)
    before = listings(world)
    await world.run_for(9 * MINUTE)
    assert listings(world) == before
    await world.finish()
    assert {row.state for row in world.ledger()} == {State.DONE}


async def test_a_refused_listing_is_asked_for_again_when_github_allows_it(world: World) -> None:
    """The watch goes on by itself; nobody waits for the slow timer."""
    world.github.listing = Answer(429, {"retry-after": "30"})
    await world.deliver(run_completed())
    await world.run_for(10 * SECOND)
    await world.run_for(30 * SECOND)
    assert listings(world) == 2
