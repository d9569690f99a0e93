"""The training function: repeatable, and compared only by families that exist."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest
from mlops import settings
from mlops.report import Fault
from train import train as step

from local import datasets

IRIS = settings.load_data_set("iris")
ROWS = pd.concat([pd.read_csv(io.BytesIO(content)) for _, content in datasets.iris()], ignore_index=True)


def test_the_same_rows_and_seed_give_the_same_model() -> None:
    """Two trainings agree in every score, in the family that they choose, and in every answer."""
    features, labels = ROWS[IRIS.features], ROWS[IRIS.label]
    first, second = (step.train(features, labels, IRIS) for _ in range(2))
    assert first.scores == second.scores
    assert set(first.scores) == set(IRIS.families)
    assert first.family == max(first.scores, key=lambda name: first.scores[name])
    assert (first.model.predict(features) == second.model.predict(features)).all()


def test_an_unknown_family_is_named_with_the_known_ones() -> None:
    """A family that nobody wrote is answered with those that there are."""
    wrong = replace(IRIS, families=("oracle",))
    with pytest.raises(Fault, match=r"iris\.json names the family 'oracle'; there are: logistic_regression"):
        step.train(ROWS[IRIS.features], ROWS[IRIS.label], wrong)
