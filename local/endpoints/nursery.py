"""Starts scoring servers: forked from one process that has imported the libraries, or, until it has, as a new one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

SERVER = Path(__file__).with_name("scoring_server.py")


class Process(Protocol):
    """A scoring server's process: what asyncio's own processes and forked ones have in common."""

    @property
    def pid(self) -> int:
        """Its id; its process group has the same."""
        ...

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative after a signal."""
        ...

    async def wait(self) -> int:
        """Wait for its end."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...


@dataclass(slots=True)
class Forked:
    """A server that the nursery forked."""

    pid: int
    returncode: int | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, status: int) -> None:
        """Note that it ended."""
        self.returncode = status
        self._ended.set()

    async def wait(self) -> int:
        """Wait for its end."""
        await self._ended.wait()
        return self.returncode or 0

    def terminate(self) -> None:
        """Send SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


class Nursery:
    """One preloaded process, and what it forked. Where it is not (yet) there, `start` starts a new process instead."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._ready = False
        self._orders: dict[int, asyncio.Future[Forked | None]] = {}
        self._servers: dict[int, Forked] = {}
        self._number = 0

    async def open(self) -> None:
        """Begin to preload; does not wait for it. Only Linux can end forked servers together with their parent."""
        if sys.platform != "linux":
            return
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(SERVER),
            "nursery",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._listener = asyncio.create_task(self._listen(self._process))

    async def close(self) -> None:
        """End it; what it forked should have been stopped before."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()
        if self._listener is not None:
            await self._listener

    async def start(self, port: int, directory: str, environment: Mapping[str, str], log: Path) -> Process:
        """Start a scoring server on a loopback port; it is not healthy yet."""
        log.parent.mkdir(parents=True, exist_ok=True)
        if self._ready and self._process is not None and self._process.stdin is not None:
            self._number += 1
            answer: asyncio.Future[Forked | None] = asyncio.get_running_loop().create_future()
            self._orders[self._number] = answer
            order = {"order": self._number, "port": port, "directory": directory, "log": str(log)}
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(json.dumps({**order, "environment": dict(environment)}).encode() + b"\n")
                await self._process.stdin.drain()
                server = await answer
                if server is not None:
                    return server
        with log.open("wb") as output:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(SERVER),
                str(port),
                str(os.getpid()),
                cwd=directory,
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # one group, so that its workers can be ended with it
            )

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        while line := await process.stdout.readline():
            said = json.loads(line)
            if "ready" in said:
                self._ready = True
            elif "order" in said:
                server = self._servers[said["pid"]] = Forked(said["pid"])
                answer = self._orders.pop(said["order"])
                if not answer.cancelled():
                    answer.set_result(server)
            elif said["ended"] in self._servers:
                self._servers.pop(said["ended"]).end(said["status"])
        # It died, and its servers with it: later ones are started without it.
        self._ready = False
        for server in self._servers.values():
            server.end(-signal.SIGTERM)
        for order in self._orders.values():
            if not order.done():
                order.set_result(None)
        self._servers.clear()
        self._orders.clear()
