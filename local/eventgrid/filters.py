"""Which events a subscription wants: Event Grid's filters, as plain functions over JSON values.

Follows https://learn.microsoft.com/azure/event-grid/event-filtering. All filters must hold; within one advanced filter
one of its values is enough, except for the `Not` operators, which refuse an event that any value fits. Strings are
compared without regard to case. A key that the event lacks fails every operator except `NumberNotIn`, `StringNotIn` and
`IsNullOrUndefined` (`NumberNotInRange` is not listed there; it follows `NumberNotIn`). Values of another type than the
filter's are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_FILTERS = 25
MAX_VALUES = 25
MAX_VALUE_CHARACTERS = 512


class FilterError(ValueError):
    """One sentence that says what is wrong in a subscription's filter."""


Test = Callable[[Any, Any], bool]
"""Whether an event's value fits a filter's value."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of advanced filters."""

    test: Test
    takes: Callable[[Any], bool]
    """Whether a value in the event is of the type that the operator compares."""
    single: bool = False
    """It has `value` instead of `values`."""
    refuses: bool = False
    """A value that fits refuses the event, instead of letting it through."""
    passes_missing: bool = False
    """An event without the key fits."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _ignoring_case(test: Callable[[str, str], bool]) -> Test:
    return lambda value, wanted: test(value.lower(), wanted.lower())


def _in_range(value: Any, wanted: Any) -> bool:
    low, high = wanted
    return bool(low <= value <= high)


_equal = _ignoring_case(lambda value, wanted: value == wanted)
_begins = _ignoring_case(str.startswith)
_ends = _ignoring_case(str.endswith)
_contains = _ignoring_case(lambda value, wanted: wanted in value)

OPERATORS: Mapping[str, Operator] = {
    "NumberIn": Operator(lambda value, wanted: value == wanted, _is_number),
    "NumberNotIn": Operator(lambda value, wanted: value == wanted, _is_number, refuses=True, passes_missing=True),
    "NumberLessThan": Operator(lambda value, wanted: value < wanted, _is_number, single=True),
    "NumberLessThanOrEquals": Operator(lambda value, wanted: value <= wanted, _is_number, single=True),
    "NumberGreaterThan": Operator(lambda value, wanted: value > wanted, _is_number, single=True),
    "NumberGreaterThanOrEquals": Operator(lambda value, wanted: value >= wanted, _is_number, single=True),
    "NumberInRange": Operator(_in_range, _is_number),
    "NumberNotInRange": Operator(_in_range, _is_number, refuses=True, passes_missing=True),
    "BoolEquals": Operator(lambda value, wanted: value == wanted, _is_bool, single=True),
    "StringIn": Operator(_equal, _is_text),
    "StringNotIn": Operator(_equal, _is_text, refuses=True, passes_missing=True),
    "StringBeginsWith": Operator(_begins, _is_text),
    "StringNotBeginsWith": Operator(_begins, _is_text, refuses=True),
    "StringEndsWith": Operator(_ends, _is_text),
    "StringNotEndsWith": Operator(_ends, _is_text, refuses=True),
    "StringContains": Operator(_contains, _is_text),
    "StringNotContains": Operator(_contains, _is_text, refuses=True),
}
_NULL_OPERATORS = ("IsNullOrUndefined", "IsNotNull")


@dataclass(frozen=True, slots=True)
class AdvancedFilter:
    """One condition on one key of the event."""

    operator: str
    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The `filter` of an event subscription; an empty one wants every event."""

    event_types: tuple[str, ...] = ()
    subject_begins_with: str = ""
    subject_ends_with: str = ""
    case_sensitive: bool = False
    """Only for the subject's beginning and end; event types and advanced filters ignore case."""
    arrays: bool = False
    """Advanced filters look into arrays; otherwise an array fits no operator."""
    advanced: tuple[AdvancedFilter, ...] = ()

    def wants(self, event: Mapping[str, Any]) -> bool:
        """Whether an event, of the Event Grid schema or a CloudEvent, passes every filter."""
        kind = str(event.get("eventType") or event.get("type") or "")
        return (
            self._wants_type(kind)
            and self._wants_subject(str(event.get("subject") or ""))
            and all(_fits(condition, event, self.arrays) for condition in self.advanced)
        )

    def _wants_type(self, kind: str) -> bool:
        return not self.event_types or kind.lower() in {name.lower() for name in self.event_types}

    def _wants_subject(self, subject: str) -> bool:
        begin, end = self.subject_begins_with, self.subject_ends_with
        if not self.case_sensitive:
            subject, begin, end = subject.lower(), begin.lower(), end.lower()
        return subject.startswith(begin) and subject.endswith(end)


def parse_filter(declared: Mapping[str, Any]) -> EventFilter:
    """Read the `filter` object of an event subscription, within Event Grid's limits. Raises `FilterError`."""
    advanced = tuple(_parse_advanced(item) for item in declared.get("advancedFilters") or ())
    if len(advanced) > MAX_FILTERS:
        raise FilterError(f"A subscription has at most {MAX_FILTERS} advanced filters, not {len(advanced)}.")
    if sum(len(item.values) for item in advanced) > MAX_VALUES:
        raise FilterError(f"The advanced filters of a subscription have at most {MAX_VALUES} values in all.")
    types = tuple(declared.get("includedEventTypes") or ())
    return EventFilter(
        event_types=() if types in (("All",), ("all",)) else types,
        subject_begins_with=declared.get("subjectBeginsWith") or "",
        subject_ends_with=declared.get("subjectEndsWith") or "",
        case_sensitive=bool(declared.get("isSubjectCaseSensitive", False)),
        arrays=bool(declared.get("enableAdvancedFilteringOnArrays", False)),
        advanced=advanced,
    )


def _parse_advanced(declared: Mapping[str, Any]) -> AdvancedFilter:
    name, key = str(declared.get("operatorType")), declared.get("key")
    if not isinstance(key, str) or not key:
        raise FilterError(f"An advanced filter {name} has no key.")
    if name in _NULL_OPERATORS:
        return AdvancedFilter(name, key, ())
    operator = OPERATORS.get(name)
    if operator is None:
        known = ", ".join((*OPERATORS, *_NULL_OPERATORS))
        raise FilterError(f"The advanced filter on {key!r} has the operator {name!r}; known: {known}.")
    values = [declared.get("value")] if operator.single else declared.get("values")
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        wanted = "a value" if operator.single else "an array of values"
        raise FilterError(f"The advanced filter {name} on {key!r} needs {wanted}.")
    for value in values:
        _check_value(name, key, operator, value)
    return AdvancedFilter(name, key, tuple(values))


def _check_value(name: str, key: str, operator: Operator, value: Any) -> None:
    if operator.test is _in_range:
        good = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
    else:
        good = operator.takes(value)
    if not good:
        raise FilterError(f"The advanced filter {name} on {key!r} cannot compare with {value!r}.")
    if isinstance(value, str) and len(value) > MAX_VALUE_CHARACTERS:
        raise FilterError(f"A value of the filter {name} on {key!r} exceeds {MAX_VALUE_CHARACTERS} characters.")


_MISSING = object()


def _fits(condition: AdvancedFilter, event: Mapping[str, Any], arrays: bool) -> bool:
    value = _lookup(event, condition.key)
    if condition.operator in _NULL_OPERATORS:
        return (value is _MISSING or value is None) == (condition.operator == "IsNullOrUndefined")
    operator = OPERATORS[condition.operator]
    if value is _MISSING or value is None:
        return operator.passes_missing
    if isinstance(value, list) and not arrays:
        return False
    items = value if isinstance(value, list) else [value]
    comparable = [item for item in items if operator.takes(item)]
    fitting = any(operator.test(item, wanted) for item in comparable for wanted in condition.values)
    return not fitting if operator.refuses else fitting


def _lookup(event: Mapping[str, Any], key: str) -> Any:
    """Follow the dots of a key through objects, without regard to case where no exact name is there."""
    node: Any = event
    for part in key.split("."):
        if not isinstance(node, Mapping):
            return _MISSING
        if part in node:
            node = node[part]
        else:
            node = next((value for name, value in node.items() if name.lower() == part.lower()), _MISSING)
    return node
