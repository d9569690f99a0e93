"""The plots that a job logs, as figures without a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mlops.evaluation.metrics import Answers, Metric

FAMILIES = "plots/families.png"
CONFUSION = "plots/confusion_matrix.png"


def families(metric: Metric, scores: Mapping[str, Sequence[float]]) -> Figure:
    """Draw each family's cross-validated `metric`, a dot a fold and a bar at the mean, the best on top."""
    order = sorted(scores, key=lambda name: float(np.mean(scores[name])), reverse=not metric.larger_is_better)
    figure = Figure(figsize=(7, 1 + 0.45 * len(order)), layout="constrained")
    axes = figure.subplots()
    axes.barh(order, [float(np.mean(scores[name])) for name in order], color="#9db8d9")
    for place, name in enumerate(order):
        axes.plot(scores[name], [place] * len(scores[name]), "o", color="#1f3b63", markersize=4)
    axes.set_xlabel(f"{metric.name}, cross-validated")
    return figure


def confusion(answers: Answers, model: str) -> Figure:
    """Draw how often each true label got each answer; `model` stands in the title."""
    names = np.union1d(answers.truth, answers.predicted)
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (np.searchsorted(names, answers.truth), np.searchsorted(names, answers.predicted)), 1)
    size = 2.5 + 0.45 * len(names)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(counts, cmap="Blues")
    axes.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="answered", ylabel="true", title=model)
    axes.set_xticklabels(names, rotation=45, ha="right")
    axes.set_yticklabels(names)
    if len(names) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            shade = "white" if count > counts.max() / 2 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=shade)
    figure.colorbar(image, label="held-out rows")
    return figure
