"""The training function: repeatable, chosen by the metric that decides, and clear about what it cannot do."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pandas as pd
import pytest
from mlops import settings
from mlops.evaluation import metrics
from mlops.report import Fault
from sklearn.dummy import DummyClassifier
from train import train as step

from local import datasets

ACCURACY, LOG_LOSS = metrics.METRICS["accuracy"], metrics.METRICS["log_loss"]


def rows_of(files: list[datasets.CsvFile]) -> pd.DataFrame:
    """Return the rows of an upload."""
    return pd.concat([pd.read_csv(io.BytesIO(content)) for _, content in files], ignore_index=True)


IRIS, TEXTS = settings.load_data_set("iris"), settings.load_data_set("abstracts")
IRISES = rows_of(datasets.iris())


@pytest.fixture(scope="module")
def texts() -> pd.DataFrame:
    """Return the scientific texts."""
    return rows_of(datasets.abstracts())


@pytest.mark.parametrize("metric", metrics.METRICS.values(), ids=lambda metric: metric.name)
def test_the_same_rows_and_seed_give_the_same_model(metric: metrics.Metric) -> None:
    """Two trainings agree in every score, in the family that the metric's good side chooses, and in every answer."""
    able = tuple(name for name in IRIS.families if name != "support_vectors")
    data_set = replace(IRIS, families=able)
    features, labels = IRISES[IRIS.features], IRISES[IRIS.label]
    first, second = (step.train(features, labels, data_set, metric) for _ in range(2))
    assert first.scores == second.scores
    assert set(first.scores) == set(able)
    best = max if metric.larger_is_better else min
    assert first.means[first.family] == best(first.means.values())
    assert metrics.every(metrics.ask(first.model, features, labels)) == metrics.every(
        metrics.ask(second.model, features, labels)
    )


def test_texts_are_learned_and_repeatable(texts: pd.DataFrame) -> None:
    """Words become weights; the same texts give the same answers, mostly right ones on texts never seen."""
    learned, asked = texts.iloc[:600], texts.iloc[600:]
    first, second = (step.train(learned[TEXTS.features], learned[TEXTS.label], TEXTS, ACCURACY) for _ in range(2))
    answers = metrics.ask(first.model, asked[TEXTS.features], asked[TEXTS.label])
    assert list(answers.predicted) == list(second.model.predict(asked[TEXTS.features]))
    assert metrics.every(answers)["accuracy"] > 0.7


def test_numbers_and_text_can_stand_side_by_side() -> None:
    """A table of both is learned from as one."""
    both = replace(
        IRIS,
        columns=(settings.ColumnRule("length", 0, 9), settings.ColumnRule("note", kind=settings.TEXT, max_length=9)),
        families=("multinomial_naive_bayes", "nearest_neighbours"),
    )
    table = pd.DataFrame({"length": [1.0, 9.0] * 20, "note": ["red", "blue"] * 10 + ["blue", "red"] * 10})
    labels = pd.Series([f"{note}-{length:.0f}" for length, note in zip(table.length, table.note, strict=True)])
    trained = step.train(table, labels, both, ACCURACY)
    assert (trained.model.predict(table) == labels).all()


@pytest.mark.parametrize("family", step.FAMILIES)
def test_every_family_can_be_saved_and_loaded(tmp_path: Path, family: str) -> None:
    """Whichever wins: what is loaded from its folder answers as it did."""
    features = IRISES[IRIS.features]
    model = step.train(features, IRISES[IRIS.label], replace(IRIS, families=(family,)), ACCURACY).model
    step.save(model, tmp_path / "model", features.head(3))
    loaded = mlflow.sklearn.load_model(str(tmp_path / "model"))
    assert list(loaded.predict(features)) == list(model.predict(features))


class Own(DummyClassifier):  # type: ignore[misc]
    """An estimator of the team's own."""


def test_a_type_of_ones_own_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that could not be loaded again is told before it is written, with where to name its package."""
    features = IRISES[IRIS.features]
    model = Own().fit(features, IRISES[IRIS.label])
    with pytest.raises(Fault, match=r"Own\. If their package .* add it to TRUSTED"):
        step.save(model, tmp_path / "model", features.head(3))
    monkeypatch.setattr(step, "TRUSTED", ("sklearn.", Own.__module__))
    step.save(model, tmp_path / "model", features.head(3))
    assert isinstance(mlflow.sklearn.load_model(str(tmp_path / "model")), Own)


@pytest.mark.parametrize(
    ("data_set", "changes", "metric", "words"),
    [
        (IRIS, {"families": ("oracle",)}, ACCURACY, r"iris\.json names the family 'oracle'; there are: logistic_reg"),
        (TEXTS, {"families": ("naive_bayes",)}, ACCURACY, "'naive_bayes', which cannot learn from text; name some of"),
        (IRIS, {"families": ("support_vectors",)}, LOG_LOSS, "'support_vectors', which gives no probabilities"),
        (TEXTS, {"families": ("linear_support_vectors",)}, LOG_LOSS, "gives no probabilities, but the metric log_loss"),
    ],
)
def test_a_family_that_cannot_do_it_is_named(
    data_set: settings.DataSet, changes: dict[str, Any], metric: metrics.Metric, words: str
) -> None:
    """Unknown families, and those that lack what text or the metric needs, are answered with the mend."""
    table = pd.DataFrame({name: ["1.0"] * 6 for name in data_set.features})
    with pytest.raises(Fault, match=words):
        step.train(table, pd.Series(["a", "b"] * 3), replace(data_set, **changes), metric)


@pytest.mark.parametrize(
    ("labels", "words"),
    [(["a"] * 8, "show 1 classes"), (["a"] * 7 + ["b"], "the smallest with 1 rows"), ([], "show 0 classes")],
)
def test_one_class_cannot_be_learned(labels: list[str], words: str) -> None:
    """Rows of one class, or too few of a class for the folds, are refused before anything is fitted."""
    table = pd.DataFrame({name: [1.0] * len(labels) for name in IRIS.features})
    with pytest.raises(Fault, match=words):
        step.train(table, pd.Series(labels, dtype=object), IRIS, ACCURACY)


def test_a_trials_hyperparameters_reach_their_family() -> None:
    """What a sweep hands over replaces the family's own; numbers, words and null are read as JSON."""
    written = [
        "nearest_neighbours__n_neighbors=7",
        "nearest_neighbours__weights=distance",
        "decision_tree__max_depth=null",
    ]
    parameters = step.parameters_of(written, IRIS)
    assert parameters == {
        "nearest_neighbours": {"n_neighbors": 7, "weights": "distance"},
        "decision_tree": {"max_depth": None},
    }
    one = replace(IRIS, families=("nearest_neighbours",))
    trained = step.train(IRISES[IRIS.features], IRISES[IRIS.label], one, ACCURACY, parameters)
    assert trained.model.steps[-1][1].n_neighbors == 7


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("C", "must be FAMILY__NAME=VALUE with a family of iris"),
        ("extra_trees__n_estimators=5", "must be FAMILY__NAME=VALUE with a family of iris"),
        ("support_vectors__c=1", "support_vectors has no 'c'; it has C, break_ties"),
        ("support_vectors__C=-1", "cannot be learned from: The 'C' parameter of .* Got -1 instead.$"),
    ],
)
def test_a_hyperparameter_that_no_family_has_is_named(written: str, words: str) -> None:
    """The sentence says what the family has; a value out of range is told by scikit-learn."""
    with pytest.raises(Fault, match=words):
        step.train(IRISES[IRIS.features], IRISES[IRIS.label], IRIS, ACCURACY, step.parameters_of([written], IRIS))


def test_texts_without_words_cannot_be_learned() -> None:
    """A column of signs only has no vocabulary; that is a sentence and no traceback."""
    table = pd.DataFrame({"form": ["!?"] * 12, "abstract": ["…"] * 12})
    with pytest.raises(Fault, match="cannot be learned from: empty vocabulary"):
        step.train(table, pd.Series(["a", "b"] * 6), TEXTS, ACCURACY)
