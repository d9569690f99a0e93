"""Budgets: how many dispatches a route may send in a span of time, and whose turn comes when.

Each dispatch claims a slot: a moment from which it may go. Slots are given out in the order of the claims, so that
nothing is asked twice and nobody is overtaken.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from functions.core.routes import LARGEST_BUDGET, Budget
from functions.core.values import compact_json, format_time, parse_time

STANDS_FOR = timedelta(minutes=1)
"""A slot stands at least for so long: its message comes some seconds late. Were it given up with a shorter span, those
that wait would come too late for it, ask for another one behind all others, and never go."""


@dataclass(frozen=True, slots=True)
class Spending:
    """The slots of a route that still count, in the order of their moments.

    `slots` are (dispatch id, moment from which it may go); `version` is the row's ETag, "" where it is not stored yet.
    """

    route: str
    slots: tuple[tuple[str, datetime], ...] = ()
    version: str = ""

    def to_text(self) -> str:
        """The row as one ASCII text, without its route and version."""
        return compact_json({"v": 1, "slots": [[name, format_time(moment)] for name, moment in self.slots]})

    @staticmethod
    def from_text(route: str, line: str, version: str) -> Spending:
        """Read back what `to_text` wrote."""
        slots = tuple((str(name), parse_time(moment)) for name, moment in json.loads(line)["slots"])
        return Spending(route, slots, version)


def claim(spending: Spending, budget: Budget, dispatch_id: str, now: datetime) -> tuple[Spending, datetime]:
    """The spending with a slot for this dispatch, and the moment from which it may go (`now` or later).

    Whoever claims again gets the same slot, until that is older than the budget's span and STANDS_FOR. Where more
    claims wait than the row can hold, the spending comes back as it was, with the moment at which to claim again.
    """
    stands_for = max(budget.per, STANDS_FOR)
    kept = [(name, moment) for name, moment in spending.slots if now - moment < stands_for]
    for name, moment in kept:
        if name == dispatch_id:
            return spending, max(moment, now)
    if len(kept) >= LARGEST_BUDGET:
        return spending, kept[0][1] + stands_for
    turn = now
    if len(kept) >= budget.dispatches:
        turn = max(now, kept[-budget.dispatches][1] + budget.per)
    slots = sorted([*kept, (dispatch_id, turn)], key=lambda slot: slot[1])
    return replace(spending, slots=tuple(slots)), turn
