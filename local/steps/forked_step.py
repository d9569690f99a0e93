"""What a forked child does to become `python SCRIPT ARGS`, as the launcher's caller expects it."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import random
import runpy
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO


@dataclass(frozen=True, slots=True)
class Request:
    """What a launcher sends."""

    arguments: list[str]
    """Script and its arguments."""
    directory: str
    """Working directory."""
    environment: dict[str, str]
    umask: int


def run(request: Request, descriptors: list[int], executable: str) -> NoReturn:
    """Run the request's script on the caller's standard streams, and end this process with its status.

    `executable` becomes `sys.executable`, so that the script's own subprocesses are forked the same way.
    """
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
    for descriptor in descriptors:
        os.close(descriptor)
    os.umask(request.umask)
    os.chdir(request.directory)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.stdin, sys.stdout, sys.stderr = _stream(0, "r"), _stream(1, "w"), _stream(2, "w")
    sys.executable = executable
    sys.argv = list(request.arguments)
    extra = [entry for entry in request.environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[0:1] = [str(Path(request.arguments[0]).resolve().parent), *extra]
    _reseed()
    _exit(_status_of(request.arguments[0]))


def _stream(descriptor: int, mode: str) -> TextIO:
    errors = "backslashreplace" if descriptor == 2 else None
    return io.TextIOWrapper(
        open(descriptor, f"{mode}b", closefd=False), encoding="utf-8", errors=errors, line_buffering=True
    )  # fmt: skip


def _reseed() -> None:
    """Give the child random states of its own; a fork would share its siblings'."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _status_of(script: str) -> int:
    """Run the script as `__main__`; return the status that Python would end with."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _exit(status: int) -> NoReturn:
    """End as the interpreter does (threads, exit handlers, buffers), but without taking the libraries down."""
    try:
        # The interpreter's own order at its end; only `_shutdown` tells idle thread pools to stop.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(status & 0xFF)
