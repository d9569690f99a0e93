"""Step 1: take the snapshot, read it, and check the data. Writes the folder --data for the next steps.

Drift is reported here and never published: an event would start the next training, which would find the same drift
again. Publishing is the business of `drift.py`, which trains nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from azure.storage.blob import ContainerClient
from mlflow import MlflowClient
from mlops import environment, report, settings
from mlops.data import checks, lineage, reading, split, storage
from mlops.data.storage import BlobVersion
from mlops.drift import profile as drift_profile
from mlops.environment import JobEnvironment
from mlops.models import tracking
from mlops.settings import DataSet


def main() -> None:
    """Check what is to be trained on, and record what was really read beside the dispatch's manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder to write checked rows and lineage to")
    into: Path = parser.parse_args().data
    job = environment.read()
    data_set = settings.load_data_set(job.folder)
    data = lineage.train_on(data_set)
    client, run = tracking.client(), tracking.step_run_id()

    container = storage.service("STORAGE_ACCOUNT").get_container_client(storage.DATA_CONTAINER)
    manifest = _manifest(client, job)
    blobs = _files(container, job, data, manifest)
    read = reading.read(container, blobs, data_set)
    taken = lineage.snapshot(container.container_name, job.folder, data, read.read, read.missing)
    made_from = lineage.of_job(job, taken, manifest, run)
    tracking.log_json(client, lineage.SNAPSHOT, taken)
    tracking.log_json(client, lineage.LINEAGE, made_from.tags())
    for name, value in made_from.tags().items():
        client.set_tag(run, name, value)

    checked = checks.whole(read.checked, data_set)
    _report(made_from, checked, reading.notes(read))
    reading.require_present(read, data_set)
    reading.require_sound(checked)
    lineage.write(into, made_from, checked.table)
    training, _ = split.parts(checked.table, data_set.features, data_set.held_out_fraction)
    profile = drift_profile.of_table(training, data_set)
    client.log_text(run, json.dumps(profile.to_json(), separators=(",", ":")), drift_profile.ARTIFACT)
    _compare(client, data_set, profile)


def _manifest(client: MlflowClient, job: JobEnvironment) -> bytes | None:
    """Return the manifest of the dispatch that started the job, and log it; None for a push or a start by hand."""
    if not job.manifest_sha256:
        return None
    manifest = storage.manifest(storage.service("STATE_ACCOUNT"), job.origin, job.manifest_sha256)
    client.log_text(tracking.step_run_id(), manifest.decode(), lineage.MANIFEST)
    return manifest


def _files(container: ContainerClient, job: JobEnvironment, data: str, manifest: bytes | None) -> list[BlobVersion]:
    """Return the files to train on, pinned."""
    if data == "dataset":
        blobs = storage.list_folder(container, job.folder)
        if not blobs:
            raise report.Fault(f"Folder {job.folder!r} of container {container.container_name} holds no files.")
        return blobs
    if manifest is None:
        raise report.Fault(
            f"The data of {job.folder} is trained on by the burst (train_on), but this job was not started by one: it "
            "has no manifest. Set DATA to dataset to train on the folder as it stands."
        )
    blobs = storage.list_burst(container, job.folder, manifest)
    if not blobs:
        raise report.Fault(f"The manifest of {job.origin} tells of no new file in folder {job.folder!r}.")
    return blobs


def _compare(client: MlflowClient, data_set: DataSet, profile: drift_profile.Profile) -> None:
    """Report how far the rows to train on are from those of the champion, if there is one."""
    # Statistics and plots take a second to import, and a first training needs neither.
    from mlops.drift import champion as drift_champion, comparison as drift, report as drift_report  # noqa: PLC0415

    model = settings.load().model_name(data_set.name)
    champion = drift_champion.load(client, model)
    if isinstance(champion, str):
        report.say(champion)
        return
    found = drift.compare(champion.profile, profile, data_set.drift)
    against = f"{model} version {champion.version}"
    client.log_text(
        tracking.step_run_id(), drift_report.page(found, f"Drift of {data_set.name}", against), drift_report.ARTIFACT
    )
    client.log_metric(tracking.step_run_id(), "drift", found.coefficient)
    report.say(f"Compared with the data of {against}: {drift_report.headline(found)}")
    report.summarize(
        "Drift",
        [
            f"Compared with the training data of `{against}`: {report.cell(drift_report.headline(found))}",
            "",
            *report.table(drift_report.rows(found)),
        ],
    )


def _report(made_from: lineage.Lineage, checked: checks.Checked, notes: list[str]) -> None:
    """Print and summarize what was read, and what was found in it."""
    rows: list[tuple[str, object]] = [
        ("data set", made_from.folder),
        ("trained on", "the folder as it stands" if made_from.data == "dataset" else "the files of the burst"),
        ("files in the snapshot", made_from.snapshot_files),
        ("snapshot sha256", made_from.snapshot_sha256),
        ("rows read", checked.rows_read),
        ("events in the manifest", made_from.manifest_count or "none (not started by a dispatch)"),
        ("manifest sha256", made_from.manifest_sha256 or "none"),
        ("problems", len(checked.problems)),
    ]
    report.say(json.dumps(dict(rows)))
    for note in notes:
        report.say(note)
    report.summarize("Data", [*report.table(rows), "", *(f"- {report.cell(note)}" for note in notes)])


if __name__ == "__main__":
    report.step("Data check", main)
