"""Reading GitHub's answers.

Follows "Create a repository dispatch event", "Create a workflow dispatch event", "List workflow runs for a repository",
"Best practices for using the REST API" and "Rate limits for the REST API" of GitHub's documentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TypeAlias, TypeGuard

from functions.core.values import parse_time

FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=1)

LONGEST_LIMIT = timedelta(hours=6)
"""A limit that one request met holds for others no longer than this: GitHub counts by the hour, and one answer with a
wrong clock or number, maybe a proxy's, must not stop all of them for years."""

_RENEW = "renew PAT_TOKEN, it is wrong or has expired"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_LARGEST_NUMBER = 1e11  # seconds; added to any date of ours it still stays inside of the calendar


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, headers with lower-case names, and the body as text.

    `mend` is set where this answers no dispatch, but the request for a token to send it with: what to mend if refused.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No answer to the request. `reached` is False only where it surely never got to GitHub with a valid token."""

    reason: str
    reached: bool


@dataclass(frozen=True, slots=True)
class Sent:
    """GitHub accepted the dispatch. That a run follows is not said by that, unless the answer names it."""

    run_id: int | None = None
    run_url: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """Send again, but not before `after` has passed."""

    after: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows whether GitHub took it: look for its run before sending again, and not before `after` has passed."""

    reason: str
    after: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Park:
    """A person must mend something first; the dispatch is kept."""

    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """Refused for good."""

    reason: str


Verdict: TypeAlias = Sent | Retry | Unknown | Park | Dead


def read_dispatch_answer(
    answer: Answer | NoAnswer, *, repository: str, attempt: int, now: datetime, workflow: str = "", ref: str = ""
) -> Verdict:
    """What GitHub's answer to the `attempt`-th POST of a dispatch (from 1) means.

    `workflow` and `ref` are set where it went to one workflow. `now` serves where GitHub's answer has no Date.
    """
    if isinstance(answer, NoAnswer):
        return Unknown(answer.reason) if answer.reached else Retry(_doubled(attempt), answer.reason)
    asked = "asked for the GitHub App's token, " if answer.mend else ""
    said = f"{asked}GitHub answered {answer.status}{message_of(answer)}"
    if is_limit(answer) or (answer.mend and _is_fault(answer)):
        return Retry(wait_for(answer, attempt, now), said)
    if _is_fault(answer):
        # The server may have failed after it took the dispatch.
        return Unknown(said, wait_for(answer, attempt, now))
    if answer.mend:
        return Park(f"{said}: {answer.mend}")
    match answer.status:
        case 200 | 201 | 202 | 204:
            return Sent(*_named_run(answer))
        case 401:
            return Park(f"{said}: {_RENEW}")
        case 403:
            missing = "Actions: write" if workflow else "Contents: write"
            return Park(f"{said}: the token, or the GitHub App, needs '{missing}' on {repository}")
        case 404:
            what = f"{repository} or its workflow {workflow}" if workflow else repository
            where = "the route's workflow, GITHUB_REPOSITORY" if workflow else "GITHUB_REPOSITORY"
            return Park(
                f"{said}: {what} does not exist, or the token may not see it; "
                f"mend {where} or PAT_TOKEN, or install the GitHub App on it"
            )
        case 422 if workflow:
            return Dead(
                f"{said}: see that {workflow} stands on '{ref}' of {repository}, listens to workflow_dispatch and "
                "declares the inputs that docs/routes.md lists, then replay it"
            )
        case status if 300 <= status < 400:
            moved = answer.headers.get("location", "another address")
            return Park(f"{said}: {repository} moved to {moved}; mend GITHUB_REPOSITORY")
        case _:
            return Dead(said)


def _named_run(answer: Answer) -> tuple[int | None, str]:
    """The run that an answer to a workflow dispatch names, with its address for people; (None, "") where it names none.

    Servers that do not know `return_run_details` answer 204, or refuse it; see `refuses_run_details`.
    """
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None, ""
    run_id = told.get("workflow_run_id") if isinstance(told, dict) else None
    if not isinstance(run_id, int) or isinstance(run_id, bool):
        return None, ""
    return run_id, str(told.get("html_url") or "")


RUN_DETAILS = "return_run_details"
"""What asks GitHub to name the run of a workflow dispatch in its answer."""


def refuses_run_details(answer: Answer | NoAnswer) -> TypeGuard[Answer]:
    """True where the server does not know that key of a workflow dispatch, refused the whole for it and did nothing.

    GitHub Enterprise Server 3.19 does so.
    """
    return isinstance(answer, Answer) and answer.status == 422 and f'"{RUN_DETAILS}"' in message_of(answer)


def is_limit(answer: Answer) -> bool:
    """True where GitHub asks to come later, and did nothing."""
    return answer.status == 429 or (answer.status == 403 and is_rate_limited(answer))


def _is_fault(answer: Answer) -> bool:
    """True for time-outs and faults of the server."""
    return answer.status == 408 or answer.status >= 500


def is_rate_limited(answer: Answer) -> bool:
    """True where a 403 is a limit and no refusal: it names a time, or says that nothing remains."""
    headers = answer.headers
    return (
        "retry-after" in headers
        or headers.get("x-ratelimit-remaining") == "0"
        or "secondary rate" in answer.body.lower()
    )


def wait_for(answer: Answer, attempt: int, now: datetime) -> timedelta:
    """How long GitHub asks to wait.

    `retry-after` (seconds, or a date as RFC 9110 allows), else `x-ratelimit-reset`; times against GitHub's own Date.
    Else a minute, doubling.
    """
    headers = answer.headers
    moment = github_now(answer, now)
    asked = headers.get("retry-after")
    seconds, until = _number(asked), _date(asked)
    if seconds is None and until is not None:
        seconds = (until - moment).total_seconds()
    if seconds is not None:
        return timedelta(seconds=max(seconds, 1))
    reset = _number(headers.get("x-ratelimit-reset"))
    if reset is not None and headers.get("x-ratelimit-remaining") == "0":
        return timedelta(seconds=max(reset - moment.timestamp(), 1))
    return _doubled(attempt)


def github_now(answer: Answer, now: datetime) -> datetime:
    """The moment of the answer on GitHub's own clock, or `now` where it does not tell."""
    return _date(answer.headers.get("date")) or now


def _doubled(attempt: int) -> timedelta:
    doublings = min(max(attempt - 1, 0), 10)
    return min(FIRST_WAIT * (1 << doublings), LONGEST_WAIT)


def _number(value: str | None) -> float | None:
    if value is None or _NUMBER.fullmatch(value.strip()) is None:
        return None
    return min(float(value), _LARGEST_NUMBER)


def _date(value: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def message_of(answer: Answer) -> str:
    """GitHub's own words with a blank and in brackets, cut to a length; "" where it has none."""
    try:
        message = json.loads(answer.body).get("message")
    except (ValueError, AttributeError, RecursionError):
        message = None
    return f" ({message[:300]})" if isinstance(message, str) and message else ""


@dataclass(frozen=True, slots=True)
class Run:
    """A workflow run, as far as a dispatch is concerned; `created` by GitHub's clock, None where it does not say."""

    id: int
    title: str
    status: str
    conclusion: str
    url: str
    created: datetime | None = None


PAGE = 100
"""Runs that GitHub lists on one page."""

_MOST_LISTED = 1_000
"""Runs that GitHub lists of one search, however many there are."""


@dataclass(frozen=True, slots=True)
class Span:
    """Runs created from `since` to `until`, whole seconds, both included; no end where that is None."""

    since: datetime
    until: datetime | None = None

    @property
    def query(self) -> str:
        """The value of `created`, in GitHub's search syntax for dates."""
        since = f"{self.since:%Y-%m-%dT%H:%M:%SZ}"
        return f">={since}" if self.until is None else f"{since}..{self.until:%Y-%m-%dT%H:%M:%SZ}"


def following_span(span: Span, page: int, runs: tuple[Run, ...]) -> Span | None:
    """Where a search goes on after its page `page` was full: in the same span, or in what its last page leaves of it.

    Newest first are listed, so the next span ends with the oldest run so far. None where that cannot lead on: more
    runs than GitHub lists were created within one second.
    """
    if page * PAGE < _MOST_LISTED:
        return span
    oldest = min((run.created for run in runs if run.created is not None), default=None)
    if oldest is None or oldest < span.since or (span.until is not None and oldest >= span.until):
        return None
    return Span(span.since, oldest)


_MOVED = frozenset({301, 302, 307, 308})


def refused_listing(answer: Answer | NoAnswer, repository: str) -> str:
    """What a person must mend before runs can be listed, or "" where that passes by itself."""
    if isinstance(answer, NoAnswer) or is_limit(answer) or answer.status not in {*_MOVED, 401, 403, 404}:
        return ""
    if answer.status in _MOVED:  # within GITHUB_API_URL it was followed, see `moved_within`
        moved = answer.headers.get("location", "another address")
        return f"its run cannot be looked for, {repository} moved to {moved}, outside of GITHUB_API_URL: mend that"
    permission = f"the token, or the GitHub App, needs 'Actions: read' on {repository}"
    mend = answer.mend or (_RENEW if answer.status == 401 else permission)
    return f"its run cannot be looked for, GitHub answered {answer.status}{message_of(answer)}: {mend}"


def moved_within(answer: Answer | NoAnswer, api_url: str) -> str:
    """The path that a redirection names within the same API, or "": the token goes to no other address."""
    if isinstance(answer, NoAnswer) or answer.status not in _MOVED:
        return ""
    location = answer.headers.get("location", "")
    return location.removeprefix(api_url) if location.startswith(f"{api_url}/") else ""


def read_runs(answer: Answer) -> tuple[Run, ...] | None:
    """Runs of "List workflow runs for a repository", or None where the answer is none. Odd entries are passed over."""
    if answer.status != 200:
        return None
    try:
        listed = json.loads(answer.body)["workflow_runs"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return tuple(_runs(listed)) if isinstance(listed, list) else None


def read_run(answer: Answer | NoAnswer) -> tuple[Run, ...] | None:
    """The one run of "Get a workflow run", none where it was deleted, or None where GitHub does not say now."""
    if isinstance(answer, NoAnswer) or answer.status not in {200, 404, 410}:
        return None
    if answer.status != 200:
        return ()
    try:
        return tuple(_runs([json.loads(answer.body)])) or None
    except (ValueError, RecursionError):
        return None


def _runs(listed: Iterable[object]) -> Iterable[Run]:
    for item in listed:
        if isinstance(item, dict) and isinstance(item.get("id"), int):
            yield Run(
                id=item["id"],
                title=str(item.get("display_title") or ""),
                status=str(item.get("status") or ""),
                conclusion=str(item.get("conclusion") or ""),
                url=str(item.get("html_url") or ""),
                created=_moment(item.get("created_at")),
            )


def _moment(written: object) -> datetime | None:
    try:
        return parse_time(written) if isinstance(written, str) else None
    except ValueError:
        return None
