"""The whole flow under every fault at every call, and what reconcile finds."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from functions.core.dispatch import State
from functions.core.github import Answer
from functions.flow.ports import StorageUnavailable

from .scenes import DEPLOY, HELD, HOUR, MINUTE, SECOND, TRAIN, burst, run_completed, upload
from .simulation import Call, Fault, Instance, Plan, World, at, on


async def a_history(plan: Plan, *, seed: int = 0) -> World:
    """Two bursts with duplicates, segment roll-over and a run event, under a plan; then faults stop."""
    world = World([TRAIN, DEPLOY], seed=seed)
    world.store.most_blocks = 2
    world.github.takes = 4 * SECOND
    world.plan = plan
    first = burst(world, 3)
    await world.deliver(*first, first[0], run_completed())
    await world.finish(within=30 * MINUTE)
    await world.deliver(first[1], upload(world, "digits/new.csv"), run_completed())
    await world.finish(within=30 * MINUTE)
    world.plan = lambda _: None
    await world.finish(within=12 * HOUR)
    return world


def check(world: World) -> None:
    """The promises: every event in exactly one manifest, effective dispatches not above windows, nothing unfinished."""
    expected = {f"digits/{number:03}.csv" for number in range(3)} | {"digits/new.csv"}
    assert world.listed() == Counter(dict.fromkeys(((path, "01") for path in expected), 1))
    assert not world.store.dead_letters
    rows = world.ledger()
    assert {row.state for row in rows} <= {State.DONE, State.EMPTY}, [(row.state, row.reason) for row in rows]
    assert world.github.effective == Counter(row.id for row in rows if row.state is State.DONE)
    assert sum(row.route == "deploy" for row in rows) == 1
    assert world.is_idle()
    for row in rows:
        if row.manifest is not None:
            header, body = world.store.manifests[row.id]
            assert (row.manifest.sha256, row.manifest.count) == (header.sha256, header.count)
            assert len(body) == row.manifest.bytes
    assert [type(error) for error in world.errors if not isinstance(error, StorageUnavailable)] == []


async def test_without_faults() -> None:
    """Two windows and one run event are three dispatches."""
    world = await a_history(lambda _: None)
    check(world)
    assert not world.given_up
    assert len(world.ledger()) == 3
    assert not world.errors


@pytest.mark.parametrize("fault", Fault)
async def test_one_fault_at_every_call(fault: Fault) -> None:
    """Enumerated, not sampled: whichever call fails or kills its instance, the promises hold."""
    total = len((await a_history(lambda _: None)).calls)
    assert total > 90
    for number in range(total):
        world = await a_history(at(number, fault))
        try:
            check(world)
        except AssertionError as error:
            call = world.calls[number]
            raise AssertionError(f"after {fault.name} at call {number}, {call.method}: {error}") from error


@pytest.mark.parametrize("seed", range(100))
async def test_many_faults(seed: int) -> None:
    """One call in ten fails or kills its instance, for an hour; then the promises hold.

    Messages that are doubled have a test of their own.
    """
    chance = random.Random(seed)

    def plan(call: Call) -> Fault | None:
        if call.method == "send":
            return chance.choice([None] * 9 + [Fault.FAIL_BEFORE, Fault.CRASH_BEFORE])
        return chance.choice(list(Fault)) if chance.random() < 0.1 else None

    check(await a_history(plan, seed=seed))


async def test_messages_do_not_multiply() -> None:
    """The queue takes a message and its answer gets lost, now and then: the number of messages stays small."""
    world = World([DEPLOY])
    world.plan = on("create_dispatch", Fault.CRASH_BEFORE)
    await world.deliver(run_completed())
    await world.run_for(5 * SECOND)
    assert [row.state for row in world.ledger()] == [State.SENDING]
    chance = random.Random(1)
    world.plan = lambda call: Fault.FAIL_AFTER if call.method == "send" and chance.random() < 0.1 else None
    await world.run_for(4 * MINUTE)
    assert len(world.queue.messages) < 10


def planted(world: World, rows: Sequence[State]) -> None:
    """Give the dispatch of a world these states in turn, and take every message away."""
    world.queue.messages.clear()
    (row,) = world.ledger()
    for state in rows:
        text, version = world.store.ledger[row.id]
        document = {**json.loads(text), "state": state}
        if state is not State.READY:
            document["sending_since"] = document["created"]
        if state in {State.SENT, State.CONFIRMED}:
            document["sent"] = document["created"]
        world.store.ledger[row.id] = (json.dumps(document), version)


@pytest.mark.parametrize("state", [State.READY, State.SENDING, State.SENT, State.CONFIRMED])
async def test_reconcile_finds_every_unfinished_dispatch(state: State) -> None:
    """Ready without a message, sending without an answer, sent and confirmed without a watch."""
    world = World([DEPLOY])
    await world.deliver(run_completed())
    if state is not State.READY:
        await world.github.create_dispatch("octo/models", {"client_payload": {"dispatch_id": world.ledger()[0].id}})
    planted(world, [state])
    await world.finish()
    assert [row.state for row in world.ledger()] == [State.DONE]
    assert set(world.github.effective.values()) == {1}


@pytest.mark.parametrize("method", ["seal_segment", "write_manifest", "insert_dispatch", "send", "write_head"])
async def test_reconcile_finds_every_unfinished_window(method: str) -> None:
    """The closer died after any of its steps, and every message is lost."""
    world = World([TRAIN])
    await world.deliver(*burst(world, 3))
    world.plan = on(method, Fault.CRASH_AFTER)
    await world.run_for(2 * MINUTE)
    world.queue.messages.clear()
    world.plan = lambda _: None
    await world.finish()
    assert [(row.state, row.event_count) for row in world.ledger()] == [(State.DONE, 3)]
    assert set(world.github.effective.values()) == {1}


async def test_reconcile_finds_a_ripe_window_without_an_alarm() -> None:
    """Every alarm was lost."""
    world = World([TRAIN])
    await world.deliver(*burst(world, 3))
    world.queue.messages.clear()
    await world.finish()
    assert [row.event_count for row in world.ledger()] == [3]


async def test_one_broken_window_does_not_stop_the_others() -> None:
    """Its fault is logged, and the timer goes on."""
    world = World([TRAIN])
    await world.deliver(*burst(world, 1, "broken"), *burst(world, 1, "digits"))
    world.queue.messages.clear()
    broken = next(head for head in world.store.heads.values() if head.key == "broken")

    def plan(call: Call) -> Fault | None:
        hit = call.method == "seal_segment" and call.arguments[0].key_digest == broken.key_digest
        return Fault.FAIL_BEFORE if hit else None

    world.plan = plan
    await world.finish(within=HOUR)
    assert [row.key for row in world.ledger()] == ["digits"]


@pytest.mark.parametrize("method", ["heads_to_look_at", "unfinished_dispatches"])
async def test_reconcile_takes_every_step(method: str) -> None:
    """Where no table answers, what the host gave up is taken up all the same; the fault is still seen."""
    world = World([TRAIN])
    await world.queue.send({"kind": "from a later version"})
    await world.run_for(2 * MINUTE)
    assert len(world.queue.poison) == 1
    world.plan = lambda call: Fault.FAIL_BEFORE if call.method == method else None
    with pytest.raises(StorageUnavailable):
        await world.start().app.reconcile()
    assert not world.queue.poison


@pytest.mark.parametrize(
    "message", [{}, {"kind": "other"}, {"kind": "send"}, {"kind": "window", "route": 1, "key": ""}]
)
async def test_a_message_that_is_none_goes_to_poison(message: Any) -> None:
    """It raises, so that the queue keeps it where a person finds it."""
    world = World([TRAIN])
    with pytest.raises(ValueError, match="no work message"):
        await world.start().app.work(message)


async def test_status_counts_what_is_under_way() -> None:
    """Open windows, unfinished windows, dispatches by state, routes."""
    world = World([TRAIN, DEPLOY])
    await world.deliver(*burst(world, 2), run_completed())
    assert await world.start().app.status() == {
        "open_windows": 1,
        "unfinished_windows": 0,
        "dispatches": {"ready": 1},
        "routes": ["train", "deploy"],
    }


async def test_two_instances_on_every_message() -> None:
    """Messages are handled by two instances at once, as when their visibility ran out: still one run each."""
    world = World([TRAIN, DEPLOY])
    one, other = world.start(), world.start()
    await world.deliver(*burst(world, 3), run_completed(), by=one)
    doubled: Counter[str] = Counter()
    while (message := world.queue.first()) is not None and len(doubled) < 200:
        world.now = max(world.now, message.visible)
        world.queue.messages.remove(message)
        body = json.loads(message.body)
        doubled[message.body] += 1
        workers = [one, other] if doubled[message.body] < 4 else [one]
        results = await asyncio.gather(*(worker.app.work(body) for worker in workers), return_exceptions=True)
        assert [result for result in results if result is not None] == []
    assert {row.event_count for row in world.ledger()} == {3, 1}
    assert set(world.github.effective.values()) == {1}


async def test_a_repository_of_the_route_is_its_own() -> None:
    """Only the routes file can name another repository; its runs are watched apart."""
    world = World([replace(DEPLOY, repository="octo/other"), replace(HELD, name="train")])
    await world.deliver(run_completed(), *burst(world, 1))
    await world.finish()
    assert {row.route: row.repository for row in world.ledger()} == {"deploy": "octo/other", "train": "octo/models"}
    assert {row.state for row in world.ledger()} == {State.DONE}
    assert set(world.store.watches) == {"octo/other", "octo/models"}


async def test_parked_dispatches_do_not_stop_the_work() -> None:
    """A bad token parks one dispatch; the next one is sent all the same."""
    world = World([DEPLOY])
    world.github.answers.append(Answer(401))
    await world.deliver(run_completed("train-1"))
    await world.finish()
    await world.deliver(run_completed("train-2"))
    await world.finish()
    assert Counter(row.state for row in world.ledger()) == {State.PARKED: 1, State.DONE: 1}


def test_an_instance_is_its_own_process() -> None:
    """The simulation shares no memory between instances."""
    world = World([TRAIN])
    one, other = world.start(), world.start()
    assert isinstance(one, Instance)
    assert one.app.intake.writer is not other.app.intake.writer
