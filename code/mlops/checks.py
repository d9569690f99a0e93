"""The data checks: what every row must be before anything is trained on it.

The rules come from the data set's settings and are checked by pandera; this module turns each failure into one
sentence that names file, line, column and value. Failing data never trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from mlops.settings import ColumnRule, DataSet
from mlops.split import parts
from mlops.tables import FILE, LINE, Reading

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of the checks: either problems, or a table that may be trained on."""

    table: pd.DataFrame
    """Features as float64 and the label as text, in the settings' order; without repeated rows."""
    problems: tuple[str, ...]
    """One sentence each; empty if the data may train."""
    notes: tuple[str, ...]
    """What was found and is no reason to stop."""
    rows_read: int
    duplicates: int


def check(reading: Reading, data_set: DataSet) -> Checked:
    """Hold every row, then the whole table, against the data set's rules."""
    problems = [*reading.problems, *_row_problems(reading.table, data_set)]
    notes = []
    if reading.ignored:
        notes.append(f"Columns without a rule were ignored: {', '.join(sorted(reading.ignored)[:SHOWN])}.")
    table = pd.DataFrame(columns=pd.Index([*data_set.features, data_set.label]))
    duplicates = 0
    if not problems:
        everything = reading.table[[*data_set.features, data_set.label]]
        typed = everything.astype(dict.fromkeys(data_set.features, "float64"))
        table = typed.drop_duplicates(ignore_index=True)
        duplicates = len(typed) - len(table)
        if duplicates:
            notes.append(f"{duplicates} repeated rows were counted once.")
        contradictions = len(table) - len(table.drop_duplicates(subset=data_set.features))
        if contradictions:
            notes.append(f"{contradictions} rows have the same features as another row, but another label.")
        problems = _table_problems(table, data_set)
    return Checked(table, tuple(problems), tuple(notes), len(reading.table), duplicates)


def schema(data_set: DataSet) -> pa.DataFrameSchema:
    """Build the pandera schema of one row: text that is a finite number in range, and a known label."""
    columns = {rule.name: pa.Column(object, _number_checks(rule)) for rule in data_set.columns}
    known = frozenset(data_set.classes)
    # The classes stand in the settings; naming hundreds of them in a sentence would help nobody.
    shown = ", ".join(data_set.classes[:12]) + (", …" if data_set.classes[12:] else "")
    columns[data_set.label] = pa.Column(object, [_check(known.__contains__, f"must be one of: {shown}")])
    return pa.DataFrameSchema(columns)


def _number_checks(rule: ColumnRule) -> list[pa.Check]:
    def within(text: Any) -> bool:
        value = _number(text)
        return value is None or rule.minimum <= value <= rule.maximum

    return [
        _check(lambda text: _number(text) is not None, "must be a number"),
        _check(within, f"must lie between {rule.minimum:g} and {rule.maximum:g}"),
    ]


def _check(accepts: Callable[[Any], bool], rule: str) -> pa.Check:
    return pa.Check(accepts, element_wise=True, error=rule)


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _row_problems(table: pd.DataFrame, data_set: DataSet) -> list[str]:
    """Validate the rows; the sentences come in the order of files and lines."""
    if table.empty:
        return []
    try:
        schema(data_set).validate(table, lazy=True)
    except SchemaErrors as errors:
        failures = errors.failure_cases.dropna(subset=["index"]).sort_values("index", kind="stable")
        places = table[[FILE, LINE]].to_dict("index")
        return [_sentence(places[failure["index"]], failure) for failure in failures.to_dict(orient="records")]
    return []


def _sentence(place: dict[Hashable, Any], failure: dict[Hashable, Any]) -> str:
    where = f"{place[FILE]}, line {place[LINE]}, column {failure['column']!r}"
    if failure["check"] == "not_nullable":
        return f"{where}: the value is missing."
    return f"{where}: the value is {str(failure['failure_case'])[:40]!r}, but it {failure['check']}."


def _table_problems(table: pd.DataFrame, data_set: DataSet) -> list[str]:
    """Check what only the whole table shows: enough rows, enough classes, enough of each to learn and to ask."""
    problems = []
    if len(table) < data_set.minimum_rows:
        problems.append(
            f"Folder {data_set.name} holds {len(table)} different rows, but {data_set.minimum_rows} are needed "
            "(minimum_rows); upload more."
        )
    counts = table[data_set.label].value_counts()
    if len(counts) < data_set.minimum_classes:
        found = ", ".join(sorted(map(str, counts.index)))
        problems.append(
            f"Column {data_set.label!r} holds only {len(counts)} of at least {data_set.minimum_classes} classes "
            f"({found}); a model could not learn to tell them apart."
        )
    if problems:
        return problems
    training, asked = parts(table, data_set.features, data_set.held_out_fraction)
    learned = training[data_set.label].value_counts()
    for name in counts.index:
        count = int(learned.get(name, 0))
        if count < data_set.minimum_rows_per_class:
            problems.append(
                f"Class {str(name)!r} has {count} training rows, but {data_set.minimum_rows_per_class} are needed "
                "(minimum_rows_per_class); upload more of it."
            )
    if asked[data_set.label].nunique() < 2:
        problems.append(
            "The held-out rows show fewer than two classes: they could not tell a good model from a bad one."
        )
    return problems
