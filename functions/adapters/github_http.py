"""One HTTP call to GitHub over a pooled session. Every way in which it can end is a value; core says what it means."""

from __future__ import annotations

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from functions.adapters.threads import THREADS
from functions.core.github import Answer, NoAnswer

_VERSION = "2022-11-28"


class GitHubHttp:
    """GitHub's REST API at one address, from any number of threads."""

    def __init__(self, api_url: str) -> None:
        """`api_url` without a slash at its end."""
        self._api_url = api_url
        self._session = requests.Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=THREADS, max_retries=0))
        self._session.headers.update(
            {
                "Accept": "application/vnd.github+json",
                "User-Agent": "signalbox",
                "X-GitHub-Api-Version": _VERSION,
            }
        )

    def call(
        self,
        method: str,
        path: str,
        bearer: str,
        *,
        timeout: tuple[float, float],
        body: str | None = None,
        query: dict[str, str] | None = None,
    ) -> Answer | NoAnswer:
        """Make one request, once. `timeout`: seconds to connect, seconds between bytes of the answer."""
        try:
            response = self._session.request(
                method,
                self._api_url + path,
                auth=_Bearer(bearer),
                data=body,
                params=query,
                headers={"Content-Type": "application/json"} if body is not None else None,
                timeout=timeout,
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
