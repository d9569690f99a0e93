"""The metrics that settings can name, and the paired bootstrap interval of their difference.

Which way a metric is better belongs to the metric, not to a setting: `rules.today` refuses a file that says otherwise.
Every metric takes row weights, so that one matrix of resampling weights gives many resamples at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops.report import Fault

Weights = npt.NDArray[np.float64]
Labels = npt.NDArray[np.str_]

# Weights held at once: 4 million float64 are 32 MB, however many rows are held out.
_CELLS = 4_000_000
# A probability of zero for what is true would make the loss infinite; scikit-learn clips at the same place.
_LEAST_PROBABILITY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model answered to some rows."""

    truth: Labels
    """True labels, one a row."""
    predicted: Labels
    """Predicted labels, in the same order."""
    loss: Weights | None = None
    """-log of the probability that the model gave to the true label, one a row; None if it gives none, or what it
    gives are no probabilities: a model that is sure of every label at once would have no loss at all."""

    def only(self, rows: npt.NDArray[np.bool_]) -> Answers:
        """Return the answers to the rows that `rows` marks."""
        return Answers(self.truth[rows], self.predicted[rows], None if self.loss is None else self.loss[rows])


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to measure a model."""

    name: str
    larger_is_better: bool
    worst: float
    """The value that no model can fall short of: a floor there would judge nothing."""
    measure: Callable[[Answers, Weights], Weights]
    """(answers, weights of shape (resamples, rows)) → one value a resample."""


def ask(model: Any, rows: Any, labels: Any) -> Answers:
    """Let a fitted scikit-learn `model` answer `rows` (its feature columns), whose true labels are `labels`.

    Raises ValueError where the model does not give exactly one answer a row.
    """
    truth, predicted = np.asarray(labels, dtype=str), np.asarray(model.predict(rows), dtype=str)
    if predicted.shape != truth.shape:
        raise ValueError(f"{len(truth)} rows got answers of the shape {predicted.shape}")
    if not hasattr(model, "predict_proba"):
        return Answers(truth, predicted)
    given = np.asarray(model.predict_proba(rows), dtype=float)
    if not np.allclose(given.sum(axis=1), 1.0, atol=1e-3) or given.min() < 0:
        return Answers(truth, predicted)
    probability = np.zeros(len(truth))
    for column, name in enumerate(np.asarray(model.classes_, dtype=str)):
        probability[truth == name] = given[truth == name, column]
    return Answers(truth, predicted, -np.log(np.clip(probability, _LEAST_PROBABILITY, 1.0)))


def _accuracy(answers: Answers, weights: Weights) -> Weights:
    right = (answers.truth == answers.predicted).astype(float)
    return np.asarray(weights @ right / weights.sum(axis=1))


def _error_rate(answers: Answers, weights: Weights) -> Weights:
    return 1.0 - _accuracy(answers, weights)


def _balanced_accuracy(answers: Answers, weights: Weights) -> Weights:
    right = answers.truth == answers.predicted
    recalls = []
    for name in np.unique(answers.truth):
        true = answers.truth == name
        recalls.append(_share(weights @ (true & right).astype(float), weights @ true.astype(float)))
    return np.asarray(np.nanmean(recalls, axis=0))


def _f1_macro(answers: Answers, weights: Weights) -> Weights:
    scores = []
    for name in np.union1d(answers.truth, answers.predicted):
        true, predicted = answers.truth == name, answers.predicted == name
        hits = weights @ (true & predicted).astype(float)
        both = weights @ true.astype(float) + weights @ predicted.astype(float)
        scores.append(_share(2 * hits, both))
    return np.asarray(np.nanmean(scores, axis=0))


def _share(part: Weights, whole: Weights) -> Weights:
    """Return part / whole; not a number where a resample shows none of it, so that the mean leaves it out."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _log_loss(answers: Answers, weights: Weights) -> Weights:
    if answers.loss is None:
        raise Fault(
            "log_loss needs probabilities that add up to 1, and this model gives none: leave support_vectors and "
            "linear_support_vectors out of families, or name another metric."
        )
    return np.asarray(weights @ answers.loss / weights.sum(axis=1))


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", True, 0.0, _accuracy),
        Metric("balanced_accuracy", True, 0.0, _balanced_accuracy),
        Metric("f1_macro", True, 0.0, _f1_macro),
        Metric("error_rate", False, 1.0, _error_rate),
        Metric("log_loss", False, math.inf, _log_loss),
    )
}


def named(name: str, file: str = "registermodel.json") -> Metric:
    """Return the metric called `name`, or say which there are; `file` is where it was named."""
    if name not in METRICS:
        raise Fault(f"{file} names the metric {name!r}; there are: {', '.join(METRICS)}.")
    return METRICS[name]


def value(metric: Metric, answers: Answers) -> float:
    """Return the metric over all rows, each counted once."""
    return float(metric.measure(answers, np.ones((1, len(answers.truth))))[0])


def every(answers: Answers) -> dict[str, float]:
    """Return all metrics that can be measured, by name; without log_loss where there are no probabilities."""
    return {
        name: value(metric, answers)
        for name, metric in METRICS.items()
        if answers.loss is not None or metric.measure is not _log_loss
    }


def difference_interval(
    metric: Metric, challenger: Answers, champion: Answers, *, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the interval of metric(challenger) - metric(champion), resampling the rows in pairs.

    Both models are asked the same resampled rows, so that what they have in common cancels out.
    """
    rows, draw = len(challenger.truth), np.random.default_rng(seed)
    shares, at_once = np.full(rows, 1.0 / rows), max(1, _CELLS // rows)
    differences = []
    for start in range(0, resamples, at_once):
        weights = draw.multinomial(rows, shares, size=min(at_once, resamples - start)).astype(np.float64)
        differences.append(metric.measure(challenger, weights) - metric.measure(champion, weights))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.concatenate(differences), [tail, 1.0 - tail])
    return float(low), float(high)
