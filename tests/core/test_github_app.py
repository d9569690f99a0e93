"""GitHub Apps: claims, renewal, and what GitHub's answer to a request for a token means for the dispatch that waits."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given, strategies as st

from functions.core.github import Answer, Dead, NoAnswer, Park, Retry, Sent, Unknown, Verdict, read_dispatch_answer
from functions.core.github_app import (
    IssuedToken,
    is_usable,
    jwt_claims,
    must_renew,
    read_second_refusal,
    read_token_answer,
    refuses_token,
)

from .strategies import NOW, any_text, json_values

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

moments = st.timedeltas(timedelta(days=-18_000), timedelta(days=100_000)).map(lambda since: NOW + since)
drifts = st.timedeltas(-MINUTE, MINUTE)
headers = st.dictionaries(
    st.sampled_from(["retry-after", "x-ratelimit-reset", "x-ratelimit-remaining", "date", "location"]),
    any_text | st.sampled_from(["0", "7", format_datetime(NOW, usegmt=False), format_datetime(NOW + HOUR)]),
)
refusals = st.builds(
    Answer,
    st.integers(300, 599),
    headers,
    any_text | json_values.map(json.dumps) | any_text.map(lambda text: json.dumps({"message": text})),
)


def issue(expires_at: object = "2026-11-20T13:00:00Z", token: object = "ghs_x", **header: str) -> Answer:  # noqa: S107
    """GitHub's answer that holds a token."""
    return Answer(201, header, json.dumps({"token": token, "expires_at": expires_at}))


def issued(answer: Answer, now: datetime = NOW) -> IssuedToken:
    """The token of an answer that has one."""
    read = read_token_answer(answer, now)
    assert isinstance(read, IssuedToken)
    return read


def verdict(answer: Answer | NoAnswer) -> Verdict:
    """What becomes of a dispatch whose token was answered like this."""
    read = read_token_answer(answer, NOW)
    assert not isinstance(read, IssuedToken)
    return read_dispatch_answer(read, repository="octo/models", attempt=1, now=NOW)


@given(moments, drifts)
def test_claims_are_in_githubs_bounds(now: datetime, drift: timedelta) -> None:
    """Although our clock is a minute off: begun already, not over, not over later than in ten minutes."""
    claims = jwt_claims("1234", now)
    github = (now + drift).timestamp()
    assert claims["iss"] == "1234"
    assert isinstance(claims["iat"], int)
    assert isinstance(claims["exp"], int)
    assert claims["iat"] <= github < claims["exp"] <= github + 600
    assert claims["iat"] <= now.timestamp() - 60


@given(moments, st.timedeltas(MINUTE, HOUR))
def test_a_token_is_renewed_before_it_expires(now: datetime, life: timedelta) -> None:
    """It serves first, is then renewed while it still serves, and is not used any more once it has expired."""
    token = issued(issue((now + life).isoformat()), now)
    assert token.text == "ghs_x"
    assert not must_renew(token, now)
    assert now < token.renew_from < token.expires == now + life
    assert must_renew(token, token.renew_from)
    assert is_usable(token, token.renew_from)
    assert not is_usable(token, token.expires)


def test_an_hour_is_used_but_for_five_minutes() -> None:
    """Twelve requests for a token in eleven hours, not one a dispatch."""
    assert issued(issue()) == IssuedToken("ghs_x", NOW + 55 * MINUTE, NOW + HOUR)


@given(st.timedeltas(timedelta(days=-1), timedelta(days=1)).map(lambda drift: timedelta(seconds=drift // SECOND)))
def test_its_life_is_measured_by_githubs_clock(drift: timedelta) -> None:
    """However far off our own clock is."""
    github = NOW + drift
    token = issued(issue((github + HOUR).isoformat(), date=format_datetime(github)))
    assert token.expires == NOW + HOUR


@pytest.mark.parametrize(
    ("expires_at", "renew_from", "expires"),
    [
        ("2026-11-20T12:04:00Z", NOW + 2 * MINUTE, NOW + 4 * MINUTE),
        ("2026-11-20T11:00:00Z", NOW, NOW),
        ("9999-12-31T23:59:59Z", NOW + 55 * MINUTE, NOW + HOUR),
        ("0001-01-01T00:00:00Z", NOW, NOW),
        ("2026-11-20T14:00:00+02:00", NOW, NOW),
    ],
)
def test_odd_lives(expires_at: str, renew_from: datetime, expires: datetime) -> None:
    """A short life is used by half; one that is over serves the one call; none is longer than an hour."""
    assert issued(issue(expires_at)) == IssuedToken("ghs_x", renew_from, expires)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=2_000))
@example("ghs_1234_" + "e" * 5_000)
@example("x")
def test_a_token_has_any_length(text: str) -> None:
    """GitHub promises none; only what a header cannot carry is no token. It does not show in logs."""
    assert issued(issue(token=text)).text == text
    assert repr(issued(issue(token=text))) == repr(issued(issue(token="other")))


@pytest.mark.parametrize(
    "answer",
    [
        Answer(204),
        Answer(201, {}, "<html>"),
        Answer(201, {}, "[" * 100_000),
        Answer(201, {}, "[]"),
        Answer(200, {}, '{"workflow_runs": []}'),
        Answer(201, {}, '{"token": "ghs_secret"}'),
        issue(expires_at="soon", token="ghs_secret"),
        issue(expires_at=5, token="ghs_secret"),
        issue(token=""),
        issue(token=5),
        issue(token="ghs_secret\r\nX: y"),
        issue(token="ghs_sécret"),
    ],
)
def test_an_unreadable_success_is_asked_for_again(answer: Answer) -> None:
    """A 2xx without a token is never taken for the dispatch's own 204; a half-read secret is not told."""
    told = verdict(answer)
    assert isinstance(told, Retry)
    assert told.reason == (
        f"no token for the GitHub App: GitHub answered {answer.status} without a readable token and expires_at"
    )


@pytest.mark.parametrize("reached", [True, False])
def test_no_answer_to_the_request_for_a_token(reached: bool) -> None:
    """Whether or not GitHub got that request, the dispatch never left: it is sent again without looking for its run."""
    assert verdict(NoAnswer("reset", reached=reached)) == Retry(MINUTE, "no token for the GitHub App: reset")


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (Answer(401), ["GITHUB_APP_PRIVATE_KEY is no key of the App that GITHUB_APP_ID names"]),
        (Answer(401, {"date": format_datetime(NOW + 59 * SECOND)}), ["GITHUB_APP_PRIVATE_KEY", "GITHUB_APP_ID"]),
        (Answer(401, {"date": format_datetime(NOW + 61 * SECOND)}), ["clock is more than a minute off GitHub's"]),
        (Answer(401, {"date": format_datetime(NOW - 61 * SECOND)}), ["clock is more than a minute off GitHub's"]),
        (Answer(403), ["the installation that GITHUB_APP_INSTALLATION_ID names is suspended"]),
        (Answer(404), ["the App that GITHUB_APP_ID names has no installation GITHUB_APP_INSTALLATION_ID"]),
        (Answer(301, {"location": "https://x"}), ["the API moved to https://x; mend GITHUB_API_URL"]),
        (Answer(302), ["the API moved to another address; mend GITHUB_API_URL"]),
        (Answer(422), ["GITHUB_APP_ID", "GITHUB_APP_INSTALLATION_ID", "GITHUB_API_URL"]),
        (Answer(400), ["GITHUB_APP_ID", "GITHUB_APP_INSTALLATION_ID", "GITHUB_API_URL"]),
    ],
)
def test_what_a_person_can_mend_parks_the_dispatch(answer: Answer, names: list[str]) -> None:
    """With GitHub's words and the settings to look at; never is the dispatch itself called wrong."""
    told = verdict(Answer(answer.status, answer.headers, '{"message": "Not so"}'))
    assert isinstance(told, Park)
    start = f"asked for the GitHub App's token, GitHub answered {answer.status} (Not so): "
    assert told.reason.startswith(start)
    assert all(name in told.reason for name in names)
    assert "PAT_TOKEN" not in told.reason


@pytest.mark.parametrize(
    ("answer", "after"),
    [
        (Answer(500), MINUTE),
        (Answer(503, {"retry-after": "7"}), 7 * SECOND),
        (Answer(408), MINUTE),
        (Answer(429, {"retry-after": "90"}), 90 * SECOND),
        (Answer(403, {"retry-after": "90"}), 90 * SECOND),
        (Answer(403, {"x-ratelimit-remaining": "0"}), MINUTE),
    ],
)
def test_what_passes_is_waited_for(answer: Answer, after: timedelta) -> None:
    """As long as GitHub says, with the reason."""
    said = f"asked for the GitHub App's token, GitHub answered {answer.status}"
    assert verdict(answer) == Retry(after, said)


@given(refusals | st.builds(NoAnswer, any_text, st.booleans()))
def test_a_dispatch_without_a_token_waits_or_is_parked(answer: Answer | NoAnswer) -> None:
    """Whatever GitHub says to the request for a token, the dispatch was neither sent, nor refused, nor maybe sent."""
    assert isinstance(verdict(answer), Retry | Park)


@given(st.integers(200, 299), headers, json_values.map(json.dumps) | any_text)
def test_any_success_is_a_token_or_asked_for_again(status: int, header: dict[str, str], body: str) -> None:
    """Whatever the body holds."""
    read = read_token_answer(Answer(status, header, body), NOW)
    if not isinstance(read, IssuedToken):
        assert isinstance(read, NoAnswer)
        assert not read.reached


@given(json_values, json_values)
def test_any_token_and_time(token: object, expires_at: object) -> None:
    """Wrong types, NaN, texts that no header carries."""
    assert isinstance(read_token_answer(issue(expires_at, token), NOW), IssuedToken | NoAnswer)


@pytest.mark.parametrize(
    ("answer", "refused"),
    [(Answer(401), True), (Answer(403), False), (Answer(204), False), (NoAnswer("x", reached=True), False)],
)
def test_only_401_is_about_the_token_itself(answer: Answer | NoAnswer, refused: bool) -> None:
    """403 and 404 are about what it may do: another token of the same App may do no more."""
    assert refuses_token(answer) is refused


def test_a_token_refused_at_once_passes() -> None:
    """Key and installation are right, so nobody can mend it; and the refused dispatch had no effect."""
    told = read_dispatch_answer(
        read_second_refusal(Answer(401, {}, '{"message": "Bad credentials"}')), repository="o/r", attempt=1, now=NOW
    )
    assert told == Retry(MINUTE, "GitHub answered 401 (Bad credentials) to a token that it had just given")


def test_only_a_marked_answer_is_about_the_token() -> None:
    """The same statuses in answer to the dispatch keep their own meaning."""
    told = [
        read_dispatch_answer(Answer(status), repository="o/r", attempt=1, now=NOW) for status in (204, 422, 404, 401)
    ]
    assert [type(one) for one in told] == [Sent, Dead, Park, Park]
    assert not any(isinstance(one, Unknown) for one in told)
    assert "GITHUB_APP" not in str(told)
