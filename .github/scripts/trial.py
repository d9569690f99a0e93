"""A trial training for a pull request: the job's own steps on this machine, without the one that registers.

`trial.py digits` or `trial.py iris`: data that scikit-learn ships, uploaded to a storage emulator; the registry is a
file that is thrown away. What the steps write into the job's summary becomes the step output `report` as well.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

from azure.storage.blob import BlobServiceClient
from mlops import pipeline, report
from mlops.models import tracking

from local import datasets
from local.provision import DATA_CONTAINER

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = "register"
DATA = {
    "digits": lambda: datasets.first_digits() + datasets.second_digits(),
    "iris": datasets.iris,
}
"""Data set: its files. Its settings are those of code/data."""

SIGNALBOX = Path(sys.executable).with_name("signalbox")


@contextmanager
def storage(folder: Path) -> Iterator[dict[str, Any]]:
    """A storage emulator that lives as long as the block; gives what `signalbox up` says of it."""
    command = [str(SIGNALBOX), "up", "--only", "storage", "--json", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise report.Fault("The storage emulator did not start; what was wrong stands above.")
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGINT)


def main() -> None:
    """Run the steps; a failed one ends the trial with its own words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_set", choices=DATA)
    data_set = parser.parse_args().data_set
    with tempfile.TemporaryDirectory(prefix="signalbox-trial-") as name:
        folder = Path(name)
        with storage(folder / "up") as up:
            environment = _environment(folder, up, data_set)
            files = DATA[data_set]()
            container = BlobServiceClient.from_connection_string(environment["STORAGE_CONNECTION_STRING"])
            for file, content in files:
                container.get_blob_client(DATA_CONTAINER, f"{data_set}/{file}").upload_blob(content)
            failed = _steps(folder, environment)
        text = Path(environment["GITHUB_STEP_SUMMARY"])
        _publish(text.read_text(encoding="utf-8") if text.exists() else "", data_set, len(files))
    if failed:
        raise report.Fault(f"Step {failed} failed; what was wrong stands above.")


def _environment(folder: Path, up: dict[str, Any], data_set: str) -> dict[str, str]:
    """The environment of the steps, as train_model.yml gives it to a job on one machine."""
    connection = BlobServiceClient.from_connection_string(up["storage"])
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    client = tracking.client()
    run = client.create_run(tracking.experiment_id(client, "trial")).info.run_id
    return {
        **os.environ,
        "ORIGIN": f"trial-{os.environ.get('GITHUB_RUN_ID', '0')}",
        "FOLDER": data_set,
        "JOB_NAME": "trial",
        "MLFLOW_RUN_ID": run,
        "STORAGE_ACCOUNT": str(connection.account_name),
        "STATE_ACCOUNT": str(connection.account_name),
        "STORAGE_CONNECTION_STRING": up["storage"],
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }


def _steps(folder: Path, environment: dict[str, str]) -> str | None:
    """Run all steps but the one that registers; the name of the one that failed."""
    for step in pipeline.STEPS:
        if step.name == SKIPPED:
            continue
        command = [sys.executable, str(ROOT / step.script)]
        for name in (*step.inputs, *step.outputs):
            command += [f"--{name}", str(folder / name)]
        with report.group(f"Step {step.name}"):
            if subprocess.run(command, env=environment, check=False).returncode != 0:
                return step.name
    return None


def _publish(summary: str, data_set: str, files: int) -> None:
    """The report as the job's summary and as a step output, whose end no text in it can name."""
    text = (
        f"## Trial training\n\nOn {files} files of the data set {data_set}, which scikit-learn ships. Nothing was "
        f"registered, and no champion stood against it.\n\n{summary}"
    )
    end = f"end-{secrets.token_hex(16)}"
    for variable, written in (
        ("GITHUB_STEP_SUMMARY", text),
        ("GITHUB_OUTPUT", f"report<<{end}\n{text}\n{end}\n"),
    ):
        if path := os.environ.get(variable):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(written)


if __name__ == "__main__":
    report.step("Trial training", main)
