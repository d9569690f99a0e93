"""Slices: the held-out rows apart by the values of a column, so that a gain over all hides no loss on some."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from mlops.evaluation import gate, metrics
from mlops.report import Fault

MOST_VALUES = 50


def compare(
    rule: gate.Rule, rows: pd.DataFrame, challenger: metrics.Answers, champion: metrics.Answers | None
) -> list[gate.Slice]:
    """Measure both models on each slice of `rows`, in the order of columns and values.

    Raises `Fault` for a column with too many values: its slices would be single rows.
    """
    metric = metrics.named(rule.metric)
    return [
        gate.Slice(
            column,
            value,
            int(mask.sum()),
            metrics.value(metric, challenger.only(mask.to_numpy())),
            None if champion is None else metrics.value(metric, champion.only(mask.to_numpy())),
        )
        for column in rule.slices
        for value, mask in _parts(column, rows[column])
    ]


def _parts(column: str, values: pd.Series[str]) -> Iterator[tuple[str, pd.Series[bool]]]:
    """Yield (value as text, which rows hold it)."""
    texts = values.map(lambda value: value if isinstance(value, str) else f"{value:g}")
    found = sorted(texts.unique())
    if len(found) > MOST_VALUES:
        raise Fault(
            f"slices names the column {column!r}, which holds {len(found)} different values in the held-out rows; "
            f"name a column with at most {MOST_VALUES}."
        )
    for value in found:
        yield value, texts == value


def notes(rule: gate.Rule, slices: list[gate.Slice]) -> list[str]:
    """Return a sentence for each column some of whose slices have too few rows to be judged."""
    sentences = []
    for column in rule.slices:
        small = [one for one in slices if one.column == column and one.rows < rule.minimum_slice_rows]
        if small:
            named = ", ".join(f"{one.value!r} ({one.rows})" for one in small)
            sentences.append(
                f"Not judged, with fewer than {rule.minimum_slice_rows} held-out rows (minimum_slice_rows): "
                f"{column} = {named}."
            )
    return sentences
