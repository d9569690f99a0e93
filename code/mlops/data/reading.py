"""What both checks do first: download the files as pinned, and hold every row against the settings."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from azure.storage.blob import ContainerClient

from mlops import report
from mlops.data import checks, storage
from mlops.data.lineage import Missing
from mlops.data.storage import BlobVersion
from mlops.settings import DataSet


@dataclass(slots=True)
class Reading:
    """What was read, and what of it could be."""

    checked: checks.Checked
    read: list[BlobVersion] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)


def read(container: ContainerClient, blobs: Sequence[BlobVersion], data_set: DataSet) -> Reading:
    """Read the files one after the other; no more than a few of them are on this machine's disk at once."""
    taken: list[BlobVersion] = []
    missing: list[Missing] = []

    def files(folder: Path) -> Iterator[tuple[str, Path]]:
        for fetched in storage.download(container, blobs, folder):
            if fetched.path is None:
                missing.append(Missing(fetched.blob.name, fetched.missing))
            else:
                taken.append(fetched.blob)
                yield fetched.blob.name, fetched.path

    with tempfile.TemporaryDirectory(prefix="signalbox-data-") as folder:
        checked = checks.read(files(Path(folder)), data_set)
    return Reading(checked, taken, missing)


def require_present(reading: Reading, data_set: DataSet) -> None:
    """Raise `Fault` with the names of files that are gone or were changed, where the data set wants that."""
    if reading.missing and data_set.on_missing == "fail":
        raise report.Fault(
            *(f"{one.name} {one.reason}." for one in reading.missing[: checks.SHOWN]),
            f"{len(reading.missing)} of the files could not be read as they were pinned (on_missing is fail). The "
            "upload that changed them starts the next training; start this one again if it does not.",
        )


def require_sound(checked: checks.Checked) -> None:
    """Raise `Fault` with the first problems of the data."""
    if checked.problems:
        more = len(checked.problems) - checks.SHOWN
        tail = [f"… and {more} more like these."] if more > 0 else []
        raise report.Fault(
            *checked.problems[: checks.SHOWN], *tail, "Nothing was trained; the champion stays as it is."
        )


def notes(reading: Reading) -> list[str]:
    """Return what a summary tells beside its table: files that were skipped, then what was found in the rows."""
    skipped = [f"{one.name} {one.reason}; it was skipped." for one in reading.missing[: checks.SHOWN]]
    if len(reading.missing) > checks.SHOWN:
        skipped.append(f"{len(reading.missing) - checks.SHOWN} more files were skipped; snapshot.json names them.")
    return [*skipped, *reading.checked.notes]
