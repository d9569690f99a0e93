"""The steps train and evaluate as the job runs them: what they log, and what they say of a model that is none."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from evaluate import evaluate as evaluation
from mlops import settings
from mlops.data import lineage
from mlops.evaluation import figures, gate, metrics
from mlops.models import tracking
from mlops.report import Fault
from train import train as training

from local import datasets
from tests.model.registry_world import World

# SQLAlchemy 2.1 warns of what MLflow still uses; MLflow's own business.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


@pytest.fixture
def world(mlflow_world: World) -> World:
    """The steps log figures and metrics, which only MLflow's own store takes."""
    return mlflow_world


@pytest.fixture
def job(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs one step of a job on the irises, in a child run as in Azure; gives the child's id."""
    table = pd.concat([pd.read_csv(io.BytesIO(content)) for _, content in datasets.iris()], ignore_index=True)
    words = {field.name: f"the {field.name}" for field in fields(lineage.Lineage)}
    made_from = lineage.Lineage(**{**words, "folder": "iris", "job": "j", "manifest_count": 3, "snapshot_files": 3})
    lineage.write(tmp_path / "data", made_from, table.drop_duplicates(ignore_index=True))
    parent = world.client.create_run(world.experiment, run_name="j").info.run_id
    world.runs["j"] = parent
    for name, value in (("ORIGIN", "sb-j"), ("FOLDER", "iris"), ("JOB_NAME", "j")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(settings, "load", lambda: world.configuration)

    def run(step: Any, *outputs: str) -> str:
        child = world.client.create_run(world.experiment, tags={"mlflow.parentRunId": parent}).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", child)
        folders = [part for name in ("data", *outputs) for part in (f"--{name}", str(tmp_path / name))]
        monkeypatch.setattr("sys.argv", ["step", *folders])
        step.main()
        return str(child)

    return run


def artifacts(world: World, run: str) -> set[str]:
    """Return the paths of a run's files, two levels deep."""
    listed = world.client.list_artifacts(run)
    inside = [file for folder in listed if folder.is_dir for file in world.client.list_artifacts(run, folder.path)]
    return {file.path for file in [*listed, *inside]}


def test_training_logs_what_it_compared(world: World, job: Callable[..., str]) -> None:
    """Parameters, each family's score on the deciding metric, the plot, and a model with signature and example."""
    run = job(training, "model")
    logged = world.client.get_run(run).data
    assert logged.params["metric"] == "accuracy"
    assert any(name.startswith(f"{logged.params['family']}.") for name in logged.params)
    scores = {name: value for name, value in logged.metrics.items() if name.startswith("cv_accuracy_")}
    assert logged.metrics["cv_accuracy"] == max(scores.values())
    assert max(scores, key=lambda name: scores[name]) == f"cv_accuracy_{logged.params['family']}"
    assert {figures.FAMILIES, "model/MLmodel", "model/input_example.json"} <= artifacts(world, run)
    folder = tracking.artifact_folder(run, tracking.MODEL)
    signature = mlflow.models.Model.load(str(folder / "MLmodel")).signature
    assert signature.inputs.input_names() == settings.load_data_set("iris").features
    assert len(json.loads((folder / "input_example.json").read_text())["data"]) == 3


def test_evaluation_logs_the_record_and_what_it_rests_on(world: World, job: Callable[..., str], tmp_path: Path) -> None:
    """The record, every metric, the matrix and the classes with the step's run; the outcome with the job's own too."""
    job(training, "model")
    run = job(evaluation, "model", "decision")
    assert {gate.RECORD, evaluation.PER_CLASS, figures.CONFUSION, "model/MLmodel"} <= artifacts(world, run)
    record = tracking.read_json(run, gate.RECORD)
    assert record == json.loads((tmp_path / "decision" / gate.RECORD).read_text())
    assert (record["outcome"], record["data_set"], record["job"]) == (gate.PROMOTED, "iris", "j")
    logged = world.client.get_run(run).data.metrics
    assert logged["held_out_accuracy"] == record["challenger"] == record["metrics"]["accuracy"]
    assert {"held_out_f1_macro", "held_out_error_rate", "held_out_balanced_accuracy"} <= set(logged)
    per_class = tracking.read_json(run, evaluation.PER_CLASS)
    assert sum(per_class[name]["support"] for name in settings.load_data_set("iris").classes) == record["held_out_rows"]
    own = world.client.get_run(world.runs["j"]).data.tags
    assert own["decision_outcome"] == gate.PROMOTED
    assert own["signalbox_origin"] == "the origin"


def test_two_jobs_on_the_same_rows_make_models_that_answer_alike(
    world: World, job: Callable[..., str], tmp_path: Path
) -> None:
    """The seed repeats the whole step: the second evaluation finds nothing better, and no difference at all."""
    first = job(training, "model")
    job(evaluation, "model", "decision")
    version = world.register_folder("j", tmp_path)
    tracking.make_champion(world.client, version)
    shutil.rmtree(tmp_path / "model")
    second = job(training, "model")
    assert world.client.get_run(first).data.metrics == world.client.get_run(second).data.metrics
    record = tracking.read_json(job(evaluation, "model", "decision"), gate.RECORD)
    assert record["outcome"] == gate.KEPT_CHAMPION
    assert record["difference_interval"] == [0.0, 0.0]
    assert record["metrics"] == record["champion"]["metrics"]


@pytest.mark.parametrize("content", [b"", b"not a model", b"flavors: {sklearn: {pickled_model: model.skops}}\n"])
def test_a_model_file_that_is_none_is_a_sentence(
    world: World, job: Callable[..., str], tmp_path: Path, content: bytes
) -> None:
    """Whatever lies in the model's folder, the evaluation names it and decides nothing."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_bytes(content)
    (tmp_path / "model" / "model.skops").write_bytes(b"PK\x03\x04 rubbish")
    with pytest.raises(Fault, match=r"The challenger is no model that can be loaded .* the champion stays as it is"):
        job(evaluation, "model", "decision")
    assert not (tmp_path / "decision").exists()
    assert world.champion() == ""


def test_a_champion_of_other_columns_is_a_sentence(world: World, job: Callable[..., str], tmp_path: Path) -> None:
    """A champion that cannot answer today's columns is named, with the setting to change."""
    job(training, "model")
    rows = pd.DataFrame({"other": [1.0], "species": ["setosa"]})
    other = replace(settings.load_data_set("iris"), columns=(settings.ColumnRule("other"),))
    with pytest.raises(Fault, match=r"The champion cannot answer .* give registermodel\.json a new model_name"):
        evaluation.answers(tmp_path / "model", "champion", rows, other)


def test_the_summary_names_floors_slices_and_what_was_not_judged(
    world: World, job: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the job's page sees what the decision rests on."""
    iris = settings.load_data_set("iris")
    strict = replace(iris, floors={"error_rate": 0.3}, slices=("species",), minimum_slice_rows=13)
    monkeypatch.setattr(settings, "load_data_set", lambda _: strict)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    job(training, "model")
    job(evaluation, "model", "decision")
    summary = (tmp_path / "summary.md").read_text()
    assert "accuracy ≥ 0.8; error_rate ≤ 0.3" in summary
    assert "slice species = setosa" in summary
    assert "Not judged, with fewer than 13 held-out rows (minimum_slice_rows): species = " in summary


def test_the_plots_show_every_family_and_every_class() -> None:
    """The best family stands on top, and the matrix counts each answer once."""
    figure = figures.families(metrics.METRICS["accuracy"], {"poor": [0.1, 0.2], "good": [0.8, 0.9]})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["poor", "good"]
    figure = figures.families(metrics.METRICS["log_loss"], {"good": [0.1, 0.2], "poor": [0.8, 0.9]})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["poor", "good"]
    answers = metrics.Answers(np.array(["a", "b", "b"]), np.array(["a", "b", "c"]))
    matrix = figures.confusion(answers, "challenger")
    assert [text.get_text() for text in matrix.axes[0].texts] == ["1", "0", "0", "0", "1", "1", "0", "0", "0"]
