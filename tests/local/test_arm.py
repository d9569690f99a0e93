"""The evaluator of ARM templates, and the parser of their expressions."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from local.arm.expressions import Access, ArmError, Call, Expression, Literal, is_expression, literal, parse
from local.arm.template import Template, load

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
literals = st.builds(Literal, st.text(max_size=12) | st.integers(-(10**9), 10**9))
trees = st.recursive(
    literals,
    lambda inner: (
        st.builds(Call, names, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Access, inner, st.builds(Literal, names) | inner)
    ),
    max_leaves=12,
)


def written(tree: Expression, gap: str = "") -> str:
    """The text of a tree, with `gap` wherever white space may stand."""
    match tree:
        case Literal(str() as text):
            return "'" + text.replace("'", "''") + "'"
        case Literal(number):
            return str(number)
        case Call(function, arguments):
            inner = f"{gap},{gap}".join(written(argument, gap) for argument in arguments)
            return f"{function}{gap}({gap}{inner}{gap})"
        case Access(target, key):
            return f"{written(target, gap)}{gap}[{gap}{written(key, gap)}{gap}]"
    raise AssertionError(tree)


@given(trees, st.sampled_from(["", " ", "\n\t"]))
def test_parser_reads_what_was_written(tree: Expression, gap: str) -> None:
    """Any tree of strings, numbers, calls and accesses, nested at will, is read back as it was written."""
    assert parse(f"[{gap}{written(tree, gap)}{gap}]") == tree


@given(st.text(max_size=40))
def test_parser_never_breaks(text: str) -> None:
    """Any text is either read or refused with a sentence of our own."""
    with contextlib.suppress(ArmError):
        assert parse(f"[{text}]") is not None


@given(st.text(max_size=20))
def test_escaped_bracket(text: str) -> None:
    """A string that begins with [[ is no expression and stands for itself with one bracket."""
    assert not is_expression(f"[[{text}]")
    assert literal(f"[[{text}]") == f"[{text}]"


def test_property_and_index() -> None:
    """`.name` and `['name']` read the same property."""
    assert parse("[a().b[0]]") == Access(Access(Call("a", ()), Literal("b")), Literal(0))
    assert parse("[a().b]") == parse("[a()['b']]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[concat('a'", "must begin"),
        ("[concat('a']", r"'\)' was expected"),
        ("[concat('a') 'b']", "end of the expression"),
        ("[name]", r"'\(' was expected"),
        ("['open]", "column"),
        ("[a().]", "property's name"),
        ("[]", "the end"),
    ],
)
def test_errors_point_at_the_place(text: str, message: str) -> None:
    """What cannot be read is refused with what was expected there."""
    with pytest.raises(ArmError, match=message):
        parse(text)


def template(value: Any, given: dict[str, Any] | None = None, **parts: Any) -> Any:
    """The property `p` of a resource, evaluated."""
    resource = {"type": "T/t", "name": "n", "properties": {"p": value}}
    whole = {"resources": [{**resource, **parts.pop("resource", {})}], **parts}
    values = {"parameters": {name: {"value": one} for name, one in (given or {}).items()}}
    return [found.properties["p"] for found in Template(whole, values).resources("t/T")]


def test_parameters_and_variables() -> None:
    """A parameter has its given value, else its default; both sorts ignore the case of names."""
    parts = {
        "parameters": {"Name": {"type": "string", "defaultValue": "[concat('de', 'fault')]"}},
        "variables": {"twice": "[concat(parameters('name'), '-', PARAMETERS('NAME'))]"},
    }
    assert template("[variables('TWICE')]", **parts) == ["default-default"]
    assert template("[variables('twice')]", {"name": "x"}, **parts) == ["x-x"]


def test_concat_of_arrays() -> None:
    """Arrays are joined to one array."""
    parts = {"variables": {"a": [1], "b": ["[concat('x', 2)]"]}}
    assert template("[concat(variables('a'), variables('b'))]", **parts) == [[1, "x2"]]


def test_resource_ids() -> None:
    """The function resourceId takes a subscription and a group before the type, and a name for each kind."""
    here = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups"
    assert template("[resourceId('A.B/c/d', 'x', 'y')]") == [f"{here}/local/providers/A.B/c/x/d/y"]
    assert template("[resourceId('g', 'A.B/c', 'x')]") == [f"{here}/g/providers/A.B/c/x"]
    assert template("[resourceId('s', 'g', 'A.B/c', 'x')]") == ["/subscriptions/s/resourceGroups/g/providers/A.B/c/x"]


def test_conditions() -> None:
    """A resource whose condition is false is not there."""
    parameters = {"on": {"type": "bool", "defaultValue": False}}
    resource = {"condition": "[parameters('on')]"}
    assert template("x", parameters=parameters, resource=resource) == []
    assert template("x", {"on": True}, parameters=parameters, resource=resource) == ["x"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[newGuid()]", r"resources\[0\]\.properties\.p: the function newGuid\(\) is not known"),
        ("[parameters('nope')]", "no parameter 'nope'"),
        ("[variables('nope')]", "no variable 'nope'"),
        ("[variables('loop')]", "variables.loop is defined by itself"),
        ("[resourceGroup().nope]", "no 'nope'"),
        ("[concat('a', resourceGroup())]", "concat"),
        ("[resourceId('A.B/c', 'x', 'y')]", "needs 1 names"),
        ("[parameters('needed')]", "'needed' has no default"),
        ("[parameters('choice')]", "may not be 'c'; allowed: a, b"),
    ],
)
def test_refusals_name_the_place(value: str, message: str) -> None:
    """What a local run cannot evaluate is refused by name and place."""
    parameters = {
        "needed": {"type": "string"},
        "choice": {"type": "array", "allowedValues": ["a", "b"], "defaultValue": ["a", "c"]},
    }
    with pytest.raises(ArmError, match=message):
        template(value, parameters=parameters, variables={"loop": "[variables('loop')]"})


def test_unknown_given_parameter() -> None:
    """A parameter file may only set what the template declares."""
    with pytest.raises(ArmError, match="'typo'"):
        Template({}, {"parameters": {"typo": {"value": 1}}})


def test_files(tmp_path: Path) -> None:
    """A missing file and one that is not JSON are refused by name."""
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for path in (broken, tmp_path / "missing.json"):
        with pytest.raises(ArmError, match=path.name):
            load(path)
