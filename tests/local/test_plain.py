"""What outsiders wrote, as the commands print it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from functions.core.dead_letters import read_letters
from functions.core.values import compact_json
from local.commands.dead_letters import title
from local.commands.plain import plain
from local.run_config import PROJECT


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("daten/für 1.csv", "daten/für 1.csv"),
        ("a\nsb-forged  done\r", "a\\nsb-forged  done\\r"),
        ("\x1b[2J\u202e", "\\x1b[2J\\u202e"),
        ("\ud800", "\\ud800"),
    ],
)
def test_outsiders_text_forges_no_line(written: str, shown: str) -> None:
    """Line breaks, escape sequences and half characters stay visible; what is readable stays readable."""
    assert plain(written) == shown
    plain(written).encode("utf-8")


def test_title_of_a_dead_letter_is_one_line() -> None:
    """Its subject is as it came."""
    content = compact_json({"reason": "r", "received": "2026-11-20T12:00:00Z", "event": {"subject": "a\n\x1b[31mb"}})
    (letter,) = read_letters("dead-letters", "x.json", content.encode(), None)  # type: ignore[arg-type]
    assert plain(title(letter)).endswith("a\\n\\x1b[31mb")


def command(folder: Path, output: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """`signalbox explain` of an event with a foreign name, in a process of its own that writes to `output`."""
    event = {"id": "1", "eventType": "X.Y", "subject": "日本", "data": {}}
    (folder / "event.json").write_text(json.dumps([event] * 100))
    return subprocess.run(
        [sys.executable, "-c", "import sys; from local.cli import main; sys.exit(main())", "explain", "event.json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "", **environment},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_output_that_lacks_the_letters(tmp_path: Path) -> None:
    """A file or pipe in an old encoding gets them as Python writes them."""
    with (tmp_path / "said").open("wb") as output:
        ended = command(tmp_path, output.fileno(), PYTHONIOENCODING="latin-1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\\u65e5\\u672c" in (tmp_path / "said").read_text()


def test_reader_that_has_seen_enough(tmp_path: Path) -> None:
    """As behind `| head`: no complaint, and the status of a command that was stopped so."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = command(tmp_path, writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_routes_of_explain_start_at_the_apps_root(tmp_path: Path) -> None:
    """As SIGNALBOX_ROUTES does for the app, wherever the command is given."""
    with (tmp_path / "said").open("wb") as output:
        ended = command(tmp_path, output.fileno(), SIGNALBOX_ROUTES="routes.yml", PYTHONIOENCODING="utf-8")
    assert ended.returncode == 0, ended.stderr
    assert "train-on-new-data" in (tmp_path / "said").read_text(encoding="utf-8")
