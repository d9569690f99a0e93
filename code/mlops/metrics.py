"""The metrics that the gate can be told to use, and the paired bootstrap interval of their difference.

Every metric takes row weights, so that one matrix of resampling weights gives all resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlops.report import Fault

Weights = npt.NDArray[np.float64]
Labels = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model answered to the held-out rows."""

    truth: Labels
    """True labels, one a row."""
    predicted: Labels
    """Predicted labels, in the same order."""


Metric = Callable[[Answers, Weights], Weights]
"""(answers, weights of shape (resamples, rows)) → one value a resample; 0 to 1."""


def accuracy(answers: Answers, weights: Weights) -> Weights:
    """Share of the rows that were answered rightly."""
    right = (answers.truth == answers.predicted).astype(float)
    return np.asarray(weights @ right / weights.sum(axis=1))


def error_rate(answers: Answers, weights: Weights) -> Weights:
    """Share of the rows that were answered wrongly (smaller is better)."""
    return 1.0 - accuracy(answers, weights)


def macro_f1(answers: Answers, weights: Weights) -> Weights:
    """Mean over the true classes of each class's F1."""
    scores = []
    for name in np.unique(answers.truth):
        true, predicted = answers.truth == name, answers.predicted == name
        hits = weights @ (true & predicted).astype(float)
        both = weights @ true.astype(float) + weights @ predicted.astype(float)
        scores.append(np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0))
    return np.asarray(np.mean(scores, axis=0))


METRICS: dict[str, Metric] = {"accuracy": accuracy, "error_rate": error_rate, "macro_f1": macro_f1}


def named(name: str) -> Metric:
    """Return the metric called `name`, or say which there are."""
    if name not in METRICS:
        raise Fault(f"registermodel.json names the metric {name!r}; there are: {', '.join(METRICS)}.")
    return METRICS[name]


def value(metric: Metric, answers: Answers) -> float:
    """Return the metric over all rows, each counted once."""
    return float(metric(answers, np.ones((1, len(answers.truth))))[0])


def difference_interval(
    metric: Metric, challenger: Answers, champion: Answers, *, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the interval of metric(challenger) - metric(champion), resampling the rows in pairs.

    Both models are asked the same resampled rows, so that what they have in common cancels out.
    """
    rows = len(challenger.truth)
    drawn = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1.0 / rows), size=resamples)
    weights = drawn.astype(np.float64)
    differences = metric(challenger, weights) - metric(champion, weights)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(differences, [tail, 1.0 - tail])
    return float(low), float(high)
