"""Starts the parts of a local run, watches them, and stops them all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from functions.settings import CREDENTIALS
from local.provision import provision
from local.run_config import PARAMETERS_FILE, PROJECT, RUNNER_FILE, RunConfig
from local.sockets import owns_port

READY_SECONDS = 60.0
STOP_SECONDS = 8.0
_MOST_RESTARTS = 5
_PACE = 0.1


class PartFailed(RuntimeError):
    """A part did not start, or died; the message says which, how it ended and where its log is."""


@dataclass(slots=True)
class Part:
    """One running part."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    restarts: int = 0


class Supervisor:
    """Async context manager: parts are up inside of it, and gone afterwards, however it is left."""

    def __init__(self, config: RunConfig, tell: Callable[[str], None]) -> None:
        """`tell` gets one sentence for each part that is ready, died or was started again."""
        self.config = config
        self.parts: dict[str, Part] = {}
        self._tell = tell

    async def __aenter__(self) -> Supervisor:
        """Start the parts in order. Raises PartFailed."""
        for folder in ("logs", "mlflow", *self.config.parts):
            (self.config.folder / folder).mkdir(parents=True, exist_ok=True)
        _write_private(self.config.folder / RUNNER_FILE, self.config.runner())
        _write_private(self.config.folder / PARAMETERS_FILE, self.config.template_parameters())
        try:
            # Storage first: the others expect their containers, tables and queues to be there.
            await asyncio.gather(*(self._start(name) for name in self.config.parts if name == "storage"))
            await asyncio.gather(*(self._start(name) for name in self.config.parts if name != "storage"))
        except BaseException:
            await self.stop()
            raise
        self._note_run()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything."""
        await self.stop()

    def ready(self) -> dict[str, object]:
        """Addresses and process ids, as `--json` prints them."""
        config = self.config
        addresses: dict[str, object] = {
            name: config.url(name) for name in ("functions", "eventgrid", "endpoints") if name in config.parts
        }
        return {
            **addresses,
            "storage": config.storage,
            "github": config.github_url,
            "dir": str(config.folder),
            "mlflow": config.mlflow_uri,
            "pids": {name: part.process.pid for name, part in self.parts.items()},
        }

    def _note_run(self) -> None:
        """What other commands need to find this run and to act as its function app would; no credentials."""
        known = {name: value for name, value in self.config.app_settings().items() if name not in CREDENTIALS}
        _write_private(self.config.folder / "run.json", {**self.ready(), "settings": known})

    async def watch(self, *, restart: bool) -> None:
        """Return never; a part that dies is started again, or raises PartFailed."""
        while True:
            await asyncio.sleep(_PACE)
            for part in list(self.parts.values()):
                if part.process.returncode is None:
                    continue
                sentence = _ended(part)
                if not restart or part.restarts >= _MOST_RESTARTS:
                    raise PartFailed(sentence)
                self._tell(f"{sentence} It is started again.")
                await self._start(part.name, restarts=part.restarts + 1)
                self._note_run()

    async def stop(self) -> None:
        """End all parts, the last one first."""
        for part in reversed(list(self.parts.values())):
            if part.process.returncode is None:
                part.process.terminate()
        for part in reversed(list(self.parts.values())):
            try:
                await asyncio.wait_for(part.process.wait(), STOP_SECONDS)
            except TimeoutError:
                part.process.kill()
                await part.process.wait()
        self.parts.clear()

    async def _start(self, name: str, restarts: int = 0) -> None:
        began = time.monotonic()
        log = self.config.log(name)
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches only us, and we stop the parts in order.
            process = await asyncio.create_subprocess_exec(
                *self.config.command(name),
                cwd=PROJECT,
                env=self.config.part_environment(name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        part = self.parts[name] = Part(name, process, log, restarts)
        await self._until_ready(part)
        if name == "storage":
            await asyncio.to_thread(provision, self.config.storage)
        self._tell(f"{name} is ready after {time.monotonic() - began:.1f} s")

    async def _until_ready(self, part: Part) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not await asyncio.to_thread(self._is_ready, part):
            if part.process.returncode is not None:
                raise PartFailed(_ended(part))
            if time.monotonic() > deadline:
                raise PartFailed(f"{part.name} was not ready after {READY_SECONDS:.0f} s. Its log: {part.log}")
            await asyncio.sleep(_PACE)

    def _is_ready(self, part: Part) -> bool:
        """Our own child owns the port, and it answers."""
        if part.name == "steps":
            return (self.config.state("steps") / "bin" / "python").exists()
        return owns_port(part.process.pid, self.config.ports[part.name]) and _answers(
            f"{self.config.url(part.name)}/healthz"
        )


def _ended(part: Part) -> str:
    code = part.process.returncode or 0
    how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
    said = _last_line(part.log) if code > 0 else ""
    return f"{part.name} {how}. {said}Its log: {part.log}"


def _last_line(log: Path) -> str:
    """The log's last line, where a part says why it refuses to start."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return f"It said: {lines[-1][:300]} "
    return ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - a loopback address of our own making
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _write_private(path: Path, content: dict[str, object]) -> None:
    """Write JSON that only its owner may read, whole or not at all."""
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    part.replace(path)
