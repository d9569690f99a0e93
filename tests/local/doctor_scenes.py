"""What the tests of `signalbox doctor` share: a small server for GitHub and Azure, and a repository in order."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import loopback

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


class Api(loopback.Server):
    """Answers GETs by path; everything else is refused. Notes what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(loopback.Handler):
            def get(self) -> None:
                outer.asked.append(self.path)
                status, body = outer.answers.get(self.path.partition("?")[0], (404, {"message": "Not Found"}))
                self.reply(status, body, {"Date": format_datetime(NOW, usegmt=True), **outer.headers})

        super().__init__(Handler)


WORKFLOW = Workflow(".github/workflows/train.yml", "train", {})
DOCUMENTS = Documents("https://github.test", "octo", "models", "2026-01-01T00:00:00Z")
