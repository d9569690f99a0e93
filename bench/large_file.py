"""How much memory the data check takes, beside the size of the file that it reads.

    python bench/large_file.py [--megabytes N]

One CSV file is written and read by an interpreter of its own, through the code of a training's check; the same is done
with a file of a tenth. Peaks are counted from what the libraries alone take. Only the ratios say something beyond this
machine: far below 1, and memory that hardly grows with the file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DATA_SET = "iris"
MAXIMUM_ROWS = 50_000


def write(path: Path, size: int) -> None:
    """Write at least `size` bytes of different rows that pass every check."""
    chance = random.Random(20261121)  # noqa: S311 - data, no secret
    classes = ("setosa", "versicolor", "virginica")
    with path.open("w", encoding="utf-8") as file:
        file.write("sepal_length,sepal_width,petal_length,petal_width,species\n")
        while file.tell() < size:
            rows = [",".join(f"{chance.uniform(0, 20):.12f}" for _ in range(4)) for _ in range(5_000)]
            file.write("".join(f"{row},{classes[number % 3]}\n" for number, row in enumerate(rows)))


def read(path: Path | None) -> None:
    """Check the file in this interpreter, or nothing, and print peak bytes, rows and seconds."""
    sys.path.insert(0, str(PROJECT / "code"))
    checks, settings = importlib.import_module("mlops.data.checks"), importlib.import_module("mlops.settings")
    data_set = replace(settings.load_data_set(DATA_SET), maximum_rows=MAXIMUM_ROWS)
    began = time.perf_counter()
    files = [("large.csv", path)] if path else []
    checked = checks.read(files, data_set)
    if checked.problems:
        sys.exit(checked.problems[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {"peak": peak, "rows": checked.rows_read, "kept": len(checked.table)}
    print(json.dumps({**result, "seconds": time.perf_counter() - began}))


def measured(path: Path | None) -> dict[str, float]:
    """Run `read` in an interpreter of its own."""
    command = [sys.executable, __file__, "--read", str(path or "")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Print one line of JSON and one sentence."""
    parser = argparse.ArgumentParser(description="Memory of the data check beside the size of its file.")
    parser.add_argument("--megabytes", type=int, default=300, help="size of the large file (default 300)")
    parser.add_argument("--read", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read is not None:
        read(Path(arguments.read) if arguments.read else None)
        return
    if arguments.megabytes < 10:
        parser.error("--megabytes must be 10 or more: the smaller file has a tenth of it")
    libraries = measured(None)["peak"]
    with tempfile.TemporaryDirectory(prefix="signalbox-bench-") as folder:
        path = Path(folder) / "large.csv"
        extra = []
        for size in (arguments.megabytes * 100_000, arguments.megabytes * 1_000_000):
            write(path, size)
            found = measured(path)
            extra.append(found["peak"] - libraries)
    ratio, growth = extra[1] / (arguments.megabytes * 1_000_000), extra[1] / max(1.0, extra[0])
    result = {"ratio": round(ratio, 2), "growth": round(growth, 2), "megabytes": arguments.megabytes}
    print(json.dumps({"benchmark": "large_file", **result, "rows": found["rows"], "kept": found["kept"]}))
    print(
        f"Checking {arguments.megabytes} MB ({found['rows']:.0f} rows, {found['kept']:.0f} kept) takes {ratio:.2f} "
        f"times as much memory as the file is large, and {growth:.2f} times as much as a file of a tenth takes."
    )


if __name__ == "__main__":
    main()
