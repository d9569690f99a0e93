"""The leash of one workflow run: `python run_guard.py COMMAND…` ends the command when its own stdin closes.

Stdin is a pipe that the server holds. It closes when the server lets go (cancel, stop) and also when the server is
killed, so no step outlives its run. act starts every step in a session of its own; the steps are therefore found by
the mark in their environment, as GitHub's runner does with RUNNER_TRACKING_ID.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import psutil

MARK = "SIGNALBOX_RUN_MARK"
GRACE_SECONDS = 5.0


def main(command: list[str]) -> int:
    """Run `command`, hand on its output, and return its exit status; no process with the run's mark is left."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_wait_for_release, args=(process,), daemon=True).start()
    _hand_on_output(process)
    status = process.wait()
    _end_marked()
    return status if status >= 0 else 128 - status


def _hand_on_output(process: subprocess.Popen[bytes]) -> None:
    """Copy act's output to ours; a server that is gone must not stop act from being read, or act dies first."""
    assert process.stdout  # noqa: S101 (it is a pipe)
    listener = True
    while chunk := os.read(process.stdout.fileno(), 65536):
        if listener:
            try:
                _write_all(chunk)
            except OSError:
                listener = False


def _write_all(chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(1, view) :]


def _wait_for_release(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):
        pass
    # act answers SIGINT as GitHub answers a cancel: it kills the step under way and still runs the always() steps.
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    process.kill()
    _end_marked()


def _end_marked() -> None:
    mark = os.environ.get(MARK)
    for process in psutil.process_iter() if mark else ():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
