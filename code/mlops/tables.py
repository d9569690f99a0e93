"""CSV files to one table of text, with the file and the line that each row came from."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

FILE = "__file__"
LINE = "__line__"


@dataclass(slots=True)
class Reading:
    """What reading the files gave: the rows as text, and a sentence for each file that could not be read."""

    table: pd.DataFrame
    """Columns: the expected ones as text (missing values null), then `__file__` and `__line__` (from 1)."""
    problems: list[str] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
    """Columns that stand in a file but in no setting."""


def read(files: Sequence[tuple[str, Path]], columns: Sequence[str]) -> Reading:
    """Read `files` (name to report, path); a file with any problem adds no row."""
    tables: list[pd.DataFrame] = []
    problems: list[str] = []
    ignored: set[str] = set()
    for name, path in files:
        try:
            header, rows, lines = _rows(path, columns)
        except _UnreadableError as error:
            problems.append(f"{name}: {error}")
            continue
        ignored.update(column for column in header if column not in columns)
        table = pd.DataFrame(rows, columns=pd.Index(header), dtype=object)[list(columns)]
        table = table.where(table != "", None)
        table[FILE] = name
        table[LINE] = lines
        tables.append(table)
    empty = pd.DataFrame(columns=pd.Index([*columns, FILE, LINE]), dtype=object)
    return Reading(pd.concat(tables, ignore_index=True) if tables else empty, problems, ignored)


class _UnreadableError(Exception):
    """The file is not the CSV that was expected; the text ends the sentence that the file's name begins."""


def _rows(path: Path, columns: Sequence[str]) -> tuple[list[str], list[list[str]], list[int]]:
    """Return header, rows of the header's width, and each row's line number."""
    if not path.stat().st_size:
        raise _UnreadableError("the file is empty (0 bytes); upload it again with its rows.")
    rows: list[list[str]] = []
    lines: list[int] = []
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) != len(header):
                raise _UnreadableError("line 1: the header names a column twice; name each column once.")
            _require_columns(header, columns)
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise _UnreadableError(
                        f"line {reader.line_num} has {len(row)} values, but the header has {len(header)} columns."
                    )
                rows.append([value.strip() for value in row])
                lines.append(reader.line_num)
        except UnicodeDecodeError:
            raise _UnreadableError("this is not a CSV file (its content is not UTF-8 text).") from None
        except csv.Error as error:
            raise _UnreadableError(f"line {reader.line_num} is not CSV ({error}).") from None
    if not rows:
        raise _UnreadableError("the file has a header but no rows.")
    return header, rows, lines


def _require_columns(header: list[str], expected: Sequence[str]) -> None:
    missing = [column for column in expected if column not in header]
    if len(missing) == len(expected):
        first = ",".join(header)[:60]
        raise _UnreadableError(
            f"this is not a CSV file with the expected header; it begins with {first!r} where "
            f"{expected[0]!r}, {expected[1]!r}, … should stand."
        )
    if missing:
        named = ", ".join(repr(column) for column in missing[:3]) + (" and more" if missing[3:] else "")
        raise _UnreadableError(f"line 1: column {named} is missing from the header.")
