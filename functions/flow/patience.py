"""Own retries of storage calls: bounded, so that Event Grid's 30 seconds are not outlasted by one of them.

An event that several routes take, or that waits for an append that fails, may take several times as long; Event Grid
then delivers it again meanwhile, which is a duplicate like any.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from functions.flow.ports import Clock, StorageUnavailable

T = TypeVar("T")

PATIENCE = timedelta(seconds=20)
_FIRST_PAUSE = timedelta(milliseconds=200)
_LONGEST_PAUSE = timedelta(seconds=3)


async def patiently(clock: Clock, step: Callable[[], Awaitable[T]]) -> T:
    """Do `step`, which must bear repetition, until it succeeds; after 20 seconds raise its StorageUnavailable."""
    start, pause = clock.now(), _FIRST_PAUSE
    while True:
        try:
            return await step()
        except StorageUnavailable:
            if clock.now() + pause - start > PATIENCE:
                raise
        await clock.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
