"""The main job, as a new user runs it: `signalbox demo` from an empty folder to its end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

SIGNALBOX = Path(sys.executable).parent / "signalbox"


def test_demo_runs_the_whole_loop(tmp_path: Path) -> None:
    """Two models are promoted and rolled out, the third upload keeps the champion, and every part has ended."""
    folder = tmp_path / "demo"
    done = subprocess.run(
        [str(SIGNALBOX), "demo", "--dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stdout.count("RunCompleted → deploy_model.yml") == 3
    assert done.stdout.count("Dev → Test → Production: signalbox-digits version") == 2
    assert "kept the champion, nothing to deploy" in done.stdout
    assert done.stderr == ""
    for pid in json.loads((folder / "run.json").read_text())["pids"].values():
        assert not psutil.pid_exists(pid)


def test_demo_names_the_part_that_died(tmp_path: Path) -> None:
    """A part that is killed during the demo gives a sentence with its name and its log, not a trace."""
    folder = tmp_path / "demo"
    demo = subprocess.Popen(
        [str(SIGNALBOX), "demo", "--dir", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (folder / "run.json").exists():
        assert time.monotonic() < deadline, "the demo did not start its parts"
        time.sleep(0.1)
    os.kill(json.loads((folder / "run.json").read_text())["pids"]["github"], signal.SIGKILL)
    output, error = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert f"github was ended by signal 9. Its log: {folder / 'logs' / 'github.log'}" in error
    assert "Traceback" not in output + error
