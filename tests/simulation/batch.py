"""Many histories, on several processors."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from .history import History
from .invariants import violations
from .script import script

CHUNK = 250
_BETWEEN_COLLECTIONS = 5  # young garbage is thrown away fastest

Failed = list[tuple[int, list[str]]]
"""Seeds whose histories broke a promise, with what they broke."""


def run_chunk(seeds: range) -> Failed:
    """Run these seeds one after the other."""
    quiet = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    gc.collect()
    gc.freeze()
    gc.disable()  # a history is one large cycle, best thrown away whole
    try:
        failed = []
        for number, seed in enumerate(seeds):
            if number % _BETWEEN_COLLECTIONS == 0:
                gc.collect()
            found = violations(History(script(seed)).run())
            if found:
                failed.append((seed, found))
        return failed
    finally:
        gc.enable()
        gc.unfreeze()
        logging.disable(quiet)


def run_seeds(first: int, count: int, processes: int) -> Iterator[tuple[int, Failed]]:
    """Run `count` seeds from `first` on; gives, chunk by chunk and in order, how many were run and which failed."""
    end = first + count
    chunks = [range(start, min(start + CHUNK, end)) for start in range(first, end, CHUNK)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _end_with_parent, (os.getpid(),)) as pool:
        for chunk, failed in zip(chunks, pool.map(run_chunk, chunks), strict=True):
            yield len(chunk), failed


def _end_with_parent(parent: int) -> None:
    """A pool's processes wait for work for ever once whoever hands it out was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
