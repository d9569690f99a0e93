"""What GitHub says to the personal access token, before anything is deployed with it ("Get a repository")."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

_TIMEOUT = 20
_RENEW = "make a new one as docs/guide.md, step 3, says, and store it as the secret PATTOKEN"


def faults(api_url: str, repository: str, token: str, branch: str) -> list[str]:
    """A sentence for each reason why dispatches with this token would not reach the workflows on `branch`."""
    status, headers, document = _get(f"{api_url}/repos/{repository}", token)
    if status == 401:
        return [f"PATTOKEN is refused by GitHub, it is wrong or has expired: {_RENEW}."]
    if status != 200 or not isinstance(document, dict):
        return [f"PATTOKEN may not see {repository} (GitHub answered {status}): {_RENEW}, for this repository."]
    found = []
    scopes = headers.get("x-oauth-scopes")
    enough = {"repo"} if document.get("private") else {"repo", "public_repo"}
    if scopes is not None and not enough & {scope.strip() for scope in scopes.split(",")}:
        found.append(f"PATTOKEN is a classic token with the scopes '{scopes}' and not 'repo': {_RENEW}.")
    elif document.get("permissions", {}).get("push") is False:
        found.append(f"PATTOKEN may not write to {repository}: give it 'Contents: read and write'.")
    status, _, _ = _get(f"{api_url}/repos/{repository}/actions/runs?per_page=1", token)
    if status in {403, 404}:
        found.append("PATTOKEN may not list workflow runs, so no dispatch could be confirmed: give it 'Actions: read'.")
    default = document.get("default_branch")
    if default != branch:
        found.append(
            f"This is branch {branch}, but dispatches start the workflows of the default branch, {default}: run "
            "setup.yml there."
        )
    return found


def _get(url: str, token: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers with lower-case names, and the JSON document; status 0 where no answer came."""
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "User-Agent": "signalbox",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the runner's own GITHUB_API_URL
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            told = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, told, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, {}, None
    except (urllib.error.URLError, TimeoutError, ValueError):
        return 0, {}, None
