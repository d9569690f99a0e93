"""Tell whether a folder has drifted away from what its champion was trained on. Trains nothing; publishes drift.

Compared are the files that came, or were changed, since the champion's snapshot: beside the rows that it was trained
on, a few new ones would not show. Reads `FOLDER` (empty: every folder that has settings), the settings of a training
job, and the custom topic of Event Grid from `DRIFT_EVENTS_ENDPOINT`. The workflow check_data.yml calls it.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlflow import MlflowClient
from mlops import environment, report, settings
from mlops.data import lineage, reading, storage
from mlops.drift import (
    champion as drift_champion,
    comparison as drift,
    event as drift_event,
    profile as drift_profile,
    report as drift_report,
)
from mlops.models import tracking
from mlops.settings import Settings

_TITLE = "Drift check"


def main() -> None:
    """Check the folder that `FOLDER` names, or every one that has settings; a fault of one does not stop the others."""
    configuration, client = settings.load(), tracking.client()
    drift_event.topic()  # nobody should learn only at the first drift that the address was never set
    wanted = os.environ.get("FOLDER")
    faults: list[str] = []
    for folder in [wanted] if wanted else settings.data_sets():
        report.say(f"Folder {folder}")
        try:
            environment.read({"ORIGIN": "drift-check", "FOLDER": folder})  # it may be an outsider's input
            _check(client, configuration, folder)
        except report.Fault as fault:
            faults += fault.sentences
    if faults:
        raise report.Fault(*faults)


def _check(client: MlflowClient, configuration: Settings, folder: str) -> None:
    """Compare what is new in the folder with the champion's data; log a report, and publish an event if it drifted."""
    data_set, model = settings.load_data_set(folder), configuration.model_name(folder)
    champion = drift_champion.load(client, model)
    if isinstance(champion, str):
        _end(folder, champion)
        return
    against = f"{model} version {champion.version}"
    container = storage.service("STORAGE_ACCOUNT").get_container_client(storage.DATA_CONTAINER)
    listed = storage.list_folder(container, folder)
    fresh = [blob for blob in listed if (blob.name, blob.etag) not in champion.files]
    if not fresh:
        _end(folder, f"The folder holds nothing that came after the data of {against}.")
        return
    read = reading.read(container, fresh, data_set)
    reading.require_present(read, data_set)
    reading.require_sound(read.checked)
    taken = lineage.snapshot(container.container_name, folder, "drift", read.read, read.missing)
    found = drift.compare(champion.profile, drift_profile.of_table(read.checked.table, data_set), data_set.drift)
    experiment = tracking.experiment_id(client, str(configuration.run["experiment_name"]))
    # A run of its own, without an origin: its end deploys nothing.
    tags = {"data_set": folder, "snapshot_sha256": taken["sha256"], "drifted": str(found.drifted).lower()}
    run = client.create_run(experiment, tags=tags, run_name=f"drift-{folder}").info.run_id
    client.log_text(run, drift_report.page(found, f"Drift of {folder}", against), drift_report.ARTIFACT)
    client.log_metric(run, "drift", found.coefficient)
    client.set_terminated(run)
    _summarize(folder, found, reading.notes(read), against, len(read.read))
    if not found.drifted:
        return
    drift_event.publish(
        drift_event.Detected(
            folder=folder,
            model=model,
            version=champion.version,
            base_sha256=champion.snapshot_sha256,
            target_sha256=taken["sha256"],
            coefficient=found.coefficient,
            start=champion.taken_at,
            end=max((blob.modified for blob in read.read if blob.modified), default=datetime.now(UTC)),
        )
    )
    report.say("Published the drift; the routes decide what follows.")


def _summarize(folder: str, found: drift.Drift, notes: list[str], against: str, files: int) -> None:
    headline = drift_report.headline(found)
    for line in (headline, *notes):
        report.say(line)
    report.summarize(
        f"{_TITLE}: {folder}",
        [
            report.cell(headline),
            "",
            *report.table(
                [
                    ("compared with", against),
                    ("new files", files),
                    ("rows in them", found.now.rows),
                    *drift_report.rows(found),
                ]
            ),
            "",
            *(f"- {report.cell(note)}" for note in notes),
        ],
    )


def _end(folder: str, sentence: str) -> None:
    report.say(sentence)
    report.summarize(f"{_TITLE}: {folder}", [report.cell(sentence)])


if __name__ == "__main__":
    report.step(_TITLE, main)
