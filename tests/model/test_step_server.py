"""The launcher behaves as Python does, and nothing outlives who asked for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.model.machine import ROOT, until

SCRIPT = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "cwd": os.getcwd(), "path": sys.path[0], "name": __name__, "setting": os.environ.get("SETTING"),
    "input": sys.stdin.read(), "preloaded": "mlflow" in sys.modules, "executable": sys.executable,
}))
print("to stderr", file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return a script that tells how it was started, and ends with status 7."""
    path = tmp_path / "tell.py"
    path.write_text(SCRIPT)
    return path


def gone(pid: int) -> bool:
    """Tell whether a process has ended."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_script_runs_as_under_python(step_server: Path, script: Path) -> None:
    """Arguments, directory, environment, streams and status are the caller's; the libraries are there already."""
    done = subprocess.run(
        [str(step_server), str(script), "one", "two words"],
        cwd=script.parent,
        env={**os.environ, "SETTING": "ä value"},
        input="some input",
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (7, "to stderr\n")
    assert told == {
        "argv": [str(script), "one", "two words"],
        "cwd": str(script.parent),
        "path": str(script.parent),
        "name": "__main__",
        "setting": "ä value",
        "input": "some input",
        "preloaded": True,
        "executable": str(step_server),
    }


@pytest.mark.parametrize("arguments", [["-c", "import sys; print(sys.executable)"], ["-m", "this"], ["-V"]])
def test_everything_else_is_the_real_interpreter(step_server: Path, arguments: list[str]) -> None:
    """Options, modules and commands are answered as by the interpreter itself."""
    ours = subprocess.run([str(step_server), *arguments], capture_output=True, check=False)
    real = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    assert (ours.returncode, ours.stdout) == (real.returncode, real.stdout)


def test_an_exception_ends_with_its_traceback_and_status_1(step_server: Path, tmp_path: Path) -> None:
    """An unexpected error looks as it always does."""
    path = tmp_path / "fail.py"
    path.write_text("raise ValueError('out of order')")
    done = subprocess.run([str(step_server), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ValueError: out of order" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_ends_with_its_launcher(step_server: Path, tmp_path: Path, number: signal.Signals) -> None:
    """A launcher that is told to stop, or killed, takes its step along."""
    path = tmp_path / "wait.py"
    path.write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)")
    with subprocess.Popen([str(step_server), str(path)], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        step = int(launcher.stdout.readline())
        launcher.send_signal(number)
        assert launcher.wait() == -number
        until(lambda: gone(step), "the step's end")


def test_idle_thread_pools_do_not_keep_a_step_alive(step_server: Path, tmp_path: Path) -> None:
    """A pool that nobody shut down ends with the script, as under the interpreter, and its work is done first."""
    path = tmp_path / "pool.py"
    path.write_text(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "ThreadPoolExecutor(2).submit(print, 'work done', flush=True)"
    )
    done = subprocess.run([str(step_server), str(path)], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "work done\n")


def test_a_stopped_server_ends_its_steps_and_the_launcher_still_works(tmp_path: Path) -> None:
    """At SIGTERM the server ends every step; afterwards the launcher starts the real interpreter."""
    folder = tmp_path / ("a folder's " + "long name " * 12)
    command = [sys.executable, "-m", "local.steps.server", "--dir", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        launcher = server.stdout.readline().strip()
        path = tmp_path / "wait.py"
        path.write_text("import os, sys, time\nprint(os.getpid(), 'mlflow' in sys.modules, flush=True)\ntime.sleep(60)")
        with subprocess.Popen([launcher, str(path)], stdout=subprocess.PIPE, text=True) as step:
            assert step.stdout is not None
            pid, preloaded = step.stdout.readline().split()
            assert preloaded == "True"
            server.terminate()
            assert server.wait() == 0
            assert step.wait() != 0
            until(lambda: gone(int(pid)), "the step's end")
    path.write_text("import sys; print(sys.executable)")
    done = subprocess.run([launcher, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sys.executable
