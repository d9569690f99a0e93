"""What sharing appends brings: many concurrent callers of the window writer, beside one append an event.

    python bench/group_commit.py [--events N] [--rounds N]

Both go to the same real Azurite over the same adapter, with the same callers at once; they take turns, so that a
noisy machine disturbs both alike. Only the ratio says something beyond this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from functions.adapters.account import StateStorage
from functions.adapters.queues import AzureQueue
from functions.adapters.storage import AzureStore
from functions.adapters.system import SystemChance, SystemClock
from functions.core.events import parse
from functions.core.routes import Route
from functions.core.routes_file import load_routes
from functions.core.windows import Line, Segment
from functions.flow.ports import Append
from functions.flow.window_writer import WindowWriter
from functions.settings import StateAccount
from local import azurite
from local.provision import provision
from local.sockets import free_port

CALLERS = 64
ROUTES = """
routes:
  - name: bench
    on: Microsoft.Storage.BlobCreated
    key: folder
    settle: {quiet: 1h, max_wait: 6h}
"""


def line(number: int) -> bytes:
    """One event as a window keeps it."""
    path = f"digits/part-{number:06d}.csv"
    event = {
        "id": f"{number:08x}-0000-4000-8000-000000000000",
        "eventType": "Microsoft.Storage.BlobCreated",
        "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/bench",
        "subject": f"/blobServices/default/containers/training-data/blobs/{path}",
        "eventTime": "2026-11-20T10:00:00Z",
        "data": {
            "api": "PutBlob",
            "eTag": f"0x{number:016X}",
            "contentLength": 4096,
            "contentType": "text/csv",
            "blobType": "BlockBlob",
            "url": f"https://bench.blob.core.windows.net/training-data/{path}",
            "sequencer": f"{number:032d}",
        },
        "dataVersion": "",
        "metadataVersion": "1",
    }
    return Line(parse(event), SystemClock().now()).to_bytes()


async def rate(take: Callable[[bytes], Awaitable[object]], lines: list[bytes]) -> float:
    """Events a second when 64 callers each hand over the next line as soon as their last one is durable."""
    waiting = iter(lines)

    async def caller() -> None:
        for one in waiting:
            await take(one)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return len(lines) / (time.perf_counter() - began)


async def measure(storage: StateStorage, events: int, rounds: int) -> list[float]:
    """For each round, events a second with shared appends over those with one append an event."""
    store = AzureStore(storage)
    route: Route = load_routes(ROUTES)[0]
    lines = [line(number) for number in range(events)]
    ratios = []
    for number in range(rounds):
        writer = WindowWriter(store, AzureQueue(storage), SystemClock(), SystemChance())
        segment = Segment("bench-single", f"{number}", 1, 0)
        await store.create_segment(segment, "{}")

        async def append(block: bytes, segment: Segment = segment) -> None:
            if await store.append(segment, block) is not Append.DONE:
                raise RuntimeError(f"an append to {segment.name} was refused")

        async def write(block: bytes, writer: WindowWriter = writer, key: str = f"digits-{number}") -> None:
            await writer.append(route, key, block)

        ratios.append(await rate(write, lines) / await rate(append, lines))
    return ratios


def main() -> None:
    """Print one line of JSON and one sentence."""
    parser = argparse.ArgumentParser(description="Shared appends beside one append an event, over Azurite.")
    parser.add_argument("--events", type=int, default=2_000, help="events of each round (default 2,000)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each kind (default 9)")
    options = parser.parse_args()
    if options.rounds < 2 or options.events < CALLERS:
        parser.error(f"--rounds must be 2 or more, --events {CALLERS} or more: every caller needs one")
    with tempfile.TemporaryDirectory() as folder:
        running = azurite.start(Path(folder), free_port(), free_port(), free_port())
        try:
            provision(running.connection_string)
            storage = StateStorage(StateAccount(connection_string=running.connection_string))
            ratios = asyncio.run(measure(storage, options.events, options.rounds))
        finally:
            running.stop()
    low, ratio, high = statistics.quantiles(ratios)
    result = {"ratio": round(ratio, 1), "quartiles": [round(low, 1), round(high, 1)], "callers": CALLERS}
    print(json.dumps({"benchmark": "group_commit", **result, **vars(options)}))
    print(
        f"With {CALLERS} concurrent callers the window writer takes {ratio:.1f} times as many events a second as one "
        f"append an event does (median of {options.rounds} rounds of {options.events} events of each kind)."
    )


if __name__ == "__main__":
    main()
