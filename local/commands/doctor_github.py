"""`signalbox doctor`: the token, the repository, its workflows on the default branch, and the clocks. Only GETs.

Follows "Get a repository", "List repository workflows", "Get repository content" and "Get the customization template
for an OIDC subject claim for a repository"; a token's scopes and expiry stand in headers of every answer.
"""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from functions.core.github import Answer, NoAnswer, Park, github_now, message_of, read_dispatch_answer
from functions.core.github_app import CLOCK_DRIFT
from functions.core.routes import Route
from local.commands import doctor_workflows
from local.commands.doctor_findings import Finding, fault, ok, unknown
from local.github.workflows import Workflow, WorkflowError, read_workflow

EXPIRES_SOON = timedelta(days=14)
_FOLDER = ".github/workflows/"
_RENEW = "make a new token, put it into the secret PATTOKEN, and run setup.yml again"


class Api(Protocol):
    """GitHub's REST API with the app's own token."""

    def get(self, path: str) -> Answer | NoAnswer:
        """GET a path below the API's address."""


@dataclass(frozen=True, slots=True)
class Repository:
    """What the checks of a repository have found out, for those of Azure."""

    findings: tuple[Finding, ...]
    subject_prefix: str
    branch: str


def check(
    api: Api, repository: str, routes: Sequence[Route], now: datetime, here: Sequence[Workflow] | None
) -> Repository:
    """Look at one repository. `here` are its workflows where the files of this machine are the repository's own."""
    answer = api.get(f"/repos/{repository}")
    document = _json(answer)
    if isinstance(answer, NoAnswer) or not isinstance(document, dict):
        return Repository((_unreachable(answer, repository, now),), "", "")
    branch = str(document.get("default_branch", ""))
    findings = [*_token(answer, document, repository, routes, now), *_clock(answer, now)]
    findings += _workflows(api, repository, branch, routes, here)
    prefix = _subject_prefix(api, repository)
    findings.append(
        ok("sign-in", repository, f"GitHub's tokens say {prefix}:ref:refs/heads/{branch}; Azure must trust that")
        if prefix
        else unknown("sign-in", repository, "GitHub does not tell this token in which form its own sign in")
    )
    return Repository(tuple(findings), prefix, branch)


def _unreachable(answer: Answer | NoAnswer, repository: str, now: datetime) -> Finding:
    verdict = read_dispatch_answer(answer, repository=repository, attempt=1, now=now)
    says = getattr(verdict, "reason", "GitHub's answer is no JSON")
    says, _, mend = says.partition(": ") if isinstance(verdict, Park) else (says, "", "")
    if isinstance(answer, NoAnswer):
        return fault("GitHub", repository, says, "look at GITHUB_API_URL and the way there (proxy, firewall)")
    return fault("GitHub", repository, says, mend or "try again; GitHub may be in trouble")


def _permissions(routes: Sequence[Route]) -> str:
    """What a fine-grained token, or a GitHub App, needs for these routes (docs/routes.md, `via`)."""
    needed = ["Contents: write"] if any(not route.workflow for route in routes) else []
    needed.append("Actions: write" if any(route.workflow for route in routes) else "Actions: read")
    return " and ".join(f"'{one}'" for one in needed)


def _token(
    answer: Answer, document: Mapping[str, Any], repository: str, routes: Sequence[Route], now: datetime
) -> Iterator[Finding]:
    scopes = answer.headers.get("x-oauth-scopes")
    if scopes is not None:
        held = {scope.strip() for scope in scopes.split(",")}
        if "repo" in held or ("public_repo" in held and not document.get("private")):
            yield ok("token", repository, f"a classic one with the scopes {scopes}")
        else:
            yield fault(
                "token", repository, f"a classic one with the scopes '{scopes}' and not 'repo': it cannot dispatch",
                f"give it the scope repo, or better: {_RENEW}, fine-grained",
            )  # fmt: skip
    elif document.get("permissions", {}).get("push") is False:
        yield fault(
            "token", repository, "it may not write here, so that it cannot dispatch",
            f"give the token, or the GitHub App, {_permissions(routes)} on this repository",
        )  # fmt: skip
    else:
        yield ok("token", repository, "GitHub takes it, and its owner may write here")
        started = sorted({route.workflow for route in routes if route.workflow})
        if started:
            yield unknown(
                "token", repository,
                f"it needs 'Actions: write' to start {', '.join(started)}; GitHub does not tell whether it has that",
                "look at the permissions of the token, or of the GitHub App",
            )  # fmt: skip
    yield from _expiry(
        answer.headers.get("github-authentication-token-expiration"), repository, github_now(answer, now)
    )


def _expiry(written: str | None, repository: str, now: datetime) -> Iterator[Finding]:
    if written is None:
        return
    expires = read_expiry(written)
    if expires is None:
        yield unknown("token", repository, f"it expires at '{written}', which is no time that is understood here")
    elif expires - now < EXPIRES_SOON:
        days = max((expires - now).days, 0)
        yield fault("token", repository, f"it expires in {days} days ({expires:%Y-%m-%d})", _RENEW)
    else:
        yield ok("token", repository, f"it expires on {expires:%Y-%m-%d}")


def read_expiry(written: str) -> datetime | None:
    """The moment of the header `github-authentication-token-expiration`: `2027-01-31 10:00:00 UTC`, or `… +0100`."""
    try:
        moment = datetime.fromisoformat(written.strip().removesuffix(" UTC").replace(" +", "+").replace(" -", "-"))
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _clock(answer: Answer, now: datetime) -> Iterator[Finding]:
    off = github_now(answer, now) - now
    if abs(off) > CLOCK_DRIFT:
        yield fault(
            "clock", "this machine", f"it is {abs(off).total_seconds():.0f} s off GitHub's",
            "set it right: with a GitHub App every token is refused otherwise",
        )  # fmt: skip
    else:
        yield ok("clock", "this machine", "it agrees with GitHub's")


def _workflows(
    api: Api, repository: str, branch: str, routes: Sequence[Route], here: Sequence[Workflow] | None
) -> Iterator[Finding]:
    answer = api.get(f"/repos/{repository}/actions/workflows?per_page=100")
    listed = _json(answer)
    if not isinstance(listed, dict) or not isinstance(listed.get("workflows"), list):
        yield fault(
            "token", repository, f"it may not list workflows ({_status(answer)}), and so cannot find their runs",
            f"give the token, or the GitHub App, {_permissions(routes)} on this repository",
        )  # fmt: skip
        return
    states = {
        str(one["path"]): str(one["state"])
        for one in listed["workflows"]
        if isinstance(one, dict) and str(one.get("path", "")).startswith(_FOLDER)
    }
    found = list(here) if here is not None else []
    if here is None:
        for path in sorted(states):
            workflow = _read(api, repository, branch, path)
            if isinstance(workflow, Workflow):
                found.append(workflow)
            elif workflow is not None:
                yield workflow
    active = [workflow for workflow in found if states.get(workflow.path) == "active"]
    yield from _disabled(found, states, routes)
    yield from doctor_workflows.check(routes, active, f"on branch {branch} of {repository}")


def _read(api: Api, repository: str, branch: str, path: str) -> Workflow | Finding | None:
    """The workflow as it stands on the default branch; None where it is not there any more."""
    if ".." in PurePosixPath(path).parts:
        return None
    answer = api.get(f"/repos/{repository}/contents/{path}?ref={branch}")
    if isinstance(answer, Answer) and answer.status == 404:
        return None
    document = _json(answer)
    try:
        content = base64.b64decode(document["content"]) if isinstance(document, dict) else b""
        with tempfile.TemporaryDirectory(prefix="signalbox-") as folder:
            file = Path(folder, path)
            file.parent.mkdir(parents=True)
            file.write_bytes(content)
            return read_workflow(Path(folder), file)
    except (KeyError, TypeError, binascii.Error):
        return unknown(doctor_workflows.CHECK, path, f"it cannot be read on {branch} ({_status(answer)})")
    except WorkflowError as error:
        return fault(doctor_workflows.CHECK, path, str(error), "mend the file; GitHub ignores it as well")


def _disabled(found: Sequence[Workflow], states: Mapping[str, str], routes: Sequence[Route]) -> Iterator[Finding]:
    kinds = {route.dispatch for route in routes if not route.workflow}
    started = {route.workflow for route in routes}
    for workflow in found:
        state = states.get(workflow.path, "")
        wanted = workflow.file in started or any(workflow.listens(kind) for kind in kinds)
        if state not in {"", "active"} and wanted:
            yield fault(
                doctor_workflows.CHECK, workflow.path, f"GitHub has it as {state}: it starts nothing",
                f"gh workflow enable {workflow.path.removeprefix(_FOLDER)}",
            )  # fmt: skip


def _subject_prefix(api: Api, repository: str) -> str:
    document = _json(api.get(f"/repos/{repository}/actions/oidc/customization/sub"))
    return str(document.get("sub_claim_prefix") or "") if isinstance(document, dict) else ""


def _json(answer: Answer | NoAnswer) -> object:
    """The document of a good answer; None for all others."""
    if isinstance(answer, NoAnswer) or answer.status != 200:
        return None
    try:
        document: object = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return document


def _status(answer: Answer | NoAnswer) -> str:
    return answer.reason if isinstance(answer, NoAnswer) else f"{answer.status}{message_of(answer)}"
