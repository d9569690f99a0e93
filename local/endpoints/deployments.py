"""Deployments of online endpoints on this machine: what they serve, and the scoring process of each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from local.sockets import free_port, owns_port

SERVER = Path(__file__).with_name("scoring_server.py")
READY_SECONDS = 120.0
STOP_SECONDS = 5.0
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

    def __init__(self, label: str, deployment: Deployment, logs: Path) -> None:
        self.label = label
        self.deployment = deployment
        self.log = logs / f"{label}.log"
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

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
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(SERVER),
                str(self.port),
                str(os.getpid()),
                cwd=self.deployment.code,
                env={**os.environ, **self.deployment.environment()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # one group, so that its workers can be ended with it
            )
        try:
            await asyncio.wait_for(self._until_healthy(self._process), READY_SECONDS)
        except TimeoutError:
            await self.stop()
            raise self._failure(f"was not healthy within {READY_SECONDS:.0f} s") from None
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def wait(self) -> None:
        """Return when the process ends."""
        if self._process is not None:
            await self._process.wait()

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

    async def _until_healthy(self, process: asyncio.subprocess.Process) -> None:
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
