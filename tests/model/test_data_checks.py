"""Bad data never trains, and the reason names file, line, column and value."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlops import checks, settings, tables

from local import datasets

IRIS = settings.load_data_set("iris")
COLUMNS = [*IRIS.features, IRIS.label]
GOOD = b"".join(content if n == 0 else content.split(b"\n", 1)[1] for n, (_, content) in enumerate(datasets.iris()))


def checked(folder: Path, *contents: bytes) -> checks.Checked:
    """Check files iris/0.csv, iris/1.csv … with `contents`."""
    files = []
    for number, content in enumerate(contents):
        path = folder / f"{number}.csv"
        path.write_bytes(content)
        files.append((f"iris/{number}.csv", path))
    return checks.check(tables.read(files, COLUMNS), IRIS)


def test_good_data_passes(tmp_path: Path) -> None:
    """All irises pass; the one that stands twice is counted once and reported."""
    result = checked(tmp_path, GOOD)
    assert result.problems == ()
    assert (result.rows_read, len(result.table), result.duplicates) == (150, 149, 1)
    assert "1 repeated rows" in result.notes[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["iris/0.csv", "empty"]),
        (b",".join(name.encode() for name in COLUMNS) + b"\n", ["iris/0.csv", "no rows"]),
        (GOOD.replace(b"petal_width", b"petal_widht", 1), ["iris/0.csv", "'petal_width'", "missing"]),
        (b'{"rows": [1, 2]}', ["iris/0.csv", "not a CSV file", "sepal_length"]),
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff", ["iris/0.csv", "not a CSV file"]),
        (GOOD.replace(b"\n", b",1\n", 2).replace(b"species,1", b"species", 1), ["iris/0.csv", "line 2", "6 values"]),
        (b'sepal_length,"x\n', ["iris/0.csv", "not CSV"]),
        (b"species,species\n1,2\n", ["iris/0.csv", "line 1", "twice"]),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path: Path, content: bytes, words: list[str]) -> None:
    """Empty files, headers only, renamed columns and files that are not CSV are told apart."""
    (problem, *_) = checked(tmp_path, content, GOOD).problems
    assert all(word in problem for word in words), problem


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"wide", ["'petal_length'", "'wide'", "must be a number"]),
        (b"nan", ["'petal_length'", "must be a number"]),
        (b"", ["'petal_length'", "missing"]),
        (b"999", ["'petal_length'", "'999'", "between 0 and 20"]),
    ],
)
def test_a_bad_value_is_named_with_its_place(tmp_path: Path, value: bytes, words: list[str]) -> None:
    """Text in a number, a missing value and a value out of range are named by file, line and column."""
    (problem,) = checked(tmp_path, GOOD + b"5.1,3.5," + value + b",0.2,setosa\n").problems
    assert problem.startswith("iris/0.csv, line 152, column")
    assert all(word in problem for word in words), problem


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    """A label that the settings do not list stops the job, with what was expected."""
    (problem,) = checked(tmp_path, GOOD + b"5.1,3.5,1.4,0.2,tulip\n").problems
    assert "line 152" in problem
    assert "'tulip'" in problem
    assert "setosa, versicolor, virginica" in problem


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    """Data that shows one class teaches nothing."""
    lines = GOOD.split(b"\n")
    many = [line for line in lines if line.endswith(b"setosa")]
    content = b"\n".join([lines[0], *many, *(b"1.%d,2,3,4,setosa" % number for number in range(40))])
    (problem,) = checked(tmp_path, content).problems
    assert "only 1 of at least 3 classes (setosa)" in problem


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    """Fewer rows than the settings ask for do not train."""
    problems = checked(tmp_path, b"\n".join(GOOD.split(b"\n")[:30])).problems
    assert "29 different rows, but 60 are needed" in problems[0]


def test_all_bad_files_are_named_at_once(tmp_path: Path) -> None:
    """One run tells all of the problems, so that they are mended in one go."""
    problems = checked(tmp_path, b"", GOOD + b"a,b,c,d,e\n").problems
    assert len(problems) == 6


def test_columns_without_a_rule_are_noted_and_ignored(tmp_path: Path) -> None:
    """An extra column is no reason to stop, but nobody trains on it unknowingly."""
    content = GOOD.replace(b"\n", b",7\n").replace(b"species,7", b"species,garden", 1)
    result = checked(tmp_path, content)
    assert result.problems == ()
    assert "garden" not in result.table
    assert any("garden" in note for note in result.notes)
