"""Step 1: take the snapshot, read it, and check the data. Writes the folder --data for the next steps."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlops import checks, environment, lineage, report, settings, storage, tables, tracking


def main() -> None:
    """Check the folder's data as it stands now, and record what was read beside the dispatch's manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder to write checked rows and lineage to")
    into: Path = parser.parse_args().data
    job = environment.read()
    data_set = settings.load_data_set(job.folder)
    client = tracking.client()

    container = storage.service("STORAGE_ACCOUNT").get_container_client(storage.DATA_CONTAINER)
    blobs = storage.list_folder(container, job.folder)
    if not blobs:
        raise report.Fault(f"Folder {job.folder!r} of container {container.container_name} holds no files.")
    taken = lineage.snapshot(container.container_name, job.folder, blobs)
    manifest = None
    if job.manifest_sha256:
        state = storage.service("STATE_ACCOUNT")
        manifest = storage.manifest(state, job.origin, job.manifest_sha256)
        client.log_text(tracking.step_run_id(), manifest.decode(), lineage.MANIFEST)
    made_from = lineage.of_job(job, taken, manifest)
    tracking.log_json(client, lineage.SNAPSHOT, taken)
    tracking.log_json(client, lineage.LINEAGE, made_from.tags())
    for name, value in made_from.tags().items():
        client.set_tag(tracking.step_run_id(), name, value)

    paths = storage.download(container, blobs, into / "files")
    reading = tables.read(
        list(zip((blob.name for blob in blobs), paths, strict=True)), [*data_set.features, data_set.label]
    )
    checked = checks.check(reading, data_set)
    _report(made_from, checked)
    if checked.problems:
        more = len(checked.problems) - checks.SHOWN
        tail = [f"… and {more} more like these."] if more > 0 else []
        raise report.Fault(
            *checked.problems[: checks.SHOWN], *tail, "Nothing was trained; the champion stays as it is."
        )
    lineage.write(into, made_from, checked.table)


def _report(made_from: lineage.Lineage, checked: checks.Checked) -> None:
    """Print and summarize what was read, and what was found in it."""
    rows: list[tuple[str, object]] = [
        ("data set", made_from.folder),
        ("files in the snapshot", made_from.snapshot_files),
        ("snapshot sha256", made_from.snapshot_sha256),
        ("rows read", checked.rows_read),
        ("events in the manifest", made_from.manifest_count or "none (not started by a dispatch)"),
        ("manifest sha256", made_from.manifest_sha256 or "none"),
        ("problems", len(checked.problems)),
    ]
    report.say(json.dumps(dict(rows)))
    for note in checked.notes:
        report.say(note)
    report.summarize("Data", [*report.table(rows), "", *(f"- {report.cell(note)}" for note in checked.notes)])


if __name__ == "__main__":
    report.step("Data check", main)
