"""How far a window looks back for what earlier manifests list: past wrong clocks, and never without an end."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from functions.core.dispatch import State
from functions.core.routes import Where

from .scenes import HOUR, MINUTE, TRAIN, upload
from .simulation import World

DAY = timedelta(days=1)


@pytest.fixture
def world() -> World:
    """A world with one route."""
    return World([TRAIN])


@pytest.mark.parametrize("ahead", [6 * MINUTE, HOUR, 5 * HOUR, 20 * HOUR, DAY, 3 * DAY])
async def test_clock_ahead_does_not_hide_a_duplicate(world: World, ahead: timedelta) -> None:
    """The event comes again before and after its time has come to pass, with other windows in between."""
    event = upload(world, "digits/1.csv", eventTime=(world.now + ahead).isoformat())
    first = world.now
    await world.deliver(event)
    await world.finish()
    for number in range(11):
        await world.deliver(upload(world, f"digits/other-{number}.csv"))
        await world.finish()
        await world.deliver(event)
        await world.finish()
        world.pass_time(2 * HOUR)
    assert world.now - first < DAY
    assert set(world.listed().values()) == {1}
    assert not world.errors


async def test_clock_ahead_under_the_overflow() -> None:
    """The same across keys: listed in the overflow's manifest, and repeated under its own key."""
    world = World([replace(TRAIN, max_open_keys=1)])
    event = upload(world, "b/1.csv", eventTime=(world.now + HOUR).isoformat())
    await world.deliver(upload(world, "a/1.csv"), event)
    await world.finish()
    await world.deliver(upload(world, "a/2.csv"), upload(world, "b/2.csv"))
    await world.finish()
    world.pass_time(2 * HOUR)
    await world.deliver(event)
    await world.finish()
    assert world.listed()["b/1.csv", "01"] == 1


async def test_time_in_1601_reads_no_more_than_a_day(world: World) -> None:
    """Nothing is lost, nothing of that day is listed twice, and manifests of older days stay unread."""
    for number in range(20):
        await world.deliver(upload(world, f"digits/{number}.csv"))
        await world.finish()
        world.pass_time(12 * HOUR)
    old = upload(world, "digits/old.csv", eventTime="1601-01-01T00:00:00Z")
    await world.deliver(old)
    await world.finish()
    before = len(world.calls)
    await world.deliver(old)
    await world.finish()
    assert sum(call.method == "read_manifest" for call in world.calls[before:]) <= 3
    assert sum(call.method == "manifest_header" for call in world.calls[before:]) <= 6
    assert world.listed()["digits/old.csv", "01"] == 1
    assert world.ledger()[-1].state is State.EMPTY


async def test_repeated_id_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Two happenings under one id are both listed; the header counts the id and the log names it."""
    world = World([replace(TRAIN, on=("Custom.Happening",), where=Where())])
    event = {"id": "one\nid", "eventType": "Custom.Happening", "subject": "s", "data": {"n": 1}}
    await world.deliver(event, {**event, "data": {"n": 2}}, event, {**event, "id": "other"})
    await world.finish()
    (row,) = world.ledger()
    header, body = world.store.manifests[row.id]
    assert (header.count, header.duplicates, header.repeated_ids) == (3, 1, 1)
    assert [json.loads(line)["event_id"] for line in body.splitlines()].count("one\nid") == 2
    (said,) = [one for one in caplog.messages if "stand for several events" in one]
    assert said.endswith("['one\\nid']")
    assert "other" not in said


async def test_deleted_manifests_end_the_walk(world: World) -> None:
    """Where a lifecycle rule deleted old manifests, no window asks for each of them again."""
    for number in range(30):
        await world.deliver(upload(world, f"digits/{number}.csv"))
        await world.finish()
    for row in world.ledger()[:-2]:
        del world.store.manifests[row.id]
    before = len(world.calls)
    late = upload(world, "digits/late.csv", eventTime=(world.now - 20 * DAY).isoformat())
    await world.deliver(late)
    await world.finish()
    assert sum(call.method == "manifest_header" for call in world.calls[before:]) <= 6
    assert world.ledger()[-1].event_count == 1
