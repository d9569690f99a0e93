"""Held-out rows that stay held out, and metrics whose intervals can be trusted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from mlops.data import split
from mlops.evaluation import metrics
from mlops.report import Fault

rows = st.lists(st.tuples(st.integers(-5, 5), st.text(max_size=3)), min_size=1, max_size=40, unique=True)


def drawn(seed: int, right: float, count: int = 400) -> metrics.Answers:
    """Return answers to three classes, about `right` of them right, with a loss that fits."""
    draw = np.random.default_rng(seed)
    truth = np.random.default_rng(1).choice(["a", "b", "c"], count, p=[0.6, 0.3, 0.1])
    answered = np.where(draw.random(count) < right, truth, draw.choice(["a", "b", "c"], count))
    return metrics.Answers(truth, answered, np.where(answered == truth, 0.2, 1.7))


@given(rows, st.data())
def test_a_rows_side_does_not_depend_on_the_others(pool: list[tuple[int, str]], data: st.DataObject) -> None:
    """More rows, fewer rows or another order never move a row to the other side, numbers and text alike."""
    sides = dict(zip(pool, split.held_out(pool, 0.3), strict=True))
    later = data.draw(st.permutations([*pool, (99, "99")]))
    for row, side in zip(later, split.held_out(later, 0.3), strict=True):
        assert row not in sides or sides[row] == side


def test_a_relabelled_row_stays_on_its_side() -> None:
    """The label is no part of the hash, so a corrected row is never trained on and asked as well."""
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "label": ["x", "y", "z"]})
    before = split.parts(table, ["a"], 0.5)[1].index
    assert list(before) == list(split.parts(table.assign(label="w"), ["a"], 0.5)[1].index)


def test_the_way_a_value_is_written_does_not_matter() -> None:
    """1, 1.0 and -0.0 against 0 are the same numbers, and other blanks or capitals the same text."""
    assert split.position([1, 0.0]) == split.position([1.0, -0.0])
    assert split.position(["A  normal\nvariable "]) == split.position(["a normal variable"])
    assert split.position(["1.0"]) == split.position([1.0])
    for one, other in (
        ("Caf\u00e9", "cafe\u0301"),
        ("\ufb01eld", "field"),
        ("\u212b", "\u00e5"),
        ("\uff21\uff0c", "a,"),
    ):
        assert split.position([one]) == split.position([other])


def test_about_the_asked_share_is_held_out() -> None:
    """Of many rows, the share that is held out is close to the setting."""
    share = split.held_out([(number, number / 7) for number in range(4000)], 0.25).mean()
    assert 0.22 < share < 0.28


def test_metrics_agree_with_scikit_learn() -> None:
    """With every row counted once, the weighted metrics are the well-known ones, also for an answer nobody expected."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    answers = drawn(2, 0.7)
    truth, predicted = answers.truth, answers.predicted
    measured = metrics.every(answers)
    assert measured["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert measured["error_rate"] == pytest.approx(1 - accuracy_score(truth, predicted))
    assert measured["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    predicted[:5] = "d"
    assert metrics.every(answers)["f1_macro"] == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_log_loss_agrees_with_scikit_learn() -> None:
    """A model's own probabilities are taken, whatever the order of its classes, and zeros are clipped."""
    from sklearn.metrics import log_loss
    from sklearn.naive_bayes import GaussianNB

    draw = np.random.default_rng(4)
    points = pd.DataFrame({"x": np.concatenate([draw.normal(0, 1, 50), draw.normal(9, 1, 50)])})
    labels = pd.Series(["b"] * 50 + ["a"] * 50)
    model = GaussianNB().fit(points, labels)
    turned = labels.copy()
    turned[:3] = "a"
    answers = metrics.ask(model, points, turned)
    assert metrics.every(answers)["log_loss"] == pytest.approx(log_loss(turned, model.predict_proba(points)))


def test_a_class_that_the_model_never_saw_costs_it_dearly() -> None:
    """Its probability is zero, so log_loss is large, but a number."""
    from sklearn.naive_bayes import GaussianNB

    points = pd.DataFrame({"x": [0.0, 0.1, 5.0, 5.1]})
    model = GaussianNB().fit(points, ["a", "a", "b", "b"])
    loss = metrics.ask(model, points, ["c", "a", "b", "b"]).loss
    assert loss is not None
    assert 30 < loss[0] < 40


def test_a_metric_that_cannot_be_measured_says_why() -> None:
    """log_loss of a model without probabilities is refused, with what to change."""
    answers = metrics.Answers(np.array(["a"]), np.array(["a"]))
    assert "log_loss" not in metrics.every(answers)
    with pytest.raises(Fault, match="log_loss needs probabilities that add up to 1, and this model gives none: leave"):
        metrics.value(metrics.METRICS["log_loss"], answers)


@pytest.mark.parametrize("given", [[[1.0, 1.0], [1.0, 1.0]], [[2.0, -1.0], [-1.0, 2.0]], [[0.5, np.nan], [0.5, 0.5]]])
def test_what_is_no_probability_is_none(given: list[list[float]]) -> None:
    """A model that is sure of every label at once would have no loss at all, and beat every champion."""

    class Boastful:
        """A model that gives these numbers for its probabilities."""

        classes_ = ("a", "b")

        def predict(self, _: object) -> list[str]:
            """Answer wrongly."""
            return ["b", "a"]

        def predict_proba(self, _: object) -> list[list[float]]:
            """Answer with what was given."""
            return given

    assert metrics.ask(Boastful(), pd.DataFrame({"x": [1, 2]}), ["a", "b"]).loss is None


def test_an_unknown_metric_is_answered_with_the_known_ones() -> None:
    """The sentence names the file that asks for it."""
    with pytest.raises(Fault, match=r"iris\.json names the metric 'auc'; there are: accuracy, balanced_accuracy, f1"):
        metrics.named("auc", "iris.json")


def test_a_model_that_answers_too_few_rows_is_refused() -> None:
    """Pairs need one answer a row."""

    class Silent:
        """A model that answers once, whatever it is asked."""

        def predict(self, _: object) -> list[str]:
            """Answer once."""
            return ["a"]

    with pytest.raises(ValueError, match="2 rows got answers of the shape"):
        metrics.ask(Silent(), pd.DataFrame({"x": [1, 2]}), ["a", "b"])


@pytest.mark.parametrize("name", list(metrics.METRICS))
def test_the_interval_shows_a_difference_and_only_a_difference(name: str) -> None:
    """A clearly better model has an interval on its metric's good side; the same model has none; the seed repeats."""
    metric, good, poor = metrics.METRICS[name], drawn(2, 0.95), drawn(3, 0.6)

    def gain(one: metrics.Answers, other: metrics.Answers) -> tuple[float, float]:
        low, high = metrics.difference_interval(metric, one, other, confidence=0.95, resamples=500, seed=3)
        return (low, high) if metric.larger_is_better else (-high, -low)

    assert gain(good, poor)[0] > 0
    assert gain(poor, good)[1] < 0
    assert gain(good, good) == (0.0, 0.0)
    assert gain(good, poor) == gain(good, poor)


def test_many_rows_are_resampled_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that is used at once changes nothing in the interval."""

    def interval() -> tuple[float, float]:
        return metrics.difference_interval(
            metrics.METRICS["accuracy"], drawn(2, 0.9), drawn(3, 0.8), confidence=0.9, resamples=300, seed=3
        )

    at_once = interval()
    monkeypatch.setattr(metrics, "_CELLS", 7 * 400)
    assert interval() == at_once


def test_a_rare_class_that_a_resample_misses_is_left_out_of_its_mean() -> None:
    """Some resamples show none of a class with one row; their value is still a number."""
    answers = metrics.Answers(np.array(["a"] * 20 + ["b"]), np.array(["a"] * 21))
    for name in ("balanced_accuracy", "f1_macro"):
        low, high = metrics.difference_interval(
            metrics.METRICS[name], answers, answers, confidence=0.95, resamples=200, seed=1
        )
        assert (low, high) == (0.0, 0.0)
