"""A route's budget: what is beyond it waits for its turn, and nothing is dropped."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from functions.core.dispatch import State
from functions.core.github import Answer
from functions.core.routes import Budget
from functions.flow.ports import StorageUnavailable

from .scenes import DEPLOY, HOUR, MINUTE, SECOND, TRAIN, burst, run_completed, upload
from .simulation import Call, Fault, World

TWO_AN_HOUR = Budget(2, HOUR)


def moments(world: World) -> list[timedelta]:
    """When each request came, from the first on."""
    first = world.github.requests[0][0]
    return [moment - first for moment, _ in world.github.requests]


async def test_what_is_beyond_it_waits() -> None:
    """Six run events at once: two dispatches an hour, in their order, and each once."""
    world = World([replace(DEPLOY, budget=TWO_AN_HOUR)])
    await world.run_for(2 * MINUTE)  # so that no turn falls together with the slow timer
    await world.deliver(*(run_completed(f"train-{number}") for number in range(6)))
    await world.run_for(10 * SECOND)
    waiting = [row for row in world.ledger() if row.state is State.READY]
    assert len(waiting) == 4
    assert all("the budget of route 'deploy' is used up until 2026-11-20T1" in row.reason for row in waiting)
    await world.finish(within=12 * HOUR)
    assert [round(moment / HOUR, 2) for moment in moments(world)] == [0, 0, 1, 1, 2, 2]
    assert world.github.effective == {row.id: 1 for row in world.ledger()}


async def test_two_routes_have_two_budgets() -> None:
    """One route's loop does not stop another; a route without a budget has no limit."""
    other = replace(DEPLOY, name="other", dispatch="other", budget=Budget(1, HOUR))
    world = World([replace(DEPLOY, budget=TWO_AN_HOUR), other, replace(DEPLOY, name="free", dispatch="free")])
    await world.deliver(*(run_completed(f"train-{number}") for number in range(5)))
    await world.run_for(30 * MINUTE)
    sent = [row.route for row in world.ledger() if row.sent]
    assert (sent.count("deploy"), sent.count("other"), sent.count("free")) == (2, 1, 5)


async def test_windows_grow_while_it_is_used_up() -> None:
    """A loop of uploads: one dispatch an hour, and each carries all that came in between."""
    world = World([replace(TRAIN, budget=Budget(1, HOUR))])
    for number in range(60):
        await world.deliver(upload(world, f"digits/{number}.csv"))
        await world.run_for(3 * MINUTE)
    await world.finish(within=6 * HOUR)
    rows = world.ledger()
    assert len(rows) <= 4
    assert all(row.sent is not None and row.sent - row.created < MINUTE for row in rows)  # one turn for each
    assert all(later - earlier >= HOUR for earlier, later in pairwise(moments(world)))
    assert world.listed() == {(f"digits/{number}.csv", "01"): 1 for number in range(60)}


async def test_a_full_window_does_not_grow_until_its_turn() -> None:
    """It waits in the ledger instead: a window that outgrows an instance's memory could never be closed."""
    assert TRAIN.settle is not None
    world = World([replace(TRAIN, settle=replace(TRAIN.settle, max_bytes=4_000), budget=Budget(1, HOUR))])
    for number in range(60):
        await world.deliver(upload(world, f"digits/{number}.csv"))
        await world.run_for(MINUTE)
    assert max(row.event_count for row in world.ledger()) <= 10
    await world.finish(within=12 * HOUR)
    assert max(row.event_count for row in world.ledger()) <= 10
    assert all(later - earlier >= HOUR for earlier, later in pairwise(moments(world)))
    assert world.listed() == {(f"digits/{number}.csv", "01"): 1 for number in range(60)}


async def test_a_window_that_still_grows_takes_no_turn() -> None:
    """Another key settles meanwhile: it goes first, and does not wait for what may come an hour later."""
    world = World([replace(TRAIN, budget=Budget(1, HOUR))])
    await world.deliver(upload(world, "grows/1.csv"))
    await world.run_for(30 * SECOND)
    await world.deliver(upload(world, "settles/1.csv"), upload(world, "grows/2.csv"))
    await world.run_for(50 * SECOND)
    await world.deliver(upload(world, "grows/3.csv"))
    await world.run_for(30 * SECOND)
    assert [row.key for row in world.ledger() if row.sent] == ["settles"]


async def test_a_retry_takes_no_second_slot() -> None:
    """GitHub asks to come again in ten minutes: that is still the same dispatch."""
    world = World([replace(DEPLOY, budget=Budget(1, HOUR))])
    world.github.answers.append(Answer(429, {"retry-after": "600"}))
    await world.deliver(run_completed())
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.attempts) == (State.DONE, 2)
    assert moments(world)[1] < 12 * MINUTE


async def test_two_instances_share_it() -> None:
    """Both claim at once; the row is changed by compare-and-set, so none is given away twice."""
    world = World([replace(DEPLOY, budget=TWO_AN_HOUR)])
    await world.deliver(*(run_completed(f"train-{number}") for number in range(4)))
    workers = [world.start() for _ in range(4)]
    await asyncio.gather(
        *(app.run(app.app.sender.send(row.id)) for app, row in zip(workers, world.ledger(), strict=True))
    )
    assert len(world.github.requests) == 2


async def test_a_row_that_never_stops_changing() -> None:
    """It is an error that passes, so that the message comes back."""
    world = World([replace(DEPLOY, budget=TWO_AN_HOUR)])
    await world.deliver(run_completed())

    async def interfere() -> None:
        spending = await world.store.read_spending("deploy")
        if spending is not None:
            await world.store.write_spending(spending)
        else:
            world.store.budgets["deploy"] = ('{"v":1,"slots":[]}', "x")

    world.plan = lambda call: interfere() if call.method == "write_spending" else None
    with pytest.raises(StorageUnavailable, match="budget of route 'deploy' changed"):
        await world.start().app.sender.send(world.ledger()[0].id)


@pytest.mark.parametrize("seed", range(20))
async def test_under_many_faults(seed: int) -> None:
    """One call in ten fails or kills its instance: nothing is lost, and nothing is sent twice."""
    world = World([replace(TRAIN, budget=TWO_AN_HOUR), replace(DEPLOY, budget=TWO_AN_HOUR)], seed=seed)
    chance = random.Random(seed)

    def plan(call: Call) -> Fault | None:
        if call.method == "send":
            return chance.choice([None] * 9 + [Fault.FAIL_BEFORE, Fault.CRASH_BEFORE])
        return chance.choice(list(Fault)) if chance.random() < 0.1 else None

    world.plan = plan
    await world.deliver(*burst(world, 2, "a"), *burst(world, 2, "b"), *burst(world, 2, "c"), *burst(world, 2, "d"))
    await world.deliver(*(run_completed(f"train-{number}") for number in range(4)))
    await world.finish(within=HOUR)
    world.plan = lambda _: None
    await world.finish(within=24 * HOUR)
    assert world.is_idle()
    assert set(world.listed().values()) == {1}
    assert world.github.effective == {row.id: 1 for row in world.ledger()}
