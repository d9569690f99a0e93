"""When a parked dispatch goes on by itself: a slow probe finds out whether its cause was mended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from functions.core.dispatch import Dispatch, State
from functions.core.routes import Route

FIRST_PROBE = timedelta(minutes=15)
LONGEST_PROBE = timedelta(hours=6)

MOST_UNHEARD_PROBES = 3
"""GitHub accepts what no workflow listens to each time anew, so asking on would only spend its limits."""

WAKING_PACE = timedelta(seconds=1)
"""Between dispatches that wake together: GitHub takes 80 requests a minute that create something."""


def doors_of(routes: Iterable[Route], repository: str) -> dict[str, tuple[str, str, str]]:
    """The door that each route has, by its name; `repository` is where those dispatch to that name no other."""
    return {route.name: (route.repository or repository, route.workflow, route.ref) for route in routes}


def at_todays_door(row: Dispatch, doors: Mapping[str, tuple[str, str, str]]) -> Dispatch:
    """A dispatch that GitHub refused, at the door that its route has now: what was mended may be the door.

    A repository was renamed, or a route named a workflow or a ref that is not there. GitHub did nothing at the old
    door, so nothing starts twice. What it accepted stays where its run is looked for.
    """
    if row.state not in {State.PARKED, State.DEAD} or row.sent is not None:
        return row
    repository, workflow, ref = doors.get(row.route, row.door)
    return replace(row, repository=repository, workflow=workflow, ref=ref)


def wake(rows: Iterable[Dispatch], now: datetime) -> list[Dispatch]:
    """The parked dispatches that go on now, in their next state, oldest first; not stored yet.

    `rows` are all unfinished dispatches. Of those that were refused at one door, the oldest goes alone, as a probe:
    after 15 minutes, then doubling up to 6 hours. Once anything was accepted there after they were parked, the rest
    follow. A repository has a door for repository_dispatch and one for each workflow: they ask for other permissions.
    One that went unheard has its run looked for first, and is sent again only where there is none; three times, however
    often it was a probe before GitHub accepted it.
    """
    by_door: dict[tuple[str, ...], list[Dispatch]] = defaultdict(list)
    for row in rows:
        by_door[row.door].append(row)
    return [woken for group in by_door.values() for woken in _wake(group, now)]


def _wake(group: list[Dispatch], now: datetime) -> Iterator[Dispatch]:
    parked = sorted((row for row in group if row.state is State.PARKED), key=lambda row: (row.created, row.id))
    for row in parked:
        if row.is_unheard and row.unheard < MOST_UNHEARD_PROBES and _due(row, row.unheard, now):
            yield replace(row, state=State.SENDING, sending_since=row.sent, unheard=row.unheard + 1)
    refused = [row for row in parked if not row.is_unheard]
    accepted = max((row.sent for row in group if row.sent is not None), default=None)
    mended = [row for row in refused if accepted is not None and accepted > _parked(row)]
    for place, row in enumerate(mended):
        yield replace(row, state=State.READY, not_before=now + place * WAKING_PACE)
    under_way = any(row.probes and row.state in {State.READY, State.SENDING} for row in group)
    if refused and not mended and not under_way and _due(refused[0], refused[0].probes, now):
        yield replace(refused[0], state=State.READY, not_before=None, probes=refused[0].probes + 1)


def _due(row: Dispatch, times: int, now: datetime) -> bool:
    return now - _parked(row) >= min(FIRST_PROBE * (1 << min(times, 10)), LONGEST_PROBE)


def _parked(row: Dispatch) -> datetime:
    """When it was parked; rows that an older version parked do not say."""
    return row.parked or row.created
