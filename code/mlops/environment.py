"""The environment of a job: every variable that the model side reads, in one place.

The workflows set them from repository variables, secrets and the event; nothing of an event ever reaches a
shell. The local backend hands the same names to its steps, and the Azure backend sets them on its nodes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlops.report import Fault

LOCAL = "local"
_ORIGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{2,120}")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class JobEnvironment:
    """What a training job is told from outside."""

    origin: str
    """Dispatch id, or `push-<sha>-<run id>-<attempt>`: who started this job (`ORIGIN`)."""
    folder: str
    """First path segment in container `training-data`; the route's key (`FOLDER`)."""
    manifest_sha256: str
    """sha256 of the dispatch's manifest, empty for a push or a start by hand (`MANIFEST_SHA256`)."""
    job: str
    """Name of the job, once it has one (`JOB_NAME`)."""
    attempt: int
    """Attempt of the workflow run, from 1 (`GITHUB_RUN_ATTEMPT`)."""
    commit: str
    """Commit whose code runs (`GITHUB_SHA`)."""
    workflow_run: str
    """Id of the workflow run that started the job (`GITHUB_RUN_ID`)."""


def read(source: Mapping[str, str] | None = None) -> JobEnvironment:
    """Read the job's environment; a value that cannot be one is refused by the variable's name."""
    values = os.environ if source is None else source
    origin = required("ORIGIN", "the dispatch id, or push-<sha>-<run id>-<attempt>", values)
    if not _ORIGIN.fullmatch(origin):
        raise Fault(f"ORIGIN is {origin!r}: it may hold only letters, digits and dashes (3 to 121 of them).")
    folder = required("FOLDER", "the folder of container training-data to train on", values)
    if not _FOLDER.fullmatch(folder):
        raise Fault(
            f"FOLDER is {folder!r}: a folder that has a data set's settings is named with letters, digits, "
            "'-' and '_' only. Rename the folder in container training-data."
        )
    attempt = values.get("GITHUB_RUN_ATTEMPT") or "1"
    if not attempt.isdecimal():
        raise Fault(f"GITHUB_RUN_ATTEMPT is {attempt!r}: it must be a whole number.")
    return JobEnvironment(
        origin=origin,
        folder=folder,
        manifest_sha256=values.get("MANIFEST_SHA256", ""),
        job=values.get("JOB_NAME", ""),
        attempt=int(attempt),
        commit=values.get("GITHUB_SHA", ""),
        workflow_run=values.get("GITHUB_RUN_ID", ""),
    )


def required(name: str, meaning: str, source: Mapping[str, str] | None = None) -> str:
    """Return variable `name`, or say that it is missing and what belongs there."""
    value = (os.environ if source is None else source).get(name, "")
    if not value:
        raise Fault(f"{name} is not set: set it to {meaning}.")
    return value
