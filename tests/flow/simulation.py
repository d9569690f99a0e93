"""A simulated world: state account, work queue, GitHub and time, with a fault wherever a test wants one.

Everything happens in virtual time and in one order, so that a history that failed fails again. `World.plan` is asked
before every call that an instance makes; what it answers happens to that call.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any

from functions.core import manifest
from functions.core.dispatch import Dispatch, State
from functions.core.github import NoAnswer
from functions.core.routes import Route
from functions.flow.intake import Fate
from functions.flow.orchestrator import Orchestrator
from functions.flow.ports import StorageUnavailable

from .memory import MemoryQueue, MemoryStore, Message, SimulatedGitHub

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
REPOSITORY = "octo/models"
ACCOUNT = "acme"

_VISIBILITY = timedelta(seconds=10)
_MOST_DELIVERIES = 5
_RECONCILE = timedelta(minutes=5)
_MOST_TURNS = 20_000


class Fault(Enum):
    """What can happen to a call: storage fails, or the instance dies, before or after the call took effect."""

    FAIL_BEFORE = auto()
    FAIL_AFTER = auto()
    CRASH_BEFORE = auto()
    CRASH_AFTER = auto()


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an instance: the how-manieth of this world (from 0), by whom, and which method of a port."""

    number: int
    instance: int
    method: str
    arguments: tuple[Any, ...]


Plan = Callable[[Call], "Fault | Awaitable[None] | None"]


class Died(Exception):
    """The instance died while it did this."""


class World:
    """State that outlives every instance, and the time that passes for all of them."""

    def __init__(self, routes: Iterable[Route], *, seed: int = 0) -> None:
        """`routes` are those of every instance that is started without others."""
        self.routes = tuple(routes)
        self.random = random.Random(seed)
        self.now = START
        self.store = MemoryStore(lambda: self.now)
        self.queue = MemoryQueue(lambda: self.now)
        self.github = SimulatedGitHub(lambda: self.now)
        self.plan: Plan = lambda _: None
        self.slow: dict[str, timedelta] = {}
        self.calls: list[Call] = []
        self.errors: list[Exception] = []
        self.given_up = 0
        self._instances = 0
        self._tokens = 0
        self._reconciled = START
        self._turns = 0

    def start(self, routes: Iterable[Route] | None = None) -> Instance:
        """Start another instance of the app, with empty memory."""
        self._instances += 1
        return Instance(self, self._instances, self.routes if routes is None else tuple(routes))

    def token(self) -> str:
        """A text that never comes twice."""
        self._tokens += 1
        return f"token-{self._tokens}"

    def pass_time(self, delay: timedelta) -> None:
        """Let time pass for everybody."""
        self.now += delay

    async def deliver(self, *events: Any, by: Instance | None = None) -> list[Fate]:
        """Deliver events one after the other as Event Grid does: again and again, until each was answered 2xx."""
        instance = by or self.start()
        fates = []
        for event in events:
            for _ in range(100):
                try:
                    fates.append(await instance.run(instance.app.intake.take_value(event)))
                    break
                except (StorageUnavailable, Died):
                    self.pass_time(timedelta(seconds=10))
                    instance = instance if instance.alive else self.start()
            else:
                raise AssertionError("no delivery of an event was ever answered")
        return fates

    async def finish(self, *instances: Instance, within: timedelta = timedelta(hours=3)) -> None:
        """Let queue and timer do their work until nothing is left to do, or the time is over."""
        end = self.now + within
        workers = list(instances) or [self.start()]
        while not self.is_idle() and self.now < end:
            await self._turn(workers, end)

    async def run_for(self, span: timedelta, *instances: Instance) -> None:
        """Let queue and timer do their work for exactly so long."""
        end = self.now + span
        workers = list(instances) or [self.start()]
        while self.now < end:
            await self._turn(workers, end)

    async def _turn(self, workers: list[Instance], end: datetime) -> None:
        """The next message or the timer, by the next worker; or the end, where nothing comes before it."""
        self._turns += 1
        if self._turns > _MOST_TURNS:
            raise AssertionError(f"the work does not end: {len(self.queue.messages)} messages at {self.now}")
        worker = workers.pop(0)
        workers.append(worker if worker.alive else self.start(worker.routes))
        worker = workers[-1]
        message, timer = self.queue.first(), self._reconciled + _RECONCILE
        due = min(timer, message.visible) if message else timer
        if due > end:
            self.now = end
            return
        self.now = max(self.now, due)
        if message is None or timer < message.visible:
            self._reconciled = self.now
            await self._try(worker, worker.app.reconcile())
            return
        message.visible, message.deliveries = self.now + _VISIBILITY, message.deliveries + 1
        if await self._try(worker, worker.app.work(json.loads(message.body))):
            self.queue.messages.remove(message)
        elif message.deliveries >= _MOST_DELIVERIES:
            self.queue.messages.remove(message)
            self.queue.poison.append(Message(message.body, self.now))
            self.given_up += 1

    async def _try(self, worker: Instance, step: Awaitable[None]) -> bool:
        try:
            await worker.run(step)
        except Died:
            return False
        except Exception as error:
            self.errors.append(error)
            return False
        return True

    def is_idle(self) -> bool:
        """True once no window, no dispatch and no message is left that somebody has to look at."""
        if self.queue.messages or any(head.is_open or head.unfinished for head in self.store.heads.values()):
            return False
        return all(row.is_final or row.state is State.PARKED for row in self.ledger())

    def ledger(self) -> list[Dispatch]:
        """All dispatches, in the order of their creation."""
        return [Dispatch.from_text(text, version) for text, version in self.store.ledger.values()]

    def listed(self) -> Counter[tuple[str, str]]:
        """How often each (path, sequencer) stands in the manifests of dispatches in the ledger."""
        listed: Counter[tuple[str, str]] = Counter()
        for row in self.ledger():
            for line in self.store.manifests[row.id][1].splitlines() if row.manifest else ():
                entry = json.loads(line)
                listed[entry["subject"].split("/blobs/", 1)[-1], entry["sequencer"]] += 1
        return listed


class Instance:
    """One process of the function app. Its calls go through the world's plan; once dead, it calls no more."""

    def __init__(self, world: World, number: int, routes: tuple[Route, ...]) -> None:
        self.world, self.number, self.routes = world, number, routes
        self.died = asyncio.Event()
        self.app = Orchestrator.build(
            routes=routes,
            store=_Gate(self, world.store),  # type: ignore[arg-type]
            queue=_Gate(self, world.queue),  # type: ignore[arg-type]
            github=_Gate(self, world.github),  # type: ignore[arg-type]
            clock=_Clock(world),
            chance=_Chance(world),
            repository=REPOSITORY,
            data_accounts=frozenset({ACCOUNT}),
        )

    @property
    def alive(self) -> bool:
        """False once it died."""
        return not self.died.is_set()

    async def run(self, step: Awaitable[Any]) -> Any:
        """Do one step in this process. Raises Died where the process did not live to its end."""
        task = asyncio.ensure_future(step)
        death = asyncio.ensure_future(self.died.wait())
        await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if self.alive:
            return await task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise Died

    async def call(self, method: str, arguments: tuple[Any, ...], effect: Callable[[], Awaitable[Any]]) -> Any:
        """One call of a port: with whatever the plan has for it."""
        await asyncio.sleep(0)
        if not self.alive:
            raise asyncio.CancelledError
        call = Call(len(self.world.calls), self.number, method, arguments)
        self.world.calls.append(call)
        fault = self.world.plan(call)
        if inspect.isawaitable(fault):
            await fault
            fault = None
        if fault is Fault.CRASH_BEFORE:
            self._die()
        if fault is Fault.FAIL_BEFORE:
            return self._fail(method, took_effect=False)
        result = await effect()
        self.world.pass_time(self.world.slow.get(method, timedelta()))
        if fault is Fault.CRASH_AFTER:
            self._die()
        return self._fail(method, took_effect=True) if fault is Fault.FAIL_AFTER else result

    def _die(self) -> None:
        self.died.set()
        raise asyncio.CancelledError

    def _fail(self, method: str, *, took_effect: bool) -> NoAnswer:
        if method in {"create_dispatch", "start_workflow", "list_runs", "get_run", "list_jobs"}:
            return NoAnswer(f"simulated fault of {method}", reached=took_effect)
        raise StorageUnavailable(f"simulated fault of {method}")


class _Gate:
    """A port as one instance sees it."""

    def __init__(self, instance: Instance, port: Any) -> None:
        self._instance, self._port = instance, port

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if inspect.iscoroutinefunction(method):

            async def call(*arguments: Any) -> Any:
                return await self._instance.call(name, arguments, lambda: method(*arguments))

            return call
        if inspect.isasyncgenfunction(method):

            async def lines(*arguments: Any) -> AsyncIterator[Any]:
                async def read() -> list[Any]:
                    return [item async for item in method(*arguments)]

                for item in await self._instance.call(name, arguments, read):
                    yield item

            return lines
        return method


@dataclass
class _Clock:
    world: World

    def now(self) -> datetime:
        return self.world.now

    async def sleep(self, delay: timedelta) -> None:
        self.world.pass_time(delay)
        await asyncio.sleep(0)


@dataclass
class _Chance:
    world: World

    def token(self) -> str:
        return self.world.token()

    def share(self) -> float:
        return self.world.random.random()


def at(number: int, fault: Fault) -> Plan:
    """A plan with one fault, at the call of this number."""
    return lambda call: fault if call.number == number else None


def on(method: str, *faults: Fault | None) -> Plan:
    """A plan in which the first calls of a method meet these faults, one after the other."""
    left = deque(faults)
    return lambda call: left.popleft() if call.method == method and left else None


def identities(world: World, dispatch_id: str) -> list[str]:
    """The identities that a dispatch's manifest lists."""
    return list(manifest.identities(world.store.manifests[dispatch_id][1].splitlines()))
