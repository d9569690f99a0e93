"""Whether a cancelled run ever began."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from functions.core.github import Answer, NoAnswer
from functions.core.jobs import read_began

from .strategies import json_values

STARTED = {"status": "completed", "conclusion": "cancelled", "started_at": "2026-11-20T12:00:00Z"}


def jobs(*steps: list[dict[str, Any]], total: int | None = None) -> Answer:
    """An answer with one job for each list of steps."""
    listed = [{"id": number, "steps": of} for number, of in enumerate(steps)]
    return Answer(200, {}, json.dumps({"total_count": len(listed) if total is None else total, "jobs": listed}))


@pytest.mark.parametrize(
    ("answer", "began"),
    [
        (jobs(), False),
        (jobs([], []), False),
        (jobs([{"status": "queued"}]), False),
        (jobs([{"status": "completed", "conclusion": "cancelled", "started_at": None}]), False),
        (jobs([{"status": "completed", "conclusion": "skipped"}]), False),
        (jobs([], [STARTED]), True),
        (jobs([{"status": "in_progress"}]), True),
        (jobs([{"status": "completed", "conclusion": "success"}]), True),
        (jobs([{"status": "completed", "conclusion": "failure"}]), True),
        (jobs([], total=2), True),
        (Answer(200, {}, '{"total_count": 1, "jobs": [{"id": 1}]}'), False),
        (Answer(200, {}, '{"total_count": 1, "jobs": [{"id": 1, "steps": null}]}'), False),
        (Answer(200, {}, "no JSON"), True),
        (Answer(200, {}, '{"total_count": 1, "jobs": [1]}'), True),
        (Answer(404), True),
        (Answer(410), True),
        (Answer(403), None),
        (Answer(502), None),
        (NoAnswer("reset", reached=True), None),
    ],
)
def test_began(answer: Answer | NoAnswer, began: bool | None) -> None:
    """A step that started is a beginning; what is odd or gone counts as one; no answer says nothing."""
    assert read_began(answer) is began


@given(st.fixed_dictionaries({"total_count": json_values, "jobs": json_values}) | json_values)
def test_any_answer_can_be_read(body: object) -> None:
    """Whatever stands in the answer, it is yes or no."""
    assert read_began(Answer(200, {}, json.dumps(body))) in {True, False}
