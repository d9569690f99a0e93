"""`signalbox replay`: dead letters go back into intake, parked dispatches back to `ready`. Dry run unless --yes."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from functions.adapters.account import StateStorage
from functions.adapters.dead_letters import DeadLetterBox
from functions.adapters.history import History
from functions.adapters.queues import AzureQueue
from functions.adapters.storage import AzureStore
from functions.adapters.system import SystemChance, SystemClock
from functions.core.dead_letters import DeadLetter, Prospect, prospect, replayed
from functions.core.dispatch import Dispatch, State
from functions.core.parking import at_todays_door, doors_of
from functions.flow.intake import Fate, Intake
from functions.flow.ports import Conflict
from functions.flow.window_writer import WindowWriter
from functions.settings import Settings
from local.commands import surroundings
from local.commands.dead_letters import title
from local.commands.plain import plain
from local.commands.surroundings import CommandError, Surroundings

_AT_ONCE = 200
"""Letters taken in together, so that they share appends; those of one blob always are."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters and dispatches were asked for; what is empty or None does not narrow the choice."""

    ids: frozenset[str]
    route: str
    since: datetime | None
    until: datetime | None

    def letter(self, letter: DeadLetter, outlook: Prospect) -> bool:
        """Whether this dead letter was asked for: by its own id or its event's, by a route that takes it, by time."""
        named = not self.ids or letter.id in self.ids or bool(letter.event_id and letter.event_id in self.ids)
        return named and (not self.route or self.route in outlook.keys) and self._in_span(letter.time)

    def dispatch(self, dispatch: Dispatch) -> bool:
        """Whether this dispatch was asked for. One that GitHub refused for good has to be named by its id."""
        named = dispatch.id in self.ids if self.ids else dispatch.state is State.PARKED
        return named and self.route in ("", dispatch.route) and self._in_span(dispatch.created)

    def _in_span(self, time: datetime) -> bool:
        return (self.since is None or time >= self.since) and (self.until is None or time <= self.until)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay would do. `useless` are letters that intake would only refuse or drop again."""

    letters: list[tuple[DeadLetter, Prospect]]
    useless: list[tuple[DeadLetter, Prospect]]
    dispatches: list[Dispatch]

    def lines(self) -> Iterable[str]:
        """The plan for a person."""
        for letter, outlook in self.letters:
            yield title(letter)
            yield from (f"  to {route}, key '{key}'" for route, key in outlook.keys.items())
        for dispatch in self.dispatches:
            yield f"{dispatch.id}  {dispatch.route}, key '{dispatch.key}', {dispatch.event_count} events"
            yield f"  {dispatch.state}: {dispatch.reason}"
        for letter, outlook in self.useless:
            yield title(letter)
            yield f"  stays: {outlook.obstacle}"


def run(options: argparse.Namespace) -> int:
    """Say what would be replayed; with --yes do it."""
    found = surroundings.of(options)
    wanted = found.settings()
    choice = Choice(frozenset(options.id), options.route or "", options.since, options.until)
    with surroundings.asking(found):
        storage = found.storage()
        plan = _plan(found, wanted, storage, choice)
        print("\n".join([f"in {found.place}:", *map(plain, plan.lines())]))
        what = f"{_count(len(plan.letters), 'dead letter')} and {_count(len(plan.dispatches), 'dispatch')}"
        if not plan.letters and not plan.dispatches:
            print("nothing to replay")
        elif not options.yes:
            print(f"would replay {what}; nothing was changed, add --yes to do it")
        else:
            again = asyncio.run(_replay(plan, storage, intake(found, wanted, storage)))
            print(f"replayed {what}")
            if again:
                raise CommandError(f"{_count(again, 'dead letter')} could not be used this time either and stay")
    return 0


def intake(found: Surroundings, wanted: Settings, storage: StateStorage) -> Intake:
    """The function app's own intake, over the same state."""
    store, queue, clock, chance = AzureStore(storage), AzureQueue(storage), SystemClock(), SystemChance()
    writer = WindowWriter(store, queue, clock, chance)
    return Intake(found.routes(), store, queue, writer, clock, chance, wanted.repository, wanted.data_accounts)


def _plan(found: Surroundings, wanted: Settings, storage: StateStorage, choice: Choice) -> Plan:
    routes = found.routes()
    if choice.route and choice.route not in {route.name for route in routes}:
        raise CommandError(f"--route {choice.route}: the routes are {', '.join(route.name for route in routes)}")
    plan = Plan([], [], [])
    for letter in DeadLetterBox(storage).letters():
        outlook = prospect(letter, routes, wanted.data_accounts)
        if choice.letter(letter, outlook):
            (plan.letters if outlook.keys else plan.useless).append((letter, outlook))
    history = History(storage)
    states = (State.PARKED, State.DEAD) if choice.ids else (State.PARKED,)
    plan.dispatches.extend(
        dispatch for state in states for dispatch in history.dispatches_in(state) if choice.dispatch(dispatch)
    )
    known = {dispatch.id for dispatch in plan.dispatches}
    known |= {one for letter, _ in plan.letters + plan.useless for one in (letter.id, letter.event_id)}
    if unknown := sorted(choice.ids - known):
        raise CommandError(
            f"no dead letter or parked dispatch among the chosen has the id {', '.join(unknown)}: "
            "'signalbox dead-letters' lists them, and 'signalbox trace' tells where a dispatch stands"
        )
    return plan


async def _replay(plan: Plan, storage: StateStorage, door: Intake) -> int:
    """Take in, then put away: a crash in between leaves the letter, and taking it in twice is a duplicate like any.

    Gives how many letters intake refused again; those stay.
    """
    box = DeadLetterBox(storage)
    refused = 0
    for batch in _batches([letter for letter, _ in plan.letters]):
        fates = await asyncio.gather(*(door.take_value(letter.event) for letter in batch))
        taken = [letter for letter, fate in zip(batch, fates, strict=True) if fate is Fate.TAKEN]
        refused += len(batch) - len(taken)
        for _, letters in groupby(taken, key=lambda letter: (letter.container, letter.blob)):
            await asyncio.to_thread(box.put_away, list(letters))
    for dispatch in plan.dispatches:
        await _wake(dispatch, door)
    return refused


def _batches(letters: list[DeadLetter]) -> Iterable[list[DeadLetter]]:
    """Letters in turn, never parting those of one blob."""
    batch: list[DeadLetter] = []
    for _, of_blob in groupby(letters, key=lambda letter: (letter.container, letter.blob)):
        batch += of_blob
        if len(batch) >= _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


async def _wake(dispatch: Dispatch, door: Intake) -> None:
    """The row first, then the message: where that is lost, the reconcile timer sends it."""
    try:
        await door.store.replace_dispatch(replayed(at_todays_door(dispatch, doors_of(door.routes, door.repository))))
    except Conflict:
        return  # it moves already
    await door.queue.send({"kind": "send", "dispatch": dispatch.id})


def _count(number: int, what: str) -> str:
    plural = "es" if what.endswith("ch") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"
