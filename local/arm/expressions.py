"""The expression language of ARM templates: text to tree.

Follows https://learn.microsoft.com/azure/azure-resource-manager/templates/template-expressions: a JSON string that
begins with `[` and ends with `]` is an expression; `[[` at the beginning stands for a literal `[`. An expression is a
string in single quotes (`''` is a quote), a whole number, or a function call, followed by any number of `.property`
and `[index]`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass


class ArmError(Exception):
    """One sentence that says what is wrong in a template, and where in it."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A string or a whole number."""

    value: str | int


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments; the name as the template spells it."""

    function: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """A property (`.name`, `['name']`) or an element (`[0]`) of what `target` gives."""

    target: Expression
    key: Expression


Expression = Literal | Call | Access

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>[()\[\].,]))"
)


def is_expression(text: str) -> bool:
    """Whether ARM would evaluate this string instead of taking it as it stands."""
    return text.startswith("[") and text.endswith("]") and not text.startswith("[[")


def literal(text: str) -> str:
    """Give the string that a template's string without an expression stands for."""
    return text[1:] if text.startswith("[[") else text


@functools.cache
def parse(text: str) -> Expression:
    """Read one expression, with its outer brackets. Raises `ArmError` that names the column."""
    if not is_expression(text):
        raise ArmError(f"{text!r} is not an expression: it must begin with [ and end with ].")
    parser = _Parser(text, end=len(text) - 1)
    tree = parser.expression()
    parser.finish()
    return tree


class _Parser:
    """Recursive descent over one expression; `position` counts characters of the whole string."""

    def __init__(self, text: str, end: int) -> None:
        self._text = text
        self._end = end
        self._position = 1
        self._kind, self._value = "", ""
        self._advance()

    def expression(self) -> Expression:
        tree = self._primary()
        while self._kind == "mark" and self._value in (".", "["):
            tree = Access(tree, self._property() if self._value == "." else self._index())
        return tree

    def finish(self) -> None:
        if self._kind != "end":
            raise self._error("the end of the expression")

    def _primary(self) -> Expression:
        kind, value = self._kind, self._value
        if kind == "text":
            self._advance()
            return Literal(value[1:-1].replace("''", "'"))
        if kind == "number":
            self._advance()
            return Literal(int(value))
        if kind == "name":
            self._advance()
            self._expect("(")
            return Call(value, tuple(self._list(self.expression)))
        raise self._error("a string, a number or a function")

    def _list(self, item: Callable[[], Expression]) -> list[Expression]:
        items: list[Expression] = []
        if not self._at(")"):
            items.append(item())
            while self._at(","):
                self._advance()
                items.append(item())
        self._expect(")")
        return items

    def _property(self) -> Expression:
        self._advance()
        if self._kind != "name":
            raise self._error("a property's name")
        name = Literal(self._value)
        self._advance()
        return name

    def _index(self) -> Expression:
        self._advance()
        key = self.expression()
        self._expect("]")
        return key

    def _at(self, mark: str) -> bool:
        return self._kind == "mark" and self._value == mark

    def _expect(self, mark: str) -> None:
        if not self._at(mark):
            raise self._error(f"'{mark}'")
        self._advance()

    def _advance(self) -> None:
        rest = self._text[self._position : self._end]
        if not rest.strip():
            self._kind, self._value = "end", ""
            return
        match = _TOKEN.match(self._text, self._position, self._end)
        if match is None:
            self._kind, self._value = "unknown", rest.strip()[:1]
            raise self._error("a string, a number, a name or one of ()[].,")
        self._position = match.end()
        self._kind = match.lastgroup or ""
        self._value = match[self._kind]

    def _error(self, expected: str) -> ArmError:
        found = f"'{self._value}'" if self._value else "the end"
        column = self._position + 1
        return ArmError(f"{self._text!r} has {found} before column {column}, where {expected} was expected.")
