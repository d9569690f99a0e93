"""Writer and closer together: one burst, one dispatch, whatever order things happen in."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from functions.core.dispatch import State
from functions.core.routes import OVERFLOW_KEY, Settle
from functions.core.values import digest
from functions.core.windows import Head, Segment
from functions.flow.intake import Fate
from functions.flow.ports import StorageUnavailable

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


async def test_too_many_keys_share_the_overflow(world: World) -> None:
    """max_open_keys bounds the windows; events beyond it settle together, and none is lost."""
    world = World([replace(TRAIN, max_open_keys=3)])
    await world.deliver(*(upload(world, f"folder-{number}/1.csv") for number in range(8)))
    await world.finish()
    counts = {row.key: row.event_count for row in world.ledger()}
    assert counts == {"folder-0": 1, "folder-1": 1, "folder-2": 1, OVERFLOW_KEY: 5}
    await world.deliver(upload(world, "folder-7/2.csv"))
    await world.finish()
    assert world.ledger()[-1].key == "folder-7"


async def test_a_burst_of_new_keys_cannot_pass_the_limit_at_once() -> None:
    """All of them count the open windows before the first one is open; still no more than permitted are opened."""
    world = World([replace(TRAIN, max_open_keys=3)])
    instance = world.start()
    events = [upload(world, f"folder-{number}/1.csv") for number in range(50)]
    await asyncio.gather(*(instance.app.intake.take_value(event) for event in events))
    await world.finish(instance)
    assert sorted(row.event_count for row in world.ledger()) == [1, 1, 1, 47]
    assert {row.event_count for row in world.ledger() if row.key == OVERFLOW_KEY} == {47}
    assert sum(call.method == "append" for call in world.calls) <= 3 + 5


async def test_a_window_opened_while_another_is_counted_takes_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage counts it, and so does the process that was about to open it: it is no reason to refuse a second."""
    world = World([replace(TRAIN, max_open_keys=2)])
    instance = world.start()
    first = asyncio.ensure_future(instance.app.intake.take_value(upload(world, "a/1.csv")))
    write_head, count_open = world.store.write_head, world.store.count_open
    writing, counted = asyncio.Event(), asyncio.Event()

    async def write_late(head: Head) -> Head:
        writing.set()
        await counted.wait()
        return await write_head(head)

    async def count_after_the_first(route: str, limit: int) -> int:
        if writing.is_set() and not counted.is_set():
            counted.set()
            await first
        return await count_open(route, limit)

    monkeypatch.setattr(world.store, "write_head", write_late)
    monkeypatch.setattr(world.store, "count_open", count_after_the_first)
    await writing.wait()
    await instance.app.intake.take_value(upload(world, "b/1.csv"))
    assert {head.key for head in world.store.heads.values()} == {"a", "b"}


async def test_a_window_that_could_not_be_opened_takes_no_place() -> None:
    """Storage failed while a window was opened: the next key is not refused for it."""
    world = World([replace(TRAIN, max_open_keys=1)])
    instance = world.start()
    world.plan = lambda call: Fault.FAIL_BEFORE if call.method == "write_head" else None
    with pytest.raises(StorageUnavailable):
        await instance.app.intake.take_value(upload(world, "a/1.csv"))
    world.plan = lambda _: None
    await instance.app.intake.take_value(upload(world, "b/1.csv"))
    assert {head.key for head in world.store.heads.values()} == {"b"}


async def test_an_overflowed_event_does_not_come_back_under_its_key() -> None:
    """A redelivery after the rush settles under its own key, although the overflow's manifest lists it."""
    world = World([replace(TRAIN, max_open_keys=1)])
    event = upload(world, "b/1.csv")
    await world.deliver(upload(world, "a/1.csv"), event)
    await world.finish()
    await world.deliver(event)
    await world.finish()
    assert world.listed()["b/1.csv", "01"] == 1


async def test_an_overflow_whose_rule_an_older_version_kept() -> None:
    """It does not say by which key its events would settle: it is finished all the same."""
    world = World([replace(TRAIN, max_open_keys=1)])
    await world.deliver(upload(world, "a/1.csv"), upload(world, "b/1.csv"))
    for blob in world.store.segments.values():
        blob.rule = blob.rule.replace('"template":"folder"', '"template":null')
    await world.finish(world.start([]))
    assert {row.key: row.event_count for row in world.ledger()} == {"a": 1, OVERFLOW_KEY: 1}


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


_CLOSING = [
    "write_head",
    "segment_state",
    "seal_segment",
    "read_segment",
    "manifest_header",
    "write_manifest",
    "insert_dispatch",
]


@pytest.mark.parametrize("held_up", _CLOSING)
@pytest.mark.parametrize("until", [*_CLOSING, "the end"])
@pytest.mark.parametrize("first", ["b", OVERFLOW_KEY])
async def test_two_windows_with_one_event_close_at_once(first: str, held_up: str, until: str) -> None:
    """An event stands in the overflow and, redelivered, under its own key; whoever closes first, it is listed once."""
    world = World([replace(TRAIN, max_open_keys=1)])
    event = upload(world, "b/1.csv")
    await world.deliver(upload(world, "a/1.csv"), event, upload(world, "c/1.csv"))
    await world.run_for(30 * SECOND)
    heads = dict(world.store.heads)
    world.store.heads.update({name: replace(head, is_open=False) for name, head in heads.items()})  # room for one key
    await world.deliver(event)
    world.store.heads.update(heads)
    assert sorted(head.key for head in world.store.heads.values() if head.is_open) == ["a", "b", OVERFLOW_KEY]
    world.pass_time(16 * MINUTE)
    one, other = world.start(), world.start()
    stopped, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        stopped.set()
        await go_on.wait()

    def plan(call: Call) -> object:
        if call.instance == one.number and call.method == held_up and not stopped.is_set():
            return wait()
        if call.instance == other.number and call.method == until and stopped.is_set():
            go_on.set()
        return None

    world.plan = plan  # type: ignore[assignment]
    second = OVERFLOW_KEY if first == "b" else "b"
    looks = [asyncio.ensure_future(one.run(one.app.closer.look("train", first)))]
    await asyncio.wait({looks[0], asyncio.ensure_future(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
    looks.append(asyncio.ensure_future(other.run(other.app.closer.look("train", second))))
    await asyncio.wait({looks[1], asyncio.ensure_future(go_on.wait())}, return_when=asyncio.FIRST_COMPLETED)
    go_on.set()
    await asyncio.gather(*looks)
    world.plan = lambda _: None
    await world.finish()
    assert world.listed() == {("a/1.csv", "01"): 1, ("b/1.csv", "01"): 1, ("c/1.csv", "01"): 1}


async def test_the_last_permitted_key_is_not_refused_to_whoever_opens_it_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two instances open the same key at once: the limit counts it, and must not send the second to the overflow."""
    world = World([replace(TRAIN, max_open_keys=1)])
    count_open, opened = world.store.count_open, False

    async def count_after_another_opened(route: str, limit: int) -> int:
        nonlocal opened
        if not opened:
            opened = True
            await world.deliver(upload(world, "digits/1.csv"))
        return await count_open(route, limit)

    monkeypatch.setattr(world.store, "count_open", count_after_another_opened)
    await world.deliver(upload(world, "digits/2.csv"))
    await world.finish()
    assert [row.key for row in world.ledger()] == ["digits"]
    assert sum(world.listed().values()) == 2


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


@pytest.mark.parametrize("missing", [False, True])
async def test_all_that_stands_in_an_overflow_that_closes_stands_there_alone(missing: bool) -> None:
    """In each of its segments, also beside a line that nobody can read and a segment that was never created."""
    world = World([replace(TRAIN, max_open_keys=1)])
    world.store.most_blocks = 1
    events = burst(world, 2, "b")
    await world.deliver(upload(world, "a/1.csv"), *events)
    for name, blob in world.store.segments.items():
        if Segment.from_name(name).key_digest == digest("train", OVERFLOW_KEY):
            blob.blocks[0] = b"no line\n" + blob.blocks[0]
    world.plan = on("create_segment", Fault.CRASH_BEFORE)
    writer, closer = world.start(), world.start()
    if missing:
        with pytest.raises(Died):
            await writer.run(writer.app.intake.take_value(upload(world, "c/1.csv")))
    world.plan = lambda _: None
    heads = dict(world.store.heads)
    world.store.heads.update({name: replace(head, is_open=False) for name, head in heads.items()})  # room for one key
    await world.deliver(*events)
    world.store.heads.update(heads)
    world.pass_time(16 * MINUTE)
    world.plan = on("seal_segment", Fault.CRASH_BEFORE)
    with pytest.raises(Died):
        await closer.run(closer.app.closer.look("train", OVERFLOW_KEY))
    await world.start().app.closer.look("train", "b")
    assert [(row.key, row.state) for row in world.ledger()] == [("b", State.EMPTY)]
    await world.finish()
    assert world.listed() == {("a/1.csv", "01"): 1, ("b/000.csv", "01"): 1, ("b/001.csv", "01"): 1}


async def test_a_window_is_finished_as_its_manifest_stands() -> None:
    """Its closer died after the manifest; meanwhile the overflow closes with the same event. The dispatch names it."""
    world = World([replace(TRAIN, max_open_keys=1)])
    event = upload(world, "b/1.csv")
    await world.deliver(upload(world, "a/1.csv"), event)
    heads = dict(world.store.heads)
    world.store.heads.update({name: replace(head, is_open=False) for name, head in heads.items()})  # room for one key
    await world.deliver(event)
    world.store.heads.update(heads)
    world.pass_time(16 * MINUTE)
    world.plan = on("insert_dispatch", Fault.CRASH_BEFORE)
    closer = world.start()
    with pytest.raises(Died):
        await closer.run(closer.app.closer.look("train", "b"))
    world.plan = on("seal_segment", Fault.CRASH_BEFORE)
    closer = world.start()
    with pytest.raises(Died):
        await closer.run(closer.app.closer.look("train", OVERFLOW_KEY))
    world.plan = lambda _: None
    await world.start().app.closer.look("train", "b")
    await world.finish()
    assert world.listed() == {("a/1.csv", "01"): 1, ("b/1.csv", "01"): 1}
    (row,) = (row for row in world.ledger() if row.key == "b")
    assert (row.event_count, row.subject, row.source) == (1, event["subject"], event["eventType"])
    assert row.data == event["data"]


async def test_a_key_does_not_give_way_to_what_the_overflows_manifest_left_out() -> None:
    """An older version of the app closed the overflow and could not read a newer upload of a blob there.

    That is a dead letter, and replaces nothing: the upload that stands under the key itself is dispatched.
    """
    world = World([replace(TRAIN, max_open_keys=1)])
    await world.deliver(upload(world, "a/1.csv"), upload(world, "b/1.csv", "02"))
    heads = dict(world.store.heads)
    world.store.heads.update({name: replace(head, is_open=False) for name, head in heads.items()})  # room for one key
    await world.deliver(upload(world, "b/1.csv", "01"))
    world.store.heads.update(heads)
    (overflow,) = (head for head in heads.values() if head.key == OVERFLOW_KEY)
    blob = world.store.segments[overflow.current.name]
    blob.blocks[0] = blob.blocks[0].replace(b'{"v":1,', b'{"v":99,')
    world.pass_time(16 * MINUTE)
    world.plan = on("insert_dispatch", Fault.CRASH_BEFORE)
    older = world.start()
    with pytest.raises(Died):
        await older.run(older.app.closer.look("train", OVERFLOW_KEY))
    assert len(world.store.dead_letters) == 1
    blob.blocks[0] = blob.blocks[0].replace(b'{"v":99,', b'{"v":1,')
    world.plan = lambda _: None
    await world.start().app.closer.look("train", "b")
    await world.finish()
    assert world.listed() == {("a/1.csv", "01"): 1, ("b/1.csv", "01"): 1}


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
