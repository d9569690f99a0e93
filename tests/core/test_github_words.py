"""What GitHub's answers are turned into for people, and its dates and times in every form that they come in."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from functions.core.github import (
    Answer,
    Dead,
    Park,
    Run,
    Span,
    Unknown,
    Verdict,
    following_span,
    read_dispatch_answer,
    read_runs,
    wait_for,
)

from .strategies import NOW

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
REPOSITORY = "octo/models"
DATE = "Fri, 20 Nov 2026 12:00:00 GMT"


def read(answer: Answer, **door: Any) -> Verdict:
    """The verdict on an answer to the first attempt, which came at NOW."""
    return read_dispatch_answer(answer, repository=REPOSITORY, attempt=1, now=NOW, **door)


class TestSentences:
    """Whole, because each one stands in the ledger and in `signalbox trace` as the only word on what to mend."""

    def test_a_repository_that_is_not_there(self) -> None:
        """Nothing else than the repository can be wrong."""
        assert read(Answer(404)) == Park(
            "GitHub answered 404: octo/models does not exist, or the token may not see it; "
            "mend GITHUB_REPOSITORY or PAT_TOKEN, or install the GitHub App on it"
        )

    def test_a_workflow_that_is_not_there(self) -> None:
        """The route's workflow may be wrong, or the repository."""
        assert read(Answer(404), workflow="train.yml", ref="main") == Park(
            "GitHub answered 404: octo/models or its workflow train.yml does not exist, or the token may not see it; "
            "mend the route's workflow, GITHUB_REPOSITORY or PAT_TOKEN, or install the GitHub App on it"
        )

    def test_a_workflow_that_cannot_be_started(self) -> None:
        """The ref, the trigger or the inputs are wrong; a replay makes up for it."""
        assert read(Answer(422), workflow="train.yml", ref="main") == Dead(
            "GitHub answered 422: see that train.yml stands on 'main' of octo/models, listens to workflow_dispatch and "
            "declares the inputs that docs/routes.md lists, then replay it"
        )


class TestDates:
    """RFC 9110 wants GMT; what comes otherwise is read as what it says."""

    @pytest.mark.parametrize(
        ("asked", "wait"),
        [
            ("Fri, 20 Nov 2026 12:10:00 GMT", 10 * MINUTE),
            ("Fri, 20 Nov 2026 12:10:00 -0000", 10 * MINUTE),
            ("Fri, 20 Nov 2026 13:10:00 +0100", 10 * MINUTE),
        ],
    )
    def test_every_offset_means_a_moment(self, asked: str, wait: timedelta) -> None:
        """A zone that is not known (`-0000`) is UTC; any other one counts."""
        assert wait_for(Answer(429, {"retry-after": asked, "date": DATE}), 1, NOW) == wait

    def test_a_fault_without_a_date_is_held_against_our_clock(self) -> None:
        """The reset that it names is still honoured."""
        reset = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) + 600)}
        assert read(Answer(503, reset)) == Unknown("GitHub answered 503", 600 * SECOND)

    @pytest.mark.parametrize("written", [None, 7, {}, "", "yesterday"])
    def test_a_run_without_a_readable_time(self, written: object) -> None:
        """It is a run all the same; when it was created stays unknown."""
        listing = Answer(200, {}, json.dumps({"workflow_runs": [{"id": 7, "created_at": written}]}))
        assert read_runs(listing) == (Run(7, "", "", "", ""),)


def test_a_span_of_one_second_is_searched() -> None:
    """The last runs of a full listing may be of the first second asked for: the rest of that second is asked for."""
    since = NOW - HOUR
    listed = tuple(Run(number, "", "", "", "", since + number * SECOND) for number in range(3))
    assert following_span(Span(since), 10, listed) == Span(since, since)
