"""Event Grid's filters, against the rules of its documentation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from local.eventgrid.filters import OPERATORS, FilterError, parse_filter

texts = st.text(max_size=8)
numbers = st.integers(-100, 100) | st.floats(-100, 100)
scalars = texts | numbers | st.booleans()
events = st.fixed_dictionaries({"eventType": texts, "subject": texts, "data": st.dictionaries(texts, scalars)})

OPPOSITES = [
    ("NumberIn", "NumberNotIn"),
    ("NumberInRange", "NumberNotInRange"),
    ("StringIn", "StringNotIn"),
    ("StringBeginsWith", "StringNotBeginsWith"),
    ("StringEndsWith", "StringNotEndsWith"),
    ("StringContains", "StringNotContains"),
]


def passes(operator: str, wanted: Any, value: Any, *, arrays: bool = False) -> bool:
    """Whether an event with `data.key` = `value` passes one advanced filter."""
    return passes_event(operator, wanted, {"data": {"key": value}}, arrays=arrays)


def passes_event(operator: str, wanted: Any, event: dict[str, Any], *, arrays: bool = False) -> bool:
    """Whether an event passes one advanced filter on `data.key`."""
    declared: dict[str, Any] = {"operatorType": operator, "key": "data.key"}
    if wanted is not None:
        declared["values" if isinstance(wanted, list) else "value"] = wanted
    whole = {"advancedFilters": [declared], "enableAdvancedFilteringOnArrays": arrays}
    return parse_filter(whole).wants(event)


@given(events)
def test_empty_filter(event: dict[str, Any]) -> None:
    """A subscription without filters wants every event."""
    assert parse_filter({}).wants(event)


@given(texts, texts, texts)
def test_subject(begin: str, middle: str, end: str) -> None:
    """A subject that begins and ends as asked passes, in any case unless case matters."""
    declared = {"subjectBeginsWith": begin, "subjectEndsWith": end}
    assert parse_filter(declared).wants({"subject": begin + middle + end})
    assert parse_filter({**declared, "isSubjectCaseSensitive": True}).wants({"subject": begin + middle + end})


def test_subject_case() -> None:
    """Case matters in subjects only where the subscription says so."""
    event = {"subject": "/A/B.CSV"}
    declared = {"subjectBeginsWith": "/a/", "subjectEndsWith": ".csv"}
    assert parse_filter(declared).wants(event)
    assert not parse_filter({**declared, "isSubjectCaseSensitive": True}).wants(event)
    assert not parse_filter({"subjectBeginsWith": "/b/"}).wants(event)
    assert not parse_filter({"subjectEndsWith": ".txt"}).wants(event)


def test_event_types() -> None:
    """Only the listed types pass, of either schema; `All` stands for every type."""
    wanted = parse_filter({"includedEventTypes": ["Microsoft.Storage.BlobCreated"]})
    assert wanted.wants({"eventType": "Microsoft.Storage.BlobCreated"})
    assert wanted.wants({"type": "microsoft.storage.blobcreated", "specversion": "1.0"})
    assert not wanted.wants({"eventType": "Microsoft.Storage.BlobDeleted"})
    assert parse_filter({"includedEventTypes": ["All"]}).wants({"eventType": "anything"})


@pytest.mark.parametrize(
    ("operator", "wanted", "fits", "misses"),
    [
        ("NumberIn", [5, 1], 5.0, 2),
        ("NumberNotIn", [41, 0], 5, 0),
        ("NumberLessThan", 100, 99.5, 100),
        ("NumberLessThanOrEquals", 100, 100, 100.5),
        ("NumberGreaterThan", 20, 21, 20),
        ("NumberGreaterThanOrEquals", 20, 20, 19),
        ("NumberInRange", [[3.5, 9], [30, 40]], 40, 20),
        ("NumberNotInRange", [[3.5, 9], [30, 40]], 20, 3.5),
        ("BoolEquals", True, True, False),
        ("StringIn", ["contoso", "x"], "CONTOSO", "contos"),
        ("StringNotIn", ["contoso", "x"], "contos", "Contoso"),
        ("StringBeginsWith", ["event", "m"], "Event hubs", "hubs event"),
        ("StringNotBeginsWith", ["event", "m"], "hubs event", "event"),
        ("StringEndsWith", ["jpg", "png"], "a.PNG", "png.a"),
        ("StringNotEndsWith", ["jpg", "png"], "png.a", "a.png"),
        ("StringContains", ["azure"], "my Azure data", "my data"),
        ("StringNotContains", ["azure"], "my data", "my azure"),
    ],
)
def test_operators(operator: str, wanted: Any, fits: Any, misses: Any) -> None:
    """Each operator lets through what its documentation says, and not more."""
    assert passes(operator, wanted, fits)
    assert not passes(operator, wanted, misses)


@given(st.sampled_from(OPPOSITES), st.lists(texts, min_size=1, max_size=3), texts)
def test_opposites(pair: tuple[str, str], wanted: list[Any], value: str) -> None:
    """Of an operator and its Not, exactly one lets a present value through."""
    positive, negative = pair
    if positive.startswith("Number"):
        wanted, subject = ([[0, 3]] if "Range" in positive else [1, 2, 3]), len(value)
    else:
        subject = value  # type: ignore[assignment]
    assert passes(positive, wanted, subject) != passes(negative, wanted, subject)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("event", [{}, {"data": {}}, {"data": {"key": None}}, {"data": "text"}])
def test_missing_key(operator: str, event: dict[str, Any]) -> None:
    """An event without the key passes only the three operators for which that is documented or follows."""
    wanted: Any = {"N": 1, "B": True, "S": "x"}[operator[0]]
    values = [[0, 1]] if "Range" in operator else [wanted]
    value = wanted if OPERATORS[operator].single else values
    expected = operator in ("NumberNotIn", "StringNotIn", "NumberNotInRange")
    assert passes_event(operator, value, event) == expected


@pytest.mark.parametrize(("value", "null"), [(None, True), (0, False), ("", False), (False, False)])
def test_null_operators(value: Any, null: bool) -> None:
    """IsNullOrUndefined is for null and missing keys, IsNotNull for all others."""
    assert passes("IsNullOrUndefined", None, value) == null
    assert passes("IsNotNull", None, value) != null
    assert passes_event("IsNullOrUndefined", None, {"data": {}})
    assert not passes_event("IsNotNull", None, {})


def test_other_types_are_ignored() -> None:
    """A value of another type than the filter's never fits: true is no number, 5 is no text."""
    assert not passes("NumberIn", [1], True)
    assert not passes("StringIn", ["5"], 5)
    assert not passes("BoolEquals", True, "true")


def test_arrays() -> None:
    """Arrays are looked into only where the subscription says so: any element fits, none may be refused."""
    assert not passes("StringIn", ["a"], ["a"])
    assert passes("StringIn", ["a"], ["x", "A"], arrays=True)
    assert not passes("StringNotIn", ["a"], ["x", "a"], arrays=True)
    assert passes("StringNotIn", ["a"], ["x", 5], arrays=True)


def test_keys() -> None:
    """Keys name fields of the event without regard to case, and dots lead into objects."""
    event = {"subject": "s", "data": {"tags": {"Origin": "x"}}}
    for key, value in [("Subject", "s"), ("data.tags.origin", "x"), ("Data.Tags.Origin", "x")]:
        declared = {"operatorType": "StringIn", "key": key, "values": [value]}
        assert parse_filter({"advancedFilters": [declared]}).wants(event)


@given(st.lists(st.lists(texts, min_size=1, max_size=3), max_size=4), texts)
def test_filters_are_all_needed(conditions: list[list[str]], value: str) -> None:
    """Several advanced filters pass exactly the events that each of them passes."""
    declared = [{"operatorType": "StringContains", "key": "subject", "values": values} for values in conditions]
    each = [parse_filter({"advancedFilters": [one]}).wants({"subject": value}) for one in declared]
    assert parse_filter({"advancedFilters": declared}).wants({"subject": value}) == all(each)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"operatorType": "StringMatches", "key": "k", "values": ["x"]}, "'StringMatches'; known: NumberIn"),
        ({"operatorType": "StringIn", "values": ["x"]}, "no key"),
        ({"operatorType": "StringIn", "key": "k", "values": "x"}, "array of values"),
        ({"operatorType": "StringIn", "key": "k", "values": [5]}, "cannot compare with 5"),
        ({"operatorType": "NumberInRange", "key": "k", "values": [[1]]}, "cannot compare"),
        ({"operatorType": "NumberLessThan", "key": "k"}, "cannot compare with None"),
        ({"operatorType": "StringIn", "key": "k", "values": ["x" * 513]}, "512 characters"),
        ({"operatorType": "StringIn", "key": "k", "values": ["x"] * 26}, "25 values"),
    ],
)
def test_bad_filters(declared: dict[str, Any], message: str) -> None:
    """What Event Grid would refuse is refused with a sentence that says why."""
    with pytest.raises(FilterError, match=message):
        parse_filter({"advancedFilters": [declared]})


def test_too_many_filters() -> None:
    """A subscription has at most 25 advanced filters."""
    declared = [{"operatorType": "IsNotNull", "key": "data.k"}] * 26
    with pytest.raises(FilterError, match="25 advanced filters"):
        parse_filter({"advancedFilters": declared})
