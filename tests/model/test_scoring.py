"""The scoring script: what is a request, and what is told about one that is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from deploy import score


class Echo:
    """A model that answers with its first column."""

    def predict(self, table: Any) -> Any:
        """Answer."""
        return table.iloc[:, 0]


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the script a model of a number called 1 and a text."""
    monkeypatch.setattr(score, "_model", Echo())
    monkeypatch.setattr(score, "_columns", ["1", "text"])
    monkeypatch.setattr(score, "_texts", {"text"})


@pytest.mark.parametrize(
    "request_",
    [
        {"data": [[1.5, "a"]]},
        {"input_data": [[1.5, "a"]]},
        {"input_data": {"data": [[1.5, "a"]]}},
        {"input_data": {"columns": ["text", 1], "data": [["a", 1.5]]}},
    ],
)
def test_each_form_of_a_request_is_answered(request_: Any) -> None:
    """One prediction a row; named columns may come in any order."""
    assert score.run(json.dumps(request_)) == {"predictions": [1.5]}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must be"),
        ('{"data": []}', "must be"),
        ('{"data": [1]}', "must be"),
        ('{"data": [[1]]}', "Row 0 has 1 values"),
        ('{"data": [[1, 2]]}', "column 'text': 2 is not text"),
        ('{"data": [[true, "a"]]}', "is not a number"),
        ('{"data": [[1e999, "a"]]}', "is not a number"),
        ('{"input_data": {"columns": 5, "data": [[1, "a"]]}}', "The columns must be: 1, text"),
        ('{"input_data": {"columns": ["1", "1"], "data": [[1, "a"]]}}', "The columns must be: 1, text"),
    ],
)
def test_a_request_that_cannot_be_answered_is_the_users_fault(raw: str, words: str) -> None:
    """Status 400 and a sentence: an error of the script itself would count against the model in a rollout."""
    answer = score.run(raw)
    assert answer.status_code == 400
    assert words in json.loads(answer.get_data())["error"]
