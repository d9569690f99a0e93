"""Intake: what it makes durable, what it drops, what it dead-letters."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from functions.core.dispatch import State
from functions.core.events import UnreadableEvent
from functions.core.routes import Where
from functions.core.windows import Line
from functions.flow.intake import Fate
from functions.flow.ports import StorageUnavailable

from .scenes import BLOB_CREATED, DEPLOY, TRAIN, burst, run_completed, upload
from .simulation import Call, Fault, World, on


@pytest.fixture
def world() -> World:
    """A world with one route that settles and one that does not."""
    return World([TRAIN, DEPLOY])


def letters(world: World) -> list[Any]:
    """The dead letters."""
    return list(world.store.dead_letters.values())


async def test_an_answer_means_durable(world: World) -> None:
    """Once intake returned, the line stands in the window, an alarm is set, and the head says open."""
    event = upload(world, "digits/1.csv")
    assert await world.deliver(event) == [Fate.TAKEN]
    (blob,) = world.store.segments.values()
    assert Line.from_bytes(b"".join(blob.blocks)).event.id == event["id"]
    assert len(world.queue.messages) == 1
    assert [head.is_open for head in world.store.heads.values()] == [True]


async def test_what_no_route_wants_is_dropped(world: World) -> None:
    """It leaves nothing behind."""
    assert await world.deliver(upload(world, "digits/readme.txt")) == [Fate.UNWANTED]
    assert (world.store.segments, world.store.ledger, world.queue.messages, letters(world)) == ({}, {}, [], [])


async def test_every_matching_route_gets_the_event() -> None:
    """Two routes, two windows."""
    world = World([TRAIN, replace(TRAIN, name="copy", key="all")])
    await world.deliver(upload(world, "digits/1.csv"))
    assert sorted(name.split("/")[0] for name in world.store.segments) == ["copy", "train"]


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, {"eventType": "x"}, {"specversion": "9"}])
async def test_an_unusable_event_is_kept_with_its_reason(world: World, value: object) -> None:
    """It is answered 2xx, because it can never succeed; delivered again it makes no second letter."""
    assert await world.deliver(value, value) == [Fate.DEAD_LETTER] * 2
    (letter,) = letters(world)
    kept = letter["event"]
    assert (kept if isinstance(value, dict) else json.loads(kept)) == value
    assert letter["schema"] == 1
    assert letter["reason"]
    assert letter["received"].startswith("2026-11-20T12:00:00")


async def test_a_foreign_account_is_dead_lettered(world: World) -> None:
    """Its url would later be opened with our identity."""
    events = [upload(world, "digits/1.csv", account=name) for name in ("stranger", "acme.evil.example/x")]
    assert await world.deliver(*events) == [Fate.DEAD_LETTER] * 2
    assert all("is not among SIGNALBOX_DATA_ACCOUNTS (acme)" in letter["reason"] for letter in letters(world))
    assert not world.store.segments


async def test_type_in_another_case_is_no_way_around_the_accounts() -> None:
    """The account is checked for every event that a route of storage events can take."""
    world = World([replace(TRAIN, where=Where())])
    event = upload(world, "digits/1.csv", account="stranger", eventType=BLOB_CREATED.lower())
    assert await world.deliver(event) == [Fate.DEAD_LETTER]


async def test_odd_subject_is_no_way_around_the_accounts() -> None:
    """A storage event of another account is dead-lettered whatever its subject looks like."""
    world = World([replace(TRAIN, where=Where())])
    event = upload(world, "digits/1.csv", account="stranger", subject="odd", topic="/s/storageAccounts/stranger")
    assert await world.deliver(event) == [Fate.DEAD_LETTER]


async def test_an_oversized_event_is_dead_lettered(world: World) -> None:
    """What no window takes is kept elsewhere."""
    event = upload(world, "digits/1.csv")
    event["data"]["more"] = "x" * (3 * 1024 * 1024)
    assert await world.deliver(event) == [Fate.DEAD_LETTER]
    assert "more than the" in letters(world)[0]["reason"]


async def test_a_queue_message_holds_one_or_many(world: World) -> None:
    """Each event of an array has its own fate."""
    app = world.start().app.intake
    good, bad = upload(world, "digits/1.csv"), {"eventType": "x"}
    assert await app.take_message(json.dumps(good).encode()) == [Fate.TAKEN]
    assert await app.take_message(json.dumps([good, bad, run_completed()]).encode()) == [
        Fate.TAKEN,
        Fate.DEAD_LETTER,
        Fate.TAKEN,
    ]
    assert await app.take_message(b"[]") == [Fate.DEAD_LETTER]
    assert {"an array without an event"} < {letter["reason"] for letter in letters(world)}


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe\x00", b"{", b"[" * 50_000, b'{"a":' * 300 + b"1" + b"}" * 300])
async def test_bytes_that_are_no_event_are_kept_as_they_are(world: World, raw: bytes) -> None:
    """Our own parser sees the raw bytes of the queue; what is no event of any kind comes back from the letter."""
    assert await world.start().app.intake.take_message(raw) == [Fate.DEAD_LETTER]
    (letter,) = letters(world)
    kept = base64.b64decode(letter["raw"]) if "raw" in letter else letter["event"].encode()
    assert kept == raw


async def test_no_depth_of_nesting_breaks_intake(world: World) -> None:
    """Deep data is taken or dead-lettered at any depth, also where it can just be read and not be written again."""
    app = world.start().app.intake
    for levels in [95, 500, *range(940, 1000)]:
        for opened, closed in (("[", "]"), ('{"a":', "}")):
            raw = f'{{"id":"1","eventType":"x","data":{{"a":{opened * levels}1{closed * levels}}}}}'
            assert await app.take_message(raw.encode()) == [Fate.UNWANTED if levels < 100 else Fate.DEAD_LETTER]
            await app.give_up(raw.encode(), "it failed too often")
    assert all(letter["reason"] for letter in letters(world))


async def test_storage_faults_are_outlasted(world: World) -> None:
    """A fault that passes within twenty seconds is not seen by Event Grid."""
    world.plan = on("append", *[Fault.FAIL_BEFORE] * 3)
    instance = world.start()
    assert await instance.run(instance.app.intake.take_value(upload(world, "digits/1.csv"))) is Fate.TAKEN


@pytest.mark.parametrize("method", ["insert_dispatch", "send", "write_dead_letter"])
async def test_storage_faults_are_outlasted_without_a_window(world: World, method: str) -> None:
    """Nor is one that passes while a ledger row, its message or a dead letter is written."""
    world.plan = on(method, *[Fault.FAIL_BEFORE] * 3)
    intake = world.start()
    for event in (run_completed(), upload(world, "digits/1.csv", account="stranger")):
        await intake.run(intake.app.intake.take_value(event))
    assert (len(world.ledger()), len(world.queue.messages), len(letters(world))) == (1, 1, 1)


async def test_a_redelivery_sends_what_stands_without_a_message(world: World) -> None:
    """The instance died between row and message: the event comes again, and nobody waits for the slow timer."""
    world.plan = on("send", Fault.CRASH_BEFORE)
    await world.deliver(run_completed())
    (row,) = world.ledger()
    assert [json.loads(message.body) for message in world.queue.messages] == [{"kind": "send", "dispatch": row.id}]


async def test_a_marker_is_noted_although_the_head_moves(world: World) -> None:
    """Somebody else changed the head first: it is read again, and the marker counts."""
    await world.deliver(upload(world, "digits/1.csv"))
    moved = False

    async def move() -> None:
        nonlocal moved
        moved = True
        (head,) = world.store.heads.values()
        await world.store.write_head(head.rearmed("other"))

    world.plan = lambda call: move() if call.method == "write_head" and not moved else None
    await world.deliver(upload(world, "digits/_SUCCESS"))
    assert moved
    assert [head.marked for head in world.store.heads.values()] == [True]


async def test_a_marker_counts_once_its_alarm_is_set(world: World) -> None:
    """The instance died before it set the alarm: the marker comes again, and the alarm that the head names rings."""
    await world.deliver(upload(world, "digits/1.csv"))
    world.plan = on("send", Fault.CRASH_BEFORE)
    await world.deliver(upload(world, "digits/_SUCCESS"))
    (head,) = world.store.heads.values()
    assert head.marked
    assert head.alarm in {json.loads(message.body)["alarm"] for message in world.queue.messages}


@pytest.mark.parametrize("method", ["read_head", "count_open", "send", "write_head", "create_segment", "append"])
async def test_storage_that_stays_away_is_told(world: World, method: str) -> None:
    """After twenty seconds it is raised, so that Event Grid delivers again; well before its thirty are over."""
    world.plan = lambda call: Fault.FAIL_BEFORE if call.method == method else None
    instance, start = world.start(), world.now
    with pytest.raises(StorageUnavailable):
        await instance.run(instance.app.intake.take_value(upload(world, "digits/1.csv")))
    assert (world.now - start).total_seconds() <= 20


async def test_who_waits_for_an_append_is_told_with_it(world: World) -> None:
    """An event that comes while an append is tried does not wait for that and then as long again: thirty seconds."""
    first, second = burst(world, 2)
    instance, start = world.start(), world.now
    behind: list[asyncio.Task[Fate]] = []

    def plan(call: Call) -> Fault | None:
        if call.method != "append":
            return None
        if not behind:
            behind.append(asyncio.create_task(instance.run(instance.app.intake.take_value(second))))
        return Fault.FAIL_BEFORE

    world.plan = plan
    with pytest.raises(StorageUnavailable):
        await instance.run(instance.app.intake.take_value(first))
    with pytest.raises(StorageUnavailable):
        await behind[0]
    assert (world.now - start).total_seconds() <= 20


@pytest.mark.parametrize("method", ["insert_dispatch", "write_dead_letter"])
async def test_the_same_holds_without_a_window(world: World, method: str) -> None:
    """For routes that settle nothing, and for dead letters."""
    world.plan = lambda call: Fault.FAIL_BEFORE if call.method == method else None
    instance = world.start()
    for value in [run_completed()] if method == "insert_dispatch" else [None]:
        with pytest.raises(StorageUnavailable):
            await instance.run(instance.app.intake.take_value(value))


async def test_an_event_without_window_is_dispatched_once(world: World) -> None:
    """Settle none: three deliveries by two instances are one row, and one run."""
    one, other = world.start(), world.start()
    await world.deliver(run_completed(), run_completed(), by=one)
    await world.deliver({**run_completed(), "id": "another"}, by=other)
    await world.finish()
    await world.deliver(run_completed(), by=other)
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.event_count, row.manifest, row.data["runId"]) == ("done", 1, None, "train-1")
    assert world.github.effective == {row.id: 1}


async def test_an_id_that_repeats_with_other_content_is_kept() -> None:
    """Events without an identity of their own are known by their id; other content under the same id is not lost."""
    world = World([replace(TRAIN, on=("Custom.Happening",), where=Where())])
    event = {"id": "1", "eventType": "Custom.Happening", "subject": "s", "data": {"n": 1}}
    await world.deliver(event, {**event, "data": {"n": 2}})
    await world.finish()
    assert sum(row.event_count for row in world.ledger()) + len(letters(world)) == 2


async def test_a_burst_shares_appends(world: World) -> None:
    """Events that one instance takes in at the same time need few appends, and none is lost."""
    instance = world.start()
    fates = await asyncio.gather(*(instance.app.intake.take_value(event) for event in burst(world, 64)))
    assert fates == [Fate.TAKEN] * 64
    assert sum(call.method == "append" for call in world.calls) <= 5
    await world.finish(instance)
    assert len(world.listed()) == 64


async def test_one_failed_append_is_told_to_all_its_callers(world: World) -> None:
    """Those that shared it are all delivered again, and listed once."""
    instance = world.start()
    world.plan = lambda call: Fault.FAIL_AFTER if call.method == "append" else None
    events = burst(world, 5)
    results = await asyncio.gather(*(instance.app.intake.take_value(event) for event in events), return_exceptions=True)
    assert all(isinstance(result, StorageUnavailable) for result in results)
    world.plan = lambda _: None
    await world.deliver(*events, by=instance)
    await world.finish()
    assert set(world.listed().values()) == {1}
    assert len(world.listed()) == 5


async def test_an_unreadable_line_is_a_dead_letter(world: World) -> None:
    """A line that no version wrote does not stop its window, and does not vanish."""
    await world.deliver(upload(world, "digits/1.csv"))
    (blob,) = world.store.segments.values()
    blob.blocks.insert(0, b'{"v": 99}\n')
    await world.finish()
    assert world.listed() == {("digits/1.csv", "01"): 1}
    (letter,) = letters(world)
    assert letter["raw"] == '{"v": 99}\n'
    with pytest.raises(UnreadableEvent, match=r"version 99"):
        Line.from_bytes(letter["raw"].encode())


async def test_a_window_of_unreadable_lines_says_where_they_are(world: World) -> None:
    """Its dispatch is empty, but not because its events were carried already."""
    await world.deliver(upload(world, "digits/1.csv"))
    (blob,) = world.store.segments.values()
    blob.blocks[:] = [b'{"v": 99}\n']
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.reason) == (State.EMPTY, "none of its lines could be read: they are among the dead letters")


async def test_an_outsiders_text_stays_on_its_line_of_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A newline in an id or an account forges no entry, and the log does not grow with what was sent."""
    caplog.set_level("INFO")
    forged = "1\n2026-11-20 12:00:00 ERROR signalbox: all is lost\x1b[2J\ud800"
    await world.deliver({**upload(world, "digits/1.csv"), "id": forged})
    await world.deliver(
        {**upload(world, "digits/1.csv", account=f"x\n{'y' * 5_000}"), "id": forged}, {"specversion": forged}
    )
    assert len(caplog.messages) == 3
    assert all(message.isprintable() and message.isascii() and len(message) < 1_000 for message in caplog.messages)
