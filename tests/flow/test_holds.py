"""A key whose last run is still going: its next window grows, until that ends or at_most has passed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from functions.core.dispatch import State

from .scenes import HELD, HOUR, MINUTE, SECOND, upload
from .simulation import World


async def test_hold_keeps_the_next_window_growing() -> None:
    """One running, one growing: what comes during a run is one dispatch after it."""
    world = World([HELD])
    world.github.takes = 20 * MINUTE
    await world.deliver(upload(world, "digits/0.csv"))
    await world.run_for(5 * MINUTE)
    for number in range(1, 4):
        await world.deliver(upload(world, f"digits/{number}.csv"))
        await world.run_for(4 * MINUTE)
    assert len(world.ledger()) == 1
    await world.finish()
    first, second = world.ledger()
    assert second.event_count == 3
    assert world.github.takes <= second.created - first.created < 2 * world.github.takes


async def test_a_route_that_holds_waits_for_quiet_all_the_same() -> None:
    """No run is going, and events still come in: the window grows."""
    world = World([HELD])
    await world.deliver(upload(world, "digits/0.csv"))
    await world.run_for(50 * SECOND)
    await world.deliver(upload(world, "digits/1.csv"))
    await world.run_for(50 * SECOND)
    assert not world.ledger()
    await world.finish()
    assert [row.event_count for row in world.ledger()] == [2]


async def test_hold_ends_at_its_maximum() -> None:
    """A run that never ends does not hold for ever."""
    world = World([HELD])
    world.github.takes = timedelta(days=30)
    await world.deliver(upload(world, "digits/0.csv"))
    await world.run_for(5 * MINUTE)
    await world.deliver(upload(world, "digits/1.csv"))
    await world.run_for(2 * HOUR)
    first, second = world.ledger()
    assert HOUR <= second.created - first.created <= HOUR + 5 * MINUTE


async def test_a_window_of_duplicates_does_not_end_the_hold() -> None:
    """A run goes on, a window of duplicates closes as empty, and the next window is still held."""
    world = World([HELD])
    world.github.takes = 50 * MINUTE
    event = upload(world, "digits/0.csv")
    await world.deliver(event)
    await world.run_for(5 * MINUTE)
    await world.deliver(event)
    unheld = world.start([replace(HELD, hold=None)])
    await world.run_for(5 * MINUTE, unheld)
    await world.deliver(upload(world, "digits/1.csv"))
    await world.run_for(5 * MINUTE)
    assert [row.state for row in world.ledger()] == [State.CONFIRMED, State.EMPTY]
