"""The runner: plays a script against the real flow over the simulated store, queue, GitHub and time."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from flow.memory import MemoryQueue, Message, SimulatedGitHub

from functions.core.dispatch import Dispatch, State
from functions.core.github import Answer, NoAnswer
from functions.core.parking import MOST_UNHEARD_PROBES
from functions.core.routes import Route
from functions.core.values import JsonObject

from .loop import VirtualLoop
from .process import Died, Process, at_once
from .script import START, Delivery, Script
from .store import QuickStore

FAULTS = ("fail before", "fail after", "die before", "die after", "wait before", "wait after")

_SENDING = frozenset({"create_dispatch", "start_workflow"})

VISIBILITY = 10.0
MOST_DELIVERIES = 5
EVENT_GRID_WAITS = 30.0
LONGEST_STALL = 8.0
LATEST_RUN = 20.0
"""Seconds after which a run appears at the latest whose dispatch nobody knows to be accepted: less than RUN_SETTLES."""

NEVER = timedelta(days=1000)

MOST_TURNS = 60_000
_LONGEST = 4 * 24 * 3600.0

Plant = Callable[[Any, Process], Any]


@dataclass(frozen=True)
class Acknowledged:
    """Events that were answered 2xx, and by which routes they were to be taken."""

    delivery: Delivery
    routes: tuple[Route, ...]


class _Queue(MemoryQueue):
    def __init__(self, history: History) -> None:
        super().__init__(lambda: history.now)
        self._history = history

    async def send(self, message: JsonObject, delay: timedelta = timedelta()) -> None:
        await super().send(message, delay)
        sent = self.messages[-1]
        self._history.after(max(delay.total_seconds(), 0.0), self._history.message_due, sent, sent.deliveries)


class History:
    """What one script led to. `trace` holds every call of a port; `violations` in `invariants` judges the rest."""

    def __init__(self, script: Script, *, plant: Plant | None = None, fault_at: tuple[int, str] | None = None) -> None:
        """`plant` may wrap the store of each process; `fault_at` puts one fault at the call of that number."""
        self.script = script
        self.chance = random.Random(script.seed + 1_000_003)
        self.loop = VirtualLoop()
        self.store = QuickStore(lambda: self.now)
        self.store.most_blocks = script.most_blocks
        self.queue = _Queue(self)
        self.github = SimulatedGitHub(lambda: self.now)
        self.github.takes = timedelta(seconds=script.takes)
        self.github.names_runs = script.names_runs
        self.trace: list[tuple[float, int, str, tuple[Any, ...], str]] = []
        self.acknowledged: list[Acknowledged] = []
        self.errors: list[BaseException] = []
        self.final_since: dict[str, datetime] = {}
        """When each dispatch came to its end."""
        self.turns: dict[str, set[tuple[str, datetime]]] = {}
        """Of each route with a budget: which dispatch was given which turns."""
        self.ended = False
        self._accepts_anyway = False
        self._plant, self._fault_at = plant, fault_at
        self._calm = script.calm
        self._processes: list[Process] = []
        self._started = 0
        self._tokens = 0
        self._undelivered = len(script.deliveries)
        self._now = (0.0, START)

    def run(self) -> History:
        """Play the script to its end, or until it does not end."""
        script = self.script
        for _ in range(script.instances):
            self._start()
        for delivery in script.deliveries:
            step = (self._give_up, delivery) if delivery.given_up else (self._deliver, delivery, 1)
            self.loop.at(delivery.moment, *step)
        if script.later_routes is not None:
            self.loop.at(script.calm * script.later_from, self._start_later)
            self.loop.at(script.calm, self._only_later)
        self.loop.at(script.timer, self._timer)
        self.ended = self.loop.run(MOST_TURNS) and self.loop.moment < _LONGEST
        return self

    # Time, chance and what goes wrong.

    @property
    def now(self) -> datetime:
        """The true time."""
        if self._now[0] != self.loop.moment:
            self._now = (self.loop.moment, START + timedelta(seconds=self.loop.moment))
        return self._now[1]

    @property
    def is_calm(self) -> bool:
        """True where nothing goes wrong any more."""
        return self.loop.moment >= self._calm

    def after(self, delay: float, callback: Callable[..., Any], *args: Any) -> None:
        """Call `callback` after so many seconds."""
        self.loop.at(self.loop.moment + delay, callback, *args)

    def token(self) -> str:
        """A text that never comes twice."""
        self._tokens += 1
        return f"token-{self._tokens}"

    def plant(self, store: Any, process: Process) -> Any:
        """The store for a process: wrapped where a bug is planted."""
        return self._plant(store, process) if self._plant else store

    def latency(self) -> float:
        """Seconds until a call arrives."""
        if self.loop.moment >= self._calm:
            return 0.01
        script, random = self.script, self.chance.random
        if script.stalls and random() < script.stalls:
            return random() * LONGEST_STALL
        return random() * script.latency

    def answer_delay(self) -> float:
        """Seconds until an answer is there; mostly none, for the next call takes time to arrive, too."""
        if self.loop.moment >= self._calm or self.chance.random() < 0.85:
            return 0.0
        return self.chance.random() * self.script.latency

    def called(self, process: Process, method: str, arguments: tuple[Any, ...]) -> str:
        """A call arrives: note it, and say what goes wrong with it ("" for nothing)."""
        fault = ""
        if self._fault_at is not None:
            if self._fault_at[0] == len(self.trace):
                fault = self._fault_at[1]
        elif not self.is_calm and self.script.faults and self.chance.random() < self.script.faults:
            fault = FAULTS[int(self.chance.random() * len(FAULTS))]
        if method in _SENDING:
            self._before_dispatch()
        elif (
            method in {"list_runs", "get_run", "list_jobs"}
            and not self.is_calm
            and self.chance.random() < self.script.faults
        ):
            fault = "fail before"
        self.trace.append((self.loop.moment, process.number, method, arguments, fault))
        return fault

    def took_effect(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A call took effect, whatever its caller hears of that."""
        if method == "replace_dispatch" and arguments[0].is_final:
            self.final_since[arguments[0].id] = self.now
        elif method == "write_spending":
            self.turns.setdefault(arguments[0].route, set()).update(arguments[0].slots)
        elif method == "replace_dispatch" and self.script.unheard and arguments[0].state is State.SENT:
            self._maybe_late(arguments[0])
        elif method in _SENDING and self._accepts_anyway:
            self._accepts_anyway = False
            at_once(getattr(self.github, method)(*arguments))

    def _before_dispatch(self) -> None:
        """What GitHub will do with the request that arrives now."""
        github, chance = self.github, self.chance
        github.answers.clear()
        github.fates.clear()
        github.listens = True
        self._accepts_anyway = False
        slow = not self.is_calm and chance.random() < 0.3
        github.starts_after = timedelta(seconds=chance.random() * (LATEST_RUN if slow else 2.0))
        if self.is_calm or self._fault_at is not None:
            return
        if chance.random() < self.script.faults / 4:
            github.fates.append(chance.choice(("unstarted", "cancelled", "failure")))
        odd = chance.random()
        if self.script.gateway and odd < 0.3:
            github.answers.append(Answer(502))
            self._accepts_anyway = True
        elif odd < self.script.faults * 2:
            answer, github.listens = _odd_answer(chance, self.now)
            github.answers.append(answer)

    def _maybe_late(self, dispatch: Dispatch) -> None:
        """GitHub said 204, and that stands in the ledger: now its run may come much later, or never."""
        runs = self.github.runs
        for index, run in enumerate(runs):
            if run.dispatch_id == dispatch.id and run.created > self.now and self.chance.random() < self.script.unheard:
                late = timedelta(seconds=30 + self.chance.random() * 400)
                late = NEVER if self.chance.random() < 0.4 else late
                runs[index] = replace(run, created=run.created + late, ends=run.ends + late)
                return

    # Processes.

    def _start(self, *, later: bool = False) -> None:
        script = self.script
        self._started += 1
        routes = script.later_routes if later and script.later_routes is not None else script.routes
        skew = (self.chance.random() - 0.5) * script.skew
        self._processes.append(Process(self, self._started, routes, later=later, skew=skew))

    def _start_later(self) -> None:
        self._start(later=True)

    def _only_later(self) -> None:
        """The old version is stopped; its handlers die with it."""
        self._start(later=True)
        for process in [one for one in self._processes if not one.later]:
            process.die()

    def process_died(self, process: Process) -> None:
        """Start another one of its version in its place after a while."""
        self._processes.remove(process)
        self.after(1.0 + self.chance.random() * 5, self._restart, process.later)

    def _restart(self, later: bool) -> None:
        """The old version does not come back once only the later one is to run."""
        over = self.script.later_routes is not None and self.loop.moment >= self.script.calm
        if len(self._processes) <= self.script.instances:
            self._start(later=later or over)

    def _any(self) -> Process | None:
        return self._processes[int(self.chance.random() * len(self._processes))] if self._processes else None

    # Event Grid, queue and timer.

    def _deliver(self, delivery: Delivery, attempt: int) -> None:
        """One attempt. Event Grid waits 30 seconds for an answer, then tries again: 10 s, 30 s, a minute, … later."""
        self._calm = max(self._calm, min(self.loop.moment + 30.0, delivery.moment + 30.0))
        process = self._any()
        if process is None:
            self.after(5.0, self._deliver, delivery, attempt)
            return
        settled = False

        def over(error: BaseException | None) -> None:
            nonlocal settled
            self._note(error)
            if settled:
                return
            settled = True
            if error is None:
                self._undelivered -= 1
                self.acknowledged.append(Acknowledged(delivery, process.routes))
            elif delivery.raw is not None and attempt >= MOST_DELIVERIES:
                self._give_up(delivery)
            else:
                self.after((5.0, 10.0, 30.0, 60.0)[min(attempt, 4) - 1], self._deliver, delivery, attempt + 1)

        intake = process.app.intake
        step = (
            intake.take_message(delivery.raw)
            if delivery.raw is not None
            else intake.take_value(delivery.events[0].value)
        )
        process.handle(step, over)
        self.after(EVENT_GRID_WAITS, lambda: None if settled else over(TimeoutError()))

    def _give_up(self, delivery: Delivery) -> None:
        """The host gave up a message of the events queue: its text stands in the poison queue, until the timer comes.

        Whichever version takes it up then: the routes that both have must take its events.
        """
        assert delivery.raw is not None
        later = self.script.later_routes
        names = {route.name for route in (self.script.routes if later is None else later)}
        self._undelivered -= 1
        self.acknowledged.append(
            Acknowledged(delivery, tuple(route for route in self.script.routes if route.name in names))
        )
        self.queue.events_poison.append(Message(base64.b64encode(delivery.raw).decode("ascii"), self.now))

    def message_due(self, message: Message, deliveries: int) -> None:
        """A message became visible: for the first time, or because nobody deleted it in time."""
        if message.deliveries != deliveries or message not in self.queue.messages:
            return
        if message.deliveries >= MOST_DELIVERIES:
            self.queue.messages.remove(message)
            self.queue.poison.append(message)
            return
        process = self._any()
        if process is None:
            self.after(1.0, self.message_due, message, deliveries)
            return
        message.deliveries += 1
        mine = message.deliveries
        message.visible = self.now + timedelta(seconds=VISIBILITY)
        self.after(VISIBILITY, self.message_due, message, mine)

        def over(error: BaseException | None) -> None:
            self._note(error)
            if error is None and message.deliveries == mine and message in self.queue.messages:
                self.queue.messages.remove(message)

        process.handle(process.app.work(json.loads(message.body)), over)

    def _timer(self) -> None:
        """Reconcile, until nothing is left to do and nothing more is to come."""
        is_idle = not self.unfinished() and not any(one.is_busy for one in self._processes)
        if is_idle and self.is_calm and self._undelivered == 0 and not self._message_soon():
            self.loop.end()
            return
        if self.loop.moment > _LONGEST:
            self.loop.end()
            return
        process = self._any()
        if process is not None and not is_idle:
            process.handle(process.app.reconcile(), self._note)
        pause = self.script.timer
        if is_idle and self._undelivered and not self._message_soon():
            waiting = [one.moment for one in self.script.deliveries if one.moment > self.loop.moment]
            pause = max(pause, min(waiting, default=0.0) - self.loop.moment)
        self.after(pause, self._timer)

    def _message_soon(self) -> bool:
        """True while a message is under way that may still do something; alarms of windows without a line ring on."""
        soon = self.now + timedelta(minutes=20)
        return any(message.visible < soon and '"kind":"window"' not in message.body for message in self.queue.messages)

    def _note(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Died | TimeoutError):
            self.errors.append(error)

    # What is left.

    def effective(self) -> Counter[str]:
        """How many runs each dispatch started, without those that GitHub cancelled before they began."""
        last = self.now + NEVER / 2
        return Counter(run.dispatch_id for run in self.github.runs if run.created < last and run.fate != "unstarted")

    def ledger(self) -> list[Dispatch]:
        """All dispatches, in the order of their creation."""
        return list(self.store.rows.values())

    def unfinished(self) -> list[str]:
        """What somebody still has to do, in words. A window that was opened and never got a line is nothing to do."""
        left = []
        for head in self.store.heads.values():
            segments = [self.store.segments.get(head.current.sibling(n).name) for n in range(head.segment + 1)]
            if head.unfinished:
                left.append(f"window {head.unfinished} of {head.route} '{head.key}' is not in the ledger")
            if head.is_open and any(blob and blob.blocks for blob in segments):
                left.append(f"window {head.number} of {head.route} '{head.key}' is open")
        for row in self.store.rows.values():
            asked_for = row.is_unheard and row.unheard >= MOST_UNHEARD_PROBES  # by now only a person goes on with it
            if not row.is_final and not asked_for:
                left.append(f"dispatch {row.id} is {row.state}")
        left += ["a message of the events queue's poison" for _ in self.queue.events_poison]
        return left


def _odd_answer(chance: random.Random, now: datetime) -> tuple[Answer | NoAnswer, bool]:
    """An answer of GitHub that is no plain 204, and whether a run follows where it was accepted."""
    message = '{"message": "You have exceeded a secondary rate limit"}'
    answers: tuple[tuple[Answer | NoAnswer, bool], ...] = (
        (NoAnswer("time-out", reached=True), True),
        (NoAnswer("time-out", reached=True), True),
        (NoAnswer("reset", reached=True), False),
        (NoAnswer("refused", reached=False), True),
        (Answer(429, {"retry-after": "20"}), True),
        (Answer(403, {"retry-after": "5"}), True),
        (Answer(403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(now.timestamp()) + 40)}), True),
        (Answer(403, {}, message), True),
        (Answer(403), True),
        (Answer(500), True),
        (Answer(503, {"retry-after": "30"}), True),
        (Answer(401), True),
        (Answer(404), True),
        (Answer(301, {"location": "https://api.github.com/repositories/1/dispatches"}), True),
        (Answer(422, {}, '{"message": "no"}'), True),
    )
    return answers[int(chance.random() * len(answers))]
