"""`scripts/simulate SEED [N]`: run N histories from a seed on, or replay one with all its calls."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from .batch import run_seeds
from .history import History
from .invariants import violations
from .report import trace_of
from .script import script

_REPORT_EACH = 10_000


def replay(seed: int) -> int:
    """Print what came in, every call and what was broken."""
    logging.disable(logging.CRITICAL)
    history = History(script(seed)).run()
    found = violations(history)
    print("\n".join([*trace_of(history), *(f"BROKEN {one}" for one in found)]))
    print(f"seed {seed}: {len(found)} promises broken" if found else f"seed {seed}: every promise held")
    return bool(found)


def run_many(first: int, count: int, processes: int) -> int:
    """Print the seeds that broke a promise, the trace of the first of them, and the rate."""
    started, done = time.monotonic(), 0
    broken: list[int] = []
    for size, failed in run_seeds(first, count, processes):
        done += size
        for seed, found in failed:
            broken.append(seed)
            print(f"seed {seed}: {'; '.join(found)}", flush=True)
        if done % _REPORT_EACH == 0:
            rate = done / (time.monotonic() - started)
            print(f"{done} histories, {rate:.0f}/s, {len(broken)} broken", file=sys.stderr, flush=True)
    rate = done / (time.monotonic() - started)
    if broken:
        replay(broken[0])
        print(f"replay any of them with: make simulate SEED={broken[0]} N=1")
    print(f"{done} histories, seeds {first} to {first + count - 1}: {len(broken)} broken, {rate:.0f} histories/s")
    return bool(broken)


def main() -> int:
    """Exit status 1 where a history broke a promise."""
    parser = argparse.ArgumentParser(prog="simulate", description="Whole histories of the flow, one for each seed.")
    parser.add_argument("seed", type=int, help="the first seed")
    parser.add_argument("count", type=int, nargs="?", default=1, help="seeds from there on; 1 prints every call")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    return replay(given.seed) if given.count == 1 else run_many(given.seed, given.count, given.processes)


if __name__ == "__main__":
    sys.exit(main())
