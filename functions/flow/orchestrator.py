"""The whole flow put together: what each trigger of the function app calls."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

from functions.core.parking import doors_of
from functions.core.routes import Route
from functions.core.values import JsonObject
from functions.flow.budget_keeper import BudgetKeeper
from functions.flow.housekeeper import Housekeeper
from functions.flow.intake import Intake
from functions.flow.ports import Chance, Clock, GitHub, Queue, Store
from functions.flow.sender import Sender
from functions.flow.window_closer import WindowCloser
from functions.flow.window_writer import WindowWriter

_log = logging.getLogger("signalbox.work")

_SWEPT_UNTIL = 5
"""Old windows are looked for once an hour, by the timer's first run in it: a listing reads every blob's name."""


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """Intake, window closer, sender and housekeeper over one store, queue, GitHub and clock."""

    intake: Intake
    closer: WindowCloser
    sender: Sender
    housekeeper: Housekeeper
    store: Store
    clock: Clock

    @staticmethod
    def build(
        *,
        routes: tuple[Route, ...],
        store: Store,
        queue: Queue,
        github: GitHub,
        clock: Clock,
        chance: Chance,
        repository: str,
        data_accounts: frozenset[str],
    ) -> Orchestrator:
        """Wire the flow. `repository` is OWNER/NAME; `data_accounts` are storage account names in lower case."""
        writer = WindowWriter(store, queue, clock, chance)
        by_name = {route.name: route for route in routes}
        budgets = BudgetKeeper(by_name, store, clock)
        intake = Intake(routes, store, queue, writer, clock, chance, repository, data_accounts)
        return Orchestrator(
            intake=intake,
            closer=WindowCloser(by_name, store, queue, clock, chance, budgets, repository),
            sender=Sender(store, queue, github, clock, chance, budgets, doors_of(routes, repository)),
            housekeeper=Housekeeper(store, queue, intake, clock),
            store=store,
            clock=clock,
        )

    async def work(self, message: JsonObject) -> None:
        """Handle one message of the work queue. An error lets the queue deliver it again."""
        match message:
            case {"kind": "window", "route": str(route), "key": str(key), "alarm": str(token)}:
                await self.closer.ring(route, key, token)
            case {"kind": "send", "dispatch": str(dispatch_id)}:
                await self.sender.send(dispatch_id)
            case {"kind": "watch", "repository": str(repository), "token": str(token)}:
                await self.sender.watch(repository, token)
            case _:
                raise ValueError(f"no work message that this version knows: {message}")

    async def reconcile(self) -> None:
        """Find every unfinished thing that a crash can leave, and have it go on.

        Each step is gone whatever became of those before: where no table answers, poison still has to be kept from
        expiring. The first fault is raised at the end.
        """
        steps = [self._finish_windows, self.sender.resume, self.housekeeper.take_up_poison]
        if self.clock.now().minute < _SWEPT_UNTIL:
            steps.append(self.housekeeper.sweep)
        faults: list[Exception] = []
        for step in steps:
            try:
                await step()
            except Exception as fault:  # raised below
                faults.append(fault)
        if faults:
            raise faults[0]

    async def _finish_windows(self) -> None:
        for head in await self.store.heads_to_look_at():
            try:
                await self.closer.look(head.route, head.key)
            except Exception:  # one broken window must not keep the others from going on
                _log.exception("window of route %s, key %a cannot be finished", head.route, head.key)

    async def status(self) -> JsonObject:
        """Counts of what is under way, for the status page."""
        heads = await self.store.heads_to_look_at()
        dispatches = await self.store.unfinished_dispatches()
        return {
            "open_windows": sum(head.is_open for head in heads),
            "unfinished_windows": sum(bool(head.unfinished) for head in heads),
            "dispatches": {str(state): count for state, count in Counter(item.state for item in dispatches).items()},
            "routes": [route.name for route in self.intake.routes],
        }
