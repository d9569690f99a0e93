"""Reading GitHub's answers."""

from __future__ import annotations

import json
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from functions.core.github import (
    FIRST_WAIT,
    LONGEST_WAIT,
    Answer,
    Dead,
    NoAnswer,
    Park,
    Retry,
    Run,
    Sent,
    Span,
    Unknown,
    Verdict,
    following_span,
    is_rate_limited,
    moved_within,
    read_dispatch_answer,
    read_run,
    read_runs,
    refused_listing,
    refuses_run_details,
    wait_for,
)

from .strategies import NOW, any_text, json_values

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
RESET = str(int(NOW.timestamp()) + 600)
NOTHING_LEFT = {"x-ratelimit-reset": RESET, "x-ratelimit-remaining": "0"}
DATE = "Fri, 20 Nov 2026 12:00:00 GMT"

header_values = (
    any_text
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from([DATE, "", "²", "1" * 5_000, "Mon, 01 Jan 2020 00:00:00 +99999999999999999999"])
)
answers = st.builds(
    Answer,
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["retry-after", "x-ratelimit-reset", "x-ratelimit-remaining", "date", "location"]),
        header_values,
    ),
    any_text | json_values.map(json.dumps),
)


def read(answer: Answer | NoAnswer, attempt: int = 1) -> Verdict:
    """The verdict on an answer that came at NOW."""
    return read_dispatch_answer(answer, repository="octo/models", attempt=attempt, now=NOW)


@given(answers, st.integers(0, 10**6))
@example(Answer(429, {"retry-after": "²"}), 1)
@example(Answer(429, {"retry-after": "1" * 5_000}), 1)
@example(Answer(503, {"date": "Mon, 01 Jan 2020 00:00:00 +99999999999999999999"}), 1)
@example(Answer(400, {}, "[" * 100_000), 1)
def test_any_answer_has_a_verdict(answer: Answer, attempt: int) -> None:
    """Whatever stands in an answer, there is a verdict; a retry waits at least a second and stays in the calendar."""
    verdict = read(answer, attempt)
    if isinstance(verdict, Retry):
        assert verdict.after >= SECOND
        assert NOW + verdict.after > NOW


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_accepted(status: int) -> None:
    """204 is success, not failure; so are its neighbours."""
    assert read(Answer(status)) == Sent()


RUN_NAMED = {"workflow_run_id": 7, "run_url": "https://api.github.com/x/7", "html_url": "https://github.com/x/7"}


def to_workflow(answer: Answer) -> Verdict:
    """The verdict on an answer to the dispatch of one workflow."""
    door = {"workflow": "train_model.yml", "ref": "main"}
    return read_dispatch_answer(answer, repository="octo/models", attempt=1, now=NOW, **door)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(200, {}, json.dumps(RUN_NAMED)), Sent(7, "https://github.com/x/7")),
        (Answer(200, {}, '{"workflow_run_id": 7}'), Sent(7)),
        (Answer(204), Sent()),
        (Answer(200, {}, '{"workflow_run_id": true}'), Sent()),
        (Answer(200, {}, '{"workflow_run_id": "7"}'), Sent()),
        (Answer(200, {}, "[7]"), Sent()),
        (Answer(200, {}, "["), Sent()),
        (Answer(200, {}, "[" * 100_000), Sent()),
    ],
)
def test_the_run_of_a_workflow_dispatch(answer: Answer, verdict: Verdict) -> None:
    """GitHub names it where it knows `return_run_details`; whatever else a success says, it is accepted."""
    assert to_workflow(answer) == verdict


def test_a_server_that_does_not_name_runs() -> None:
    """It says which key it does not permit; any other refusal stays one."""
    refusal = json.dumps({"message": 'Invalid request.\n\n"return_run_details" is not a permitted key.'})
    assert refuses_run_details(Answer(422, {}, refusal))
    assert not refuses_run_details(Answer(400, {}, refusal))
    assert not refuses_run_details(Answer(422, {}, '{"message": "No ref found for: main"}'))
    assert not refuses_run_details(NoAnswer("reset", reached=True))


def test_what_a_workflow_dispatch_needs() -> None:
    """Another permission than repository_dispatch, and a workflow that is there: parked with what is missing."""
    refused, missing = to_workflow(Answer(403)), to_workflow(Answer(404))
    assert isinstance(refused, Park)
    assert isinstance(missing, Park)
    assert refused.reason.endswith("needs 'Actions: write' on octo/models")
    assert "octo/models or its workflow train_model.yml does not exist" in missing.reason
    assert "mend the route's workflow" in missing.reason


def test_a_workflow_that_cannot_be_started_so() -> None:
    """No such ref, no trigger, other inputs: refused for good, with GitHub's words and where to look."""
    verdict = to_workflow(Answer(422, {}, '{"message": "No ref found for: main"}'))
    assert isinstance(verdict, Dead)
    assert verdict.reason.startswith("GitHub answered 422 (No ref found for: main): see that train_model.yml stands on")


def test_a_limit_is_sent_again() -> None:
    """A limit says that nothing was done."""
    assert read(Answer(429)) == Retry(FIRST_WAIT, "GitHub answered 429")


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 520, 529, 599])
def test_a_fault_of_the_server_is_unknown(status: int) -> None:
    """The server may have failed after it took the dispatch: its run is looked for before it is sent again."""
    assert read(Answer(status)) == Unknown(f"GitHub answered {status}", FIRST_WAIT)
    assert read(Answer(status, {"retry-after": "7"})) == Unknown(f"GitHub answered {status}", timedelta(seconds=7))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(401, {}, '{"message": "Bad credentials"}'), "GitHub answered 401 (Bad credentials): renew PAT_TOKEN"),
        (Answer(403), "needs 'Contents: write' on octo/models"),
        (Answer(404), "octo/models does not exist, or the token may not see it"),
        (Answer(301, {"location": "https://api.github.com/repositories/1"}), "moved to https://api.github.com/repositories/1"),
        *((Answer(status), "moved to another address") for status in (300, 302, 303, 304, 307, 308)),
    ],
)  # fmt: skip
def test_what_a_person_can_mend_is_parked(answer: Answer, says: str) -> None:
    """A bad token, a repository that is gone or hidden, every redirect: kept, with what to mend."""
    verdict = read(answer)
    assert isinstance(verdict, Park)
    assert says in verdict.reason


@pytest.mark.parametrize("status", [400, 405, 410, 413, 422, 451])
def test_refused_for_good(status: int) -> None:
    """422 and the like will never succeed; GitHub's own words are kept, cut to a length."""
    verdict = read(Answer(status, {}, json.dumps({"message": "x" * 999})))
    assert verdict == Dead(f"GitHub answered {status} ({'x' * 300})")


@pytest.mark.parametrize("body", ["", "no json", "[]", "null", '{"message": 5}', '{"message": ""}', "[" * 100_000])
def test_an_answer_may_have_no_message(body: str) -> None:
    """Then the status stands alone."""
    assert read(Answer(422, {}, body)) == Dead("GitHub answered 422")


def test_no_answer() -> None:
    """Only a request that surely never got there is sent again without looking."""
    assert read(NoAnswer("refused", reached=False), 2) == Retry(2 * MINUTE, "refused")
    assert read(NoAnswer("reset", reached=True)) == Unknown("reset")


@pytest.mark.parametrize(
    ("headers", "body", "limited"),
    [
        ({"retry-after": "60"}, "", True),
        ({"x-ratelimit-remaining": "0"}, "", True),
        ({"x-ratelimit-remaining": "1"}, "", False),
        ({}, '{"message": "You have exceeded a Secondary Rate limit"}', True),
        ({}, '{"message": "Resource not accessible"}', False),
    ],
)
def test_a_403_is_a_limit_or_a_refusal(headers: dict[str, str], body: str, *, limited: bool) -> None:
    """By its headers, or by GitHub's words where a secondary limit comes without."""
    answer = Answer(403, headers, body)
    assert is_rate_limited(answer) is limited
    assert isinstance(read(answer), Retry if limited else Park)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "90"}, 90 * SECOND),
        ({"retry-after": " 90 "}, 90 * SECOND),
        ({"retry-after": "90.5"}, 90.5 * SECOND),
        ({"retry-after": "0"}, SECOND),
        ({"retry-after": "-5"}, MINUTE),
        ({"retry-after": "soon"}, MINUTE),
        ({"retry-after": "Fri, 20 Nov 2026 13:00:00 GMT", "date": DATE}, 60 * MINUTE),
        ({"retry-after": "Fri, 20 Nov 2026 11:00:00 GMT", "date": DATE}, SECOND),
        ({"retry-after": "7", "x-ratelimit-reset": RESET, "x-ratelimit-remaining": "0"}, 7 * SECOND),
        ({"x-ratelimit-reset": RESET, "x-ratelimit-remaining": "0"}, 600 * SECOND),
        ({"x-ratelimit-reset": RESET, "x-ratelimit-remaining": "3"}, MINUTE),
        ({"x-ratelimit-reset": RESET}, MINUTE),
        ({"x-ratelimit-reset": "x", "x-ratelimit-remaining": "0"}, MINUTE),
        ({**NOTHING_LEFT, "date": "Fri, 20 Nov 2026 12:05:00 GMT"}, 300 * SECOND),
        ({**NOTHING_LEFT, "date": "Fri, 20 Nov 2026 11:55:00 -0000"}, 900 * SECOND),
        ({**NOTHING_LEFT, "date": "Fri, 20 Nov 2026 13:00:00 GMT"}, SECOND),
        ({**NOTHING_LEFT, "date": "whenever"}, 600 * SECOND),
        ({}, MINUTE),
    ],
)  # fmt: skip
def test_waits_as_github_asks(headers: dict[str, str], wait: timedelta) -> None:
    """retry-after, else the reset against GitHub's own clock, else a minute."""
    assert wait_for(Answer(429, headers), 1, NOW) == wait


@given(st.integers(1, 10**9), st.booleans(), st.integers(1, 9))
def test_never_earlier_than_github_asked(seconds: int, as_date: bool, attempt: int) -> None:
    """In either form of retry-after, whatever the attempt."""
    moment = NOW + min(seconds, 10**8) * SECOND
    asked = format_datetime(moment) if as_date else str(seconds)
    wait = wait_for(Answer(503, {"retry-after": asked, "date": DATE}), attempt, NOW)
    assert wait >= (moment - NOW if as_date else timedelta(seconds=seconds))


@pytest.mark.parametrize(("attempt", "wait"), [(0, 1), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (50, 60), (10**9, 60)])
def test_doubles_up_to_an_hour(attempt: int, wait: int) -> None:
    """Without a word from GitHub the pauses grow, within bounds."""
    assert wait_for(Answer(500), attempt, NOW) == wait * MINUTE
    assert wait * MINUTE <= LONGEST_WAIT


def a_listing(*runs: Any) -> Answer:
    """A listing of runs."""
    return Answer(200, {}, json.dumps({"total_count": len(runs), "workflow_runs": runs}))


def test_runs_are_read() -> None:
    """Id, title, status, conclusion, address and time; odd entries are passed over, missing fields are empty."""
    whole = {
        "id": 7,
        "display_title": "train sb-1",
        "status": "completed",
        "conclusion": "success",
        "html_url": "https://github.com/o/r/actions/runs/7",
        "name": "train",
        "created_at": "2026-11-20T12:00:00Z",
    }
    odd = {"id": 8, "conclusion": None, "created_at": "yesterday"}
    assert read_runs(a_listing(whole, odd, {"id": "9"}, None, [])) == (
        Run(7, "train sb-1", "completed", "success", "https://github.com/o/r/actions/runs/7", NOW),
        Run(8, "", "", "", ""),
    )


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, {}, '{"workflow_runs": []}'),
        Answer(200, {}, ""),
        Answer(200, {}, "[]"),
        Answer(200, {}, "null"),
        Answer(200, {}, "{}"),
        Answer(200, {}, '{"workflow_runs": {}}'),
        Answer(200, {}, "[" * 100_000),
    ],
)
def test_what_is_no_listing_is_none(answer: Answer) -> None:
    """A listing without the run must be told from no listing at all: only the first lets a dispatch be sent again."""
    assert read_runs(answer) is None
    assert read_runs(a_listing()) == ()


@pytest.mark.parametrize(
    ("answer", "runs"),
    [
        (Answer(200, {}, '{"id": 7, "status": "queued"}'), (Run(7, "", "queued", "", ""),)),
        (Answer(404), ()),
        (Answer(410), ()),
        (Answer(403), None),
        (Answer(200, {}, "no JSON"), None),
        (Answer(200, {}, "[" * 100_000), None),
        (Answer(200, {}, "[]"), None),
        (Answer(200, {}, "{}"), None),
        (NoAnswer("reset", reached=True), None),
    ],
)
def test_one_run(answer: Answer | NoAnswer, runs: tuple[Run, ...] | None) -> None:
    """A run, none where it was deleted, and nothing learned from anything else."""
    assert read_run(answer) == runs


def test_a_listing_that_moved_out_of_reach_is_told() -> None:
    """An alias of the server's host: nobody would ever learn why the run is not found."""
    said = refused_listing(Answer(301, {"location": "https://ghe.example/api/v3/repositories/1"}), "octo/models")
    assert "octo/models moved to https://ghe.example/api/v3/repositories/1" in said
    assert "GITHUB_API_URL" in said
    nowhere = refused_listing(Answer(301), "octo/models")
    assert "octo/models moved to another address, outside of GITHUB_API_URL" in nowhere


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        *((Answer(status, {"location": "https://api/r/1"}), "/r/1") for status in (301, 302, 307, 308)),
        (Answer(301, {"location": "https://api.evil/repositories/1"}), ""),
        (Answer(301, {"location": "/repositories/1"}), ""),
        (Answer(301), ""),
        (Answer(200, {"location": "https://api/repositories/1"}), ""),
        (NoAnswer("reset", reached=True), ""),
    ],
)  # fmt: skip
def test_where_a_renamed_repository_is_read(answer: Answer | NoAnswer, path: str) -> None:
    """At the address that GitHub names, as long as it is GitHub's."""
    assert moved_within(answer, "https://api") == path


@given(json_values)
def test_any_listing_is_read_or_none(value: object) -> None:
    """Whatever the body holds."""
    runs = read_runs(Answer(200, {}, json.dumps({"workflow_runs": value})))
    assert (runs is None) == (not isinstance(value, list))


def created(*ago: int | None) -> tuple[Run, ...]:
    """Runs that were created so many seconds ago."""
    moments = [None if one is None else NOW - one * SECOND for one in ago]
    return tuple(Run(number, "", "", "", "", moment) for number, moment in enumerate(moments))


HOUR_AGO = Span(NOW - 60 * MINUTE)


class TestSpans:
    """GitHub lists the newest thousand runs of a search: what is older is found by another one."""

    def test_as_github_writes_them(self) -> None:
        """Whole seconds; with or without an end."""
        assert HOUR_AGO.query == ">=2026-11-20T11:00:00Z"
        assert Span(NOW - MINUTE, NOW).query == "2026-11-20T11:59:00Z..2026-11-20T12:00:00Z"

    @pytest.mark.parametrize("page", [1, 9])
    def test_pages_follow_in_the_same_span(self, page: int) -> None:
        """Up to the tenth."""
        assert following_span(HOUR_AGO, page, created(5)) is HOUR_AGO

    def test_after_a_thousand_the_span_ends_where_the_listing_did(self) -> None:
        """Both ends count, so runs of that very second come twice rather than not at all."""
        following = following_span(HOUR_AGO, 10, created(5, None, 90, 30))
        assert following == Span(HOUR_AGO.since, NOW - 90 * SECOND)
        assert following_span(following, 10, created(90, 91)) == Span(HOUR_AGO.since, NOW - 91 * SECOND)

    @pytest.mark.parametrize("runs", [(), created(None), created(90, 90), created(7200)])
    def test_where_no_span_leads_on(self, runs: tuple[Run, ...]) -> None:
        """No times, a thousand runs in one second, or older ones than asked for: the search ends without proof."""
        assert following_span(Span(HOUR_AGO.since, NOW - 90 * SECOND), 10, runs) is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (NoAnswer("reset", reached=True), ""),
        (Answer(429), ""),
        (Answer(403, {"retry-after": "7"}), ""),
        (Answer(502), ""),
        (Answer(200, {}, "{"), ""),
        (
            Answer(403, {}, '{"message": "no"}'),
            "GitHub answered 403 (no): the token, or the GitHub App, needs 'Actions: r",
        ),
        (Answer(404), "GitHub answered 404: the token, or the GitHub App, needs 'Actions: read' on octo/models"),
        (Answer(401), "GitHub answered 401: renew PAT_TOKEN, it is wrong or has expired"),
        (Answer(401, mend="mend the App"), "GitHub answered 401: mend the App"),
    ],
)
def test_what_to_mend_before_runs_can_be_listed(answer: Answer | NoAnswer, says: str) -> None:
    """A refusal names the permission, or what is wrong with the App; what passes by itself asks nobody."""
    told = refused_listing(answer, "octo/models")
    assert bool(told) == bool(says)
    assert says in told
