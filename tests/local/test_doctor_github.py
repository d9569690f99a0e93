"""`signalbox doctor` on GitHub: token, repository, workflows on the default branch, environments, clock."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from doctor_scenes import DOCUMENTS, GOOD, NOW, ROUTE, WORKFLOW, Api, faults
from hypothesis import given, strategies as st

from functions.adapters.github_http import GitHubHttp
from functions.adapters.github_tokens import PersonalToken
from functions.core.routes import Route
from infra.setup import subjects
from local.commands import (
    doctor_environments,
    doctor_github,
    doctor_workflows,
)
from local.commands.doctor import GitHubApi


def seen(github: Api, route: Route = ROUTE, now: datetime = NOW) -> doctor_github.Repository:
    """What the doctor sees, through the app's own adapter."""
    rest = GitHubApi(GitHubHttp(github.url), PersonalToken("made-up"))
    return doctor_github.check(rest, "octo/models", [route], now, None)


def change(github: Api, path: str, **values: Any) -> None:
    """Change an answer's document."""
    status, document = github.answers[f"/repos/octo/models{path}"]
    github.answers[f"/repos/octo/models{path}"] = (status, {**document, **values})


def test_a_repository_in_order_has_no_fault(github: Api) -> None:
    """And the subject that Azure must trust is told in the form that GitHub uses."""
    repository = seen(github)
    assert faults(list(repository.findings)) == []
    assert (repository.subject_prefix, repository.branch) == ("repo:octo@1/models@2", "main")
    assert any("ref=main" in path for path in github.asked)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"X-OAuth-Scopes": "read:org, gist"}, "a classic one with the scopes 'read:org, gist' and not 'repo'"),
        ({"X-OAuth-Scopes": ""}, "and not 'repo'"),
        ({"X-OAuth-Scopes": "public_repo"}, "and not 'repo'"),  # the repository is private
        ({"GitHub-Authentication-Token-Expiration": "2026-11-25 12:00:00 UTC"}, "it expires in 4 days (2026-11-25)"),
        ({"GitHub-Authentication-Token-Expiration": "2026-11-22 01:00:00 +0200"}, "it expires in 0 days (2026-11-21)"),
    ],
)
def test_a_token_that_will_not_do_is_named(github: Api, headers: dict[str, str], words: str) -> None:
    """Scopes of a classic token, and the day on which any token ends."""
    github.headers = headers
    (found,) = faults(list(seen(github).findings))
    assert words in found


@pytest.mark.parametrize(
    "headers",
    [{"X-OAuth-Scopes": "repo, workflow"}, {"GitHub-Authentication-Token-Expiration": "2027-11-25 12:00:00 UTC"}, {}],
)
def test_a_token_that_will_do_is_left_alone(github: Api, headers: dict[str, str]) -> None:
    """Classic with repo, fine-grained with a year to live, without an end."""
    github.headers = headers
    assert faults(list(seen(github).findings)) == []


@given(st.integers(1_600_000_000, 4_000_000_000), st.integers(-14, 14))
def test_the_expiry_is_read_in_any_zone(seconds: int, hours: int) -> None:
    """`UTC` and an offset mean the same moment, to the second."""
    moment = datetime.fromtimestamp(seconds, UTC)
    shown = moment + timedelta(hours=hours)
    assert doctor_github.read_expiry(f"{moment:%Y-%m-%d %H:%M:%S} UTC") == moment
    assert doctor_github.read_expiry(f"{shown:%Y-%m-%d %H:%M:%S} {hours:+03d}00") == moment


@given(st.text(max_size=40))
def test_an_odd_expiry_is_no_traceback(written: str) -> None:
    """A form that GitHub may write one day is told as it stands."""
    moment = doctor_github.read_expiry(written)
    assert moment is None or moment.tzinfo is not None


@pytest.mark.parametrize(
    ("path", "values", "words"),
    [
        ("", {"permissions": {"push": False}}, "it may not write here"),
        ("/actions/workflows", {"workflows": []}, "no workflow on branch main of octo/models listens"),
    ],
)
def test_what_github_tells_is_held_against_the_routes(
    github: Api, path: str, values: dict[str, Any], words: str
) -> None:
    """Rights of the token, and what stands on the default branch."""
    change(github, path, **values)
    assert any(words in one for one in faults(list(seen(github).findings)))


def test_a_disabled_workflow_is_named(github: Api) -> None:
    """GitHub switches schedules off by itself, and people do."""
    change(github, "/actions/workflows", workflows=[{**DOCUMENTS.workflow(WORKFLOW), "state": "disabled_manually"}])
    found = faults(list(seen(github).findings))
    assert any("gh workflow enable train.yml" in one for one in found), found
    assert any("nothing starts" in one for one in found), found


STARTING = replace(ROUTE, workflow="train.yml")
INPUTS = ", ".join(f"{name}: {{type: string, default: ''}}" for name in doctor_workflows.INPUTS)
STARTED = (
    GOOD.replace("github.event.client_payload.dispatch_id", "inputs.dispatch_id")
    .replace("repository_dispatch: {types: [storage-blobcreated]}", f"workflow_dispatch: {{inputs: {{{INPUTS}}}}}")
    .encode()
)


def test_a_route_that_starts_a_workflow_needs_another_right(github: Api) -> None:
    """A started workflow needs no listener; the right to start it is asked for by name."""
    change(github, "/contents/.github/workflows/train.yml", content=base64.b64encode(STARTED).decode())
    findings = list(seen(github, STARTING).findings)
    assert faults(findings) == []
    assert [one.mend for one in findings if "'Actions: write' to start train.yml" in one.says]
    assert not any("Actions: write" in one.says for one in seen(github).findings)
    change(github, "", permissions={"push": False})
    (found,) = faults(list(seen(github, STARTING).findings))
    assert "'Actions: write' on this repository" in found
    assert "Contents" not in found


def test_a_disabled_workflow_that_a_route_starts_is_named(github: Api) -> None:
    """GitHub refuses to start it, although it is there."""
    change(github, "/contents/.github/workflows/train.yml", content=base64.b64encode(STARTED).decode())
    change(github, "/actions/workflows", workflows=[{**DOCUMENTS.workflow(WORKFLOW), "state": "disabled_manually"}])
    assert any("gh workflow enable train.yml" in one for one in faults(list(seen(github, STARTING).findings)))


def test_a_workflow_that_is_not_on_the_default_branch_does_not_count(github: Api) -> None:
    """GitHub still lists it while it has runs."""
    del github.answers["/repos/octo/models/contents/.github/workflows/train.yml"]
    assert any("no workflow on branch main" in one for one in faults(list(seen(github).findings)))


def test_an_old_workflow_file_there_is_what_counts(github: Api) -> None:
    """The file here may be right while the one on the default branch is not."""
    old = GOOD.replace("${{ github.event.client_payload.dispatch_id }}", "")
    change(github, "/contents/.github/workflows/train.yml", content=base64.b64encode(old.encode()).decode())
    assert any("lacks the dispatch id" in one for one in faults(list(seen(github).findings)))


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"message": "Bad credentials"}, "renew PAT_TOKEN"),
        (404, {"message": "Not Found"}, "does not exist, or the token may not see it"),
        (301, {"message": "Moved Permanently"}, "mend GITHUB_REPOSITORY"),
        (503, {"message": "down"}, "try again"),
        (200, [], "try again"),
    ],
)
def test_a_refusal_has_the_words_of_a_parked_dispatch(github: Api, status: int, body: Any, words: str) -> None:
    """The same reasons as in the ledger."""
    github.answers["/repos/octo/models"] = (status, body)
    (found,) = faults(list(seen(github).findings))
    assert words in found


def test_no_github_is_named() -> None:
    """A wrong address or a firewall."""
    api = Api()
    api.close()
    (found,) = faults(list(seen(api).findings))
    assert "look at GITHUB_API_URL" in found


def environment(name: str, branches: bool = True, reviewers: bool = True) -> dict[str, Any]:
    """An environment as GitHub lists it."""
    url = "https://github.test/e"
    rules = [{"id": 1, "node_id": "r", "type": "required_reviewers", "reviewers": []}] if reviewers else []
    policy = {"protected_branches": False, "custom_branch_policies": True} if branches else None
    return {
        "id": 1, "node_id": "e", "name": name, "url": url, "html_url": url, "created_at": "2026-11-01T00:00:00Z",
        "updated_at": "2026-11-01T00:00:00Z", "protection_rules": rules, "deployment_branch_policy": policy,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("production", "words"),
    [
        (environment("production"), ""),
        (environment("production", branches=False), "any branch may run as it, and so sign in to Azure"),
        (environment("production", reviewers=False), "nobody has to approve"),
        (environment("prod"), "its first run makes it, open to every branch"),
    ],
)
def test_an_environment_that_lets_everybody_in_is_mentioned(
    github: Api, contracts: Path, production: dict[str, Any], words: str
) -> None:
    """Azure trusts the environment's name, whatever branch the job comes from."""
    listed = [environment(name, reviewers=False) for name in ("dev", "test")] + [production]
    description = json.loads((contracts / "github/openapi.pruned.json").read_text())["components"]
    for one in listed:
        told_of = {key: value for key, value in one.items() if value is not None}  # nullable, as OpenAPI 3.0 says it
        jsonschema.validate(told_of, {"$ref": "#/components/schemas/environment", "components": description})
    github.answers["/repos/octo/models/environments"] = (200, {"total_count": 3, "environments": listed})
    found = list(doctor_environments.check(GitHubApi(GitHubHttp(github.url), PersonalToken("x")), "octo/models"))
    told = [one for one in found if one.state == "unknown"]
    assert [one.about for one in told] == (["production"] if words else [])
    assert all(words in one.says and one.mend for one in told)


def test_environments_that_are_not_told_are_unknown(github: Api) -> None:
    """The token may lack the right; the names are those that the set-up lets sign in."""
    (found,) = doctor_environments.check(GitHubApi(GitHubHttp(github.url), PersonalToken("x")), "octo/models")
    assert found.state == "unknown"
    assert doctor_environments.ENVIRONMENTS == subjects.ENVIRONMENTS


def test_a_clock_that_is_off_is_named(github: Api) -> None:
    """More than a minute, either way."""
    for seconds, count in ((-300, 1), (300, 1), (30, 0)):
        found = faults(list(seen(github, now=NOW + timedelta(seconds=seconds)).findings))
        assert len([one for one in found if one.startswith("clock")]) == count
