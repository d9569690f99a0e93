"""The JSON Schema that editors complete and check routes.yml with says the same as the reader."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings, strategies as st

from functions.core.routes_file import RoutesError, load_routes

PROJECT = Path(__file__).resolve().parent.parent.parent
SCHEMA: dict[str, Any] = json.loads((PROJECT / "routes.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
ROUTE: dict[str, Any] = SCHEMA["definitions"]["route"]["properties"]

GOOD: dict[str, Any] = {"name": "r", "on": "X.Y", "settle": {"quiet": "1s"}}


def reads(document: object) -> bool:
    """Whether the reader takes the document."""
    try:
        load_routes(yaml.safe_dump(document))
    except RoutesError:
        return False
    return True


def odd(*right: Any) -> st.SearchStrategy[Any]:
    """Mostly one of the right values, now and then something else."""
    wrong: list[Any] = [
        "",
        "  ",
        "nonsense",
        -1,
        0,
        5,
        2.5,
        True,
        None,
        [],
        ["a"],
        ["a", ["b"]],
        {},
        {"a": "b"},
        [None],
    ]
    wrong += ["x" * 101, {"quiet": "1s"}, "{fodler}", "{path", "none", "1 TB", ["X.Y", "X.Z"], [5, "a"], {"a": [1]}]
    return st.sampled_from([*list(right) * max(1, 12 // len(right)), *wrong])


def mapping(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any choice of these fields, now and then with an unknown one."""
    return st.fixed_dictionaries({}, optional={**fields, "zzz": st.just(1)}).flatmap(
        lambda found: st.sampled_from([{key: found[key] for key in found if key != "zzz"}] * 9 + [found])
    )


TEXTS = odd("a", ["a", "b"], "2026", 7)
DURATION, SIZE = odd("1s", "15m", "1.5h", "7d"), odd(0, 7, "4KB", "4 mb", "10")
WHERE = mapping(
    container=TEXTS, prefix=TEXTS, suffix=TEXTS, glob=TEXTS, api=TEXTS, experiment=TEXTS, run_type=TEXTS, status=TEXTS,
    topic=TEXTS, root_run=odd(True, False), content_length=mapping(min=SIZE, max=SIZE) | odd({}),
    tag=odd("a", {"a": "b*"}, {}),
)  # fmt: skip
ONES = {
    "on": odd("X.Y", ["X.Y"], ["X.Y", "X.Z"]),
    "where": WHERE | odd({}),
    "key": odd("all", "folder", "experiment", "{path}", "x-{account}/{folder}", "{{{type}}}"),
    "settle": mapping(quiet=odd("1s"), max_wait=odd("15m"), max_bytes=SIZE, marker=odd("_SUCCESS")) | odd("none"),
    "hold": mapping(**{"while": odd("running"), "at_most": DURATION}),
    "budget": mapping(dispatches=odd(1, 20, 500, 501), per=DURATION) | odd({"dispatches": 1, "per": "1h"}),
    "dispatch": odd("go", "x" * 100),
    "max_open_keys": odd(1, 100),
    "repository": odd("octo/models", "octo/..", "octo", "o/a.b"),
    "via": odd("workflow_dispatch", "workflow_dispatch", "repository_dispatch"),
    "workflow": odd("train_model.yml", "a.yaml", "a/b.yml", ".yml", "x" * 200 + ".yml", "x" * 201 + ".yml"),
    "ref": odd("main", "v1.2", "feature/x", "a..b", "/a", "a b", "x" * 244, "x" * 245),
    "name": st.sampled_from(["r"] * 9 + ["Up", "-a", "a-", "x" * 63, "x" * 64, "", None, [], {}]),
}
"""Every key of a route, with values that are mostly right."""


@settings(max_examples=1500)
@given(st.data(), st.sets(st.sampled_from(sorted(ONES)), min_size=1, max_size=3), st.booleans())
def test_the_schema_takes_what_the_reader_takes(data: st.DataObject, keys: set[str], whole: bool) -> None:
    """Neither takes what the other refuses, whatever is wrong with one to three keys of a route."""
    route = {**(GOOD if whole else {}), **{key: data.draw(ONES[key], key) for key in sorted(keys)}}
    document = {"routes": [route]}
    mistakes = [error.message for error in VALIDATOR.iter_errors(document)]
    assert reads(document) == (not mistakes), mistakes


@pytest.mark.parametrize(
    "document", [{}, [], None, "x", {"routes": []}, {"routes": "x"}, {"routes": [GOOD], "more": 1}]
)
def test_what_is_no_routes_file(document: object) -> None:
    """Both refuse it."""
    assert not reads(document)
    assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize(
    ("keys", "right"),
    [
        ({"budget": {"dispatches": 500, "per": "1h"}}, True),
        ({"budget": {"dispatches": 501, "per": "1h"}}, False),
        ({"budget": {"dispatches": 0, "per": "1h"}}, False),
        ({"hold": {"while": "running", "at_most": "6h"}}, True),
        ({"hold": {"while": "running", "at_most": "6h"}, "settle": "none"}, False),
        ({"hold": {"while": "queued", "at_most": "6h"}}, False),
        ({"on": ["X.Y", "X.Z"], "dispatch": "go"}, True),
        ({"on": ["X.Y", "X.Z"]}, False),
        ({"settle": {"quiet": "1s", "max_bytes": "4 mb"}}, True),
        ({"settle": {"quiet": "1s", "max_bytes": "4 tb"}}, False),
        ({"settle": {"max_wait": "1h"}}, False),
        ({"where": {"content_length": {"max": "10KB", "min": 1}}}, True),
        ({"dispatch": "x" * 100}, True),
        ({"dispatch": "x" * 101}, False),
        ({"key": "{{x}}"}, False),
        ({"key": "{{x}}-{path}"}, True),
        ({"via": "workflow_dispatch", "workflow": "train_model.yml"}, True),
        ({"via": "workflow_dispatch", "workflow": "train_model.yml", "ref": "v1"}, True),
        ({"via": "workflow_dispatch"}, False),
        ({"via": "repository_dispatch"}, True),
        ({"via": "repository_dispatch", "workflow": "train_model.yml"}, False),
        ({"workflow": "train_model.yml"}, False),
        ({"ref": "main"}, False),
        ({"name": 2026}, True),
        ({"name": -1}, False),
        ({"max_open_keys": "5"}, True),
        ({"max_open_keys": "\uff10"}, False),
        ({"max_open_keys": 10**15}, False),
        ({"budget": {"dispatches": "500", "per": "1h"}}, True),
        ({"budget": {"dispatches": "501", "per": "1h"}}, False),
        ({"where": {"root_run": "true"}}, True),
        ({"where": {"tag": {"": "a"}}}, False),
        ({"where": {"content_length": {"min": "1\u00a0MB"}}}, False),
        ({"where": {"content_length": {"min": "\uff11\uff10"}}}, False),
        ({"where": {"content_length": {"min": 10**15}}}, False),
        ({"settle": {"quiet": "\uff11s"}}, False),
        ({"via": "workflow_dispatch", "workflow": ".github/workflows/train_model.yml"}, False),
    ],
)
def test_edges(keys: dict[str, Any], right: bool) -> None:
    """Where both have to draw the same line."""
    document = {"routes": [{**GOOD, **keys}]}
    assert reads(document) is right
    assert VALIDATOR.is_valid(document) is right


def known_keys(document: dict[str, Any]) -> set[str]:
    """The keys that the reader knows where this document has the key `#`."""
    with pytest.raises(RoutesError) as caught:
        load_routes(yaml.safe_dump(document))
    (listed,) = (
        match[1] for error in caught.value.mistakes if (match := re.search(r"known keys: (.*)", error.message))
    )
    return set(listed.split(", "))


def within(**keys: Any) -> dict[str, Any]:
    """A file with one route that also has these keys."""
    return {"routes": [{**GOOD, **keys}]}


@pytest.mark.parametrize(
    ("document", "properties"),
    [
        ({**within(), "#": 1}, SCHEMA["properties"]),
        (within(**{"#": 1}), ROUTE),
        (within(where={"#": 1}), ROUTE["where"]["properties"]),
        (within(where={"content_length": {"#": 1}}), ROUTE["where"]["properties"]["content_length"]["properties"]),
        (within(settle={"#": 1}), ROUTE["settle"]["anyOf"][1]["properties"]),
        (within(hold={"#": 1}), ROUTE["hold"]["properties"]),
        (within(budget={"#": 1}), ROUTE["budget"]["properties"]),
    ],
)  # fmt: skip
def test_keys(document: dict[str, Any], properties: dict[str, Any]) -> None:
    """Each key of the reader is in the schema, and the other way round."""
    assert known_keys(document) == set(properties)


def described(node: Any) -> Iterator[tuple[str, bool]]:
    """Every property in the schema, and whether it says what it is."""
    if isinstance(node, dict):
        for name, value in node.get("properties", {}).items() if "required" in node or "type" in node else ():
            yield name, bool(value.get("description"))
        for value in node.values():
            yield from described(value)
    elif isinstance(node, list):
        for value in node:
            yield from described(value)


def test_editors_can_explain_every_key() -> None:
    """Each property has a description, and the schema is one."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert [name for name, told in described(SCHEMA) if not told] == []


def test_the_projects_own_file() -> None:
    """It names the schema in its first line, and holds to it."""
    text = (PROJECT / "routes.yml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=./routes.schema.json\n")
    # `on` is a truth value to YAML 1.1, and a name to editors, which read YAML 1.2
    VALIDATOR.validate(yaml.safe_load(text.replace(" on:", " 'on':")))
