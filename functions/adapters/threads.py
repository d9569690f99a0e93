"""Blocking calls of the SDKs run in threads, so that the one event loop of Microsoft's worker is never held up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

THREADS = 32
_storage = ThreadPoolExecutor(THREADS, thread_name_prefix="signalbox-storage")
_github = ThreadPoolExecutor(THREADS, thread_name_prefix="signalbox-github")
"""GitHub has its own: a storage that hangs must not hold up a dispatch that is `sending`, nor GitHub the intake."""


def in_thread(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a blocking method that calls storage an awaitable one."""
    return _awaitable(method, _storage)


def in_github_thread(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a blocking method that calls GitHub an awaitable one."""
    return _awaitable(method, _github)


def _awaitable(
    method: Callable[Concatenate[S, P], T], pool: ThreadPoolExecutor
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    @wraps(method)
    async def call(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, partial(method, self, *args, **kwargs))

    return cast("Callable[Concatenate[S, P], Coroutine[Any, Any, T]]", call)


async def iterate_in_thread(chunks: Iterator[list[T]]) -> AsyncIterator[T]:
    """The items of blocking `chunks`, fetching each chunk in a thread."""
    loop = asyncio.get_running_loop()
    while (chunk := await loop.run_in_executor(_storage, next, chunks, None)) is not None:
        for item in chunk:
            yield item
