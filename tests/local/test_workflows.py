"""Reading workflow files and evaluating the expressions in them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from local.github.expressions import ExpressionError, evaluate, evaluate_template, truthy
from local.github.workflows import Action, Concurrency, Workflow, WorkflowError, read_workflow, read_workflows

CONTEXTS: dict[str, Any] = {
    "github": {
        "repository": "octo-org/signal-box",
        "event": {"action": "storage-blobcreated", "client_payload": {"key": "digits", "count": 20, "odd-name": "x"}},
    },
    "vars": {"TRAINING_COMPUTE": "local", "EMPTY": ""},
    "inputs": {},
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("github.event.client_payload.key", "digits"),
        ("github.event.client_payload['odd-name']", "x"),
        ("github.event.client_payload.odd-name", "x"),
        ("GITHUB.event", None),
        ("github.EVENT.Client_Payload.KEY", "digits"),
        ("github.event.absent.deeper", None),
        ("github.event.absent || github.sha || 'main'", "main"),
        ("vars.EMPTY || 'cpu'", "cpu"),
        ("vars.TRAINING_COMPUTE == 'LOCAL'", True),
        ("vars.TRAINING_COMPUTE != 'local' && 'cloud' || 'here'", "here"),
        ("!github.event.absent", True),
        ("!(1 == 2) && 3", 3),
        ("null == 0", True),
        ("'' == 0", True),
        ("'0x10' == 16", True),
        ("true == 'true'", False),
        ("github.event.client_payload.count > 9", True),
        ("2 <= 2", True),
        ("'it''s'", "it's"),
        ("format('{0}-{1} {{x}}', github.event.client_payload.key, 2)", "digits-2 {x}"),
        ("contains(github.event.action, 'BLOB')", True),
        ("contains(fromJSON('[\"a\", \"b\"]'), 'b')", True),
        ("startsWith('abc', 'AB') && endsWith('abc', 'c')", True),
        ("join(fromJSON('[1, true, null]'), '/')", "1/true/"),
        ("fromJSON(toJSON(github.event.client_payload)).count", 20),
        ("fromJSON('[5, 6]')[1]", 6),
    ],
)
def test_expression_has_githubs_value(expression: str, value: Any) -> None:
    """Operators, functions and property access give what GitHub's documentation says."""
    if expression == "GITHUB.event":
        with pytest.raises(ExpressionError, match="unknown name 'GITHUB'"):
            evaluate(expression, CONTEXTS)
    else:
        assert evaluate(expression, CONTEXTS) == value


@pytest.mark.parametrize(
    "expression",
    ["", "github.", "1 +", "secrets.X", "nope()", "format('{1}', 2)", "(1", "'open", "a b", "fromJSON('{')"],
)
def test_unreadable_expression_is_named(expression: str) -> None:
    """What cannot be evaluated raises an error with a sentence, never anything else."""
    with pytest.raises(ExpressionError, match=r"\w+"):
        evaluate(expression, CONTEXTS)


def test_template_fills_text_and_keeps_types() -> None:
    """A lone expression keeps its type; among text each becomes text, also with braces inside strings."""
    assert evaluate_template("train ${{ github.event.client_payload.key }} x${{ 1 }}", CONTEXTS) == "train digits x1"
    assert evaluate_template("${{ vars.TRAINING_COMPUTE == 'local' }}", CONTEXTS) is True
    assert evaluate_template("a ${{ 'br}}ace' }} b", CONTEXTS) == "a br}}ace b"
    with pytest.raises(ExpressionError, match="does not close"):
        evaluate_template("train ${{ github.event", CONTEXTS)


@given(JSON_VALUES, JSON_VALUES)
def test_or_and_follow_truth(left: Any, right: Any) -> None:
    """`a || b` is a where a is true, else b; `a && b` the other way round; `!` is the opposite of truth."""
    contexts = {"a": left, "b": right}
    assert evaluate("a || b", contexts) == (left if truthy(left) else right)
    assert evaluate("a && b", contexts) == (right if truthy(left) else left)
    assert evaluate("!a", contexts) is not truthy(left)
    assert evaluate("a == b", contexts) is not evaluate("a != b", contexts)
    assert evaluate("a == b", contexts) == evaluate("b == a", contexts)


@given(st.text(max_size=30))
def test_text_literal_survives(text: str) -> None:
    """Any text, quoted with doubled quotes, is that text; handed in by a context it is never read as an expression."""
    quoted = "'" + text.replace("'", "''") + "'"
    assert evaluate(quoted, {}) == text
    assert evaluate_template("<${{ a }}>", {"a": text}) == f"<{text}>"


@given(st.text(alphabet="()[]{}.,'!=<>&|$ab01 \n", max_size=25))
def test_any_text_is_evaluated_or_refused(text: str) -> None:
    """However odd an expression is, it has a value or an ExpressionError."""
    with contextlib.suppress(ExpressionError):
        evaluate(text, {"a": {"b": [1]}, "b": "x"})


@given(JSON_VALUES)
def test_json_goes_there_and_back(value: Any) -> None:
    """Writing with toJSON and reading with fromJSON gives the value back."""
    assert evaluate("fromJSON(toJSON(a))", {"a": value}) == json.loads(json.dumps(value))


def workflow(folder: Path, text: str) -> Workflow:
    """The workflow that `text` describes."""
    path = folder / ".github/workflows/x.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return read_workflow(folder, path)


@pytest.mark.parametrize(
    ("trigger", "listens"),
    [
        ("on: repository_dispatch", True),
        ("on: [push, repository_dispatch]", True),
        ("on: {repository_dispatch: }", True),
        ("on: {repository_dispatch: {types: [other, storage-blobcreated]}}", True),
        ("on: {repository_dispatch: {types: storage-blobcreated}}", True),
        ("on: {repository_dispatch: {types: [storage-blob]}}", False),
        ("on: {push: {branches: [main]}}", False),
        ("on: push", False),
        ("'on': {repository_dispatch: {types: [storage-blobcreated]}}", True),
    ],
)
def test_types_decide_who_listens(tmp_path: Path, trigger: str, listens: bool) -> None:
    """A workflow listens where `on` names repository_dispatch, and its types, if any, name the event type."""
    assert workflow(tmp_path, f"{trigger}\njobs: {{}}\n").listens("storage-blobcreated") is listens


def test_title_and_group_come_from_the_event(tmp_path: Path) -> None:
    """run-name and concurrency are evaluated over the event; without them the default and no group stand."""
    full = workflow(
        tmp_path,
        "on: push\njobs: {}\nrun-name: Train ${{ github.event.client_payload.key }}\n"
        "concurrency: {group: 'train-${{ github.event.client_payload.key }}', "
        "cancel-in-progress: \"${{ vars.TRAINING_COMPUTE == 'local' }}\"}\n",
    )
    assert full.title(CONTEXTS, "x") == "Train digits"
    assert full.concurrency(CONTEXTS) == Concurrency("train-digits", True)
    bare = workflow(tmp_path, "on: push\njobs: {}\nrun-name: ${{ github.event.absent }}\nconcurrency: one\n")
    assert bare.title(CONTEXTS, "storage-blobcreated") == "storage-blobcreated"
    assert bare.concurrency(CONTEXTS) == Concurrency("one", False)
    assert workflow(tmp_path, "on: push\njobs: {}\n").concurrency(CONTEXTS) == Concurrency()


def test_foreign_actions_are_found_through_own_ones(tmp_path: Path) -> None:
    """Actions of other repositories are found in steps and inside the repository's own composite actions."""
    own = tmp_path / ".github/actions/own/action.yml"
    own.parent.mkdir(parents=True)
    own.write_text("runs: {using: composite, steps: [{uses: azure/login@abc}]}\n", encoding="utf-8")
    text = "on: push\njobs: {a: {steps: [{uses: ./.github/actions/own}, {uses: octo/tool/deep/er@v1}, {run: x}]}}\n"
    assert workflow(tmp_path, text).actions(tmp_path) == (
        Action("azure/login", "", "abc"),
        Action("octo/tool", "deep/er", "v1"),
    )


def test_broken_file_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    """A workflow that is no YAML, or has no jobs, is a fault with its name; the others are still read."""
    workflow(tmp_path, "on: push\njobs: {}\n")
    (tmp_path / ".github/workflows/bad.yml").write_text("on: [\n", encoding="utf-8")
    (tmp_path / ".github/workflows/empty.yaml").write_text("on: push\n", encoding="utf-8")
    workflows, faults = read_workflows(tmp_path)
    assert [found.path for found in workflows] == [".github/workflows/x.yml"]
    assert [str(fault).split()[0] for fault in faults] == [".github/workflows/bad.yml", ".github/workflows/empty.yaml"]
    assert all(isinstance(fault, WorkflowError) for fault in faults)
