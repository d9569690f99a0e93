"""A machine for the tests of the model side: the parts that a job and a deployment need."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import loopback
import requests
from azure.storage.blob import BlobServiceClient

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0


def until(ready: Any, what: str) -> None:
    """Wait until `ready()` is true, or fail naming `what`."""
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not get ready"
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Tell whether an HTTP server answers at `url`, with whatever status."""
    try:
        requests.get(url, timeout=1)
    except requests.RequestException:
        return False
    return True


class EventSink(loopback.Server):
    """Takes published events, as Event Grid does; keeps what it got."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        super().__init__(_EventHandler)

    @property
    def url(self) -> str:
        """Return the address to publish to."""
        return f"{super().url}/workspace/api/events"


class _EventHandler(loopback.Handler):
    def post(self) -> None:
        sink = self.server
        assert isinstance(sink, EventSink)
        sink.events += json.loads(self.body())
        self.reply(200)


@dataclass
class Machine:
    """The parts that a job and a deployment need, on this machine."""

    folder: Path
    connection: str
    endpoints: str
    sink: EventSink
    python: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def blobs(self) -> BlobServiceClient:
        """Return a client of the storage account."""
        return BlobServiceClient.from_connection_string(self.connection)

    def upload(self, folder: str, files: list[tuple[str, bytes]], origin: str) -> str:
        """Upload a burst and its manifest; return the manifest's sha256."""
        lines = []
        for name, content in files:
            blob = self.blobs.get_blob_client("training-data", f"{folder}/{name}")
            etag = blob.upload_blob(content, overwrite=True)["etag"]
            lines.append(json.dumps({"url": blob.url, "etag": etag, "size": len(content)}))
        manifest = ("\n".join(lines) + "\n").encode()
        self.blobs.get_blob_client("manifests", f"{origin}.jsonl").upload_blob(manifest, overwrite=True)
        return hashlib.sha256(manifest).hexdigest()

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the project with this machine's settings, as a workflow's step does."""
        return subprocess.run(
            [str(self.python), script],
            cwd=ROOT,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def train(self, origin: str, folder: str, sha256: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a whole training job."""
        return self.run("code/submit.py", ORIGIN=origin, FOLDER=folder, MANIFEST_SHA256=sha256, **more)

    def deploy(self, job: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the deployment of a job's model, as its event does."""
        return self.run("code/deploy/deploy.py", **{"RUN_ID": job, "BY_HAND": "false", **more})

    def summary(self) -> str:
        """Return the job summary so far."""
        return (self.folder / "summary.md").read_text(encoding="utf-8")
