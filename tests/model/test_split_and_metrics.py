"""Held-out rows that stay held out, and metrics whose intervals can be trusted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlops import metrics, split

rows = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=40, unique=True)


@given(rows, st.data())
def test_a_rows_side_does_not_depend_on_the_others(pool: list[tuple[int, int]], data: st.DataObject) -> None:
    """More rows, fewer rows or another order never move a row to the other side."""
    sides = dict(zip(pool, split.held_out(pool, 0.3), strict=True))
    later = data.draw(st.permutations([*pool, (99, 99)]))
    for row, side in zip(later, split.held_out(later, 0.3), strict=True):
        assert row not in sides or sides[row] == side


def test_a_relabelled_row_stays_on_its_side() -> None:
    """The label is no part of the hash, so a corrected row is never trained on and asked as well."""
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "label": ["x", "y", "z"]})
    before = split.parts(table, ["a"], 0.5)[1].index
    assert list(before) == list(split.parts(table.assign(label="w"), ["a"], 0.5)[1].index)


def test_the_way_a_number_is_written_does_not_matter() -> None:
    """1, 1.0 and -0.0 against 0 are the same numbers in any upload."""
    assert split.position([1, 0.0]) == split.position([1.0, -0.0])


def test_about_the_asked_share_is_held_out() -> None:
    """Of many rows, the share that is held out is close to the setting."""
    share = split.held_out([(number, number / 7) for number in range(4000)], 0.25).mean()
    assert 0.22 < share < 0.28


def test_metrics_agree_with_scikit_learn() -> None:
    """With every row counted once, the weighted metrics are the well-known ones."""
    from sklearn.metrics import accuracy_score, f1_score

    draw = np.random.default_rng(1)
    answers = metrics.Answers(draw.choice(["a", "b", "c"], 200), draw.choice(["a", "b", "c"], 200))
    assert metrics.value(metrics.accuracy, answers) == pytest.approx(accuracy_score(answers.truth, answers.predicted))
    assert metrics.value(metrics.macro_f1, answers) == pytest.approx(
        f1_score(answers.truth, answers.predicted, average="macro")
    )
    assert metrics.value(metrics.error_rate, answers) == pytest.approx(
        1 - accuracy_score(answers.truth, answers.predicted)
    )


def test_the_interval_shows_a_difference_and_only_a_difference() -> None:
    """A clearly better model has an interval above zero; the same model has none; the seed repeats both."""
    draw = np.random.default_rng(2)
    truth = draw.choice(["a", "b"], 400)
    flipped = np.where(truth == "a", "b", "a")
    good = metrics.Answers(truth, np.where(draw.random(400) < 0.95, truth, flipped))
    poor = metrics.Answers(truth, np.where(draw.random(400) < 0.80, truth, flipped))

    def interval(one: metrics.Answers, other: metrics.Answers) -> tuple[float, float]:
        return metrics.difference_interval(metrics.accuracy, one, other, confidence=0.95, resamples=1000, seed=3)

    assert interval(good, poor)[0] > 0
    assert interval(poor, good)[1] < 0
    assert interval(good, good) == (0.0, 0.0)
    assert interval(good, poor) == interval(good, poor)
