"""CSV files as tables of text, a bounded piece at a time, with the file and the line that each row came from.

Whatever a file holds, no more than one piece of it is in memory: also a file without a single line end, or one
quotation mark that is never closed.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pandas as pd

if TYPE_CHECKING:
    import _csv

FILE = "__file__"
LINE = "__line__"
VALUES_AT_ONCE = 200_000
CHARACTERS_AT_ONCE = 1 << 24
_LONGEST_LINE = 1 << 20
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_OTHER_FILES = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
csv.field_size_limit(_LONGEST_LINE)


class UnreadableError(Exception):
    """The file is not the CSV that was expected; the text ends the sentence that the file's name begins."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of one file."""

    rows: list[list[str]]
    """Values in the order of the expected columns, without outer blanks."""
    lines: list[int]
    """Line on which each row begins, from 1."""
    size: int
    """Characters of the values."""
    ignored: frozenset[str]
    """Columns that stand in the file but in no setting."""


def pieces(path: Path, columns: Sequence[str]) -> Iterator[Piece]:
    """Read the file at `path`; raises `UnreadableError` at the first line that is no row of these columns."""
    _require_text(path)
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(_lines(text), strict=True)
        try:
            header = [column.strip() for column in next(reader, [])]
            _require_header(header, columns)
            yield from _pieces(reader, header, columns)
        except UnicodeDecodeError:
            raise UnreadableError(_wrong_encoding(path)) from None
        except csv.Error as error:
            raise UnreadableError(f"line {reader.line_num} is not CSV ({error}).") from None


def frame(columns: Sequence[str], rows: list[list[str]], files: list[str], lines: list[int]) -> pd.DataFrame:
    """Return rows as a table of text, missing values null, with the columns `__file__` and `__line__` beside them."""
    table = pd.DataFrame(rows, columns=pd.Index(columns), dtype=object)
    table = table.where(table != "", None)
    table[FILE], table[LINE] = files, lines
    return table


def _pieces(reader: _csv.Reader, header: list[str], columns: Sequence[str]) -> Iterator[Piece]:
    places = [header.index(column) for column in columns]
    ignored = frozenset(header).difference(columns)
    rows: list[list[str]] = []
    lines: list[int] = []
    size, before, found = 0, reader.line_num, False
    for row in reader:
        line, before = before + 1, reader.line_num
        if not row:
            continue
        if len(row) != len(header):
            raise UnreadableError(f"line {line} has {len(row)} values, but the header has {len(header)} columns.")
        rows.append([row[place].strip() for place in places])
        lines.append(line)
        size += sum(map(len, rows[-1]))
        if is_enough(len(rows) * len(columns), size):
            yield Piece(rows, lines, size, ignored)
            rows, lines, size, found = [], [], 0, True
    if rows:
        yield Piece(rows, lines, size, ignored)
    elif not found:
        raise UnreadableError("the file has a header but no rows.")


def is_enough(values: int, characters: int) -> bool:
    """Tell whether so many values, of so many characters in all, are as much as should be in memory at once."""
    return values >= VALUES_AT_ONCE or characters >= CHARACTERS_AT_ONCE


def _lines(text: TextIO) -> Iterator[str]:
    number = 0
    while line := text.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE and not line.endswith(("\n", "\r")):
            raise UnreadableError(f"line {number} is longer than 1 MiB: this is no table, or its line ends are lost.")
        if "\0" in line:
            raise UnreadableError(f"this is not a CSV file (line {number} holds a NUL byte, as binary files do).")
        yield line


def _require_text(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise UnreadableError("the file is empty (0 bytes); upload it again with its rows.")
    for signature, kind in _OTHER_FILES.items():
        if start.startswith(signature):
            raise UnreadableError(f"this is not a CSV file, but {kind}; upload the table as CSV.")
    if start.startswith(_UTF16):
        raise UnreadableError("this is not a CSV file in UTF-8, but in UTF-16; save it as UTF-8 and upload it again.")


def _wrong_encoding(path: Path) -> str:
    """Say on which line the first byte stands that is no UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return (
                    f"this is not a CSV file in UTF-8: line {number} holds the byte {line[error.start]:#04x}, which is "
                    "no part of that encoding; save the file as UTF-8 and upload it again."
                )
    return "this is not a CSV file (its content is not UTF-8 text)."


def _require_header(header: list[str], expected: Sequence[str]) -> None:
    if len(set(header)) != len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise UnreadableError(f"line 1: the header names column {twice!r} twice; name each column once.")
    missing = [column for column in expected if column not in header]
    if not missing:
        return
    first = ",".join(header)
    for delimiter, called in _OTHER_DELIMITERS.items():
        if set(expected) & {name.strip().strip('"') for name in first.split(delimiter)} and delimiter in first:
            raise UnreadableError(f"line 1: its values are separated by {called}; save the file with commas.")
    others = {column.lower(): column for column in header if column not in expected}
    meant = {column: difflib.get_close_matches(column.lower(), others, 1) for column in missing}
    if len(missing) == len(expected) and not any(meant.values()):
        raise UnreadableError(
            f"this is not a CSV file with the expected header; it begins with {first[:60]!r} where "
            f"{expected[0]!r}, {expected[1]!r}, … should stand."
        )
    named = ", ".join(
        f"{column!r}" + (f" (was {others[meant[column][0]]!r} meant to be it?)" if meant[column] else "")
        for column in missing[:3]
    )
    raise UnreadableError(f"line 1: column {named}{' and more' if missing[3:] else ''} is missing from the header.")
