"""From a ledger row to a confirmed run: send, look for the run, and never send twice what GitHub may have taken."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from functions.core.dispatch import (
    LOOK_BEFORE,
    Dispatch,
    State,
    Step,
    after_answer,
    after_listing,
    begin,
    next_look,
)
from functions.core.github import Answer, Run, read_dispatch_answer, read_runs, wait_for
from functions.core.payload import build_request, jittered
from functions.flow.patience import patiently
from functions.flow.ports import Chance, Clock, Conflict, GitHub, Queue, Store

_log = logging.getLogger("signalbox.dispatch")

_MOST_PAGES = 10  # GitHub lists no more than 1,000 runs of a search
_FIRST_LOOK = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Sender:
    """Works off ledger rows, one message at a time."""

    store: Store
    queue: Queue
    github: GitHub
    clock: Clock
    chance: Chance

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
        try:
            sending = await self.store.replace_dispatch(step.dispatch)
        except Conflict:
            return
        answer = await self.github.create_dispatch(sending.repository, build_request(sending))
        now = self.clock.now()
        verdict = read_dispatch_answer(answer, repository=sending.repository, attempt=sending.attempts, now=now)
        await self._settle(sending, after_answer(sending, verdict, now))

    async def _settle(self, sending: Dispatch, step: Step) -> None:
        stored = await patiently(self.clock, partial(self._store_answer, sending, step.dispatch))
        if stored is None:
            return
        _log.info("dispatch %s: %s %s", stored.id, stored.state, stored.reason)
        if stored.state in {State.SENT, State.SENDING}:
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
        """Have the runs of a repository listed soon. A newer watch takes over from every older one."""
        token = self.chance.token()
        await self.store.lead_watch(repository, token)
        await self.queue.send({"kind": "watch", "repository": repository, "token": token}, _FIRST_LOOK)

    async def watch(self, repository: str, token: str) -> None:
        """One listing confirms all of a repository's waiting dispatches; goes on while any is waiting."""
        if await self.store.watch_leader(repository) != token:
            return
        waiting = [
            item
            for item in await self.store.unfinished_dispatches()
            if item.repository == repository and item.waits_for_run
        ]
        if not waiting:
            return
        asked = self.clock.now()  # a run that appears while the listing is under way is not on it
        listed = await self._runs(repository, waiting)
        if isinstance(listed, timedelta):
            await self.queue.send({"kind": "watch", "repository": repository, "token": token}, listed)
            return
        left = [item for dispatch in waiting if (item := await self._look(dispatch, listed, asked)) is not None]
        if left:
            delay = next_look(left, self.clock.now(), pages=1 + len(listed) // 100)
            await self.queue.send({"kind": "watch", "repository": repository, "token": token}, delay)

    async def _look(self, dispatch: Dispatch, runs: tuple[Run, ...], asked: datetime) -> Dispatch | None:
        """Store what the listing that was asked for then says; gives the dispatch while it still waits for its run."""
        changed = after_listing(dispatch, runs, asked)
        if (changed.state, changed.run_id, changed.reason) != (dispatch.state, dispatch.run_id, dispatch.reason):
            try:
                changed = await self.store.replace_dispatch(changed)
            except Conflict:
                return dispatch  # somebody else moved it; the next listing sees it as it is then
            _log.info("dispatch %s: %s %s %s", changed.id, changed.state, changed.conclusion, changed.reason)
        if changed.state is State.READY:
            await self.queue.send({"kind": "send", "dispatch": changed.id})
        return changed if changed.waits_for_run else None

    async def _runs(self, repository: str, waiting: list[Dispatch]) -> tuple[Run, ...] | timedelta:
        """Runs since shortly before the oldest waiting dispatch was sent, or how long to leave GitHub alone."""
        since = min(item.sent or item.sending_since or item.created for item in waiting) - LOOK_BEFORE
        missing = {item.id for item in waiting}
        found: list[Run] = []
        for page in range(1, _MOST_PAGES + 1):
            answer = await self.github.list_runs(repository, since, page)
            runs = read_runs(answer) if isinstance(answer, Answer) else None
            if runs is None:
                _log.warning("cannot list the runs of %s: %s", repository, answer)
                return wait_for(answer, 1, self.clock.now()) if isinstance(answer, Answer) else timedelta(seconds=30)
            found.extend(runs)
            missing = {one for one in missing if not any(one in run.title for run in runs)}
            if not missing or len(runs) < 100:
                break
        return tuple(found)

    async def resume(self) -> None:
        """Find what a crash left: `ready` without a message, and repositories whose watch was lost."""
        by_repository: dict[str, list[Dispatch]] = defaultdict(list)
        now = self.clock.now()
        for dispatch in await self.store.unfinished_dispatches():
            if dispatch.state is State.READY and (dispatch.not_before is None or dispatch.not_before <= now):
                await self.queue.send({"kind": "send", "dispatch": dispatch.id})
            elif dispatch.waits_for_run:
                by_repository[dispatch.repository].append(dispatch)
        for repository in by_repository:
            await self.start_watch(repository)
