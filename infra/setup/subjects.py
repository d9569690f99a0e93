"""Subjects of GitHub's OpenID Connect tokens: what Azure must trust, in the form that this repository's tokens have.

Repositories made or renamed since 2026-07-15 sign in as `repo:OWNER@OWNERID/NAME@REPOID:…`, older ones as
`repo:OWNER/NAME:…`, and an organization can ask for either; so nobody guesses: a token, or GitHub itself, is asked.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping

from infra.setup.faults import SetupFault

AUDIENCE = "api://AzureADTokenExchange"
ENVIRONMENTS = ("dev", "test", "production")
_SUBJECT = re.compile(r"(?P<prefix>repo:[^:]+):(ref:refs/heads/.+|environment:.+|pull_request)")
_TIMEOUT = 20


def of_prefix(prefix: str, branch: str) -> list[str]:
    """The subjects that may sign in: the branch, and each environment that a deployment passes."""
    return [f"{prefix}:ref:refs/heads/{branch}", *(f"{prefix}:environment:{name}" for name in ENVIRONMENTS)]


def prefix_of(subject: str) -> str:
    """`repo:OWNER/NAME` of a subject. Raises SetupFault where the organization has claims of its own in it."""
    found = _SUBJECT.fullmatch(subject)
    if not found:
        raise SetupFault(
            f"This repository's tokens have the subject '{subject}', which an organization has customized: write all "
            "subjects as gitHubSubjects into infra/params.deploy.core-infra.json."
        )
    return found["prefix"]


def own_subject(environment: Mapping[str, str]) -> str:
    """The subject of this job's own token ("OpenID Connect reference", requesting the JWT).

    "" where the job has no `id-token: write`. Raises SetupFault.
    """
    url, bearer = (environment.get(f"ACTIONS_ID_TOKEN_REQUEST_{name}", "") for name in ("URL", "TOKEN"))
    if not url or not bearer:
        return ""
    request = urllib.request.Request(  # noqa: S310 - the address is the runner's own
        f"{url}&audience={AUDIENCE}", headers={"Authorization": f"Bearer {bearer}", "User-Agent": "signalbox"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            claims = json.loads(answer.read())["value"].split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"])
    except (urllib.error.URLError, TimeoutError, ValueError, KeyError, IndexError) as error:
        raise SetupFault(f"GitHub gave no readable OpenID Connect token: {error}.") from error
