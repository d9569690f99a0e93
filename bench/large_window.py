"""How much memory closing a window takes, beside the window's size.

    python bench/large_window.py [--events N]

Lines as a window keeps them are folded into a manifest in an interpreter of its own, an earlier manifest being looked
at as well; the same is done with a tenth of them. Peaks are counted from what the interpreter takes without a line.
What a route's `max_bytes` allows, times the first ratio, is what an instance must have.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from functions.core.events import parse
from functions.core.fold import Fold
from functions.core.manifest import Entry, build, read_listed
from functions.core.windows import Line

BEGAN = datetime(2026, 11, 20, 10, tzinfo=UTC)
SUBSCRIPTION = "/subscriptions/00000000-0000-4000-8000-000000000000"
TOPIC = f"{SUBSCRIPTION}/resourceGroups/models/providers/Microsoft.Storage/storageAccounts/bench"


def lines(events: int) -> Iterator[bytes]:
    """Events of different blobs with all the fields that Azure Storage sends, as a window keeps them."""
    for number in range(events):
        path = f"digits/2026/11/20/part-{number:08d}.csv"
        event = {
            "id": f"{number:08x}-701e-0030-6f2c-1b2c8e06aa11",
            "eventType": "Microsoft.Storage.BlobCreated",
            "topic": TOPIC,
            "subject": f"/blobServices/default/containers/training-data/blobs/{path}",
            "eventTime": (BEGAN + timedelta(milliseconds=number)).isoformat(),
            "data": {
                "api": "PutBlob",
                "clientRequestId": f"{number:08x}-0000-4000-8000-000000000000",
                "requestId": f"{number:08x}-701e-0030-6f2c-1b2c8e000000",
                "eTag": f"0x{number:015X}",
                "contentType": "text/csv",
                "contentLength": 4096,
                "blobType": "BlockBlob",
                "url": f"https://bench.blob.core.windows.net/training-data/{path}",
                "sequencer": f"{number:048d}",
                "storageDiagnostics": {"batchId": f"{number // 100:08x}-0006-0030-002c-1b2c8e000000"},
            },
        }
        yield Line(parse(event), BEGAN).to_bytes()


def close(events: int) -> None:
    """Fold so many lines in this interpreter, and print its peak and the bytes of window and manifest."""
    fold, window = Fold(BEGAN + timedelta(hours=1)), 0
    for raw in lines(events):
        window += len(raw)
        fold.add(Line.from_bytes(raw))
    other = next(lines(1)).replace(b"digits", b"others")
    fold.drop([read_listed(Entry.of(Line.from_bytes(other).event).line)])
    body, _ = build(
        "sb-0", fold.entries(), sealed=BEGAN, lines=fold.lines, duplicates=0, superseded=0, repeated_ids=0, reach=None
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak, "window": window, "manifest": len(body)}))


def measured(events: int) -> dict[str, int]:
    """Run `close` in an interpreter of its own."""
    command = [sys.executable, __file__, "--close", str(events)]
    answer: dict[str, int] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return answer


def main() -> None:
    """Print one line of JSON and one sentence."""
    parser = argparse.ArgumentParser(description="Memory of closing a window beside its size.")
    parser.add_argument("--events", type=int, default=100_000, help="events of the large window (default 100000)")
    parser.add_argument("--close", metavar="N", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.close is not None:
        close(arguments.close)
        return
    if arguments.events < 10_000:
        parser.error("--events must be 10000 or more: the smaller window has a tenth of them")
    empty = measured(0)["peak"]
    small, large = measured(arguments.events // 10), measured(arguments.events)
    taken = large["peak"] - empty
    ratio, growth = taken / large["window"], taken / max(1, small["peak"] - empty)
    result = {"ratio": round(ratio, 2), "growth": round(growth, 2), "events": arguments.events}
    sizes = {"window": large["window"], "manifest": large["manifest"]}
    print(json.dumps({"benchmark": "large_window", **result, **sizes}))
    print(
        f"Closing a window of {arguments.events} events takes {ratio:.2f} times as much memory as the window is large, "
        f"and {growth:.1f} times as much as one of a tenth takes."
    )


if __name__ == "__main__":
    main()
