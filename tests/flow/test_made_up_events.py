"""Events that `signalbox rescan` makes up, and the real ones that come after all: one dispatch for both."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from functions.core.dispatch import State
from functions.core.events import bare_etag
from functions.core.rescan import StoredBlob
from functions.core.routes import OVERFLOW_KEY, Where

from .scenes import HOUR, TRAIN, burst, upload
from .simulation import ACCOUNT, World

EACH = replace(TRAIN, name="each", settle=None, key="all")


@pytest.fixture
def world() -> World:
    """A world with one route."""
    return World([TRAIN])


def made_up(world: World, real: dict[str, Any]) -> dict[str, Any]:
    """What a rescan makes of the blob of a real event."""
    path = real["subject"].split("/blobs/", 1)[1]
    blob = StoredBlob(
        ACCOUNT, "training-data", path, real["data"]["url"], bare_etag(real["data"]["eTag"]), 9, world.now
    )
    return blob.event("PutBlob").to_json()


@pytest.mark.parametrize("etag", ["0x8D1", '"0x8D1"'])
@pytest.mark.parametrize("first", ["real", "made up"])
async def test_the_other_one_starts_no_second_dispatch(world: World, first: str, etag: str) -> None:
    """The real event comes hours after the rescan, or the rescan looked before the real event was known."""
    real = upload(world, "digits/1.csv")
    real["data"]["eTag"] = etag
    pair = [real, made_up(world, real)] if first == "real" else [made_up(world, real), real]
    for event in pair:
        await world.deliver(event)
        await world.finish()
        world.pass_time(3 * HOUR)
    carried, empty = world.ledger()
    assert (carried.event_count, empty.event_count, empty.state) == (1, 0, State.EMPTY)
    assert world.github.effective == {carried.id: 1}


async def test_both_in_one_window_are_listed_once(world: World) -> None:
    """With the real event's sequencer, so that an older version can still be told from a newer one."""
    real = burst(world, 5)
    await world.deliver(*[made_up(world, event) for event in real], *real)
    await world.finish()
    assert world.listed() == {(f"digits/{number:03}.csv", "01"): 1 for number in range(5)}
    assert world.store.manifests[world.ledger()[0].id][0].duplicates == 5


async def test_next_version_of_the_blob_is_dispatched(world: World) -> None:
    """It has another etag than the one that the rescan told of."""
    await world.deliver(made_up(world, upload(world, "digits/1.csv", "01")))
    await world.finish()
    await world.deliver(upload(world, "digits/1.csv", "02"))
    await world.finish()
    assert [row.event_count for row in world.ledger()] == [1, 1]


async def test_deleted_blob_is_another_event() -> None:
    """BlobDeleted has no etag: the rescan's event of the same blob does not hide it."""
    deleted = "Microsoft.Storage.BlobDeleted"
    world = World([replace(TRAIN, on=(*TRAIN.on, deleted), where=Where())])
    real = upload(world, "digits/1.csv")
    await world.deliver(made_up(world, real))
    await world.finish()
    gone = upload(world, "digits/1.csv", "02", eventType=deleted)
    del gone["data"]["eTag"]
    await world.deliver(gone, gone)
    await world.finish()
    assert [row.event_count for row in world.ledger()] == [1, 1]


async def test_made_up_event_overflows_and_the_real_one_settles_under_its_key() -> None:
    """The overflow's manifest is looked through for the other form of the event as well."""
    world = World([replace(TRAIN, max_open_keys=1)])
    real = upload(world, "b/1.csv")
    await world.deliver(upload(world, "a/1.csv"), made_up(world, real))
    await world.finish()
    assert {row.key for row in world.ledger()} == {"a", OVERFLOW_KEY}
    await world.deliver(real)
    await world.finish()
    assert world.ledger()[-1].state is State.EMPTY


async def test_without_a_window_the_real_event_finds_the_made_up_ones_dispatch() -> None:
    """A route that sends each event by itself sends it once; a new version of the blob goes by itself."""
    world = World([EACH])
    real = upload(world, "digits/1.csv")
    await world.deliver(made_up(world, real))
    await world.deliver(real)
    await world.finish()
    await world.deliver(real, made_up(world, real))
    await world.finish()
    assert len(world.ledger()) == 1
    await world.deliver(upload(world, "digits/1.csv", "02"))
    await world.finish()
    assert sorted(world.github.effective.values()) == [1, 1]


async def test_real_event_sends_what_the_rescan_left_ready() -> None:
    """The rescan died after the row stood and before its message: the real event sees to it."""
    world = World([EACH])
    real = upload(world, "digits/1.csv")
    await world.deliver(made_up(world, real))
    world.queue.messages.clear()
    await world.deliver(real)
    (row,) = world.ledger()
    assert [json.loads(message.body)["dispatch"] for message in world.queue.messages] == [row.id]
    await world.finish()
    assert sum(world.github.effective.values()) == 1


async def test_rescan_and_event_grid_at_the_same_time(world: World) -> None:
    """Two instances take both in while the window is open, each in its own order."""
    real = burst(world, 20)
    both = [event for one in real for event in (one, made_up(world, one))]
    one, other = world.start(), world.start()
    await asyncio.gather(world.deliver(*both, by=one), world.deliver(*reversed(both), by=other))
    await world.finish(one, other)
    assert [row.event_count for row in world.ledger()] == [20]
