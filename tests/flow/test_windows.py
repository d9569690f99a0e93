"""Writer and closer together: one burst, one dispatch, whatever order things happen in."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from functions.core.dispatch import State
from functions.core.routes import Settle
from functions.flow.intake import Fate

from .scenes import HELD, HOUR, MINUTE, SECOND, TRAIN, burst, upload
from .simulation import Call, Died, Fault, World, on


@pytest.fixture
def world() -> World:
    """A world with one route."""
    return World([TRAIN])


async def test_one_burst_is_one_dispatch(world: World) -> None:
    """Two instances take in forty uploads; one run starts, and its manifest lists all forty."""
    one, other = world.start(), world.start()
    events = burst(world, 40)
    await asyncio.gather(world.deliver(*events[::2], by=one), world.deliver(*events[1::2], by=other))
    await world.finish(one, other)
    (row,) = world.ledger()
    assert (row.state, row.conclusion, row.event_count, row.key) == (State.DONE, "success", 40, "digits")
    assert row.source == "Microsoft.Storage.BlobCreated"
    assert row.subject == events[0]["subject"]
    assert row.data == events[0]["data"]
    assert row.manifest is not None
    assert row.manifest.count == 40
    assert world.github.effective == {row.id: 1}
    assert world.listed() == {(f"digits/{number:03}.csv", "01"): 1 for number in range(40)}
    assert not world.errors


async def test_keys_settle_apart(world: World) -> None:
    """Each folder has its own window and dispatch."""
    await world.deliver(*burst(world, 3, "digits"), *burst(world, 2, "iris"))
    await world.finish()
    assert {row.key: row.event_count for row in world.ledger()} == {"digits": 3, "iris": 2}


async def test_it_waits_for_quiet(world: World) -> None:
    """While events come in each half minute the window grows, up to max_wait."""
    for number in range(40):
        await world.deliver(upload(world, f"digits/{number}.csv"))
        await world.run_for(30 * SECOND)
    await world.finish()
    counts = [row.event_count for row in world.ledger()]
    assert counts[0] in range(29, 32)
    assert sum(counts) == 40


async def test_max_bytes_closes_at_the_next_look() -> None:
    """A large window does not wait for quiet."""
    assert TRAIN.settle is not None
    settle = replace(TRAIN.settle, quiet=10 * MINUTE, max_bytes=2_000)
    world = World([replace(TRAIN, settle=settle)])
    await world.deliver(*burst(world, 10))
    await world.run_for(6 * MINUTE)
    assert [row.event_count for row in world.ledger()] == [10]


async def test_max_bytes_bounds_a_window_of_a_long_burst() -> None:
    """It is looked at often enough that it cannot outgrow the app's memory until its quiet time or the timer comes."""
    settle = Settle(quiet=10 * MINUTE, max_wait=HOUR, max_bytes=2_000)
    world = World([replace(TRAIN, settle=settle)])
    for event in burst(world, 200):
        await world.deliver(event)
        await world.run_for(SECOND)
    await world.finish()
    assert sum(row.event_count for row in world.ledger()) == 200
    assert max(row.event_count for row in world.ledger()) <= 62  # a minute's at most, and one on either side


async def test_the_payload_is_of_the_event_that_the_manifest_lists_first(world: World) -> None:
    """Of one event that came twice with different text, both tell of the same one."""
    event, again = upload(world, "digits/1.csv"), upload(world, "digits/1.csv", id="a")
    again["data"]["contentLength"] = 8
    await world.deliver(event)
    await world.deliver(again)
    await world.finish()
    (row,) = world.ledger()
    listed = json.loads(world.store.manifests[row.id][1])
    assert row.data["contentLength"] == listed["size"]


async def test_a_marker_shortens_the_wait(world: World) -> None:
    """It need not pass the suffix filter; after ten seconds without an event the window closes."""
    await world.deliver(*burst(world, 3), upload(world, "digits/_SUCCESS"))
    await world.run_for(12 * SECOND)
    assert [row.event_count for row in world.ledger()] == [3]


async def test_files_that_a_marker_overtook_are_in_the_window(world: World) -> None:
    """Event Grid is unordered: the marker does not close at once."""
    await world.deliver(upload(world, "digits/1.csv"), upload(world, "digits/_SUCCESS"))
    await world.run_for(5 * SECOND)
    await world.deliver(upload(world, "digits/2.csv"))
    await world.finish()
    assert [row.event_count for row in world.ledger()] == [2]


async def test_many_markers_are_one_alarm() -> None:
    """Fifty markers of one folder must not ring fifty times each fifteen seconds while the window is held."""
    world = World([HELD])
    world.github.takes = 2 * HOUR
    await world.deliver(upload(world, "digits/0.csv"))
    await world.run_for(10 * MINUTE)
    await world.deliver(upload(world, "digits/1.csv"), *(upload(world, f"digits/{n}/_SUCCESS") for n in range(50)))
    await world.run_for(10 * MINUTE)
    assert sum('"window"' in message.body for message in world.queue.messages) < 5


async def test_duplicates_inside_a_window(world: World) -> None:
    """Redelivery, in whatever form, is listed once and counted."""
    events = burst(world, 5)
    again = [{**event, "id": f"again-{event['id']}", "subject": event["subject"][1:]} for event in events]
    await world.deliver(*events, *again, *events)
    await world.finish()
    (row,) = world.ledger()
    assert row.event_count == 5
    header = world.store.manifests[row.id][0]
    assert (header.lines, header.duplicates, header.superseded) == (15, 10, 0)


async def test_duplicates_across_windows(world: World) -> None:
    """What an earlier manifest lists is dropped; a window of nothing else starts no run."""
    events = burst(world, 5)
    await world.deliver(*events)
    await world.finish()
    await world.deliver(*events[:3], upload(world, "digits/new.csv"))
    await world.finish()
    await world.deliver(*events)
    await world.finish()
    first, second, third = world.ledger()
    assert [row.event_count for row in (first, second, third)] == [5, 1, 0]
    assert (third.state, third.reason) == (State.EMPTY, "all 5 lines repeat what an earlier dispatch carried")
    assert world.github.effective == {first.id: 1, second.id: 1}
    assert set(world.listed().values()) == {1}


async def test_a_day_late_duplicate_is_known(world: World) -> None:
    """Event Grid redelivers for a day: windows between are looked through, however many."""
    events = burst(world, 2)
    await world.deliver(*events)
    await world.finish()
    for number in range(12):
        await world.deliver(upload(world, f"digits/later-{number}.csv"))
        await world.finish()
        world.pass_time(2 * HOUR)
    await world.deliver(*events)
    await world.finish()
    assert set(world.listed().values()) == {1}
    assert world.ledger()[-1].state is State.EMPTY


@pytest.mark.parametrize("time", [None, "9999-12-31T23:59:59Z", "1601-01-01T00:00:00Z"])
async def test_a_duplicate_is_known_whatever_its_time_says(world: World, time: str | None) -> None:
    """A time that cannot be believed makes the search longer, not blind."""
    event = upload(world, "digits/1.csv", eventTime=time)
    for _ in range(2):
        await world.deliver(event)
        await world.finish()
    assert world.listed() == {("digits/1.csv", "01"): 1}


async def test_the_highest_sequencer_wins(world: World) -> None:
    """Of a blob that was written three times only the last version is trained on, in whatever order they come."""
    await world.deliver(*(upload(world, "digits/1.csv", sequencer) for sequencer in ("02", "03", "01")))
    await world.finish()
    assert world.listed() == {("digits/1.csv", "03"): 1}


async def test_a_superseded_version_does_not_come_back(world: World) -> None:
    """A redelivery of a version that a newer one replaced in an earlier window starts nothing."""
    old, new = upload(world, "digits/1.csv", "01"), upload(world, "digits/1.csv", "02")
    await world.deliver(old, new)
    await world.finish()
    await world.deliver(old)
    await world.finish()
    assert sum(world.github.effective.values()) == 1


async def test_full_segments_are_followed_by_others(world: World) -> None:
    """A window of many blocks spreads over segments, and its manifest holds them all."""
    world.store.most_blocks = 3
    one, other = world.start(), world.start()
    events = burst(world, 20)
    await asyncio.gather(world.deliver(*events[::2], by=one), world.deliver(*events[1::2], by=other))
    assert len(world.store.segments) >= 7
    await world.finish()
    (row,) = world.ledger()
    assert row.event_count == 20
    assert all(blob.sealed for blob in world.store.segments.values())


async def test_a_segment_that_is_added_while_the_alarm_is_set_anew(world: World) -> None:
    """The head moves between the look and the next alarm: the window still has one, and need not wait for the timer."""
    world.store.most_blocks = 1
    await world.deliver(upload(world, "digits/1.csv"))
    await world.run_for(30 * SECOND)
    closer, writer = world.start(), world.start()
    await world.deliver(upload(world, "digits/2.csv"), by=writer)
    added: list[asyncio.Future[object]] = []

    def plan(call: Call) -> object:
        if call.instance == closer.number and call.method == "write_head" and not added:
            added.append(asyncio.ensure_future(world.deliver(upload(world, "digits/3.csv"), by=writer)))
            return added[0]
        return None

    world.plan = plan  # type: ignore[assignment]
    await world.run_for(3 * MINUTE, closer)
    assert [row.event_count for row in world.ledger()] == [3]


async def test_it_waits_for_quiet_in_its_last_segment(world: World) -> None:
    """The first one is full and has not changed for long: the window still grows."""
    world.store.most_blocks = 1
    await world.deliver(upload(world, "digits/1.csv"))
    await world.run_for(40 * SECOND)
    await world.deliver(upload(world, "digits/2.csv"))
    await world.run_for(40 * SECOND)
    assert not world.ledger()
    await world.finish()
    assert [row.event_count for row in world.ledger()] == [2]


async def test_a_late_writer_with_a_stale_head(world: World) -> None:
    """An instance that still knows the sealed window finds the next one; nothing is lost or listed twice."""
    late = world.start()
    await world.deliver(upload(world, "digits/1.csv"), by=late)
    await world.finish()
    await world.deliver(upload(world, "digits/2.csv"), by=late)
    assert [head.number for head in world.store.heads.values()] == [2]
    await world.finish()
    assert [row.event_count for row in world.ledger()] == [1, 1]
    assert world.listed() == {("digits/1.csv", "01"): 1, ("digits/2.csv", "01"): 1}


@pytest.mark.parametrize("held_up", ["read_head", "count_open", "send", "write_head", "create_segment", "append"])
@pytest.mark.parametrize("until", ["write_head", "segment_state", "seal_segment", "write_manifest", "insert_dispatch"])
@pytest.mark.parametrize("most_blocks", [1, 50_000])
async def test_a_writer_held_up_anywhere_loses_nothing(
    world: World, held_up: str, until: str, most_blocks: int
) -> None:
    """A writer stops before any of its calls; a closer goes on up to any of its own; then the writer goes on."""
    world.store.most_blocks = most_blocks
    await world.deliver(upload(world, "digits/1.csv"))
    world.pass_time(2 * MINUTE)
    writer, closer = world.start(), world.start()
    gone, reached = asyncio.Event(), asyncio.Event()

    async def wait_for_closer() -> None:
        gone.set()
        await reached.wait()

    def plan(call: Call) -> object:
        if call.instance == writer.number and call.method == held_up and not gone.is_set():
            return wait_for_closer()
        if call.instance == closer.number and call.method == until:
            reached.set()
        return None

    world.plan = plan  # type: ignore[assignment]
    delivery = asyncio.ensure_future(world.deliver(upload(world, "digits/2.csv"), by=writer))
    await asyncio.wait({delivery, asyncio.ensure_future(gone.wait())}, return_when=asyncio.FIRST_COMPLETED)
    await world.finish(closer)
    reached.set()
    await delivery
    await world.finish(closer)
    assert world.listed() == {("digits/1.csv", "01"): 1, ("digits/2.csv", "01"): 1}
    assert world.is_idle()


async def test_a_window_whose_route_is_gone_is_finished_by_its_kept_rule(world: World) -> None:
    """A new version of the app without the route still sends what the old one took in."""
    await world.deliver(*burst(world, 3))
    await world.finish(world.start([]))
    (row,) = world.ledger()
    assert (row.event_type, row.event_count, row.state) == ("storage-blobcreated", 3, State.DONE)


async def test_a_route_that_no_longer_settles_finishes_its_windows(world: World) -> None:
    """The rule in the blob holds where today's route has none."""
    await world.deliver(*burst(world, 3))
    await world.finish(world.start([replace(TRAIN, settle=None)]))
    assert [row.event_count for row in world.ledger()] == [3]


async def test_an_opened_window_without_a_line_is_not_sealed(world: World) -> None:
    """The writer died between opening and appending: nothing is dispatched, and the redelivered event uses it."""
    world.plan = on("append", Fault.CRASH_BEFORE)
    event = upload(world, "digits/1.csv")
    instance = world.start()
    with pytest.raises(Died):
        await instance.run(instance.app.intake.take_value(event))
    await world.run_for(HOUR)
    assert not world.ledger()
    await world.deliver(event)
    await world.finish()
    assert [(row.event_count, row.state) for row in world.ledger()] == [(1, State.DONE)]
    assert [head.number for head in world.store.heads.values()] == [2]


async def test_an_outsiders_key_stays_on_its_line_of_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A newline in a folder's name forges no entry."""
    caplog.set_level("INFO")
    await world.deliver(upload(world, "a\n2026-11-20 ERROR signalbox: all is lost\x1b[2J/1.csv"))
    world.plan = on("seal_segment", Fault.FAIL_BEFORE)
    world.pass_time(2 * MINUTE)
    await world.start().app.reconcile()
    await world.finish()
    assert [row.state for row in world.ledger()] == [State.DONE]
    assert any("sealed" in message for message in caplog.messages)
    assert any("cannot be finished" in message for message in caplog.messages)
    assert all(message.isprintable() and message.isascii() for message in caplog.messages)


async def test_storage_that_failed_while_it_closed_is_made_good_by_the_alarm(world: World) -> None:
    """The alarm's next delivery finishes the window; nobody has to wait for the slow timer."""
    await world.deliver(*burst(world, 3))
    world.plan = on("seal_segment", Fault.FAIL_BEFORE)
    await world.run_for(MINUTE + 30 * SECOND)
    assert [row.event_count for row in world.ledger()] == [3]


async def test_a_closer_that_was_overtaken_goes_on(world: World) -> None:
    """While it stood still, others finished its window and died over the next one: it finishes that, and one more."""
    slow, other = world.start(), world.start()
    stopped, go_on = asyncio.Event(), asyncio.Event()

    async def stand_still() -> None:
        stopped.set()
        await go_on.wait()

    def plan(call: Call) -> object:
        if call.instance == slow.number and call.method == "insert_dispatch" and not stopped.is_set():
            return stand_still()
        return None

    async def die_over(number: int) -> None:
        await world.deliver(upload(world, f"digits/{number}.csv"))
        world.pass_time(2 * MINUTE)
        world.plan = on("seal_segment", Fault.CRASH_BEFORE)
        dying = world.start()
        with pytest.raises(Died):
            await dying.run(dying.app.closer.look("train", "digits"))
        world.plan = plan  # type: ignore[assignment]

    await die_over(1)
    overtaken = asyncio.ensure_future(slow.run(slow.app.closer.look("train", "digits")))
    await stopped.wait()
    await other.run(other.app.closer.look("train", "digits"))
    await die_over(2)
    await world.deliver(upload(world, "digits/3.csv"))
    world.pass_time(2 * MINUTE)
    go_on.set()
    await overtaken
    assert [row.event_count for row in world.ledger()] == [1, 1, 1]


async def test_a_window_takes_lines_until_its_head_moved(world: World) -> None:
    """Its closer dies before that: it is not sealed, and no writer is turned away."""
    await world.deliver(upload(world, "digits/1.csv"))
    world.pass_time(2 * MINUTE)
    world.plan = on("write_head", Fault.CRASH_BEFORE)
    closer, writer = world.start(), world.start()
    with pytest.raises(Died):
        await closer.run(closer.app.closer.look("train", "digits"))
    assert await writer.run(writer.app.intake.take_value(upload(world, "digits/2.csv"))) is Fate.TAKEN
    await world.finish()
    assert [row.event_count for row in world.ledger()] == [2]


async def test_an_alarm_that_was_not_set_again_comes_again(world: World) -> None:
    """The instance died before it set the next alarm: the old one still counts, and sets it."""
    await world.deliver(upload(world, "digits/1.csv"))
    await world.run_for(30 * SECOND)
    await world.deliver(upload(world, "digits/2.csv"))
    world.plan = on("send", Fault.CRASH_BEFORE)
    await world.run_for(50 * SECOND)
    (head,) = world.store.heads.values()
    assert head.is_open
    assert [json.loads(message.body)["alarm"] for message in world.queue.messages] == [head.alarm]


async def test_a_closed_window_is_sent_at_once(world: World) -> None:
    """Its dispatch does not wait for the slow timer."""
    await world.run_for(MINUTE)
    await world.deliver(*burst(world, 2))
    await world.run_for(MINUTE + 10 * SECOND)
    assert [row.sent is not None for row in world.ledger()] == [True]


async def test_each_unreadable_line_is_kept(world: World) -> None:
    """Lines that this version cannot read are dead letters of their own, and the others are dispatched."""
    await world.deliver(upload(world, "digits/1.csv"))
    (blob,) = world.store.segments.values()
    blob.blocks += [b"one\n", b"other\n"]
    await world.finish()
    assert sorted(str(letter["raw"]) for letter in world.store.dead_letters.values()) == ["one\n", "other\n"]
    assert [row.event_count for row in world.ledger()] == [1]
