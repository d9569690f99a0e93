"""From a ledger row to a confirmed run: send, look for the run, and never send twice what GitHub may have taken."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from functions.core.dispatch import (
    LATEST_START,
    Dispatch,
    State,
    Step,
    after_answer,
    after_listing,
    after_no_start,
    are_found,
    begin,
    next_look,
    to_look_into,
)
from functions.core.github import (
    LONGEST_LIMIT,
    Answer,
    NoAnswer,
    Run,
    is_limit,
    read_dispatch_answer,
    read_run,
    wait_for,
)
from functions.core.jobs import read_began
from functions.core.parking import at_todays_door, wake
from functions.core.payload import build_inputs, build_request, jittered
from functions.core.values import format_time
from functions.flow.budget_keeper import BudgetKeeper
from functions.flow.patience import patiently
from functions.flow.ports import Chance, Clock, Conflict, GitHub, Queue, StorageUnavailable, Store, Watch
from functions.flow.run_search import Found, NoListing, RunSearch

_log = logging.getLogger("signalbox.dispatch")

_FIRST_LOOK = timedelta(seconds=2)

_LATEST_LOOK = timedelta(minutes=1)
"""A look that is so late will not come: its message was lost. Longer than a message waits in a busy queue."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Works off ledger rows, one message at a time. `doors` are those that the routes have in this version."""

    store: Store
    queue: Queue
    github: GitHub
    clock: Clock
    chance: Chance
    budgets: BudgetKeeper
    doors: Mapping[str, tuple[str, str, str]]

    async def send(self, dispatch_id: str) -> None:
        """Send one dispatch, if its turn has come. Whoever stores `sending` first sends; the others go away."""
        dispatch = await self.store.read_dispatch(dispatch_id)
        if dispatch is None:
            return
        if dispatch.state is State.SENDING:
            # Somebody is at it, or crashed: the watch finds out. Its leader's token also ends copies of this message.
            await self.start_watch(dispatch.repository)
            return
        step = begin(dispatch, self.clock.now())
        if step.dispatch is dispatch:
            if step.again is not None:
                await self._again(dispatch, step.again)
            return
        until = await self.store.limited_until()
        if until is not None and until > self.clock.now():
            pause = jittered(until - self.clock.now(), self.chance.share())
            await self._put_off(dispatch, pause, "GitHub asked another dispatch to come later")
            return
        wait = await self.budgets.wait(dispatch.route, dispatch.id)
        if wait is not None:
            await self._put_off(dispatch, wait, f"the budget of route '{dispatch.route}' is used up")
            return
        try:
            sending = await self.store.replace_dispatch(step.dispatch)
        except Conflict:
            return
        answer = await self._post(sending)
        now = self.clock.now()
        verdict = read_dispatch_answer(
            answer,
            repository=sending.repository,
            workflow=sending.workflow,
            ref=sending.ref,
            attempt=sending.attempts,
            now=now,
        )
        await self._settle(sending, after_answer(sending, verdict, now))
        if isinstance(answer, Answer) and is_limit(answer):
            await self._note_limit(now + min(wait_for(answer, sending.attempts, now), LONGEST_LIMIT))

    async def _post(self, sending: Dispatch) -> Answer | NoAnswer:
        if sending.sending_since is not None and self.clock.now() - sending.sending_since > LATEST_START:
            # This machine or storage stood still: others may be about to take it for dead, and to send it themselves.
            return NoAnswer("storing that it is being sent took too long, so it was not sent", reached=False)
        if sending.workflow:
            return await self.github.start_workflow(sending.repository, sending.workflow, build_inputs(sending))
        return await self.github.create_dispatch(sending.repository, build_request(sending))

    async def _put_off(self, ready: Dispatch, wait: timedelta, why: str) -> None:
        """It keeps its place until its turn comes."""
        turn = self.clock.now() + wait
        put_off = replace(ready, not_before=turn, reason=f"{why} until {format_time(turn)}")
        with suppress(Conflict):
            await self._send_in_time(await self.store.replace_dispatch(put_off))

    async def _note_limit(self, until: datetime) -> None:
        """Have the other dispatches wait, too: limits are the token's, and who sends on may be shut out for good.

        Best effort: the dispatch that met it waits in any case, and the next one that meets it notes it again.
        """
        with suppress(StorageUnavailable):
            standing = await self.store.limited_until()
            if standing is None or standing < until:
                await self.store.limit_until(until)

    async def _settle(self, sending: Dispatch, step: Step) -> None:
        stored = await patiently(self.clock, partial(self._store_answer, sending, step.dispatch))
        if stored is None:
            return
        _log.info("dispatch %s: %s %s", stored.id, stored.state, stored.reason)
        if stored.waits_for_run:
            await self.start_watch(sending.repository)
        elif step.again is not None:
            await self._again(stored, step.again)

    async def _store_answer(self, sending: Dispatch, answered: Dispatch) -> Dispatch | None:
        """Store what GitHub said; None where the dispatch's run was found before its answer came."""
        try:
            return await self.store.replace_dispatch(answered)
        except Conflict:
            # Also where this very write took effect and only its answer was lost.
            standing = await self.store.read_dispatch(sending.id)
            return standing if standing == answered else None

    async def _again(self, dispatch: Dispatch, delay: timedelta) -> None:
        message = {"kind": "send", "dispatch": dispatch.id}
        await self.queue.send({**message}, jittered(delay, self.chance.share()))

    async def start_watch(self, repository: str) -> None:
        """Have the runs of a repository listed soon, but not before GitHub allows it.

        A newer watch takes over from every older one, unless that one's look is just about to come: were dispatches
        that follow each other to take over and over, no look would ever come.
        """
        leader = await self.store.watch_leader(repository)
        now = self.clock.now()
        if leader is not None and leader.not_before is not None and now < leader.not_before + _LATEST_LOOK:
            return
        watch = Watch(self.chance.token(), now + _FIRST_LOOK)
        await self.store.lead_watch(repository, watch)
        await self._look_again(repository, watch.token, _FIRST_LOOK)

    async def _look_again(self, repository: str, token: str, delay: timedelta) -> None:
        await self.queue.send({"kind": "watch", "repository": repository, "token": token}, delay)

    async def _look_later(self, repository: str, token: str, wait: timedelta) -> None:
        """GitHub is left alone so long, also by watches that start meanwhile."""
        await self.store.lead_watch(repository, Watch(token, self.clock.now() + wait))
        await self._look_again(repository, token, wait)

    async def watch(self, repository: str, token: str) -> None:
        """One listing confirms all of a repository's waiting dispatches; goes on while any is waiting."""
        leader = await self.store.watch_leader(repository)
        if leader is None or leader.token != token:
            return
        await self.store.lead_watch(repository, Watch(token))  # who comes from now on may be too late for this look
        rows = await self.store.unfinished_dispatches()
        waiting = [item for item in rows if item.repository == repository and item.waits_for_run]
        if not waiting:
            return
        # Here and not only by the timer: what was accepted shows parked ones that they may go, until its run has ended.
        to_watch = await self._wake(rows)
        for other in sorted(to_watch - {repository}):
            await self.start_watch(other)
        until = await self.store.limited_until()
        asked = self.clock.now()  # a run that appears while the listing is under way is not on it
        if until is not None and until > asked:
            await self._look_later(repository, token, until - asked)
            return
        left: list[Dispatch] = []
        pages = 0
        for trigger in sorted({item.trigger for item in waiting}):
            sought = [item for item in waiting if item.trigger == trigger]
            found = await RunSearch(self.github, self.clock).search(repository, trigger, sought)
            if isinstance(found, NoListing):
                await self._note(sought, found.reason)
                await self._look_later(repository, token, found.wait)
                return
            left += [item for dispatch in sought if (item := await self._look(dispatch, found, asked)) is not None]
            pages += found.pages
        if left or repository in to_watch:
            await self._look_again(repository, token, next_look(left, self.clock.now(), pages))

    async def _note(self, waiting: list[Dispatch], reason: str) -> None:
        """Where a person must mend something before their runs can be found, the accepted ones say so."""
        for dispatch in waiting:
            if reason and dispatch.state is State.SENT and dispatch.reason != reason:
                with suppress(Conflict):  # somebody else moved it
                    await self.store.replace_dispatch(replace(dispatch, reason=reason))

    async def _look(self, dispatch: Dispatch, found: Found, asked: datetime) -> Dispatch | None:
        """Store what the search that was begun then says; gives the dispatch while it still waits for its run."""
        runs = found.runs
        if not found.whole and not are_found(dispatch, runs):
            known = await self._known_runs(dispatch)
            if known is None:
                return dispatch  # what is missing may be among those that were not listed
            runs = known
        changed = after_listing(dispatch, runs, asked)
        cancelled = to_look_into(dispatch, runs)
        if cancelled:
            began = await self._began(dispatch.repository, cancelled)
            if began is None:
                return dispatch
            if not began:
                changed = after_no_start(dispatch, cancelled, asked)
        again = tuple(run.id for run in runs if run.id in dispatch.unstarted)
        if changed.state is State.READY and again:
            began = await self._began(dispatch.repository, again)
            if began is None:
                return dispatch
            if began:  # somebody ran it again and cancelled that, all of it between two looks
                changed = after_listing(replace(dispatch, unstarted=()), runs, asked)
        if replace(changed, looked=dispatch.looked) != dispatch:
            try:
                changed = await self.store.replace_dispatch(changed)
            except Conflict:
                return dispatch  # somebody else moved it; the next listing sees it as it is then
            _log.info("dispatch %s: %s %s %s", changed.id, changed.state, changed.conclusion, changed.reason)
        if changed.state is State.READY:
            await self._send_in_time(changed)
        return changed if changed.waits_for_run else None

    async def _known_runs(self, dispatch: Dispatch) -> tuple[Run, ...] | None:
        """The runs of a confirmed dispatch, asked for one by one; None where GitHub does not say, or none is known."""
        if dispatch.state is not State.CONFIRMED or dispatch.run_id is None:
            return None
        known: list[Run] = []
        for run_id in (dispatch.run_id, *dispatch.other_runs):
            run = read_run(await self.github.get_run(dispatch.repository, run_id))
            if run is None:
                return None
            known += run
        return tuple(known)

    async def _began(self, repository: str, runs: tuple[int, ...]) -> bool | None:
        """Whether any of the runs ever began; None where GitHub does not say now."""
        found = [read_began(await self.github.list_jobs(repository, run)) for run in runs]
        return True if True in found else None if None in found else False

    async def _send_in_time(self, ready: Dispatch) -> None:
        delay = timedelta() if ready.not_before is None else max(ready.not_before - self.clock.now(), timedelta())
        await self.queue.send({"kind": "send", "dispatch": ready.id}, delay)

    async def resume(self) -> None:
        """Wake parked dispatches whose time came, and find what a crash left.

        That is `ready` without a message, and repositories whose watch was lost.
        """
        rows = await self.store.unfinished_dispatches()
        to_watch = await self._wake(rows)
        now = self.clock.now()
        for dispatch in rows:
            if dispatch.state is State.READY and (dispatch.not_before is None or dispatch.not_before <= now):
                await self._send_in_time(dispatch)
            elif dispatch.waits_for_run:
                to_watch.add(dispatch.repository)
        for repository in sorted(to_watch):
            await self.start_watch(repository)

    async def _wake(self, rows: list[Dispatch]) -> set[str]:
        """Let the parked ones among all unfinished rows go on whose time came; gives repositories to watch for it."""
        to_watch: set[str] = set()
        for dispatch in wake([at_todays_door(row, self.doors) for row in rows], self.clock.now()):
            with suppress(Conflict):  # somebody else woke it
                woken = await self.store.replace_dispatch(dispatch)
                _log.info("dispatch %s goes on, parked because %s", woken.id, woken.reason)
                if woken.state is State.READY:
                    await self._send_in_time(woken)
                else:
                    to_watch.add(woken.repository)
        return to_watch
