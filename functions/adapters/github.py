"""GitHub's REST API as the flow's port: two calls over one pooled session. What an answer means is decided in core."""

from __future__ import annotations

from datetime import datetime

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from functions.adapters.threads import in_thread
from functions.core.github import Answer, NoAnswer
from functions.core.values import JsonObject, compact_json

_TIMEOUT = (5, 15)  # seconds to connect, seconds between bytes of the answer
_VERSION = "2022-11-28"


class GitHubRest:
    """Follows "Create a repository dispatch event" and "List workflow runs for a repository"."""

    def __init__(self, api_url: str, token: str) -> None:
        """`api_url` without a slash at its end; `token` is a personal access token."""
        self._api_url = api_url
        self._session = requests.Session()
        self._session.auth = _Bearer(token)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=16, max_retries=0))
        self._session.headers.update(
            {
                "Accept": "application/vnd.github+json",
                "User-Agent": "signalbox",
                "X-GitHub-Api-Version": _VERSION,
            }
        )

    @in_thread
    def create_dispatch(self, repository: str, body: JsonObject) -> Answer | NoAnswer:
        """POST /repos/{repository}/dispatches."""
        return self._call("POST", f"/repos/{repository}/dispatches", body=compact_json(body))

    @in_thread
    def list_runs(self, repository: str, since: datetime, page: int) -> Answer | NoAnswer:
        """GET /repos/{repository}/actions/runs."""
        query = {
            "event": "repository_dispatch",
            "created": f">={since:%Y-%m-%dT%H:%M:%SZ}",
            "per_page": "100",
            "page": str(page),
        }
        return self._call("GET", f"/repos/{repository}/actions/runs", query=query)

    def _call(
        self, method: str, path: str, *, body: str | None = None, query: dict[str, str] | None = None
    ) -> Answer | NoAnswer:
        try:
            response = self._session.request(
                method,
                self._api_url + path,
                data=body,
                params=query,
                headers={"Content-Type": "application/json"} if body is not None else None,
                timeout=_TIMEOUT,
                allow_redirects=False,
            )
        except requests.exceptions.ConnectTimeout as error:
            return NoAnswer(f"no connection to GitHub: {error}", reached=False)
        except requests.exceptions.ConnectionError as error:
            return NoAnswer(f"the connection to GitHub broke: {error}", reached=not _never_connected(error))
        except requests.exceptions.RequestException as error:
            return NoAnswer(f"GitHub's answer did not come: {error}", reached=True)
        return Answer(
            response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.text
        )


class _Bearer(AuthBase):
    """As `auth`, because a header alone would give way to a .netrc that happens to name GitHub."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request


def _never_connected(error: requests.exceptions.ConnectionError) -> bool:
    """True where urllib3 says that no connection was made: refused, no route, or the name is unknown."""
    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", cause)
    return type(reason).__name__ in {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError"}
