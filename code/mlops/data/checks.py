"""The data checks: what every row must be before anything is trained on it.

The rules come from the data set's settings and are checked by pandera; this module turns each failure into one
sentence that names file, line, column and value. Failing data never trains. Every row of every file is checked, also
where only a sample of them is trained on.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from mlops.data import tables
from mlops.data.reservoir import Reservoir
from mlops.data.split import parts
from mlops.data.tables import FILE, LINE
from mlops.settings import ColumnRule, DataSet

SHOWN = 5
"""Problems that a report names."""
_ENOUGH = 1_000
"""Problems after which reading on tells nobody more."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of the checks: either problems, or a table that may be trained on."""

    table: pd.DataFrame
    """Numbers as float64, text and the label as text, in the settings' order; without repeated rows."""
    problems: tuple[str, ...]
    """One sentence each; empty if the data may train."""
    notes: tuple[str, ...]
    """What was found and is no reason to stop."""
    rows_read: int
    sampled: bool
    """The table is a sample of the rows."""


def read(files: Iterable[tuple[str, Path]], data_set: DataSet) -> Checked:
    """Read `files` (name to report, path) piece by piece, and hold every row against the data set's rules.

    What only a whole table can show (see `whole`) is left out: this is also how files that only came in addition
    are read.
    """
    reader = _Reader(data_set)
    for name, path in files:
        if len(reader.problems) >= _ENOUGH:
            reader.problems.append(f"Reading stopped before {name}: there are {_ENOUGH} problems, and perhaps more.")
            break
        reader.read(name, path)
    return reader.end()


class _Reader:
    """Reads files one after the other; the rows of small ones are checked together, which is much faster."""

    def __init__(self, data_set: DataSet) -> None:
        self.problems: list[str] = []
        self._data_set = data_set
        self._columns = [*data_set.features, data_set.label]
        self._schema = schema(data_set)
        self._reservoir = Reservoir(self._columns, data_set.maximum_rows)
        self._ignored: set[str] = set()
        self._rows_read = 0
        self._forget()

    def read(self, name: str, path: Path) -> None:
        """Read one file, up to its first line that is no row, or to more problems than anybody reads."""
        try:
            for piece in tables.pieces(path, self._columns):
                self._rows_read += len(piece.rows)
                self._ignored |= piece.ignored
                self._rows += piece.rows
                self._lines += piece.lines
                self._files += [name] * len(piece.rows)
                self._size += piece.size
                if tables.is_enough(len(self._rows) * len(self._columns), self._size):
                    self._check()
                if len(self.problems) >= _ENOUGH:
                    return
        except tables.UnreadableError as error:
            self.problems.append(f"{name}: {error}")

    def end(self) -> Checked:
        """Check what is left, and return what came of all."""
        self._check()
        notes = _notes(self._reservoir, self._data_set)
        if self._ignored:
            notes.append(f"Columns without a rule were ignored: {', '.join(sorted(self._ignored)[:SHOWN])}.")
        allowed = self._data_set.maximum_duplicates
        if not self.problems and self._reservoir.repeated_share > allowed:
            self.problems.append(
                f"{self._reservoir.repeated_share:.1%} of the rows repeat another one, but at most {allowed:.1%} may "
                "(maximum_duplicates): was the same data uploaded again and again?"
            )
        table, sampled = self._reservoir.table(), self._reservoir.sampled
        return Checked(table, tuple(self.problems), tuple(notes), self._rows_read, sampled)

    def _check(self) -> None:
        if not self._rows:
            return
        rows = tables.frame(self._columns, self._rows, self._files, self._lines)
        self._forget()
        self.problems += _row_problems(rows, self._schema)
        if not self.problems:
            self._reservoir.add(_typed(rows[self._columns], self._data_set))

    def _forget(self) -> None:
        """Begin a new batch of rows."""
        self._rows: list[list[str]] = []
        self._files: list[str] = []
        self._lines: list[int] = []
        self._size = 0


def whole(checked: Checked, data_set: DataSet) -> Checked:
    """Add what only the whole table shows: enough rows, enough classes, enough of each to learn and to ask."""
    if checked.problems:
        return checked
    found = tuple(_table_problems(checked.table, data_set))
    return Checked(checked.table, found, checked.notes, checked.rows_read, checked.sampled)


def schema(data_set: DataSet) -> pa.DataFrameSchema:
    """Build the pandera schema of the rows: finite numbers in range, text that is not too long, a known label."""
    columns = {rule.name: pa.Column(object, _column_checks(rule)) for rule in data_set.columns}
    known = frozenset(data_set.classes)
    # The classes stand in the settings; naming hundreds of them in a sentence would help nobody.
    shown = ", ".join(data_set.classes[:12]) + (", …" if data_set.classes[12:] else "")
    columns[data_set.label] = pa.Column(
        object, [pa.Check(lambda text: text.isin(known), error=f"must be one of: {shown}")]
    )
    return pa.DataFrameSchema(columns)


def _column_checks(rule: ColumnRule) -> list[pa.Check]:
    if rule.kind == "text":
        allowed = f"must have at most {rule.max_length} characters"
        return [pa.Check(lambda text: text.str.len() <= rule.max_length, error=allowed)]

    def within(text: pd.Series[Any]) -> pd.Series[bool]:
        values = _numbers(text)
        return values.isna() | values.between(rule.minimum, rule.maximum)

    return [
        pa.Check(lambda text: _numbers(text).notna(), error="must be a number"),
        pa.Check(within, error=f"must lie between {rule.minimum:g} and {rule.maximum:g}"),
    ]


def _numbers(text: pd.Series[Any]) -> pd.Series[float]:
    """Return the finite numbers that the texts are, and NaN for every other text."""
    return pd.to_numeric(text, errors="coerce").astype("float64").where(np.isfinite)


def _typed(table: pd.DataFrame, data_set: DataSet) -> pd.DataFrame:
    """Turn checked text into numbers exactly as Python reads them; -0.0 becomes 0.0, the same number."""
    numbers = table[data_set.numbers].astype("float64") + 0.0
    return table.assign(**{name: numbers[name] for name in data_set.numbers})


def _row_problems(table: pd.DataFrame, expected: pa.DataFrameSchema) -> list[str]:
    """Validate the rows; the sentences come in the order of the lines."""
    try:
        expected.validate(table, lazy=True)
    except SchemaErrors as errors:
        failures = errors.failure_cases.dropna(subset=["index"]).sort_values("index", kind="stable")
        places: Mapping[Any, dict[Hashable, Any]] = table[[FILE, LINE]].to_dict("index")
        return [_sentence(places[failure["index"]], failure) for failure in failures.to_dict(orient="records")]
    return []


def _sentence(place: dict[Hashable, Any], failure: dict[Hashable, Any]) -> str:
    where = f"{place[FILE]}, line {place[LINE]}, column {failure['column']!r}"
    if failure["check"] == "not_nullable":
        return f"{where}: the value is missing."
    return f"{where}: the value is {str(failure['failure_case'])[:40]!r}, but it {failure['check']}."


def _notes(reservoir: Reservoir, data_set: DataSet) -> list[str]:
    notes = []
    table = reservoir.table()
    if reservoir.sampled:
        notes.append(
            f"{reservoir.rows} rows are more than maximum_rows: {len(table)} different ones are used, "
            "chosen by hash, and the same ones each time. Every row was checked."
        )
        if reservoir.repeated_share:
            notes.append(f"About {reservoir.repeated_share:.1%} of the rows repeat another one; each counts once.")
    elif reservoir.rows > len(table):
        notes.append(f"{reservoir.rows - len(table)} repeated rows were counted once.")
    contradictions = int(table.duplicated(subset=data_set.features).sum())
    if contradictions:
        notes.append(f"{contradictions} rows have the same features as another row, but another label.")
    return notes


def _table_problems(table: pd.DataFrame, data_set: DataSet) -> list[str]:
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
    if not problems and counts.iloc[0] > data_set.maximum_imbalance * counts.iloc[-1]:
        problems.append(
            f"Class {str(counts.index[0])!r} has {counts.iloc[0]} rows and class {str(counts.index[-1])!r} has "
            f"{counts.iloc[-1]}: more than {data_set.maximum_imbalance:g} to 1 (maximum_imbalance); a model would "
            "learn to answer with the frequent one."
        )
    if asked[data_set.label].nunique() < 2:
        problems.append(
            "The held-out rows show fewer than two classes: they could not tell a good model from a bad one."
        )
    return problems
