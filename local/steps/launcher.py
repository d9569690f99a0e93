"""The launcher behind `DIR/bin/python`: hands a script to the step server, anything else to the real interpreter.

Run as `python -I -S launcher.py REAL_PYTHON DIR [arguments of python]`; standard library only, because it has to
start at once.
"""

import array
import contextlib
import json
import os
import signal
import socket
import sys
from typing import NoReturn

SOCKET = "step.sock"
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Launch what stands in the arguments, and end as it ended."""
    real, folder, *arguments = sys.argv[1:]
    connection = _connect(folder) if arguments and _is_script(arguments[0]) else None
    if connection is None:
        os.execv(real, [real, *arguments])  # noqa: S606 - becoming the interpreter is the point
    _send(connection, arguments)

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(OSError):
            connection.send(bytes([number]))

    for number in _FORWARDED:
        signal.signal(number, forward)
    answer = b""
    while piece := connection.recv(64):
        answer += piece
    _end(int(answer) if answer else None)


def _is_script(argument: str) -> bool:
    return argument.endswith(".py") and os.path.isfile(argument)  # noqa: PTH113 - pathlib takes 10 ms


def _connect(folder: str) -> socket.socket | None:
    """Connect to the server, or return None if there is none (then the real interpreter does it)."""
    here = os.open(".", os.O_RDONLY)
    connection = socket.socket(socket.AF_UNIX)
    try:
        os.chdir(folder)  # the socket's full path might be too long for the system
        connection.connect(SOCKET)
    except OSError:
        connection.close()
        return None
    finally:
        os.fchdir(here)
        os.close(here)
    return connection


def _send(connection: socket.socket, arguments: list[str]) -> None:
    mask = os.umask(0)
    os.umask(mask)
    request = {
        "arguments": arguments,
        "directory": os.getcwd(),  # noqa: PTH109 - pathlib takes 10 ms
        "environment": dict(os.environ),
        "umask": mask,
    }
    content = json.dumps(request).encode()
    descriptors = array.array("i", [0, 1, 2])
    connection.sendmsg([len(content).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    connection.sendall(content)


def _end(status: int | None) -> NoReturn:
    """End with the step's own status; a step that a signal ended ends this process the same way."""
    if status is None:
        print("The step server stopped while this step was running; see its log.", file=sys.stderr)
        sys.exit(1)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
