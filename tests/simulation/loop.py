"""An event loop over virtual time: what is scheduled happens in one order, and nothing ever waits."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class VirtualLoop(asyncio.AbstractEventLoop):
    """Enough of a loop for tasks and futures. `time` is in seconds and moves when everything that is ready has run."""

    def __init__(self) -> None:
        self.moment = 0.0
        self.turns = 0
        self.faults: list[str] = []
        self._ready: deque[tuple[Callable[..., Any], tuple[Any, ...], Any]] = deque()
        self._due: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._scheduled = 0
        self._ended = False

    def at(self, moment: float, callback: Callable[..., Any], *args: Any) -> None:
        """Call `callback` at a moment, in seconds."""
        self._scheduled += 1
        heapq.heappush(self._due, (moment, self._scheduled, callback, args))

    def end(self) -> None:
        """Stop after what is under way."""
        self._ended = True

    def run(self, most_turns: int) -> bool:
        """Run until `end` or until nothing is due. False where that takes more than `most_turns`."""
        asyncio._set_running_loop(self)
        try:
            ready, due = self._ready, self._due
            while not self._ended:
                while ready:
                    callback, args, context = ready.popleft()
                    context.run(callback, *args) if context else callback(*args)
                if not due:
                    return True
                self.turns += 1
                if self.turns > most_turns:
                    return False
                self.moment, _, call, given = heapq.heappop(due)
                call(*given)
            return True
        finally:
            asyncio._set_running_loop(None)

    # What tasks and futures ask of a loop.

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> None:  # type: ignore[override]
        self._ready.append((callback, args, context))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, step: Coroutine[Any, Any, Any], **_: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = asyncio.Task(step, loop=self)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # tasks of a dead process just end
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def time(self) -> float:
        return self.moment

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What asyncio would only log is kept; a history in which it happens fails."""
        self.faults.append(str(context.get("exception") or context.get("message")))
