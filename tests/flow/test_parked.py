"""Dispatches that wait until something is mended: probes, those that follow them, and those that went unheard."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from functions.core.dispatch import State
from functions.core.github import Answer
from functions.core.parking import MOST_UNHEARD_PROBES

from .scenes import DEPLOY, HOUR, MINUTE, SECOND, dispatched, run_completed
from .simulation import Call, Fault, World


@pytest.fixture
def world() -> World:
    """A world with one route that settles nothing, so that an event is a dispatch."""
    return World([DEPLOY])


class TestParked:
    """What is parked goes on by itself once its cause is mended."""

    async def test_one_probe_for_all(self, world: World) -> None:
        """Twenty wait for a token; only the oldest tries it, ever more rarely; once it passes, all of them do."""
        world.github.answers.extend([Answer(401)] * 20)
        for number in range(20):
            await world.deliver(run_completed(f"train-{number}"))
            await world.run_for(5 * SECOND)
        oldest = world.ledger()[0].id
        assert {row.state for row in world.ledger()} == {State.PARKED}
        world.github.answers.extend([Answer(401)] * 3)
        await world.run_for(4 * HOUR)
        probes = world.github.requests[20:24]
        assert [dispatch for _, dispatch in probes] == [oldest] * 4
        assert [round((one - other) / MINUTE) for (other, _), (one, _) in pairwise(probes)] == [30, 60, 120]
        await world.finish()
        assert {row.state for row in world.ledger()} == {State.DONE}
        assert world.github.effective == {row.id: 1 for row in world.ledger()}
        assert len(world.github.requests) == 20 + 4 + 19

    async def test_a_crash_after_the_probe(self, world: World) -> None:
        """The instance that probed dies before it wakes the others: the timer does."""
        world.github.answers.extend([Answer(401)] * 3)
        await world.deliver(*(run_completed(f"train-{number}") for number in range(3)))
        await world.run_for(10 * MINUTE)
        gone = False

        def plan(call: Call) -> Fault | None:
            nonlocal gone
            rows = [row for row in world.ledger() if row.state is State.SENT]
            hit = rows and call.method == "unfinished_dispatches" and not gone
            gone = gone or bool(hit)
            return Fault.CRASH_BEFORE if hit else None

        world.plan = plan
        await world.run_for(HOUR)
        assert gone
        assert {row.state for row in world.ledger()} == {State.DONE}
        assert set(world.github.effective.values()) == {1}

    async def test_a_new_dispatch_that_passes_wakes_them_too(self, world: World) -> None:
        """The token was renewed and an event came: nobody waits for the probe."""
        world.github.takes = HOUR
        world.github.answers.append(Answer(401))
        await world.deliver(run_completed("train-1"))
        await world.run_for(MINUTE)
        await world.deliver(run_completed("train-2"))
        await world.run_for(6 * MINUTE)
        assert {row.state for row in world.ledger()} == {State.CONFIRMED}

    async def test_one_that_passes_and_ends_at_once_wakes_them_too(self, world: World) -> None:
        """Its run is over before the timer comes: who waits since hours for the token does not wait for hours more."""
        world.github.takes = MINUTE
        world.github.answers.extend([Answer(401)] * 6)
        await world.deliver(run_completed("train-1"))
        await world.run_for(8 * HOUR + 2 * MINUTE)
        await world.deliver(run_completed("train-2"))
        await world.run_for(5 * MINUTE)
        assert {row.state for row in world.ledger()} == {State.DONE}

    async def test_unheard_that_wakes_under_a_watch(self, world: World) -> None:
        """The run of another dispatch is found by the look that wakes it: that look is not the last one."""
        world.github.listens = False
        await world.deliver(run_completed("train-1"))
        await world.run_for(11 * MINUTE)
        world.github.listens = True
        world.now = world.github.requests[0][0] + 26 * MINUTE
        app = world.start()
        await world.deliver(run_completed("train-2"), by=app)
        world.github.takes = timedelta()
        await app.app.sender.send(world.ledger()[1].id)
        world.pass_time(5 * SECOND)
        await app.app.sender.watch("octo/models", world.store.watches["octo/models"].token)
        assert [row.state for row in world.ledger()] == [State.SENDING, State.DONE]
        assert world.store.watches["octo/models"].token in world.queue.messages[-1].body

    async def test_a_repository_that_was_renamed(self, world: World) -> None:
        """The reason says to mend GITHUB_REPOSITORY: once that is done, what is parked goes to the new name."""
        world.github.answers.append(Answer(307))
        await world.deliver(run_completed())
        await world.run_for(MINUTE)
        mended = world.start([replace(DEPLOY, repository="octo/renamed")])
        await world.run_for(HOUR, mended)
        (row,) = world.ledger()
        assert (row.state, row.repository, row.attempts) == (State.DONE, "octo/renamed", 2)
        sent = [call.arguments[0] for call in world.calls if call.method == "create_dispatch"]
        assert sent == ["octo/models", "octo/renamed"]

    async def test_unheard_is_looked_for_where_it_was_accepted(self, world: World) -> None:
        """Its run comes late in a repository to which nothing else goes any more: the look at another one wakes it."""
        world.github.starts_after = 12 * MINUTE
        await world.deliver(run_completed("train-1"))
        await world.run_for(11 * MINUTE)
        world.github.starts_after = timedelta()
        world.now = world.github.requests[0][0] + 26 * MINUTE
        mended = world.start([replace(DEPLOY, repository="octo/renamed")])
        await world.deliver(run_completed("train-2"), by=mended)
        await mended.app.sender.send(world.ledger()[1].id)
        world.pass_time(5 * SECOND)
        await mended.app.sender.watch("octo/renamed", world.store.watches["octo/renamed"].token)
        assert world.ledger()[0].state is State.SENDING
        await world.finish(mended)
        assert [(row.state, row.repository) for row in world.ledger()] == [
            (State.DONE, "octo/models"),
            (State.DONE, "octo/renamed"),
        ]
        assert set(world.github.effective.values()) == {1}

    async def test_unheard_is_tried_three_times(self, world: World) -> None:
        """The workflow is missing for long: three more dispatches, then a person has to ask for it."""
        world.github.listens = False
        await world.deliver(run_completed())
        await world.run_for(24 * HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts) == (State.PARKED, 1 + MOST_UNHEARD_PROBES)
        assert row.is_unheard

    async def test_unheard_that_is_mended(self, world: World) -> None:
        """The workflow is pushed after it was found missing: the next probe is heard."""
        world.github.listens = False
        await world.deliver(run_completed())
        await world.run_for(15 * MINUTE)
        world.github.listens = True
        await world.run_for(HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts) == (State.DONE, 2)

    async def test_a_run_that_comes_very_late_is_found(self, world: World) -> None:
        """GitHub was slow to start it: a look comes before every sending, so the work is not done twice."""
        world.github.starts_after = 20 * MINUTE
        row = await dispatched(world)
        assert row.is_unheard
        await world.run_for(HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts) == (State.DONE, 1)
        assert world.github.effective == {row.id: 1}

    async def test_a_probe_that_goes_unheard_is_looked_for_all_the_same(self, world: World) -> None:
        """It probed a bad token four times; once GitHub takes it, its run comes after eleven minutes."""
        world.github.starts_after = 11 * MINUTE
        await dispatched(world, *[Answer(401)] * 4)
        await world.run_for(12 * HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts, row.probes, row.unheard) == (State.DONE, 5, 4, 1)
        assert world.github.effective == {row.id: 1}
