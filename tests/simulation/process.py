"""One process of the function app inside a history, and its ports: each call takes time, and may go wrong."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from functions.core.github import NoAnswer
from functions.core.routes import Route
from functions.flow.orchestrator import Orchestrator
from functions.flow.ports import GitHub, StorageUnavailable

from .script import ACCOUNT
from .store import LaterStore

if TYPE_CHECKING:
    from .history import History

REPOSITORY = "octo/models"

LONG = 12.0
"""Seconds that a call waits which is to wait: longer than a message stays invisible."""

_GITHUB = {name for name in vars(GitHub) if not name.startswith("_")}

Outcome = Callable[[BaseException | None], None]
Effect = Callable[..., Coroutine[Any, Any, Any]]


class Died(BaseException):
    """The process died while it did this."""


class Process:
    """An instance of one version of the app. Once dead, none of its calls goes on."""

    def __init__(self, history: History, number: int, routes: tuple[Route, ...], *, later: bool, skew: float) -> None:
        self.history, self.number, self.routes, self.later = history, number, routes, later
        self.alive = True
        self._skew = timedelta(seconds=skew)
        self._handlers: dict[asyncio.Task[Any], Outcome] = {}
        store = LaterStore(history.store) if later and history.script.later_format else history.store
        self.app = Orchestrator.build(
            routes=routes,
            store=_Port(self, history.plant(store, self)),  # type: ignore[arg-type]
            queue=_Port(self, history.queue),  # type: ignore[arg-type]
            github=_Port(self, history.github),  # type: ignore[arg-type]
            clock=self,
            chance=self,
            repository=REPOSITORY,
            data_accounts=frozenset({ACCOUNT}),
        )

    def handle(self, step: Coroutine[Any, Any, Any], outcome: Outcome) -> None:
        """Start a handler; `outcome` gets None, its error, or Died."""
        task = self.history.loop.create_task(step)
        self._handlers[task] = outcome

        def over(done: asyncio.Task[Any]) -> None:
            error = done.exception()
            if self._handlers.pop(done, None) is not None:
                outcome(error)

        task.add_done_callback(over)

    @property
    def is_busy(self) -> bool:
        """True while a handler has not ended."""
        return bool(self._handlers)

    def die(self) -> None:
        """Nothing of this process goes on from here."""
        self.alive = False
        dying, self._handlers = self._handlers, {}
        for outcome in dying.values():
            outcome(Died())
        self.history.process_died(self)

    # Clock and Chance.

    def now(self) -> datetime:
        return self.history.now + self._skew

    async def sleep(self, delay: timedelta) -> None:
        answer = self.history.loop.create_future()
        self.history.after(delay.total_seconds(), self._answer, answer, None, None)
        await answer

    def token(self) -> str:
        return self.history.token()

    def share(self) -> float:
        return self.history.chance.random()

    # Calls of ports.

    def call(self, method: str, arguments: tuple[Any, ...], effect: Effect) -> asyncio.Future[Any]:
        """One call: it arrives after a while, takes effect in one moment, and its answer comes after another while."""
        history = self.history
        loop = history.loop
        answer: asyncio.Future[Any] = asyncio.Future(loop=loop)
        loop.at(loop.moment + history.latency(), self._arrive, method, arguments, effect, answer)
        return answer

    def _arrive(self, method: str, arguments: tuple[Any, ...], effect: Effect, answer: asyncio.Future[Any]) -> None:
        if not self.alive:
            return
        fault = self.history.called(self, method, arguments)
        if fault == "die before":
            self.die()
        elif fault == "fail before":
            self._reply(answer, *_failed(method, reached=False))
        elif fault == "wait before":
            self.history.after(LONG, self._take_effect, method, arguments, effect, answer, "")
        else:
            self._take_effect(method, arguments, effect, answer, fault)

    def _take_effect(
        self, method: str, arguments: tuple[Any, ...], effect: Effect, answer: asyncio.Future[Any], fault: str
    ) -> None:
        """What is under way takes effect even where its process died meanwhile."""
        result, error = None, None
        try:
            result = at_once(effect(*arguments))
            self.history.took_effect(method, arguments)
        except Exception as raised:
            error = raised
        if not fault:
            self._reply(answer, result, error)
        elif fault == "die after" and self.alive:
            self.die()
        elif fault == "fail after":
            self._reply(answer, *_failed(method, reached=True))
        elif fault == "wait after":
            self.history.after(LONG, self._answer, answer, result, error)
        else:
            self._reply(answer, result, error)

    def _reply(self, answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        delay = self.history.answer_delay()
        if delay:
            self.history.after(delay, self._answer, answer, result, error)
        else:
            self._answer(answer, result, error)

    def _answer(self, answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        if not self.alive or answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)


def _failed(method: str, *, reached: bool) -> tuple[Any, Exception | None]:
    if method in _GITHUB:
        return NoAnswer(f"simulated fault of {method}", reached=reached), None
    return None, StorageUnavailable(f"simulated fault of {method}")


def at_once(step: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits: the stores in memory."""
    try:
        step.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a simulated port waited")


@cache
def _kind_of(function: Callable[..., Any]) -> str:
    """What a method of a port gives: lines, an answer, or a value at once."""
    if inspect.isasyncgenfunction(function):
        return "lines"
    return "call" if inspect.iscoroutinefunction(function) else "value"


class _Port:
    """A port as one process sees it."""

    def __init__(self, process: Process, port: Any) -> None:
        self._process, self._real = process, port

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)
        process = self._process
        kind = _kind_of(getattr(method, "__func__", method))
        seen: Any
        if kind == "lines":

            async def read(*arguments: Any) -> list[Any]:
                return [item async for item in method(*arguments)]

            async def lines(*arguments: Any) -> AsyncIterator[Any]:
                for item in await process.call(name, arguments, read):
                    yield item

            seen = lines
        elif kind == "call":

            def call(*arguments: Any) -> asyncio.Future[Any]:
                return process.call(name, arguments, method)

            seen = call
        else:
            seen = method
        setattr(self, name, seen)
        return seen
