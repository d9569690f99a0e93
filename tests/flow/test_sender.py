"""From ledger row to run: GitHub's answers, unknown outcomes, confirmation."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from functions.core.dispatch import (
    HEARD_WITHIN,
    RUN_SETTLES,
    SENDING_TIMEOUT,
    State,
)
from functions.core.github import Answer, NoAnswer

from .scenes import DEPLOY, HOUR, MINUTE, SECOND, dispatched, pauses, run_completed
from .simulation import Call, Fault, World, on


@pytest.fixture
def world() -> World:
    """A world with one route that settles nothing, so that an event is a dispatch."""
    return World([DEPLOY])


async def test_sent_confirmed_done(world: World) -> None:
    """204, then the run is found, then its end."""
    world.github.takes = 10 * MINUTE
    await world.deliver(run_completed())
    states = []
    for _ in range(60):
        await world.run_for(15 * SECOND)
        (row,) = world.ledger()
        states.append(row.state)
    assert [state for index, state in enumerate(states) if state not in states[:index]] == [State.CONFIRMED, State.DONE]
    assert (row.attempts, row.run_id, row.conclusion) == (1, 1, "success")
    assert row.run_url == "https://github.example/octo/models/actions/runs/1"


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        (Answer(429, {"retry-after": "600"}), 600),
        (Answer(403, {"retry-after": "7"}), 7),
        (Answer(403, {}, '{"message": "You have exceeded a secondary rate limit"}'), 60),
        (Answer(502), 60),
        (NoAnswer("refused", reached=False), 60),
    ],
)
async def test_it_waits_as_long_as_github_asks(world: World, answer: Answer | NoAnswer, waits: int) -> None:
    """Never earlier, and at most a tenth and the queue's own second later; then it is sent."""
    row = await dispatched(world, answer)
    assert (row.state, row.attempts) == (State.DONE, 2)
    (pause,) = pauses(world)
    assert waits <= pause.total_seconds() <= waits * 1.1 + 2
    assert world.github.effective == {row.id: 1}


async def test_a_limit_holds_for_every_dispatch(world: World) -> None:
    """Limits are the token's: GitHub says not to make another request until its time has come, whichever it is."""
    world.github.answers.append(Answer(403, {"retry-after": "600"}))
    await world.deliver(*(run_completed(f"train-{number}") for number in range(30)))
    await world.finish()
    assert {row.state for row in world.ledger()} == {State.DONE}
    assert pauses(world)[0] >= 600 * SECOND
    assert len(world.github.requests) == 31


@pytest.mark.parametrize("asked", [("600", "60"), ("60", "600")])
async def test_the_longer_of_two_limits_counts(world: World, asked: tuple[str, str]) -> None:
    """Two were on their way when the limit was reached."""
    first_is_refused = asyncio.Event()

    def plan(call: Call) -> Any:
        return first_is_refused.wait() if call.method == "create_dispatch" and call.instance == other.number else None

    await world.deliver(*(run_completed(f"train-{number}") for number in range(3)))
    world.github.answers.extend(Answer(429, {"retry-after": seconds}) for seconds in asked)
    first, second, third = world.ledger()
    one, other = world.start(), world.start()
    world.plan = plan
    refused = asyncio.ensure_future(other.run(other.app.sender.send(second.id)))
    while second.state is not State.SENDING:
        await asyncio.sleep(0)
        second = world.ledger()[1]
    await one.app.sender.send(first.id)
    first_is_refused.set()
    await refused
    await one.app.sender.send(third.id)
    third = world.ledger()[2]
    assert (third.state, third.attempts) == (State.READY, 0)
    assert third.not_before is not None
    assert 600 * SECOND <= third.not_before - world.now <= 660 * SECOND
    assert "GitHub asked another dispatch to come later until" in third.reason


@pytest.mark.parametrize(
    "absurd",
    [
        {"retry-after": "99999999999"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795176600", "date": "Thu, 01 Jan 1970 00:00:00 GMT"},
    ],
)
async def test_an_absurd_limit_does_not_stop_the_others(world: World, absurd: dict[str, str]) -> None:
    """One answer of a proxy without a clock asks for decades: the others try again the same day."""
    world.github.answers.append(Answer(429, absurd))
    await world.deliver(run_completed("train-1"))
    await world.run_for(MINUTE)
    await world.deliver(run_completed("train-2"))
    await world.run_for(8 * HOUR)
    assert world.ledger()[1].state is State.DONE


async def test_pauses_grow(world: World) -> None:
    """A GitHub that is away for long is asked less and less often, and gets the dispatch in the end."""
    row = await dispatched(world, *[Answer(503)] * 5, within=3 * HOUR)
    assert row.state is State.DONE
    assert [round(pause / MINUTE) for pause in pauses(world)][:3] == [1, 2, 4]
    assert pauses(world) == sorted(pauses(world))


@pytest.mark.parametrize("status", [401, 403, 404, 301, 303])
async def test_what_a_person_must_mend_is_parked(world: World, status: int) -> None:
    """It is kept, and says what to mend."""
    row = await dispatched(world, Answer(status))
    assert (row.state, row.attempts) == (State.PARKED, 1)
    assert row.reason.startswith(f"GitHub answered {status}")


async def test_refused_for_good(world: World) -> None:
    """422 is dead, with GitHub's message."""
    row = await dispatched(world, Answer(422, {}, '{"message": "no"}'))
    assert (row.state, row.reason) == (State.DEAD, "GitHub answered 422 (no)")
    assert world.is_idle()


@pytest.mark.parametrize("appears_after", [0, 5, 20])
async def test_an_unknown_outcome_is_looked_for_first(world: World, appears_after: int) -> None:
    """GitHub took it and its answer got lost: the run is found, and nothing is sent twice."""
    world.github.starts_after = timedelta(seconds=appears_after)
    row = await dispatched(world, NoAnswer("reset", reached=True))
    assert (row.state, row.attempts, row.sent) == (State.DONE, 1, row.sending_since)
    assert world.github.effective == {row.id: 1}


async def test_an_unknown_outcome_without_a_run_is_sent_again(world: World) -> None:
    """GitHub did not take it: after a look that comes late enough it is sent again."""
    world.github.listens = False
    world.github.answers.append(NoAnswer("reset", reached=True))
    await world.deliver(run_completed())
    await world.run_for(RUN_SETTLES - SECOND)
    assert len(world.github.requests) == 1
    world.github.listens = True
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.attempts) == (State.DONE, 2)
    assert pauses(world)[0] >= RUN_SETTLES
    listing = next(call.number for call in world.calls if call.method == "list_runs")
    posts = [call.number for call in world.calls if call.method == "create_dispatch"]
    assert posts[0] < listing < posts[1]


async def test_unheard(world: World) -> None:
    """GitHub accepts it, but no workflow listens: parked after ten minutes, and said how to mend it."""
    world.github.listens = False
    row = await dispatched(world)
    assert row.state is State.PARKED
    assert "unheard" in row.reason
    assert row.sent is not None
    assert row.looked is not None
    assert row.looked - row.sent > HEARD_WITHIN


async def test_two_messages_send_once(world: World) -> None:
    """A message that comes twice, at two instances at once, is one request."""
    await world.deliver(run_completed())
    (row,) = world.ledger()
    one, other = world.start(), world.start()
    await asyncio.gather(one.run(one.app.sender.send(row.id)), other.run(other.app.sender.send(row.id)))
    await world.finish()
    assert len(world.github.requests) == 1


async def test_a_message_without_a_row_is_let_pass(world: World) -> None:
    """Nothing to send is no fault."""
    await world.start().app.sender.send("sb-gone")
    assert not world.github.requests


async def test_a_crash_while_sending_is_looked_for(world: World) -> None:
    """The instance died between GitHub's acceptance and its own note of it: found, not sent again."""
    world.plan = on("create_dispatch", Fault.CRASH_AFTER)
    row = await dispatched(world)
    assert (row.state, row.attempts) == (State.DONE, 1)
    assert world.github.effective == {row.id: 1}


async def test_a_crash_before_sending_is_made_good(world: World) -> None:
    """The instance died before the request: sent after a look, and not before nobody can be sending any more."""
    world.plan = on("create_dispatch", Fault.CRASH_BEFORE)
    row = await dispatched(world)
    assert (row.state, row.attempts) == (State.DONE, 2)
    assert row.sent is not None
    assert row.sent - row.created >= SENDING_TIMEOUT


async def test_github_is_heeded_although_storage_failed(world: World) -> None:
    """GitHub asks for an hour, storage fails once while that is stored: still not earlier than the hour."""
    world.plan = on("replace_dispatch", None, Fault.FAIL_BEFORE)
    row = await dispatched(world, Answer(429, {"retry-after": "3600"}), within=3 * HOUR)
    assert row.state is State.DONE
    assert pauses(world)[0] >= HOUR


async def test_a_row_of_a_later_version_does_not_stop_the_others(world: World) -> None:
    """While two versions of the app run, the older one leaves alone what it does not understand."""
    await world.deliver(run_completed("train-1"), run_completed("train-2"))
    first, second = world.store.ledger
    text, version = world.store.ledger[first]
    world.store.ledger[first] = (text.replace('"state":"ready"', '"state":"waiting-for-approval"'), version)
    world.queue.messages = [message for message in world.queue.messages if first not in message.body]
    app = world.start()
    await app.app.sender.send(second)
    world.pass_time(2 * MINUTE)
    await app.app.sender.watch("octo/models", world.store.watches["octo/models"].token)
    rows: Any = await world.store.read_dispatch(second)
    assert rows.state is State.DONE


async def test_whoever_stood_still_sends_nothing(world: World) -> None:
    """Between storing `sending` and the request its machine stood still, until others took it for dead and sent it."""
    sender, other = world.start(), world.start()
    stopped, go_on = asyncio.Event(), asyncio.Event()

    async def stand_still() -> None:
        stopped.set()
        await go_on.wait()

    def plan(call: Call) -> Any:
        if call.instance == sender.number and call.method == "create_dispatch" and stopped.is_set():
            pytest.fail("it was sent all the same")
        if call.instance == sender.number and call.method == "replace_dispatch" and not stopped.is_set():
            return stand_still()
        return None

    await world.deliver(run_completed())
    (row,) = world.ledger()
    world.plan = plan
    sending = asyncio.ensure_future(sender.run(sender.app.sender.send(row.id)))
    await stopped.wait()
    world.pass_time(20 * SECOND)
    go_on.set()
    await sending
    await world.finish(other)
    assert world.github.effective == {row.id: 1}


async def test_a_refused_listing_does_not_shorten_a_sending(world: World) -> None:
    """Its row may still be sent by somebody: it is taken for left by a crash no earlier than without that refusal."""
    world.plan = on("create_dispatch", Fault.CRASH_BEFORE)
    world.github.listing = Answer(403, {}, '{"message": "Resource not accessible by personal access token"}')
    await world.deliver(run_completed())
    await world.run_for(20 * SECOND)
    (row,) = world.ledger()
    assert (row.state, row.reason) == (State.SENDING, "")
    world.github.listing = None
    await world.finish()
    (row,) = world.ledger()
    assert row.sent is not None
    assert row.sent - row.created >= SENDING_TIMEOUT


async def test_a_retry_whose_message_was_lost_is_found(world: World) -> None:
    """GitHub's wait is over and no message is there: the timer sends it."""
    world.github.answers.append(Answer(429, {"retry-after": "60"}))
    await world.deliver(run_completed())
    await world.run_for(10 * SECOND)
    world.queue.messages.clear()
    await world.finish()
    assert [(row.state, row.attempts) for row in world.ledger()] == [(State.DONE, 2)]
