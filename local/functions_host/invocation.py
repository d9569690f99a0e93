"""Runs functions: `async def` ones on the host's loop, others in a pool of processors + 4 threads.

That is what the platform's Python worker does, so that code which blocks its loop is slow here as well.
https://learn.microsoft.com/azure/azure-functions/python-scale-performance-reference
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.functions_host.bindings import Payload, decode
from local.functions_host.index import HostedFunction

log = logging.getLogger("host")
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s%(invocation)s: %(message)s"

_current: contextvars.ContextVar[str] = contextvars.ContextVar("invocation", default="")
_thread_local = threading.local()


class InvocationFilter(logging.Filter):
    """Gives every log record the function and the invocation that it was written in."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, with `invocation` set: empty outside of functions."""
        record.invocation = _current.get()
        return True


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The W3C trace of the call; nothing traces on one machine."""

    trace_parent: str = ""
    trace_state: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RetryContext:
    """The host's own retries; none of the served triggers has any."""

    retry_count: int = 0
    max_retry_count: int = 0
    exception: None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a function's `context` parameter receives; shaped like azure.functions.Context."""

    invocation_id: str
    function_name: str
    function_directory: Path
    thread_local_storage: threading.local = _thread_local
    trace_context: TraceContext = TraceContext()
    retry_context: RetryContext = RetryContext()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an invocation ended."""

    succeeded: bool
    result: Any = None


class Invoker:
    """Runs invocations and knows which are under way. `workers` threads serve the `def` functions."""

    def __init__(self, workers: int | None = None) -> None:
        count = workers or (os.cpu_count() or 1) + 4
        self._pool = ThreadPoolExecutor(max_workers=count, thread_name_prefix="function")
        self._running: set[asyncio.Task[Outcome]] = set()
        self._stopping = False

    async def invoke(
        self, function: HostedFunction, payload: Payload, finish: Callable[[Any], Any] = lambda result: result
    ) -> Outcome:
        """Convert, run, and pass the result through `finish`; an exception in any of them is logged, not raised.

        The invocation goes on when its caller is cancelled, so that a client which hangs up takes nothing with it.
        """
        if self._stopping:
            return Outcome(False)
        task = asyncio.create_task(self._run(function, payload, finish))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def drain(self, seconds: float) -> int:
        """Take no new work, wait up to `seconds` for what runs; answers how many invocations did not finish."""
        self._stopping = True
        self._pool.shutdown(wait=False)
        if not self._running:
            return 0
        _, unfinished = await asyncio.wait(self._running, timeout=seconds)
        return len(unfinished)

    async def _run(self, function: HostedFunction, payload: Payload, finish: Callable[[Any], Any]) -> Outcome:
        invocation_id = str(uuid.uuid4())
        _current.set(f" [{function.name} {invocation_id}]")
        started = time.perf_counter()
        try:
            result = finish(await self._call(function, payload, invocation_id))
        except Exception:
            log.exception("Executed %s (Failed, %d ms)", function.name, _milliseconds(started))
            return Outcome(False)
        log.info("Executed %s (Succeeded, %d ms)", function.name, _milliseconds(started))
        return Outcome(True, result)

    async def _call(self, function: HostedFunction, payload: Payload, invocation_id: str) -> Any:
        arguments = {function.parameter: decode(function.trigger_type, payload)}
        if function.wants_context:
            arguments["context"] = Context(invocation_id, function.name, function.directory)
        if function.is_async:
            result = await function.call(**arguments)
        else:
            result = await self._in_thread(function, arguments, invocation_id)
        if result is not None and not function.returns:
            raise TypeError(f"function {function.name} returned a value, but has no output binding for it")
        return result

    async def _in_thread(self, function: HostedFunction, arguments: dict[str, Any], invocation_id: str) -> Any:
        context = contextvars.copy_context()

        def call() -> Any:
            _thread_local.invocation_id = invocation_id
            return context.run(function.call, **arguments)

        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


def _milliseconds(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)
