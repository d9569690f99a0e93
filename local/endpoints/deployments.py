"""Deployments of online endpoints on this machine: what they serve, and the scoring process of each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from local.endpoints.nursery import Nursery, Process
from local.sockets import free_port, owns_port

log = logging.getLogger("endpoints")

READY_SECONDS = 120.0
STOP_SECONDS = 5.0
DRAIN_SECONDS = 30.0
RESTART_SECONDS = 1.0
MOST_RESTART_SECONDS = 60.0
LOG_LINES = 12
NOT_COPIED = (".git", ".venv", "__pycache__", "node_modules")
NAME = re.compile(r"[a-zA-Z]([-a-zA-Z0-9]{1,30}[a-zA-Z0-9])")
"""Azure ML's rule for endpoint and deployment names: 3 to 32 characters, letters, digits and dashes."""


class DeploymentError(Exception):
    """A deployment cannot be made; the sentence says why. `status` is the HTTP status that tells it."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deployment serves: as its PUT said, or as copied into this part's own folder."""

    model: str
    """Folder of the model; the scoring code finds it as AZUREML_MODEL_DIR."""
    code: str
    """Folder of the scoring code."""
    entry_script: str = "score.py"
    """File in `code` with `init()` and `run()`."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the scoring process."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Whatever the caller wants to find again."""

    @classmethod
    def from_request(cls, document: Any) -> Deployment:
        """Read a PUT's body; raises DeploymentError that names the key to mend."""
        known = ("model", "code", "entry_script", "env", "tags")
        if not isinstance(document, dict) or set(document) - set(known):
            raise DeploymentError(f"The body must be a JSON object with the keys {', '.join(known)}.")
        made = cls(
            model=str(document.get("model", "")),
            code=str(document.get("code", "")),
            entry_script=str(document.get("entry_script", "score.py")),
            env=_texts(document, "env"),
            tags=_texts(document, "tags"),
        )
        for key, folder in (("model", made.model), ("code", made.code)):
            if not Path(folder).is_absolute() or not Path(folder).is_dir():
                raise DeploymentError(f"{key} must be the whole path of a folder; {folder!r} is none.")
        if not (Path(made.code) / made.entry_script).is_file():
            raise DeploymentError(f"entry_script: {Path(made.code) / made.entry_script} does not exist.")
        return made

    def copied_to(self, folder: Path) -> Deployment:
        """The same over copies in `folder`: as on Azure, nothing that changes later changes what was deployed."""
        code, model = folder / "code", folder / "model"
        shutil.copytree(self.code, code, ignore=shutil.ignore_patterns(*NOT_COPIED))
        shutil.copytree(self.model, model)
        return replace(self, code=str(code), model=str(model))

    def discard(self) -> None:
        """Delete the copies that `copied_to` made."""
        shutil.rmtree(Path(self.code).parent, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """What the inference server reads, and what the caller added."""
        return {
            **self.env,
            "AML_APP_ROOT": self.code,
            "AZUREML_ENTRY_SCRIPT": self.entry_script,
            "AZUREML_MODEL_DIR": self.model,
            "PYTHONUNBUFFERED": "1",
        }


def _texts(document: Mapping[str, Any], key: str) -> dict[str, str]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise DeploymentError(f"{key} must be an object of texts.")
    return {str(name): str(text) for name, text in value.items()}


class ScoringServer:
    """The scoring process of one deployment. It runs until `stop`, or ends with this process."""

    def __init__(self, label: str, deployment: Deployment, logs: Path, nursery: Nursery) -> None:
        self.label = label
        self._nursery = nursery
        self.deployment = deployment
        self.log = logs / f"{label}.log"
        self.port = 0
        self._process: Process | None = None
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def state(self) -> str:
        """`Healthy`, or `Failed` when its process is not there; Azure ML's words."""
        return "Healthy" if self._process is not None and self._process.returncode is None else "Failed"

    @property
    def pid(self) -> int | None:
        """Process id of the server."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start and wait until healthy; raises DeploymentError (422) with the end of its log otherwise."""
        self.port = free_port()
        self._process = await self._nursery.start(
            self.port, self.deployment.code, {**os.environ, **self.deployment.environment()}, self.log
        )
        try:
            await asyncio.wait_for(self._until_healthy(self._process), READY_SECONDS)
        except TimeoutError:
            await self.stop()
            raise self._failure(f"was not healthy within {READY_SECONDS:.0f} s") from None
        except asyncio.CancelledError:
            await self.stop()
            raise

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Count a request that is under way, so that `drain` waits for its answer."""
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def drain(self) -> None:
        """Wait until nobody waits for an answer any more, for at most DRAIN_SECONDS."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), DRAIN_SECONDS)

    async def keep(self) -> None:
        """Start the server again whenever it ends; runs until it is cancelled."""
        pause = RESTART_SECONDS
        while True:
            if self._process is not None:
                await self._process.wait()
            await self.stop()
            log.error("the scoring server of %s ended, starting it again; its log is %s", self.label, self.log)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MOST_RESTART_SECONDS)
            with contextlib.suppress(DeploymentError):
                await self.start()
                pause = RESTART_SECONDS

    async def stop(self) -> None:
        """End the process and what it started, also when it ended by itself and left its workers behind."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _until_healthy(self, process: Process) -> None:
        address = f"http://127.0.0.1:{self.port}/"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while process.returncode is None:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(address) as answer:
                        if answer.status == 200 and owns_port(process.pid, self.port):
                            return
                await asyncio.sleep(0.1)
        await self.stop()
        raise self._failure("ended while it started")

    def _failure(self, what: str) -> DeploymentError:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        # Microsoft's server prints the script's own error first and its wrapping after this line.
        own, wrapped, _ = text.partition("The above exception was the direct cause")
        lines = [line for line in own.splitlines() if line.strip()][-LOG_LINES:]
        reason = f" ({lines[-1]})" if wrapped and lines else ""
        return DeploymentError(
            f"The scoring server of {self.label} {what}{reason}: mend {self.deployment.entry_script}; "
            f"the whole log is {self.log}. Its last lines:\n" + "\n".join(lines),
            422,
        )
