"""Routes to one workflow: what GitHub names, what it does not, and what is parked where."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from functions.core.dispatch import State
from functions.core.github import Answer, Span
from functions.core.routes import Route

from .scenes import DEPLOY, HOUR, MINUTE, SECOND, TRAIN, burst, dispatched, run_completed
from .simulation import Fault, World, on

TO_WORKFLOW = replace(DEPLOY, workflow="deploy_model.yml", ref="main")


@pytest.fixture
def world() -> World:
    """A world with one route that sends each event to one workflow."""
    return World([TO_WORKFLOW])


async def test_confirmed_by_its_answer(world: World) -> None:
    """GitHub names the run at once: it is confirmed before any listing, and a listing finds its end."""
    world.plan = lambda call: Fault.FAIL_BEFORE if call.method == "list_runs" else None
    await world.deliver(run_completed())
    await world.run_for(10 * SECOND)
    (row,) = world.ledger()
    assert (row.state, row.run_id, row.run_url) == (State.CONFIRMED, 1, "https://github.example/1")
    world.plan = lambda _: None
    await world.finish()
    (row,) = world.ledger()
    assert (row.state, row.conclusion, row.attempts) == (State.DONE, "success", 1)


async def test_a_window_goes_to_one_workflow() -> None:
    """The route's workflow and ref stand in the ledger, and so in the request; nothing of the event does."""
    world = World([replace(TRAIN, workflow="train_model.yml", ref="v1")])
    await world.deliver(*burst(world, 3))
    await world.finish()
    (row,) = world.ledger()
    assert (row.workflow, row.ref, row.event_type, row.state) == ("train_model.yml", "v1", TRAIN.dispatch, State.DONE)
    (sent,) = (call.arguments for call in world.calls if call.method == "start_workflow")
    assert sent[:2] == ("octo/models", "train_model.yml")
    assert sent[2]["ref"] == "v1"
    assert not [call for call in world.calls if call.method == "create_dispatch"]


async def test_a_window_whose_route_is_gone_goes_where_it_said() -> None:
    """The rule in its metadata names workflow and ref."""
    world = World([replace(TRAIN, workflow="train_model.yml", ref="v1")])
    await world.deliver(*burst(world, 1))
    await world.finish(world.start([]))
    (row,) = world.ledger()
    assert (row.workflow, row.ref, row.state) == ("train_model.yml", "v1", State.DONE)


async def test_an_older_server_names_no_run(world: World) -> None:
    """204: the run is searched for among those of workflow_dispatch, by the id in its name."""
    world.github.names_runs = False
    row = await dispatched(world)
    assert (row.state, row.run_id, row.attempts) == (State.DONE, 1, 1)
    assert {call.arguments[1] for call in world.calls if call.method == "list_runs"} == {"workflow_dispatch"}


@pytest.mark.parametrize("fault", [Fault.CRASH_AFTER, Fault.FAIL_AFTER])
async def test_an_answer_that_was_lost(world: World, fault: Fault) -> None:
    """The run is looked for first, and nothing starts twice."""
    world.plan = on("start_workflow", fault)
    row = await dispatched(world)
    assert (row.state, row.attempts) == (State.DONE, 1)
    assert world.github.effective == {row.id: 1}


async def test_an_answer_that_came_after_its_run_was_found(world: World) -> None:
    """Storing the answer fails on and on: the search confirms the dispatch all the same."""
    world.plan = on("replace_dispatch", None, *[Fault.FAIL_BEFORE] * 12)
    row = await dispatched(world)
    assert (row.state, row.attempts) == (State.DONE, 1)


@pytest.mark.parametrize(
    ("status", "state", "says"),
    [
        (401, State.PARKED, "renew PAT_TOKEN"),
        (403, State.PARKED, "needs 'Actions: write'"),
        (404, State.PARKED, "its workflow deploy_model.yml does not exist"),
        (422, State.DEAD, "declares the inputs"),
    ],
)
async def test_what_github_refuses(world: World, status: int, state: State, says: str) -> None:
    """Kept with what to mend, as for repository_dispatch."""
    row = await dispatched(world, Answer(status))
    assert (row.state, row.attempts) == (state, 1)
    assert says in row.reason


async def test_a_run_that_was_cancelled_before_it_began(world: World) -> None:
    """It is started once more, and its second run is named by the second answer."""
    world.github.fates.append("unstarted")
    row = await dispatched(world)
    assert (row.state, row.conclusion, row.run_id, row.unstarted) == (State.DONE, "success", 2, (1,))


async def test_one_permission_says_nothing_of_the_other() -> None:
    """The token may dispatch to the repository but start no workflow: only the workflow's own door wakes the parked."""
    route = Route("report", DEPLOY.on, "report", DEPLOY.where)
    world = World([TO_WORKFLOW, route])
    world.github.takes = 9 * HOUR
    world.github.answers.extend([Answer(403), Answer(204)])
    await world.deliver(run_completed("train-1"))
    await world.run_for(14 * MINUTE)
    assert {row.route: row.state for row in world.ledger()} == {"deploy": State.PARKED, "report": State.CONFIRMED}
    await world.run_for(16 * MINUTE)
    assert {row.route: row.state for row in world.ledger()} == {"deploy": State.CONFIRMED, "report": State.CONFIRMED}
    requests = [moment for moment, _ in world.github.requests]
    assert len(requests) == 3
    assert requests[2] - requests[0] >= 15 * MINUTE


async def test_both_doors_are_watched_at_once() -> None:
    """One watch lists the runs of either event."""
    world = World([TO_WORKFLOW, Route("report", DEPLOY.on, "report", DEPLOY.where)])
    world.github.names_runs = False
    await world.deliver(run_completed())
    await world.finish()
    assert [row.state for row in world.ledger()] == [State.DONE, State.DONE]
    triggers = [call.arguments[1] for call in world.calls if call.method == "list_runs"]
    assert set(triggers) == {"repository_dispatch", "workflow_dispatch"}


class TestBusyRepository:
    """Others start runs in the same repository, more than GitHub lists."""

    @staticmethod
    async def crowd(world: World, count: int, *, each: timedelta) -> None:
        """So many runs of strangers, one after the other."""
        for number in range(count):
            body = {"client_payload": {"dispatch_id": f"stranger-{number}"}}
            await world.github.create_dispatch("octo/models", body)
            world.pass_time(each)

    async def test_an_old_run_is_found(self) -> None:
        """2,600 runs came after it: the search goes on where GitHub's listing ends, and does not send it again."""
        world = World([DEPLOY])
        world.plan = on("create_dispatch", Fault.CRASH_AFTER)
        await world.deliver(run_completed())
        await world.run_for(5 * SECOND)
        world.queue.messages.clear()
        await self.crowd(world, 2_600, each=SECOND / 2)
        await world.finish()
        (row,) = world.ledger()
        assert (row.state, row.attempts, row.run_id) == (State.DONE, 1, 1)
        spans = [call.arguments[2] for call in world.calls if call.method == "list_runs"]
        assert len(set(spans)) == 3
        assert {span.since for span in spans} == {spans[0].since}

    async def test_a_search_without_end_proves_nothing(self) -> None:
        """More runs in one second than GitHub lists: the dispatch waits, and is neither sent again nor parked."""
        world = World([DEPLOY])
        world.plan = on("create_dispatch", Fault.CRASH_BEFORE)
        await world.deliver(run_completed())
        await world.run_for(5 * SECOND)
        await self.crowd(world, 1_100, each=timedelta())
        requests = len(world.github.requests)
        await world.run_for(HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts) == (State.SENDING, 1)
        assert len(world.github.requests) == requests

    @pytest.mark.parametrize("lost", [None, Fault.FAIL_BEFORE])
    async def test_the_end_of_a_run_that_is_listed_no_more(self, lost: Fault | None) -> None:
        """It waited for an approval while others started more runs than a search reaches: it is asked for by its id."""
        world = World([DEPLOY])
        world.github.takes = 2 * HOUR
        await world.deliver(run_completed())
        await world.run_for(MINUTE)
        world.queue.messages.clear()
        await self.crowd(world, 5_100, each=SECOND)
        world.plan = on("get_run", lost)
        await world.run_for(HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts, row.conclusion) == (State.DONE, 1, "success")

    @pytest.mark.parametrize("fate", ["success", "unstarted"])
    async def test_two_runs_on_two_pages(self, fate: str) -> None:
        """A dispatch of two runs, between which a page ends: the one that ended does not speak for both."""
        world = World([DEPLOY])
        world.github.takes = 9 * HOUR
        await world.deliver(run_completed())
        await world.run_for(MINUTE)
        going = world.github.runs[0]
        ended = replace(going, id=2, created=going.created + SECOND, ends=world.now + 2 * MINUTE, fate=fate)
        world.github.runs.append(ended)
        await world.run_for(MINUTE)
        await self.crowd(world, 99, each=timedelta())
        await world.run_for(HOUR)
        (row,) = world.ledger()
        assert (row.state, row.attempts, row.run_id, row.other_runs) == (State.CONFIRMED, 1, 1, (2,))

    async def test_the_stand_in_lists_as_github_does(self) -> None:
        """A thousand at most, the newest first, both ends of the span included."""
        world = World([DEPLOY])
        world.github.starts_after = timedelta()
        await self.crowd(world, 1_050, each=SECOND)
        start = world.now - 1_050 * SECOND
        last = await world.github.list_runs("octo/models", "repository_dispatch", Span(start), 10)
        none = await world.github.list_runs("octo/models", "repository_dispatch", Span(start), 11)
        both = await world.github.list_runs("octo/models", "repository_dispatch", Span(start, start + SECOND), 1)
        assert [answer.body.count("display_title") for answer in (last, none, both) if isinstance(answer, Answer)] == [
            100,
            0,
            2,
        ]
