"""More keys than a route may have open: their events share one window, and none is lost or listed twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from functions.core.dispatch import State
from functions.core.routes import OVERFLOW_KEY
from functions.core.values import digest
from functions.core.windows import Head, Segment
from functions.flow.ports import StorageUnavailable

from .scenes import MINUTE, SECOND, TRAIN, burst, upload
from .simulation import Call, Died, Fault, World, on

_CLOSING = [
    "write_head",
    "segment_state",
    "seal_segment",
    "read_segment",
    "manifest_header",
    "write_manifest",
    "insert_dispatch",
]


async def test_too_many_keys_share_the_overflow() -> None:
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


async def test_a_key_keeps_its_upload_while_a_newer_one_stands_in_an_overflow_that_closes() -> None:
    """Whether the overflow's manifest will list the newer one is not known yet: its closer may not read that line."""
    world = World([replace(TRAIN, max_open_keys=1)])
    await world.deliver(upload(world, "a/1.csv"), upload(world, "b/1.csv", "02"))
    heads = dict(world.store.heads)
    world.store.heads.update({name: replace(head, is_open=False) for name, head in heads.items()})  # room for one key
    await world.deliver(upload(world, "b/1.csv", "01"))
    world.store.heads.update(heads)
    world.pass_time(16 * MINUTE)
    world.plan = on("write_manifest", Fault.CRASH_BEFORE)
    closer = world.start()
    with pytest.raises(Died):
        await closer.run(closer.app.closer.look("train", OVERFLOW_KEY))
    world.plan = lambda _: None
    await world.start().app.closer.look("train", "b")
    await world.finish()
    assert world.listed() == {("a/1.csv", "01"): 1, ("b/1.csv", "01"): 1, ("b/1.csv", "02"): 1}
