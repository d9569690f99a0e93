"""How long the app takes to import, beside the imports that it cannot avoid.

    python bench/cold_start.py [--runs N]

Each import happens in an interpreter of its own, from compiled bytecode; the two kinds take turns, so that a noisy
machine disturbs both alike. Only the ratio says something beyond this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
UNAVOIDABLE = ("azure.functions", "azure.storage.blob", "azure.storage.queue", "azure.data.tables", "requests", "yaml")
TIMED = "import time; began = time.perf_counter(); {what}; print(time.perf_counter() - began)"
APP_SETTINGS = {
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "GITHUB_REPOSITORY": "octo/models",
    "PAT_TOKEN": "none",
    "SIGNALBOX_DATA_ACCOUNTS": "devstoreaccount1",
}


def seconds_to_import(*modules: str, settings: Mapping[str, str] | None = None) -> float:
    """Seconds that these imports take in a fresh interpreter, its own start not counted."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(what="import " + ", ".join(modules))],
        cwd=PROJECT,
        env={**environment, **(settings or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    """Print one line of JSON and one sentence."""
    parser = argparse.ArgumentParser(description="Import time of the app beside the imports that it cannot avoid.")
    parser.add_argument("--runs", type=int, default=21, help="imports of each kind (default 21)")
    runs = parser.parse_args().runs
    if runs < 2:
        parser.error("--runs must be 2 or more: quartiles need something to stand between")
    seconds_to_import("function_app", settings=APP_SETTINGS)  # compiles what is not compiled yet
    ratios = [
        seconds_to_import("function_app", settings=APP_SETTINGS) / seconds_to_import(*UNAVOIDABLE) for _ in range(runs)
    ]
    low, ratio, high = statistics.quantiles(ratios)
    result = {"ratio": round(ratio, 2), "quartiles": [round(low, 2), round(high, 2)], "runs": runs}
    print(json.dumps({"benchmark": "cold_start", **result}))
    print(
        f"Importing function_app takes {ratio:.2f} times as long as importing only {', '.join(UNAVOIDABLE)} "
        f"(median of {runs} pairs of fresh interpreters)."
    )


if __name__ == "__main__":
    main()
