"""GitHub Apps: what an App's JWT claims, when its token is renewed, what GitHub's answer to a request for one means.

Follows "Generating a JSON Web Token (JWT) for a GitHub App" and "Create an installation access token for an app" of
GitHub's documentation.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeGuard

from functions.core.github import Answer, NoAnswer, github_now, message_of
from functions.core.values import parse_time

CLOCK_DRIFT = timedelta(seconds=60)
"""So far this machine's clock may be off GitHub's: the JWT begins so much earlier, and ends so much below its limit."""

JWT_LIFE = timedelta(minutes=10) - CLOCK_DRIFT
"""GitHub takes no JWT that ends more than 10 minutes after now, on its own clock."""

LONGEST_LIFE = timedelta(hours=1)
"""Installation tokens live an hour. A longer life is not believed."""

RENEW_BEFORE = timedelta(minutes=5)
"""A token is renewed so long before it expires: longer than any call with it can take."""

_TOKEN = re.compile(r"[\x21-\x7e]+")  # what a header can carry; GitHub promises no length and no alphabet


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An installation token.

    Attributes:
        text: as it is sent.
        renew_from: from this moment of our own clock another one is asked for.
        expires: until this moment of our own clock it still serves where none is had.
    """

    text: str = field(repr=False)
    renew_from: datetime
    expires: datetime


def jwt_claims(app_id: str, now: datetime) -> dict[str, int | str]:
    """The claims with which an App asks for a token; times in whole seconds since 1970, as RFC 7519 has them."""
    moment = int(now.timestamp())
    return {
        "iat": moment - int(CLOCK_DRIFT.total_seconds()),
        "exp": moment + int(JWT_LIFE.total_seconds()),
        "iss": app_id,
    }


def must_renew(issued: IssuedToken, now: datetime) -> bool:
    """True where another token should be asked for, although this one may still serve."""
    return now >= issued.renew_from


def is_usable(issued: IssuedToken, now: datetime) -> bool:
    """True until the token expires."""
    return now < issued.expires


def read_token_answer(answer: Answer | NoAnswer, now: datetime) -> IssuedToken | Answer | NoAnswer:
    """The token out of GitHub's answer to POST /app/installations/{id}/access_tokens.

    Else what `read_dispatch_answer` is to be told instead of an answer to the dispatch: that none came, because the
    dispatch never left, or GitHub's answer with the words for whoever must mend something. `now` is our own clock, the
    token's life is measured by GitHub's where the answer has a Date.
    """
    if isinstance(answer, NoAnswer):
        return NoAnswer(f"no token for the GitHub App: {answer.reason}", reached=False)
    if 200 <= answer.status < 300:
        return _read_token(answer, now) or NoAnswer(
            f"no token for the GitHub App: GitHub answered {answer.status} without a readable token and expires_at",
            reached=False,
        )
    return replace(answer, mend=_mend(answer, now))


def _read_token(answer: Answer, now: datetime) -> IssuedToken | None:
    try:
        body = json.loads(answer.body)
        text, expires_at = body["token"], parse_time(body["expires_at"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(text, str) or _TOKEN.fullmatch(text) is None:
        return None
    life = max(timedelta(), min(expires_at - github_now(answer, now), LONGEST_LIFE))
    return IssuedToken(text, renew_from=now + life - min(RENEW_BEFORE, life / 2), expires=now + life)


def _mend(answer: Answer, now: datetime) -> str:
    """What to mend where GitHub refused a token; for an answer that passes by itself nobody reads it."""
    match answer.status:
        case 401 if abs(github_now(answer, now) - now) > CLOCK_DRIFT:
            return "this machine's clock is more than a minute off GitHub's; set it right"
        case 401:
            return (
                "GITHUB_APP_PRIVATE_KEY is no key of the App that GITHUB_APP_ID names; make a new key on the App's "
                "settings page, or mend the id"
            )
        case 403:
            return (
                "the installation that GITHUB_APP_INSTALLATION_ID names is suspended, or GITHUB_APP_ID may not use it; "
                "unsuspend it in the organization's settings"
            )
        case 404:
            return (
                "the App that GITHUB_APP_ID names has no installation GITHUB_APP_INSTALLATION_ID; install it on the "
                "repository, and take the number at the end of the installation's address"
            )
        case status if 300 <= status < 400:
            return f"the API moved to {answer.headers.get('location', 'another address')}; mend GITHUB_API_URL"
        case _:
            return "look at GITHUB_APP_ID, GITHUB_APP_INSTALLATION_ID and GITHUB_API_URL"


def refuses_token(answer: Answer | NoAnswer) -> TypeGuard[Answer]:
    """True where GitHub does not know the token: it was taken back, or has expired."""
    return isinstance(answer, Answer) and answer.status == 401


def read_second_refusal(answer: Answer) -> NoAnswer:
    """What it means that GitHub refuses even the token that it gave a moment ago.

    Key and installation are right, so nobody can mend anything: it happens while a new token is not yet known on all of
    GitHub's servers, and passes. An installation that was just taken away is told by the next request for a token.
    """
    return NoAnswer(
        f"GitHub answered {answer.status}{message_of(answer)} to a token that it had just given", reached=False
    )
