"""Queue poison and old windows: taken up or expired by rule, never forgotten."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from functions.core.dispatch import State
from functions.core.poison import MOST_RETURNS, MOST_TAKES
from functions.core.windows import Segment

from .memory import Message
from .scenes import DEPLOY, HOUR, MINUTE, TRAIN, burst, run_completed, upload
from .simulation import Call, Fault, World, on

DAY = timedelta(days=1)


def in_queue(world: World, body: object) -> Message:
    """A message as it stands in a queue."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(base64.b64encode(text).decode("ascii"), world.now)


class TestWorkPoison:
    """Messages of the work queue."""

    async def test_it_is_put_back(self) -> None:
        """What failed while storage was away is done once it is there again."""
        world = World([TRAIN])
        world.plan = lambda call: Fault.FAIL_BEFORE if call.method == "segment_state" else None
        await world.deliver(*burst(world, 2))
        await world.run_for(4 * MINUTE)
        assert len(world.queue.poison) == 1
        world.plan = lambda call: Fault.FAIL_BEFORE if call.method == "heads_to_look_at" else None
        reconcile = world.start().app.housekeeper
        await reconcile.take_up_poison()
        assert not world.queue.poison
        assert [json.loads(message.body)["returned"] for message in world.queue.messages] == [1]
        assert world.queue.messages[0].visible == world.now + MINUTE
        world.plan = lambda _: None
        await world.finish()
        assert [row.state for row in world.ledger()] == [State.DONE]

    async def test_what_fails_on_and_on_is_a_dead_letter(self) -> None:
        """Put back three times, five deliveries each; then it is kept with its reason."""
        world = World([TRAIN])
        await world.queue.send({"kind": "from a later version"})
        await world.run_for(2 * HOUR)
        assert (world.given_up, world.queue.poison, world.queue.messages) == (1 + MOST_RETURNS, [], [])
        (letter,) = world.store.dead_letters.values()
        assert letter["reason"] == "a message of the work queue failed again after it was put back 3 times"
        assert json.loads(base64.b64decode(str(letter["raw"])))["kind"] == "from a later version"

    async def test_a_crash_between_loses_nothing(self) -> None:
        """It is put back before it is deleted: a crash leaves a copy, which does no harm."""
        world = World([DEPLOY])
        await world.deliver(run_completed())
        world.queue.poison.append(in_queue(world, json.loads(world.queue.messages.pop().body)))
        crashed = False

        def plan(call: Call) -> Fault | None:
            nonlocal crashed
            hit, crashed = call.method == "drop_poison" and not crashed, crashed or call.method == "drop_poison"
            return Fault.CRASH_BEFORE if hit else None

        world.plan = plan
        await world.run_for(HOUR)
        assert not world.queue.poison
        assert world.github.effective == {world.ledger()[0].id: 1}

    async def test_what_cannot_be_put_back_is_kept_before_it_goes(self) -> None:
        """The instance dies before the dead letter is written: the message is still there for the timer's next run."""
        world = World([TRAIN])
        world.queue.poison.append(in_queue(world, b"no JSON"))
        world.plan = on("write_dead_letter", Fault.CRASH_BEFORE)
        await world.run_for(HOUR)
        assert not world.queue.poison
        assert [letter["raw"] for letter in world.store.dead_letters.values()] == [
            base64.b64encode(b"no JSON").decode("ascii")
        ]


class TestEventsPoison:
    """Messages of the events queue, as Event Grid delivered them."""

    async def test_they_are_taken_in(self) -> None:
        """The host gave them up while storage was away: they end in a manifest all the same."""
        world = World([TRAIN])
        world.queue.events_poison.append(in_queue(world, burst(world, 2)))
        await world.run_for(2 * HOUR)
        assert not world.queue.events_poison
        assert [row.event_count for row in world.ledger()] == [2]

    async def test_a_burst_that_was_given_up_is_still_one_burst(self) -> None:
        """One run of the timer takes all of it in: it is one dispatch, and none waits until the queue drops it."""
        world = World([TRAIN])
        world.queue.events_poison += [in_queue(world, event) for event in burst(world, 200)]
        await world.start().app.housekeeper.take_up_poison()
        assert not world.queue.events_poison
        await world.finish()
        assert [row.event_count for row in world.ledger()] == [200]

    async def test_a_run_ends_before_what_failed_in_it_comes_again(self) -> None:
        """Storage that hangs holds up one batch, not the timer for good."""
        world = World([TRAIN])
        world.queue.events_poison += [in_queue(world, event) for event in burst(world, 200)]
        world.slow = {"append": MINUTE}
        world.plan = lambda call: Fault.FAIL_AFTER if call.method == "append" else None
        await world.start().app.housekeeper.take_up_poison()
        assert {message.deliveries for message in world.queue.events_poison} == {0, 1}

    async def test_a_dead_letter_that_cannot_be_written_stops_nothing(self) -> None:
        """It is given up by the next run, and the others are taken in by this one."""
        world = World([TRAIN])
        given_up = in_queue(world, b"no JSON")
        given_up.deliveries = MOST_TAKES
        world.queue.events_poison += [given_up, in_queue(world, burst(world, 1))]
        world.plan = lambda call: Fault.FAIL_BEFORE if call.method == "write_dead_letter" else None
        await world.start().app.housekeeper.take_up_poison()
        assert world.queue.events_poison == [given_up]
        assert any(head.is_open for head in world.store.heads.values())

    @pytest.mark.parametrize(
        ("body", "kept"),
        [
            ([{"id": "1", "eventType": "X.Y"}, {"id": "2", "eventType": "X.Y"}], [{"event"}, {"event"}]),
            (b"no JSON", [{"raw"}]),
        ],
    )
    async def test_what_fails_on_and_on_is_a_dead_letter(self, body: Any, kept: list[set[str]]) -> None:
        """Each of its events by itself, so that each can be replayed; its bytes where it holds none."""
        world = World([TRAIN])
        message = in_queue(world, body)
        message.deliveries = MOST_TAKES
        world.queue.events_poison.append(message)
        await world.start().app.housekeeper.take_up_poison()
        assert not world.queue.events_poison
        letters = list(world.store.dead_letters.values())
        assert [set(letter) - {"schema", "reason", "received"} for letter in letters] == kept
        assert all("failed 5 times more after the host gave it up" in str(letter["reason"]) for letter in letters)

    async def test_the_last_try_is_made(self) -> None:
        """It is taken in again as often as its dead letter would say."""
        world = World([TRAIN])
        message = in_queue(world, burst(world, 1))
        message.deliveries = MOST_TAKES - 1
        world.queue.events_poison.append(message)
        await world.start().app.housekeeper.take_up_poison()
        assert not world.store.dead_letters
        assert len(world.store.segments) == 1

    async def test_one_that_fails_does_not_stop_the_others(self) -> None:
        """It stays in the queue for the timer's next run."""
        world = World([TRAIN])
        world.queue.events_poison += [in_queue(world, burst(world, 1, name)) for name in ("broken", "digits")]
        broken = True

        def plan(call: Call) -> Fault | None:
            hit = broken and call.method == "append" and b"broken/" in call.arguments[1]
            return Fault.FAIL_BEFORE if hit else None

        world.plan = plan
        await world.start().app.housekeeper.take_up_poison()
        assert [message.deliveries for message in world.queue.events_poison] == [1]
        broken = False
        await world.run_for(HOUR)
        assert {row.key for row in world.ledger()} == {"broken", "digits"}


class TestOldWindows:
    """Blobs of windows that nobody needs any more."""

    async def test_they_go_after_a_week(self) -> None:
        """All segments of a window go a week after its dispatch; its manifest stays; its number never comes again."""
        world = World([TRAIN])
        world.store.most_blocks = 1
        await world.deliver(*burst(world, 3))
        await world.finish()
        assert len(world.store.segments) == 3
        await world.run_for(6 * DAY)
        assert len(world.store.segments) == 3
        await world.run_for(DAY + 2 * HOUR)
        assert not world.store.segments
        assert set(world.listed().values()) == {1}
        await world.deliver(upload(world, "digits/new.csv"))
        await world.finish()
        assert [Segment.from_name(name).number for name in world.store.segments] == [2]
        assert [row.event_count for row in world.ledger()] == [3, 1]

    @pytest.mark.parametrize("state", [State.READY, State.PARKED, State.CONFIRMED])
    async def test_unfinished_ones_stay(self, state: State) -> None:
        """However old a window is: while its dispatch is not final, its blobs stay."""
        world = World([TRAIN])
        await world.deliver(*burst(world, 1))
        await world.finish()
        await world.store.replace_dispatch(replace(world.ledger()[0], state=state))
        world.pass_time(30 * DAY)
        await world.start().app.housekeeper.sweep()
        assert len(world.store.segments) == 1

    async def test_ones_that_closed_late_stay_for_a_week_all_the_same(self) -> None:
        """Held for eight days, then dispatched: the blob is old, its dispatch is not."""
        world = World([TRAIN])
        await world.deliver(*burst(world, 1))
        world.pass_time(8 * DAY)
        await world.finish()
        assert [row.state for row in world.ledger()] == [State.DONE]
        await world.start().app.housekeeper.sweep()
        assert len(world.store.segments) == 1

    async def test_ones_that_are_not_marked_as_finished_stay(self) -> None:
        """Whoever finishes the window reads its blobs, although its dispatch is done."""
        world = World([TRAIN])
        await world.deliver(*burst(world, 1))
        await world.finish()
        ((name, head),) = world.store.heads.items()
        world.store.heads[name] = replace(head, unfinished=1)
        world.pass_time(30 * DAY)
        await world.start().app.housekeeper.sweep()
        assert len(world.store.segments) == 1

    async def test_open_and_forgotten_ones_stay(self) -> None:
        """A window that is open, one without a ledger row, and one whose head is gone are nobody's to delete."""
        world = World([TRAIN])
        for folder in ("open", "rowless", "headless"):
            await world.deliver(upload(world, f"{folder}/1.csv"))
        app = world.start().app
        for folder in ("rowless", "headless"):
            world.pass_time(2 * MINUTE)
            await app.closer.look("train", folder)
        rows = {row.key: row.id for row in world.ledger()}
        del world.store.ledger[rows["rowless"]]
        done = next(row for row in world.ledger() if row.key == "headless")
        await world.store.replace_dispatch(replace(done, state=State.DONE))
        world.store.heads = {name: head for name, head in world.store.heads.items() if head.key != "headless"}
        world.pass_time(30 * DAY)
        await app.housekeeper.sweep()
        assert len(world.store.segments) == 3

    async def test_a_writer_that_still_knows_a_deleted_window(self) -> None:
        """It finds the next one: a deleted window is not created again."""
        world = World([TRAIN])
        late = world.start()
        await world.deliver(upload(world, "digits/1.csv"), by=late)
        await world.finish()
        world.pass_time(8 * DAY)
        await world.start().app.housekeeper.sweep()
        assert not world.store.segments
        await world.deliver(upload(world, "digits/2.csv"), by=late)
        await world.finish()
        assert world.listed() == {("digits/1.csv", "01"): 1, ("digits/2.csv", "01"): 1}
        assert [row.event_count for row in world.ledger()] == [1, 1]
