"""What the tests of `signalbox doctor` share: a small server for GitHub and Azure, and a repository in order."""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from functions.core.routes import Route
from local.commands.doctor_findings import Finding
from local.github.documents import Documents
from local.github.workflows import Workflow

ROOT = Path(__file__).resolve().parents[2]
SIGNALBOX = Path(sys.executable).with_name("signalbox")
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ROUTE = Route(name="train", on=("Microsoft.Storage.BlobCreated",), dispatch="storage-blobcreated")
GOOD = """
name: train
run-name: train ${{ github.event.client_payload.dispatch_id }}
on: {repository_dispatch: {types: [storage-blobcreated]}}
jobs: {}
"""


def faults(findings: list[Finding]) -> list[str]:
    """The faults, as one text each."""
    return [f"{one.check} {one.about}: {one.says} -> {one.mend}" for one in findings if one.state == "fault"]


class Api:
    """Answers GETs by path; everything else is refused. Notes what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, body = outer.answers.get(self.path.partition("?")[0], (404, {"message": "Not Found"}))
                content = json.dumps(body).encode()
                self.send_response_only(status)
                for name, value in {"Date": format_datetime(NOW, usegmt=True), **outer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


WORKFLOW = Workflow(".github/workflows/train.yml", "train", {})
DOCUMENTS = Documents("https://github.test", "octo", "models", "2026-01-01T00:00:00Z")
