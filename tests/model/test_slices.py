"""Slices: both models on the rows of one value, and which of them are too small to say anything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from mlops.evaluation import gate, metrics, slices
from mlops.report import Fault

RULE = gate.Rule("accuracy", True, 0.5, 0.95, slices=("form", "size"), slice_tolerance=0.05, minimum_slice_rows=3)
ROWS = pd.DataFrame({"form": ["x", "x", "x", "y"], "size": [1.0, 1.0, 2.5, 1.0]})
TRUTH = np.array(["a", "a", "b", "b"])
GOOD = metrics.Answers(TRUTH, TRUTH)
POOR = metrics.Answers(TRUTH, np.array(["a", "b", "b", "a"]))


def test_each_value_is_measured_for_both_models() -> None:
    """Texts and numbers alike become slices; each column's slices hold every row once."""
    found = slices.compare(RULE, ROWS, GOOD, POOR)
    assert found == [
        gate.Slice("form", "x", 3, 1.0, pytest.approx(2 / 3)),
        gate.Slice("form", "y", 1, 1.0, 0.0),
        gate.Slice("size", "1", 3, 1.0, pytest.approx(1 / 3)),
        gate.Slice("size", "2.5", 1, 1.0, 1.0),
    ]


def test_a_first_model_has_nothing_to_be_compared_with() -> None:
    """It is measured, and no slice is judged."""
    found = slices.compare(RULE, ROWS, GOOD, None)
    assert {one.champion for one in found} == {None}
    assert not any(gate.judged(RULE, one) for one in found)


def test_small_slices_are_named_and_not_judged() -> None:
    """Whoever reads the decision sees what it says nothing about."""
    found = slices.compare(RULE, ROWS, POOR, GOOD)
    assert [one.value for one in found if gate.judged(RULE, one)] == ["x", "1"]
    sentences = slices.notes(RULE, found)
    assert "fewer than 3 held-out rows (minimum_slice_rows): form = 'y' (1)." in sentences[0]
    assert "size = '2.5' (1)." in sentences[1]
    assert slices.notes(replace(RULE, minimum_slice_rows=1), found) == []


def test_a_column_of_too_many_values_is_refused() -> None:
    """Slices of single rows would judge nothing; the sentence names the column."""
    rows = pd.DataFrame({"form": [str(number) for number in range(60)], "size": [1.0] * 60})
    answers = metrics.Answers(np.array(["a"] * 60), np.array(["a"] * 60))
    with pytest.raises(Fault, match="column 'form', which holds 60 different values"):
        slices.compare(RULE, rows, answers, None)
