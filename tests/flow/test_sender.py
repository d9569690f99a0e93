"""From ledger row to run: GitHub's answers, unknown outcomes, confirmation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from functions.core.dispatch import (
    HEARD_WITHIN,
    MOST_UNSTARTED,
    RUN_SETTLES,
    SENDING_TIMEOUT,
    UNSTARTED_PAUSE,
    State,
)
from functions.core.github import Answer, NoAnswer
from functions.core.parking import MOST_UNHEARD_PROBES
from functions.core.trace import fate

from .scenes import DEPLOY, HOUR, MINUTE, SECOND, dispatched, run_completed
from .simulation import Call, Fault, World, on


@pytest.fixture
def world() -> World:
    """A world with one route that settles nothing, so that an event is a dispatch."""
    return World([DEPLOY])


def pauses(world: World) -> list[timedelta]:
    """The times between the requests to GitHub."""
    moments = [moment for moment, _ in world.github.requests]
    return [later - earlier for earlier, later in pairwise(moments)]


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


async def test_no_listing_is_no_proof(world: World) -> None:
    """While GitHub does not answer the search, an unknown outcome is not sent again."""
    world.plan = lambda call: Fault.FAIL_BEFORE if call.method == "list_runs" else None
    world.github.answers.append(NoAnswer("reset", reached=True))
    await world.deliver(run_completed())
    await world.run_for(20 * MINUTE)
    assert len(world.github.requests) == 1
    world.plan = lambda _: None
    await world.finish()
    assert set(world.github.effective.values()) == {1}


async def test_a_slow_listing_is_no_proof_either(world: World) -> None:
    """A run that appeared while the listing was under way is not on it: that must not count as "no run"."""
    world.slow["list_runs"] = 6 * SECOND
    world.github.starts_after = RUN_SETTLES - SECOND
    world.github.answers.append(NoAnswer("reset", reached=True))

    def hurry(call: Call) -> Fault | None:
        """The first look comes 27 seconds after the lost answer."""
        if call.method == "lead_watch" and world.github.requests:
            for message in world.queue.messages:
                message.visible = min(message.visible, world.github.requests[0][0] + 27 * SECOND)
        return None

    world.plan = hurry
    await world.deliver(run_completed())
    app = world.start()
    await world.run_for(SECOND, app)
    world.plan = lambda _: None
    world.now = world.github.requests[0][0] + RUN_SETTLES - 4 * SECOND
    await app.app.sender.watch("octo/models", world.store.watches["octo/models"].token)
    await world.finish()
    assert set(world.github.effective.values()) == {1}


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


async def test_one_listing_confirms_many(world: World) -> None:
    """A hundred and fifty dispatches wait; one look of two pages finds all their runs."""
    world.github.takes = timedelta()
    await world.deliver(*(run_completed(f"train-{number}") for number in range(150)))
    app = world.start()
    for row in world.ledger():
        await app.app.sender.send(row.id)
    world.pass_time(5 * SECOND)
    before = len(world.calls)
    await app.app.sender.watch("octo/models", world.store.watches["octo/models"].token)
    assert sum(call.method == "list_runs" for call in world.calls[before:]) == 2
    assert {row.state for row in world.ledger()} == {State.DONE}


async def test_only_the_newest_watch_goes_on(world: World) -> None:
    """However many watches were started, one chain of messages remains."""
    world.github.takes = HOUR
    await world.deliver(*(run_completed(f"train-{number}") for number in range(20)))
    await world.run_for(4 * MINUTE)
    assert sum('"watch"' in message.body for message in world.queue.messages) == 1


async def test_a_steady_stream_is_watched(world: World) -> None:
    """One dispatch a second: none of them keeps the look from coming that the one before it asked for."""
    app = world.start()
    for number in range(180):
        await world.deliver(run_completed(f"train-{number}"), by=app)
        await world.run_for(SECOND, app)
    assert sum(call.method == "list_runs" for call in world.calls) > 40
    assert sum(row.state is State.DONE for row in world.ledger()) > 100


async def test_a_look_that_was_lost_is_made_good(world: World) -> None:
    """The leader's message is gone: the next dispatch waits for it no longer than a minute."""
    await world.deliver(run_completed("train-1"))
    await world.start().app.sender.send(world.ledger()[0].id)
    world.queue.messages.clear()
    lost = world.store.watches["octo/models"]
    for moment, stands in ((30 * SECOND, True), (MINUTE, False)):
        world.pass_time(moment)
        await world.start().app.sender.start_watch("octo/models")
        assert (world.store.watches["octo/models"] == lost) is stands
    await world.finish()
    assert world.is_idle()


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


async def test_a_run_that_was_deleted_does_not_hold_for_ever(world: World) -> None:
    """Somebody deletes a run that goes on: the dispatch ends, with that as its reason."""
    world.github.takes = HOUR
    await world.deliver(run_completed())
    await world.run_for(MINUTE)
    world.github.runs.clear()
    await world.finish(within=timedelta(days=3))
    assert world.is_idle()


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


@pytest.mark.parametrize("lost", [None, "list_jobs"])
async def test_a_run_cancelled_before_it_began_is_made_good(world: World, lost: str | None) -> None:
    """A newer run of its concurrency group displaced it: it is sent again later, and its next run confirms it."""
    world.github.fates.append("unstarted")
    if lost:
        world.plan = on(lost, Fault.FAIL_BEFORE)
    row = await dispatched(world)
    assert (row.state, row.conclusion, row.attempts, row.run_id) == (State.DONE, "success", 2, 2)
    assert row.unstarted == (1,)
    assert pauses(world)[0] >= UNSTARTED_PAUSE


async def test_a_run_cancelled_before_it_began_that_a_person_runs_again(world: World) -> None:
    """Before its dispatch is sent again: then the work is done, and must not be done twice."""
    world.github.fates.append("unstarted")
    await world.deliver(run_completed())
    await world.run_for(3 * MINUTE)
    world.github.runs[0] = replace(world.github.runs[0], fate="success", ends=world.now + 3 * MINUTE)
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.conclusion, row.attempts, row.run_id, row.unstarted) == (State.DONE, "success", 1, 1, ())


async def test_a_second_run_that_comes_after_the_first_was_cancelled(world: World) -> None:
    """Two workflows listen; the run of the one is cancelled before it began, before that of the other is listed."""
    world.github.fates.append("unstarted")
    await world.deliver(run_completed())
    await world.run_for(2 * MINUTE)
    first = world.github.runs[0]
    world.github.runs.append(replace(first, id=2, created=world.now, ends=world.now + HOUR, fate="success"))
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.attempts, row.run_id) == (State.DONE, 1, 2)


async def test_a_run_that_is_never_let_begin(world: World) -> None:
    """Four runs in a row are cancelled before they began: then that is how it ended."""
    world.github.fates.extend(["unstarted"] * 9)
    row = await dispatched(world, within=12 * HOUR)
    assert (row.state, row.conclusion, row.attempts) == (State.DONE, "cancelled", 1 + MOST_UNSTARTED)


@pytest.mark.parametrize("lost", [None, "list_jobs"])
async def test_a_run_that_began_is_not_repeated(world: World, lost: str | None) -> None:
    """Somebody cancelled it in its middle: it did a part of its work, so a person decides."""
    world.github.fates.append("cancelled")
    if lost:
        world.plan = on(lost, Fault.FAIL_BEFORE)
    row = await dispatched(world)
    assert (row.state, row.conclusion, row.attempts) == (State.DONE, "cancelled", 1)


class TestParked:
    """What is parked goes on by itself once its cause is mended."""

    async def test_one_probe_for_all(self, world: World) -> None:
        """Twenty wait for a token; only the oldest tries it, ever more rarely; once it passes, all of them do."""
        world.github.answers.extend([Answer(401)] * 20)
        for number in range(20):
            await world.deliver(run_completed(f"train-{number}"))
            await world.run_for(5 * SECOND)
        oldest = world.ledger()[0].id
        assert {row.state for row in world.ledger()} == {State.PARKED}
        world.github.answers.extend([Answer(401)] * 3)
        await world.run_for(4 * HOUR)
        probes = world.github.requests[20:24]
        assert [dispatch for _, dispatch in probes] == [oldest] * 4
        assert [round((one - other) / MINUTE) for (other, _), (one, _) in pairwise(probes)] == [30, 60, 120]
        await world.finish()
        assert {row.state for row in world.ledger()} == {State.DONE}
        assert world.github.effective == {row.id: 1 for row in world.ledger()}
        assert len(world.github.requests) == 20 + 4 + 19

    async def test_a_crash_after_the_probe(self, world: World) -> None:
        """The instance that probed dies before it wakes the others: the timer does."""
        world.github.answers.extend([Answer(401)] * 3)
        await world.deliver(*(run_completed(f"train-{number}") for number in range(3)))
        await world.run_for(10 * MINUTE)
        gone = False

        def plan(call: Call) -> Fault | None:
            nonlocal gone
            rows = [row for row in world.ledger() if row.state is State.SENT]
            hit = rows and call.method == "unfinished_dispatches" and not gone
            gone = gone or bool(hit)
            return Fault.CRASH_BEFORE if hit else None

        world.plan = plan
        await world.run_for(HOUR)
        assert gone
        assert {row.state for row in world.ledger()} == {State.DONE}
        assert set(world.github.effective.values()) == {1}

    async def test_a_new_dispatch_that_passes_wakes_them_too(self, world: World) -> None:
        """The token was renewed and an event came: nobody waits for the probe."""
        world.github.takes = HOUR
        world.github.answers.append(Answer(401))
        await world.deliver(run_completed("train-1"))
        await world.run_for(MINUTE)
        await world.deliver(run_completed("train-2"))
        await world.run_for(6 * MINUTE)
        assert {row.state for row in world.ledger()} == {State.CONFIRMED}

    async def test_one_that_passes_and_ends_at_once_wakes_them_too(self, world: World) -> None:
        """Its run is over before the timer comes: who waits since hours for the token does not wait for hours more."""
        world.github.takes = MINUTE
        world.github.answers.extend([Answer(401)] * 6)
        await world.deliver(run_completed("train-1"))
        await world.run_for(8 * HOUR + 2 * MINUTE)
        await world.deliver(run_completed("train-2"))
        await world.run_for(5 * MINUTE)
        assert {row.state for row in world.ledger()} == {State.DONE}

    async def test_unheard_that_wakes_under_a_watch(self, world: World) -> None:
        """The run of another dispatch is found by the look that wakes it: that look is not the last one."""
        world.github.listens = False
        await world.deliver(run_completed("train-1"))
        await world.run_for(11 * MINUTE)
        world.github.listens = True
        world.now = world.github.requests[0][0] + 26 * MINUTE
        app = world.start()
        await world.deliver(run_completed("train-2"), by=app)
        world.github.takes = timedelta()
        await app.app.sender.send(world.ledger()[1].id)
        world.pass_time(5 * SECOND)
        await app.app.sender.watch("octo/models", world.store.watches["octo/models"].token)
        assert [row.state for row in world.ledger()] == [State.SENDING, State.DONE]
        assert world.store.watches["octo/models"].token in world.queue.messages[-1].body

    async def test_a_repository_that_was_renamed(self, world: World) -> None:
        """The reason says to mend GITHUB_REPOSITORY: once that is done, what is parked goes to the new name."""
        world.github.answers.append(Answer(307))
        await world.deliver(run_completed())
        await world.run_for(MINUTE)
        mended = world.start([replace(DEPLOY, repository="octo/renamed")])
        await world.run_for(HOUR, mended)
        (row,) = world.ledger()
        assert (row.state, row.repository, row.attempts) == (State.DONE, "octo/renamed", 2)
        sent = [call.arguments[0] for call in world.calls if call.method == "create_dispatch"]
        assert sent == ["octo/models", "octo/renamed"]

    async def test_unheard_is_looked_for_where_it_was_accepted(self, world: World) -> None:
        """Its run comes late in a repository to which nothing else goes any more: the look at another one wakes it."""
        world.github.starts_after = 12 * MINUTE
        await world.deliver(run_completed("train-1"))
        await world.run_for(11 * MINUTE)
        world.github.starts_after = timedelta()
        world.now = world.github.requests[0][0] + 26 * MINUTE
        mended = world.start([replace(DEPLOY, repository="octo/renamed")])
        await world.deliver(run_completed("train-2"), by=mended)
        await mended.app.sender.send(world.ledger()[1].id)
        world.pass_time(5 * SECOND)
        await mended.app.sender.watch("octo/renamed", world.store.watches["octo/renamed"].token)
        assert world.ledger()[0].state is State.SENDING
        await world.finish(mended)
        assert [(row.state, row.repository) for row in world.ledger()] == [
            (State.DONE, "octo/models"),
            (State.DONE, "octo/renamed"),
        ]
        assert set(world.github.effective.values()) == {1}

    async def test_unheard_is_tried_three_times(self, world: World) -> None:
        """The workflow is missing for long: three more dispatches, then a person has to ask for it."""
        world.github.listens = False
        await world.deliver(run_completed())
        await world.run_for(24 * HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts) == (State.PARKED, 1 + MOST_UNHEARD_PROBES)
        assert row.is_unheard

    async def test_unheard_that_is_mended(self, world: World) -> None:
        """The workflow is pushed after it was found missing: the next probe is heard."""
        world.github.listens = False
        await world.deliver(run_completed())
        await world.run_for(15 * MINUTE)
        world.github.listens = True
        await world.run_for(HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts) == (State.DONE, 2)

    async def test_a_run_that_comes_very_late_is_found(self, world: World) -> None:
        """GitHub was slow to start it: a look comes before every sending, so the work is not done twice."""
        world.github.starts_after = 20 * MINUTE
        row = await dispatched(world)
        assert row.is_unheard
        await world.run_for(HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts) == (State.DONE, 1)
        assert world.github.effective == {row.id: 1}

    async def test_a_probe_that_goes_unheard_is_looked_for_all_the_same(self, world: World) -> None:
        """It probed a bad token four times; once GitHub takes it, its run comes after eleven minutes."""
        world.github.starts_after = 11 * MINUTE
        await dispatched(world, *[Answer(401)] * 4)
        await world.run_for(12 * HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts, row.probes, row.unheard) == (State.DONE, 5, 4, 1)
        assert world.github.effective == {row.id: 1}


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


async def test_a_listing_that_is_refused_is_told(world: World) -> None:
    """The token may send, but not look: the row says what to mend, and once that is done the run is found."""
    world.github.listing = Answer(403, {}, '{"message": "Resource not accessible by personal access token"}')
    await world.deliver(run_completed())
    await world.run_for(20 * MINUTE)
    (row,) = world.ledger()
    assert row.state is State.SENT
    assert "'Actions: read' on octo/models" in row.reason
    assert "Resource not accessible" in row.reason
    assert row.reason in fate(row)
    world.github.listing = None
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.reason, row.attempts) == (State.DONE, "", 1)


def listings(world: World) -> int:
    """How often GitHub was asked for runs."""
    return sum(call.method == "list_runs" for call in world.calls)


async def test_a_listing_comes_no_earlier_than_github_asked(world: World) -> None:
    """Ten minutes; a dispatch that comes meanwhile starts a watch of its own, and that waits as well."""
    world.github.listing = Answer(429, {"retry-after": "600"})
    await world.deliver(run_completed("train-1"))
    await world.run_for(10 * SECOND)
    world.github.listing = None
    await world.deliver(run_completed("train-2"))
    await world.run_for(9 * MINUTE)
    assert listings(world) == 1
    await world.run_for(2 * MINUTE)
    assert {row.state for row in world.ledger()} == {State.DONE}


async def test_a_refused_listing_is_asked_for_again_when_github_allows_it(world: World) -> None:
    """The watch goes on by itself; nobody waits for the slow timer."""
    world.github.listing = Answer(429, {"retry-after": "30"})
    await world.deliver(run_completed())
    await world.run_for(10 * SECOND)
    await world.run_for(30 * SECOND)
    assert listings(world) == 2


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
