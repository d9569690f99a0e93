"""Keeping a route inside of its budget, for all instances of the app at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from functions.core.budget import Spending, claim
from functions.core.routes import Route
from functions.flow.ports import Clock, Conflict, StorageUnavailable, Store

_MOST_TURNS = 25
"""Changes of the row that one claim may meet: each is another claim's success."""


@dataclass(frozen=True, slots=True)
class BudgetKeeper:
    """Gives dispatches their turns. A route without a budget costs no call."""

    routes: Mapping[str, Route]
    store: Store
    clock: Clock

    async def wait(self, route_name: str, dispatch_id: str) -> timedelta | None:
        """None where the dispatch may go now, else how long until its turn. Raises StorageUnavailable."""
        route = self.routes.get(route_name)
        if route is None or route.budget is None:
            return None
        for _ in range(_MOST_TURNS):
            spending = await self.store.read_spending(route_name) or Spending(route_name)
            now = self.clock.now()
            claimed, turn = claim(spending, route.budget, dispatch_id, now)
            if claimed is not spending:
                try:
                    await self.store.write_spending(claimed)
                except Conflict:
                    continue
            return turn - now if turn > now else None
        raise StorageUnavailable(f"the budget of route '{route_name}' changed {_MOST_TURNS} times in one claim")
