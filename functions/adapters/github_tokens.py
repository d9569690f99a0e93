"""Where the token for GitHub comes from: a person, or a GitHub App's installation. Its rules: core.github_app."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import datetime
from threading import Lock
from typing import Protocol, TypeAlias

from functions.adapters.github_http import GitHubHttp
from functions.core.github import Answer, NoAnswer
from functions.core.github_app import IssuedToken, is_usable, jwt_claims, must_renew, read_token_answer
from functions.flow.ports import Clock
from functions.settings import GitHubApp

TIMEOUT = (2, 5)
"""Seconds to connect, seconds between bytes of the answer.

Short, because a dispatch is `sending` meanwhile: waiting for a token, sending, and both again after a 401 stay within
`dispatch.SENDING_TIMEOUT`, and all of it twice within `dispatch.WORKFLOW_SENDING_TIMEOUT`.
"""

_Outcome: TypeAlias = IssuedToken | Answer | NoAnswer


class Token(Protocol):
    """A source of tokens. Calls block, and may come from any thread."""

    def get(self) -> str | Answer | NoAnswer:
        """A token to send, or what the call that needs it is answered instead."""

    def drop(self, token: str) -> bool:
        """GitHub refused `token`. True where `get` may give another one now."""


class PersonalToken:
    """A personal access token: there is only the one."""

    def __init__(self, token: str) -> None:
        """`token` as GitHub showed it."""
        self._token = token

    def get(self) -> str:
        """The token."""
        return self._token

    def drop(self, token: str) -> bool:
        """Nothing can be done here; a person must renew it."""
        return False


class InstallationToken:
    """A GitHub App's token for one installation, kept until shortly before it expires.

    Whoever comes while a token is being asked for waits for that one answer, be it a token or a refusal.
    """

    def __init__(self, api_url: str, app: GitHubApp, clock: Clock) -> None:
        """`api_url` without a slash at its end."""
        self._http = GitHubHttp(api_url)
        self._app = app
        self._clock = clock
        self._lock = Lock()
        self._issued: IssuedToken | None = None
        self._renewal: Future[_Outcome] | None = None

    def get(self) -> str | Answer | NoAnswer:
        """The kept token, or a new one, or why there is none."""
        with self._lock:
            now = self._clock.now()
            if self._issued is not None and not must_renew(self._issued, now):
                return self._issued.text
            under_way = self._renewal
            renewal = self._renewal = under_way or Future()
        if under_way is None:
            self._renew(renewal, now)
        outcome = renewal.result()
        return outcome.text if isinstance(outcome, IssuedToken) else outcome

    def drop(self, token: str) -> bool:
        """Forget `token`, unless another one has taken its place already."""
        with self._lock:
            if self._issued is not None and self._issued.text == token:
                self._issued = None
        return True

    def _renew(self, renewal: Future[_Outcome], now: datetime) -> None:
        """Ask once, for everybody who waits for `renewal`. A token that still serves outlives a failure."""
        try:
            outcome = read_token_answer(self._ask(now), now)
        except Exception as error:  # nobody may wait for ever
            with self._lock:
                self._renewal = None
            renewal.set_exception(error)
            return
        with self._lock:
            self._renewal = None
            if isinstance(outcome, IssuedToken):
                self._issued = outcome
            elif self._issued is not None and is_usable(self._issued, now):
                outcome = self._issued
        renewal.set_result(outcome)

    def _ask(self, now: datetime) -> Answer | NoAnswer:
        """POST /app/installations/{installation_id}/access_tokens, signed with the App's key."""
        import jwt  # noqa: PLC0415 - costs its import only where an App is used

        signed = jwt.encode(jwt_claims(self._app.app_id, now), self._app.private_key, algorithm="RS256")
        path = f"/app/installations/{self._app.installation_id}/access_tokens"
        return self._http.call("POST", path, signed, timeout=TIMEOUT)
