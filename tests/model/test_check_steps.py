"""The check of a training and the drift check, over a real storage account and a real MLflow store."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient
from mlflow import MlflowClient
from mlops import settings
from mlops.data import lineage, storage, tables
from mlops.drift import profile as drift_profile
from mlops.models import tracking
from mlops.report import Fault

from local import datasets
from tests.model.machine import ROOT, EventSink

# SQLAlchemy 2.1 warns of what MLflow still uses; MLflow's own business.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

ORIGIN = "sb-" + "a" * 20
MODEL = "signalbox-iris"
HEADER, *ROWS = b"".join(
    content if number == 0 else content.split(b"\n", 1)[1] for number, (_, content) in enumerate(datasets.iris())
).splitlines(keepends=True)


def script(name: str) -> ModuleType:
    """Load a script of code/check as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"code/check/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wide(rows: list[bytes]) -> bytes:
    """Return a file of these irises with every petal 4 cm wider."""
    changed = []
    for row in rows:
        *values, width, name = row.decode().strip().split(",")
        changed.append(",".join([*values, str(float(width) + 4), name]) + "\n")
    return HEADER + "".join(changed).encode()


@dataclass
class Bench:
    """A folder of training data, an MLflow store, and the scripts of code/check to run on them."""

    data: ContainerClient
    state: ContainerClient
    client: MlflowClient
    folder: Path
    environment: Callable[[str, str], None]
    experiment: str

    def upload(self, name: str, content: bytes) -> dict[str, object]:
        """Upload a file of the folder; return its entry in a manifest."""
        blob = self.data.get_blob_client(f"iris/{name}")
        etag = blob.upload_blob(content, overwrite=True)["etag"]
        return {"url": blob.url, "etag": etag.strip('"'), "size": len(content)}

    def check(self, **variables: str) -> str:
        """Run the check of a training; returns the id of its run."""
        run = str(self.client.create_run(self.experiment).info.run_id)
        for name, value in {"MLFLOW_RUN_ID": run, "ORIGIN": ORIGIN, "DATA": "", **variables}.items():
            self.environment(name, value)
        script("check").main()
        return run

    def artifact(self, run: str, name: str) -> Any:
        """Return a run's JSON artifact."""
        return json.loads(mlflow.artifacts.load_text(f"runs:/{run}/{name}"))

    def serve(self, run: str) -> None:
        """Make the model of this check's job the champion."""
        if not self.client.search_registered_models(f"name = '{MODEL}'"):
            self.client.create_registered_model(MODEL)
        made = self.client.create_model_version(MODEL, str(self.folder), run, tags=lineage.read(self.folder).tags())
        tracking.make_champion(self.client, made)

    def summary(self) -> str:
        """Return the job summary so far."""
        return (self.folder / "summary.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the database of an MLflow store once; each test copies it, which is much faster."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        tracking.client()
    return database


@pytest.fixture
def bench(azurite: str, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Set up a bench with the irises' first hundred in one file."""
    blobs = BlobServiceClient.from_connection_string(azurite)
    containers = [blobs.create_container(f"{name}-{uuid.uuid4().hex}") for name in ("data", "state")]
    monkeypatch.setattr(storage, "DATA_CONTAINER", containers[0].container_name)
    monkeypatch.setattr(storage, "MANIFEST_CONTAINER", containers[1].container_name)
    monkeypatch.setattr("sys.argv", ["check.py", "--data", str(tmp_path)])
    for name, value in {
        "STORAGE_CONNECTION_STRING": azurite,
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow/mlflow.db",
        "FOLDER": "iris",
        "MANIFEST_SHA256": "",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "mlflow").mkdir()
    shutil.copy(empty_store, tmp_path / "mlflow")
    client = tracking.client()
    experiment = tracking.experiment_id(client, "signalbox")
    made = Bench(containers[0], containers[1], client, tmp_path, monkeypatch.setenv, experiment)
    made.upload("first.csv", HEADER + b"".join(ROWS[:100]))
    yield made
    for container in containers:
        container.delete_container()
    # MLflow keeps both for the whole process.
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[EventSink]:
    """Take what is published to the custom topic."""
    with EventSink() as made:
        monkeypatch.setenv("DRIFT_EVENTS_ENDPOINT", made.url)
        monkeypatch.setenv("DRIFT_EVENTS_KEY", "made-up-key")
        yield made


def manifest(bench: Bench, *entries: dict[str, object]) -> str:
    """Store the manifest of the dispatch; returns its sha256."""
    content = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    bench.state.upload_blob(f"{ORIGIN}.jsonl", content)
    return hashlib.sha256(content).hexdigest()


def loosened(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Change settings of the data set."""
    read = settings.load_data_set
    monkeypatch.setattr(settings, "load_data_set", lambda folder: replace(read(folder), **changes))


def test_a_dataset_is_the_folder_and_is_recorded_with_its_profile(bench: Bench) -> None:
    """The snapshot names every file, and the profile describes the rows that are trained on, not the held-out ones."""
    bench.upload("second.csv", HEADER + b"".join(ROWS[100:]))
    run = bench.check()
    taken = bench.artifact(run, lineage.SNAPSHOT)
    assert [file["name"] for file in taken["files"]] == ["iris/first.csv", "iris/second.csv"]
    assert (taken["data"], taken["missing"]) == ("dataset", [])
    made_from = lineage.read(bench.folder)
    assert made_from.snapshot_sha256 == taken["sha256"]
    assert made_from.tags()[lineage.PROFILE_RUN] == run
    profile = drift_profile.from_json(bench.artifact(run, drift_profile.ARTIFACT))
    rows = lineage.read_table(bench.folder, settings.load_data_set("iris"))
    assert len(rows) == 149
    assert 95 < profile.rows < 125


def test_a_burst_is_the_manifests_files_whatever_else_the_folder_holds(bench: Bench) -> None:
    """Files that the dispatch did not tell of are not trained on; the snapshot covers what was read."""
    entry = bench.upload("burst.csv", HEADER + b"".join(ROWS))
    bench.upload("bad.csv", b"not,for,training\n")
    run = bench.check(DATA="burst", MANIFEST_SHA256=manifest(bench, entry))
    taken = bench.artifact(run, lineage.SNAPSHOT)
    assert [(file["name"], file["etag"]) for file in taken["files"]] == [("iris/burst.csv", entry["etag"])]
    assert "the files of the burst" in bench.summary()
    assert lineage.read(bench.folder).tags()["train_on"] == "burst"


def test_a_burst_without_a_manifest_trains_nothing(bench: Bench) -> None:
    """A push brings no files; that the whole folder is trained on instead has to be said."""
    with pytest.raises(Fault, match="no manifest"):
        bench.check(DATA="burst")


@pytest.mark.parametrize("on_missing", ["skip", "fail"])
def test_a_file_that_changed_meanwhile_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch, on_missing: str) -> None:
    """By the data set's setting the job goes on without the file, or fails; either way the summary names it."""
    loosened(monkeypatch, on_missing=on_missing)
    entries = [bench.upload("gone.csv", HEADER + ROWS[0]), bench.upload("all.csv", HEADER + b"".join(ROWS))]
    bench.upload("gone.csv", HEADER + ROWS[1])
    sha256 = manifest(bench, *entries)
    sentence = "iris/gone.csv was changed or deleted before it could be read"
    if on_missing == "fail":
        with pytest.raises(Fault, match=sentence):
            bench.check(DATA="burst", MANIFEST_SHA256=sha256)
        assert not (bench.folder / lineage.LINEAGE).exists()
        return
    run = bench.check(DATA="burst", MANIFEST_SHA256=sha256)
    taken = bench.artifact(run, lineage.SNAPSHOT)
    assert [file["name"] for file in taken["files"]] == ["iris/all.csv"]
    assert [file["name"] for file in taken["missing"]] == ["iris/gone.csv"]
    assert sentence in bench.summary()


def test_more_rows_than_allowed_are_sampled_and_said_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows are chosen each time, from all files; the summary says that there were more."""
    loosened(monkeypatch, maximum_rows=90)
    monkeypatch.setattr(tables, "VALUES_AT_ONCE", 100)
    bench.upload("second.csv", HEADER + b"".join(ROWS[100:]))
    bench.check()
    first = lineage.read_table(bench.folder, settings.load_data_set("iris"))
    bench.check()
    again = lineage.read_table(bench.folder, settings.load_data_set("iris"))
    assert len(first) == 90
    assert first.equals(again)
    assert "150 rows are more than maximum_rows: 90 different ones are used" in bench.summary()


def test_a_training_reports_drift_and_publishes_nothing(bench: Bench, sink: EventSink) -> None:
    """An event of a training would start the next one: the check logs the report and summarizes it, no more."""
    bench.serve(bench.check())
    bench.upload("wide.csv", wide(ROWS))
    run = bench.check()
    page = mlflow.artifacts.load_text(f"runs:/{run}/drift.html")
    assert "petal_width" in page
    assert "The data have drifted away from the champion's: petal_width" in bench.summary()
    assert sink.events == []


def test_drift_of_new_files_is_published_once_for_the_same_data(bench: Bench, sink: EventSink, contracts: Path) -> None:
    """The event has the documented shape; a second check of the same data publishes an identical one."""
    bench.serve(bench.check())
    bench.upload("wide.csv", wide(ROWS[:60]))
    drift = script("drift")
    drift.main()
    drift.main()
    first, second = sink.events
    for event in sink.events:
        event.pop("metadataVersion", None)
    assert first == second
    (sample,) = json.loads((contracts / "events/samples/datasetdriftdetected.eventgrid.json").read_text())
    assert first["eventType"] == sample["eventType"]
    assert {name: type(value) for name, value in first["data"].items()} == {
        name: type(value) for name, value in sample["data"].items()
    }
    assert first["data"]["DataDriftName"] == "iris"
    assert first["subject"] == f"datadrifts/{first['data']['DataDriftId']}/runs/{first['data']['RunId']}"
    assert not first.get("topic")
    found = bench.client.search_runs([bench.experiment], "tags.drifted = 'true'")
    assert len(found) == 2
    assert "petal_width" in mlflow.artifacts.load_text(f"runs:/{found[0].info.run_id}/drift.html")
    assert all(tracking.ORIGIN_TAG not in run.data.tags for run in found)


def test_files_of_the_champion_are_no_news(bench: Bench, sink: EventSink) -> None:
    """Without a champion, without new files, and with new files of the same kind there is no event."""
    drift = script("drift")
    drift.main()
    assert "There is no champion of signalbox-iris yet" in bench.summary()
    bench.serve(bench.check())
    drift.main()
    assert "The folder holds nothing that came after the data of signalbox-iris version 1" in bench.summary()
    bench.upload("more.csv", HEADER + b"".join(ROWS[100:]))
    drift.main()
    assert "None of 5 columns has drifted" in bench.summary()
    assert sink.events == []


def test_bad_new_files_are_named_and_no_drift(bench: Bench, sink: EventSink) -> None:
    """What is no data cannot have drifted: the check fails with the file's name."""
    bench.serve(bench.check())
    bench.upload("bad.csv", HEADER + b"1,2,3,wide,setosa\n")
    with pytest.raises(Fault, match=r"iris/bad\.csv, line 2, column 'petal_width'"):
        script("drift").main()
    assert sink.events == []


def test_a_topic_that_is_missing_or_away_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is asked for before anything is read; an event that nobody took fails the check."""
    monkeypatch.delenv("DRIFT_EVENTS_ENDPOINT", raising=False)
    with pytest.raises(Fault, match="DRIFT_EVENTS_ENDPOINT is not set"):
        script("drift").main()
    bench.serve(bench.check())
    bench.upload("wide.csv", wide(ROWS[:60]))
    monkeypatch.setenv("DRIFT_EVENTS_ENDPOINT", "http://127.0.0.1:9/api/events")
    monkeypatch.setenv("DRIFT_EVENTS_KEY", "made-up-key")
    with pytest.raises(Fault, match="could not be published to DRIFT_EVENTS_ENDPOINT"):
        script("drift").main()


def test_every_folder_is_checked_and_a_fault_stops_none(
    bench: Bench, sink: EventSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a folder's name all that have settings are checked; the bad one is named at the end."""
    bench.serve(bench.check())
    bench.upload("bad.csv", b"")
    monkeypatch.setenv("FOLDER", "")
    monkeypatch.setattr(settings, "data_sets", lambda: ["digits", "iris", "../etc"])
    with pytest.raises(Fault) as fault:
        script("drift").main()
    assert "iris/bad.csv: the file is empty" in str(fault.value)
    assert "FOLDER is '../etc'" in str(fault.value)
    assert "There is no champion of signalbox-digits yet" in bench.summary()
    assert sink.events == []


def test_a_champion_without_a_profile_is_no_fault(bench: Bench, sink: EventSink) -> None:
    """A model of before, or one whose run was deleted, cannot be compared with; its successor can."""
    run = bench.check()
    bench.serve(run)
    bench.upload("wide.csv", wide(ROWS[:60]))
    version = bench.client.get_model_version(MODEL, "1")
    bench.client.set_model_version_tag(MODEL, "1", lineage.PROFILE_RUN, "0" * 32)
    script("drift").main()
    assert f"The profile of {MODEL} version {version.version} cannot be read from run {'0' * 32}" in bench.summary()
    bench.client.delete_model_version_tag(MODEL, "1", lineage.PROFILE_RUN)
    script("drift").main()
    assert f"{MODEL} version 1 was registered without a profile" in bench.summary()
    assert sink.events == []
