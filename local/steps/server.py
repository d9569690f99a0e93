"""Start Python steps in a tenth of the time: they are forked from one process that has imported the libraries.

`python -m local.steps.server --dir DIR` writes `DIR/bin/python`, a launcher that behaves as `python SCRIPT ARGS`, and
serves it on the socket `DIR/step.sock`. With `DIR/bin` first on a runner's PATH, workflows and steps gain the speed
without knowing of it. Whatever is no script (`-m`, `-c`, options) the launcher hands to the real interpreter, and
everything when no server answers.

The server has one thread and starts none before a fork (BLAS and OpenMP get one thread, their pools would
not survive it). A step whose launcher dies is ended; the server stops with its parent and at SIGTERM.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import stat
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from local.steps import forked_step, launcher

SOCKET = "step.sock"
PARENT_CHECK_SECONDS = 1.0
GRACE_SECONDS = 3.0
_MOST_REQUEST_BYTES = 1 << 20
# Libraries only, never the project's own code: every checkout brings its own.
PRELOADED = (
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "numpy",
    "pandas",
    "sklearn.base",
    "sklearn.discriminant_analysis",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "sklearn.naive_bayes",
    "sklearn.neighbors",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
    "skops.io",
    "alembic.command",
    "mlflow",
    "mlflow.models",
    "mlflow.sklearn",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "pandera.pandas",
    "azure.eventgrid",
    "azure.storage.blob",
    "requests",
)


@dataclass(slots=True)
class Running:
    """A step under way: its process, and the connection on which its launcher waits."""

    pid: int
    connection: socket.socket
    kill_at: float | None = None
    """When the step is killed, because its launcher is gone and it has not ended by itself."""


def write_launcher(folder: Path) -> Path:
    """Write `folder`/bin/python (and python3) and return its path."""
    folder = folder.resolve()
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    script = Path(launcher.__file__).resolve()
    # -I and -S: the launcher needs only the standard library, and starts in 15 ms.
    text = (
        "#!/bin/sh\n"
        f"exec {_quoted(sys.executable)} -I -S {_quoted(str(script))} {_quoted(sys.executable)} "
        f'{_quoted(str(folder))} "$@"\n'
    )
    for name in ("python3", "python"):
        path = programs / name
        path.write_text(text, encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return programs / "python"


def preload() -> None:
    """Import what the steps will import; a library that is not installed is left to the step itself."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if threading.active_count() != 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        raise RuntimeError(f"an imported library has started threads ({names}): forking would not be safe")


class StepServer:
    """Accepts launchers, forks a child for each, and carries signals and exit statuses between the two."""

    def __init__(self, listener: socket.socket, launcher: Path) -> None:
        self._listener = listener
        self._launcher = launcher
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, Running] = {}
        self._stopping = False

    def serve(self) -> None:
        """Serve until SIGTERM, SIGINT or the parent's death; then end every step."""
        woken, wake = socket.socketpair()
        for end in (woken, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(woken, selectors.EVENT_READ)
        parent = os.getppid()
        while not self._stopping and os.getppid() == parent:
            for key, _ in self._selector.select(PARENT_CHECK_SECONDS):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is woken:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                else:
                    self._hear(key.data)
            self._reap()
            self._kill_overdue()
        for step in list(self._running.values()):
            _signal_group(step.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._running and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.02)
        for step in self._running.values():
            _signal_group(step.pid, signal.SIGKILL)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _accept(self) -> None:
        """Read one request and fork its step; a launcher that is gone already is forgotten."""
        connection, _ = self._listener.accept()
        connection.settimeout(5)
        try:
            request, descriptors = _receive(connection)
        except (OSError, ValueError):
            connection.close()
            return
        pid = os.fork()
        if pid == 0:
            connection.close()
            self._become_step(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.setblocking(False)
        self._running[pid] = Running(pid, connection)
        self._selector.register(connection, selectors.EVENT_READ, self._running[pid])

    def _become_step(self, request: forked_step.Request, descriptors: list[int]) -> NoReturn:
        """Continue as the step, in the forked child: nothing of the server stays open."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.setsid()
        forked_step.run(request, descriptors, str(self._launcher))

    def _hear(self, step: Running) -> None:
        """Forward the signals that the launcher got; if it is gone, end its step."""
        try:
            numbers = step.connection.recv(64)
        except BlockingIOError:
            return
        except OSError:
            numbers = b""
        for number in numbers:
            _signal_group(step.pid, number)
        if not numbers:
            self._selector.unregister(step.connection)
            _signal_group(step.pid, signal.SIGTERM)
            step.kill_at = time.monotonic() + GRACE_SECONDS

    def _reap(self) -> None:
        """Tell the launcher of every step that has ended how it ended."""
        for pid in list(self._running):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended, status = pid, 1 << 8
            if not ended:
                continue
            step = self._running.pop(pid)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(step.connection)
            with contextlib.suppress(OSError):
                step.connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            step.connection.close()

    def _kill_overdue(self) -> None:
        for step in self._running.values():
            if step.kill_at is not None and time.monotonic() > step.kill_at:
                _signal_group(step.pid, signal.SIGKILL)


def _receive(connection: socket.socket) -> tuple[forked_step.Request, list[int]]:
    """Read a length (4 bytes, big-endian) with three descriptors, then so many bytes of JSON."""
    size = array.array("i").itemsize
    head, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * size))
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % size])
    length = int.from_bytes(head, "big")
    content = b""
    while len(content) < length <= _MOST_REQUEST_BYTES:
        piece = connection.recv(length - len(content))
        if not piece:
            break
        content += piece
    if len(head) != 4 or len(content) != length or len(descriptors) != 3:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ValueError("not a launcher's request")
    return forked_step.Request(**json.loads(content)), list(descriptors)


def _signal_group(pid: int, number: int) -> None:
    # Before the child's setsid its group does not exist yet; then it is signalled alone.
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def main() -> None:
    """Preload, listen, write the launcher, and say on stdout that all is ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="folder for the launcher and the socket")
    folder: Path = parser.parse_args().dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    preload()
    before = Path.cwd()
    os.chdir(folder)  # a socket's path may have only some 100 bytes; its bare name always fits
    Path(SOCKET).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(SOCKET)
        Path(SOCKET).chmod(0o600)
        listener.listen(16)
        os.chdir(before)
        launcher = write_launcher(folder)
        print(launcher, flush=True)
        try:
            StepServer(listener, launcher).serve()
        finally:
            (folder / SOCKET).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
