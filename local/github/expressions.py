"""GitHub's `${{ }}` expressions, as far as `run-name` and `concurrency` may use them.

Follows "Evaluate expressions in workflows and actions" of GitHub's documentation: loose equality, strings compared
without regard to case, `||` and `&&` that hand on an operand, absent properties that are null.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Value = Any
"""None, bool, int, float, str, list or dict: what JSON can hold."""

_TEMPLATE = re.compile(r"\$\{\{((?:'(?:[^']|'')*'|[^'])*?)\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:0x[0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))"
    r"|(?P<text>'(?:[^']|'')*')"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_-]*)"
    r"|(?P<sign>\|\||&&|==|!=|<=|>=|[!<>().,\[\]]))"
)
_JSON_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|0x[0-9a-fA-F]+")


class ExpressionError(ValueError):
    """An expression that cannot be read; its text says what and where."""


def evaluate_template(text: str, contexts: Mapping[str, Value]) -> Value:
    """Value of a workflow scalar: itself, its one expression's value, or the text with all expressions filled in."""
    whole = _TEMPLATE.fullmatch(text.strip())
    if whole:
        return evaluate(whole[1], contexts)
    filled = _TEMPLATE.sub(lambda found: to_text(evaluate(found[1], contexts)), text)
    if "${{" in _TEMPLATE.sub("", text):
        raise ExpressionError(f"{text!r} opens an expression with ${{{{ and does not close it")
    return filled


def evaluate(expression: str, contexts: Mapping[str, Value]) -> Value:
    """Value of one expression, written without its `${{ }}`."""
    return _Reader(expression, contexts).read()


def truthy(value: Value) -> bool:
    """Whether GitHub takes a value for true: all but false, 0, NaN, '' and null."""
    if isinstance(value, float) and math.isnan(value):
        return False
    return isinstance(value, list | dict) or bool(value)


def to_text(value: Value) -> str:
    """A value as it stands in a text after `${{ }}` is filled in."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "Array"
    if isinstance(value, dict):
        return "Object"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def to_number(value: Value) -> float:
    """A value as a number, as comparisons of unlike types see it; NaN where it is none."""
    if value is None:
        return 0.0
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, str):
        stripped = value.strip()
        if not stripped:
            return 0.0
        if _JSON_NUMBER.fullmatch(stripped):
            return _number(stripped)
    return math.nan


def equal(left: Value, right: Value) -> bool:
    """GitHub's loose `==`."""
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() == right.casefold()
    if isinstance(left, list | dict) and isinstance(right, list | dict):
        return left is right
    if left is None and right is None:
        return True
    return to_number(left) == to_number(right)


def _number(text: str) -> float:
    return float(int(text, 16)) if "0x" in text.lower() else float(text)


def _less(left: Value, right: Value) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() < right.casefold()
    return to_number(left) < to_number(right)


def _format(pattern: Value, *values: Value) -> str:
    def fill(found: re.Match[str]) -> str:
        if found[0] in {"{{", "}}"}:
            return found[0][0]
        if not found[1] or int(found[1]) >= len(values):
            raise ExpressionError(f"format() has no value for {found[0]!r} in {to_text(pattern)!r}")
        return to_text(values[int(found[1])])

    return re.sub(r"\{\{|\}\}|\{(\d*)\}?|\}", fill, to_text(pattern))


def _contains(where: Value, what: Value) -> bool:
    if isinstance(where, list):
        return any(equal(item, what) for item in where)
    return to_text(what).casefold() in to_text(where).casefold()


def _join(items: Value, separator: Value = ",") -> str:
    values = items if isinstance(items, list) else [items]
    return to_text(separator).join(to_text(item) for item in values)


def _from_json(text: Value) -> Value:
    try:
        return json.loads(to_text(text))
    except ValueError as error:
        raise ExpressionError(f"fromJSON() was handed text that is no JSON: {error}") from None


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "format": _format,
    "contains": _contains,
    "startswith": lambda text, start: to_text(text).casefold().startswith(to_text(start).casefold()),
    "endswith": lambda text, end: to_text(text).casefold().endswith(to_text(end).casefold()),
    "join": _join,
    "tojson": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    "fromjson": _from_json,
}
_LITERALS: dict[str, Value] = {"true": True, "false": False, "null": None, "nan": math.nan, "infinity": math.inf}


class _Reader:
    """Reads one expression from left to right, computing as it goes (nothing in an expression has side effects)."""

    def __init__(self, expression: str, contexts: Mapping[str, Value]) -> None:
        self._expression = expression.strip()
        self._contexts = contexts
        self._tokens = self._split()
        self._next = 0

    def read(self) -> Value:
        value = self._or()
        if self._next < len(self._tokens):
            raise self._error(f"{self._tokens[self._next][1]!r} was not expected")
        return value

    def _split(self) -> list[tuple[str, str]]:
        tokens, place = [], 0
        while place < len(self._expression):
            found = _TOKEN.match(self._expression, place)
            if not found or found.lastgroup is None:
                raise self._error(f"{self._expression[place:].strip()[:20]!r} cannot be read")
            tokens.append((found.lastgroup, found[found.lastgroup]))
            place = found.end()
        return tokens

    def _error(self, what: str) -> ExpressionError:
        return ExpressionError(f"expression {self._expression!r}: {what}")

    def _take(self, *signs: str) -> str | None:
        if self._next < len(self._tokens):
            kind, text = self._tokens[self._next]
            if kind == "sign" and text in signs:
                self._next += 1
                return text
        return None

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise self._error(f"{sign!r} is missing")

    def _or(self) -> Value:
        value = self._and()
        while self._take("||"):
            other = self._and()
            value = value if truthy(value) else other
        return value

    def _and(self) -> Value:
        value = self._equality()
        while self._take("&&"):
            other = self._equality()
            value = other if truthy(value) else value
        return value

    def _equality(self) -> Value:
        value = self._comparison()
        while sign := self._take("==", "!="):
            value = equal(value, self._comparison()) == (sign == "==")
        return value

    def _comparison(self) -> Value:
        value = self._not()
        while sign := self._take("<", "<=", ">", ">="):
            other = self._not()
            less = _less(value, other) if sign[0] == "<" else _less(other, value)
            value = less or (len(sign) == 2 and equal(value, other))
        return value

    def _not(self) -> Value:
        if self._take("!"):
            return not truthy(self._not())
        return self._member(self._primary())

    def _member(self, value: Value) -> Value:
        while sign := self._take(".", "["):
            if sign == "[":
                key = self._or()
                self._need("]")
            else:
                kind, key = self._word()
                if kind != "name":
                    raise self._error(f"{key!r} is no property name")
            value = _property(value, key)
        return value

    def _word(self) -> tuple[str, str]:
        if self._next >= len(self._tokens):
            raise self._error("it ends too early")
        self._next += 1
        return self._tokens[self._next - 1]

    def _primary(self) -> Value:
        if self._take("("):
            value = self._or()
            self._need(")")
            return value
        kind, text = self._word()
        if kind == "number":
            return _number(text)
        if kind == "text":
            return text[1:-1].replace("''", "'")
        if kind == "sign":
            raise self._error(f"{text!r} was not expected")
        return self._call(text) if self._take("(") else self._named(text)

    def _named(self, name: str) -> Value:
        if name.lower() in _LITERALS:
            return _LITERALS[name.lower()]
        if name not in self._contexts:
            raise self._error(f"unknown name {name!r} (known here: {', '.join(sorted(self._contexts))})")
        return self._contexts[name]

    def _call(self, name: str) -> Value:
        function = _FUNCTIONS.get(name.lower())
        if function is None:
            raise self._error(f"unknown function {name}()")
        values: list[Value] = []
        while not self._take(")"):
            if values:
                self._need(",")
            values.append(self._or())
        try:
            return function(*values)
        except TypeError:
            raise self._error(f"{name}() cannot take {len(values)} values") from None


def _property(value: Value, key: Value) -> Value:
    if isinstance(value, dict):
        wanted = to_text(key).casefold()
        return next((item for name, item in value.items() if name.casefold() == wanted), None)
    if isinstance(value, list):
        place = to_number(key)
        return value[int(place)] if 0 <= place < len(value) else None
    return None
