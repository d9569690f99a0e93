"""`signalbox rollback DATASET`: production goes back to the deployment before, and the champion with it."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from local.commands.surroundings import RUN_FILE, CommandError, add_folder
from local.run_config import PROJECT

SCRIPT = Path("code/deploy/rollback.py")
_ERROR = "::error title=Rollback::"
_ESCAPES = (("%0A", "\n"), ("%0D", "\r"), ("%25", "%"))


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("rollback", help="take production back to the deployment before")
    parser.add_argument("dataset", metavar="DATASET", help="the data set whose endpoint it is, such as digits")
    parser.add_argument("--reason", required=True, help="why; it is written down with the model version")
    parser.add_argument("--by", default="", help="who; without, the name of the user who runs this")
    parser.add_argument("--unfinished", action="store_true", help="only take back a rollout that did not reach its end")
    add_folder(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Start the model side's own script (it is no code of this package), and show what it says. Raises CommandError."""
    environment = {
        **os.environ,
        **_place(options.dir.resolve(), os.environ),
        "DATA_SET": options.dataset,
        "ROLLED_BACK_BY": options.by or getpass.getuser(),
        "ROLLBACK_REASON": options.reason,
        "UNFINISHED_ONLY": "true" if options.unfinished else "false",
    }
    with subprocess.Popen(
        [sys.executable, str(SCRIPT)], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        objections = list(_shown(process.stdout))
    if process.returncode:
        raise CommandError(" ".join(objections) or f"{SCRIPT} ended with status {process.returncode}")
    return 0


def _place(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Registry and endpoints of the local run in `folder`, else those that the environment names."""
    if (folder / RUN_FILE).is_file():
        known = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        return {"MLFLOW_TRACKING_URI": str(known["mlflow"]), "ENDPOINTS_URL": str(known.get("endpoints", ""))}
    if not environment.get("MLFLOW_TRACKING_URI"):
        raise CommandError(
            f"nothing runs in {folder}, and MLFLOW_TRACKING_URI is not set: start 'signalbox up', name its folder "
            "with --dir, or set MLFLOW_TRACKING_URI (and az login) for the workspace; the workflow rollback.yml does "
            "the same by hand"
        )
    return {}


def _shown(lines: Iterator[str]) -> Iterator[str]:
    """Print the lines; those that are errors of a workflow are given back instead, without its escapes."""
    for line in lines:
        text = line.rstrip("\n")
        if not text.startswith(_ERROR):
            print(text, flush=True)
            continue
        text = text.removeprefix(_ERROR)
        for escape, character in _ESCAPES:
            text = text.replace(escape, character)
        yield text
