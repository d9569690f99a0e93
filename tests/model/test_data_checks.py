"""Bad data never trains, and the reason names file, line, column and value."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings as hypothesis_settings, strategies as st
from mlops import settings
from mlops.data import checks, lineage, tables

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
    return checks.whole(checks.read(files, IRIS), IRIS)


def test_good_data_passes(tmp_path: Path) -> None:
    """All irises pass; the one that stands twice is counted once and reported."""
    result = checked(tmp_path, GOOD)
    assert result.problems == ()
    assert (result.rows_read, len(result.table), result.sampled) == (150, 149, False)
    assert "1 repeated rows" in result.notes[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["iris/0.csv", "empty"]),
        (b",".join(name.encode() for name in COLUMNS) + b"\n", ["iris/0.csv", "no rows"]),
        (GOOD.replace(b"petal_width", b"petal_widht", 1), ["line 1", "'petal_width' (was 'petal_widht'", "missing"]),
        (GOOD.replace(b"petal_width", b"Petal Width", 1), ["line 1", "'petal_width' (was 'Petal Width'", "missing"]),
        (GOOD.replace(b"petal_width", b"garden", 1), ["line 1: column 'petal_width' is missing"]),
        (GOOD.replace(b",", b";"), ["line 1", "separated by semicolons"]),
        (GOOD.replace(b",", b"\t"), ["line 1", "separated by tabs"]),
        (GOOD.decode().encode("utf-16"), ["not a CSV file in UTF-8, but in UTF-16"]),
        (GOOD + "5.1,3.5,1.4,0.2,sétosa\n".encode("latin-1"), ["line 152 holds the byte 0xe9"]),
        (b"PK\x03\x04\x14\x00" + bytes(40), ["a ZIP archive or an Excel workbook"]),
        (b"\x1f\x8b\x08\x00" + bytes(40), ["a gzip archive"]),
        (b"PAR1\x15\x04" + bytes(40), ["a Parquet file"]),
        (bytes(3_000_000), ["line 1 is longer than 1 MiB"]),
        (GOOD + bytes(20) + b"\n", ["line 152 holds a NUL byte"]),
        (b'"' + GOOD * 500, ["is not CSV", "field larger than"]),
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
        (b"inf", ["'petal_length'", "must be a number"]),
        (b"1_4", ["'petal_length'", "'1_4'", "must be a number"]),
        (b"0x1", ["'petal_length'", "must be a number"]),
        (b'"1,4"', ["'petal_length'", "'1,4'", "must be a number"]),
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


def test_one_class_far_more_frequent_than_another_is_refused(tmp_path: Path) -> None:
    """A model of such data would do well by always answering the same; both counts and the setting are named."""
    many = b"".join(b"1.%03d,2,3,4,setosa\n" % number for number in range(950))
    (problem,) = checked(tmp_path, GOOD + many).problems
    assert "Class 'setosa' has 1000 rows" in problem
    assert "more than 20 to 1 (maximum_imbalance)" in problem


def test_the_same_rows_again_and_again_are_refused(tmp_path: Path) -> None:
    """Repeats count once; that nearly all of the data repeat is a fault of whoever uploads."""
    (problem,) = checked(tmp_path, *[GOOD] * 12).problems
    assert problem.startswith("91.7% of the rows repeat another one, but at most 90.0% may (maximum_duplicates)")


def test_a_value_in_quotes_over_two_lines_keeps_the_count_of_lines(tmp_path: Path) -> None:
    """The line that is named is the one on which the row begins."""
    content = GOOD + b'5.1,3.5,1.4,"0.2\n",setosa\n5.1,3.5,x,0.2,setosa\n5.1,3.5,"\n1,4",0.2,setosa\n'
    problems = checked(tmp_path, content).problems
    assert [problem.split(",")[1] for problem in problems] == [" line 154", " line 155"]


def test_reading_stops_where_nobody_reads_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand problems are enough: the other files are left alone, and that is said."""
    monkeypatch.setattr(tables, "VALUES_AT_ONCE", 1_000)
    bad = b",".join(name.encode() for name in COLUMNS) + b"\n" + b"a,b,c,d,e\n" * 500
    problems = checked(tmp_path, bad, *[GOOD] * 40).problems
    assert problems[-1].startswith("Reading stopped before iris/")


LETTERS = replace(
    IRIS, columns=(settings.ColumnRule("body", kind="text", max_length=20),), label="topic", classes=("a", "b")
)


def test_text_is_checked_for_what_text_can_be(tmp_path: Path) -> None:
    """Text may hold anything up to its length; blank text is missing."""
    path = tmp_path / "letters.csv"
    path.write_text('topic,body\na,"1, ""x""\nnan"\nb,  \na,' + "x" * 21 + "\n", encoding="utf-8")
    assert list(checks.read([("letters.csv", path)], LETTERS).problems) == [
        "letters.csv, line 4, column 'body': the value is missing.",
        f"letters.csv, line 5, column 'body': the value is '{'x' * 21}', but it must have at most 20 characters.",
    ]


@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20), st.booleans()
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[0].strip(),
    )
)
def test_text_arrives_at_the_next_step_as_it_was_written(tmp_path: Path, rows: list[tuple[str, bool]]) -> None:
    """Whatever a text holds (line ends, quotes, NA), the training reads what stood in the file, stripped."""
    path = tmp_path / "letters.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("body", "topic"), *((body, "ab"[flag]) for body, flag in rows)])
    result = checks.read([("letters.csv", path)], LETTERS)
    assume(not result.problems)
    made_from = lineage.Lineage(
        *["x"] * 6, manifest_count=0, snapshot_sha256="", snapshot_files=1, data="", profile_run=""
    )
    lineage.write(tmp_path / "out", made_from, result.table)
    again = lineage.read_table(tmp_path / "out", LETTERS)
    assert again["body"].tolist() == [body.strip() for body, _ in rows]
    assert again["topic"].tolist() == ["ab"[flag] for _, flag in rows]


@given(st.lists(st.floats(0, 20), min_size=1, max_size=20, unique=True))
@hypothesis_settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_arrive_at_the_next_step_exactly(tmp_path: Path, numbers: list[float]) -> None:
    """Not a bit of a number is lost between the file and the training."""
    path = tmp_path / "0.csv"
    path.write_text("\n".join([",".join(COLUMNS), *(f"{number!r},1,1,1,setosa" for number in numbers)]) + "\n")
    result = checks.read([("0.csv", path)], IRIS)
    assert result.problems == ()
    made_from = lineage.Lineage(
        *["x"] * 6, manifest_count=0, snapshot_sha256="", snapshot_files=1, data="", profile_run=""
    )
    lineage.write(tmp_path / "out", made_from, result.table)
    assert lineage.read_table(tmp_path / "out", IRIS)["sepal_length"].tolist() == numbers
