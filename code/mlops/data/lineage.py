"""What a model was made from: the snapshot of the data, the manifest of the burst, the commit, the job.

The manifest says which events started the job; the snapshot says what was read. Both are kept, because a folder
may hold more than one burst brought (`data: dataset`).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from mlops import digest
from mlops.data.storage import BlobVersion
from mlops.environment import JobEnvironment
from mlops.report import Fault
from mlops.settings import TRAIN_ON, DataSet

LINEAGE = "lineage.json"
SNAPSHOT = "snapshot.json"
MANIFEST = "manifest.jsonl"
PROFILE_RUN = "profile_run"
"""Tag of a model version: in Azure the data step has a run of its own, and this is its id."""
_TABLE = "table.csv"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a job's data came from; becomes the tags of the run and of the model version."""

    origin: str
    folder: str
    job: str
    commit: str
    workflow_run: str
    manifest_sha256: str
    manifest_count: int
    snapshot_sha256: str
    snapshot_files: int
    data: str
    """`dataset` or `burst`."""
    profile_run: str
    """MLflow run that keeps snapshot and profile of the data; with the model's version, drift is told from there."""

    def tags(self) -> dict[str, str]:
        """Return the lineage as tags; names without dots, which Event Grid's filters cannot read."""
        return {
            "signalbox_origin": self.origin,
            "signalbox_job": self.job,
            "data_set": self.folder,
            "git_commit": self.commit,
            "workflow_run": self.workflow_run,
            "manifest_sha256": self.manifest_sha256,
            "manifest_count": str(self.manifest_count),
            "snapshot_sha256": self.snapshot_sha256,
            "snapshot_files": str(self.snapshot_files),
            "train_on": self.data,
            PROFILE_RUN: self.profile_run,
        }


@dataclass(frozen=True, slots=True)
class Missing:
    """A file that was to be read and could not be."""

    name: str
    reason: str
    """The end of a sentence that begins with the name."""


def train_on(data_set: DataSet) -> str:
    """Return what is trained on, `dataset` or `burst`: the data set's setting, or `DATA` where that is set."""
    wanted = os.environ.get("DATA") or data_set.train_on
    if wanted not in TRAIN_ON:
        raise Fault(f"DATA is {wanted!r}: it must be one of: {', '.join(TRAIN_ON)} (or empty).")
    return wanted


def snapshot(
    container: str, folder: str, data: str, blobs: Sequence[BlobVersion], missing: Sequence[Missing] = ()
) -> dict[str, Any]:
    """Return the record of what was really read; its `sha256` covers names, urls, etags and sizes, but no time."""
    files = [{"name": blob.name, "url": blob.url, "etag": blob.etag, "size": blob.size} for blob in blobs]
    return {
        "schema": 1,
        "container": container,
        "folder": folder,
        "data": data,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "sha256": digest.of_value(files),
        "files": files,
        "missing": [asdict(one) for one in missing],
    }


def of_job(job: JobEnvironment, taken: dict[str, Any], manifest: bytes | None, profile_run: str) -> Lineage:
    """Tie the job to its snapshot and, if a dispatch started it, to that dispatch's manifest."""
    return Lineage(
        origin=job.origin,
        folder=job.folder,
        job=job.job,
        commit=job.commit,
        workflow_run=job.workflow_run,
        manifest_sha256=job.manifest_sha256 if manifest is not None else "",
        manifest_count=len(manifest.splitlines()) if manifest is not None else 0,
        snapshot_sha256=taken["sha256"],
        snapshot_files=len(taken["files"]),
        data=taken["data"],
        profile_run=profile_run,
    )


def write(folder: Path, lineage: Lineage, table: pd.DataFrame) -> None:
    """Write what the following steps read: the checked rows and their lineage."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LINEAGE).write_text(json.dumps(asdict(lineage), indent=1), encoding="utf-8")
    # Text in quotes always: pandas would not quote a lone carriage return, and read it as the end of a line.
    table.to_csv(folder / _TABLE, index=False, quoting=csv.QUOTE_NONNUMERIC)


def read(folder: Path) -> Lineage:
    """Read the lineage that the data step wrote."""
    try:
        return Lineage(**json.loads((folder / LINEAGE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise Fault(f"{folder} holds no {LINEAGE}: run code/check/check.py with --data {folder} first.") from None


def read_table(folder: Path, data_set: DataSet) -> pd.DataFrame:
    """Read the checked rows exactly as they were: numbers as float64, text and the label as text."""
    types: dict[str, Any] = {name: "float64" if name in data_set.numbers else "object" for name in data_set.features}
    types[data_set.label] = "object"
    try:
        return pd.read_csv(
            folder / _TABLE, dtype=types, float_precision="round_trip", keep_default_na=False, na_values=[]
        )
    except (OSError, ValueError) as error:
        raise Fault(f"{folder} holds no checked rows ({error}): run code/check/check.py first.") from None
