"""Digests, field look-up and times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies as st

from functions.core import values
from functions.core.values import compact_json, digest, earlier, field, format_time, parse_time, text

from .strategies import any_text, times


@given(st.lists(any_text, max_size=4), st.lists(any_text, max_size=4))
def test_digests_differ_exactly_where_the_lists_differ(one: list[str], other: list[str]) -> None:
    """Parts are kept apart: ("a", "b") and ("ab",) are two things; and each digest fits everywhere it is used."""
    assert (digest(*one) == digest(*other)) == (one == other)
    assert re.fullmatch(r"[a-z2-7]{20}", digest(*one))


def test_digest_is_the_same_for_ever() -> None:
    """Ids stand in GitHub's runs and in models' tags, so the rule that makes them never changes."""
    assert digest("window", "epoch", "train", "digits", "1") == "rykg2f63io7wamzftidd"


@pytest.mark.parametrize(("name", "found"), [("runId", 1), ("RUNID", 1), ("runid", 1), ("other", None)])
def test_field_disregards_the_case_of_keys(name: str, found: int | None) -> None:
    """Azure's documents and captures differ in the case of keys."""
    assert field({"a": 0, "runId": 1}, name) == found


def test_field_prefers_the_exact_key() -> None:
    """Where two keys differ in case only, the one asked for wins."""
    assert field({"RunId": 1, "runId": 2}, "runId") == 2


@pytest.mark.parametrize(
    ("value", "written"), [("x", "x"), (3, "3"), (1.5, "1.5"), (True, ""), (None, ""), (["x"], ""), ({}, "")]
)
def test_text_writes_numbers_and_nothing_else(value: object, written: str) -> None:
    """ModelVersion comes as a number or as text; a list or a truth value is no text."""
    assert text({"key": value}, "key") == written  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-11-20T12:00:00Z", datetime(2026, 11, 20, 12, tzinfo=UTC)),
        ("2017-06-26T18:41:00.9584103Z", datetime(2017, 6, 26, 18, 41, 0, 958410, tzinfo=UTC)),
        ("2026-11-20T12:00:00+05:30", datetime(2026, 11, 20, 6, 30, tzinfo=UTC)),
        ("2026-11-20T12:00:00", datetime(2026, 11, 20, 12, tzinfo=UTC)),
        ("1601-01-01T00:00:00Z", datetime(1601, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_parse_time_reads_what_publishers_write(written: str, moment: datetime) -> None:
    """Seven digits, offsets, no offset, and the first and last years."""
    assert parse_time(written) == moment


@pytest.mark.parametrize("written", ["", "yesterday", "9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00", "12"])
def test_parse_time_refuses_what_is_no_time_in_utc(written: str) -> None:
    """Garbage, and times that leave the calendar once they are in UTC, are ValueError and nothing else."""
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is the promise
        parse_time(written)


@given(any_text)
def test_parse_time_raises_nothing_but_value_error(written: str) -> None:
    """Whatever text stands where a time belongs, the caller has one error to catch."""
    try:
        moment = parse_time(written)
    except ValueError:
        return
    assert moment.utcoffset() == timedelta()


@given(times, times)
def test_times_are_read_back_and_sort_as_text(one: datetime, other: datetime) -> None:
    """format_time keeps every microsecond, and its order as text is the order in time."""
    assert parse_time(format_time(one)) == one
    assert (format_time(one) < format_time(other)) == (one < other)


def test_format_time_writes_utc() -> None:
    """A time with an offset is written in UTC."""
    assert format_time(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == "2026-01-01T00:00:00.000000Z"


def test_earlier_stops_at_the_first_moment_there_is() -> None:
    """An event of the year 1 must not break the arithmetic."""
    first = datetime.min.replace(tzinfo=UTC)
    assert earlier(first, timedelta(minutes=5)) == first
    assert earlier(first + timedelta(hours=1), timedelta(minutes=5)) == first + timedelta(minutes=55)


def test_compact_json_is_ascii() -> None:
    """Its length in characters is its length in bytes."""
    assert compact_json({"a": ["é", "\ud800"]}) == '{"a":["\\u00e9","\\ud800"]}'


def test_long_texts_are_not_remembered() -> None:
    """A digest of an event's whole data keeps none of that in memory."""
    values._remembered_digest.cache_clear()
    assert digest("x" * 100_000) == digest("x" * 100_000) != digest("x" * 100_001)
    assert values._remembered_digest.cache_info().currsize == 0
    assert digest("route", "key") == digest("route", "key")
    assert values._remembered_digest.cache_info().hits == 1
