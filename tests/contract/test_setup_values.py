"""The values of setup.yml, without Azure: five that a person sets, and the subjects of GitHub's tokens."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from setup_fakes import GIVEN, GUID, ROOT, Web, step

from infra.setup import deployment, github_access, subjects, values
from infra.setup.faults import SetupFault

# Values


def test_the_five_values_are_enough() -> None:
    """Three ids, the token and the group: nothing else has to be set."""
    read = values.read(GIVEN)
    assert (read.group, read.repository, read.oidc) == ("signalbox", "octo/models", True)
    assert GIVEN["PATTOKEN"] not in repr(read)


def test_those_who_come_from_the_seeds_keep_their_credentials() -> None:
    """AZURE_CREDENTIALS instead of the three ids."""
    stored = dict.fromkeys(("clientId", "clientSecret", "tenantId", "subscriptionId"), GUID)
    given = {name: value for name, value in GIVEN.items() if not name.startswith("AZURE_")}
    assert values.read({**given, "AZURE_CREDENTIALS": json.dumps(stored)}).oidc is False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"AZURE_CLIENT_ID": ""}, "AZURE_CLIENT_ID is not set, but another of"),
        ({"AZURE_TENANT_ID": "contoso"}, "AZURE_TENANT_ID is 'contoso': it must be a GUID"),
        (dict.fromkeys(values.IDS, ""), "AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_SUBSCRIPTION_ID are not set"),
        ({**dict.fromkeys(values.IDS, ""), "AZURE_CREDENTIALS": "{"}, "AZURE_CREDENTIALS is no JSON"),
        ({**dict.fromkeys(values.IDS, ""), "AZURE_CREDENTIALS": "[1]"}, "AZURE_CREDENTIALS is no JSON object"),
        (
            {**dict.fromkeys(values.IDS, ""), "AZURE_CREDENTIALS": "{}"},
            "AZURE_CREDENTIALS lacks clientId, clientSecret",
        ),
        ({"PATTOKEN": ""}, "PATTOKEN is not set"),
        ({"PATTOKEN": "my token"}, "PATTOKEN is no personal access token"),
        ({"RESOURCE_GROUP": ""}, "RESOURCE_GROUP is not set"),
        ({"RESOURCE_GROUP": "ends."}, "RESOURCE_GROUP is 'ends.'"),
        ({"RESOURCE_GROUP": "elsewhere"}, "Write the same name in both"),
        ({"GITHUB_REPOSITORY": "models"}, "it must be OWNER/NAME"),
    ],
)
def test_what_is_missing_or_wrong_is_named(change: dict[str, str], words: str) -> None:
    """One sentence a value, with its mend."""
    with pytest.raises(SetupFault, match=re.escape(words)):
        values.read({**GIVEN, **change})


@pytest.fixture
def with_app(tmp_path: Path) -> Path:
    """A project whose parameters name a GitHub App."""
    shutil.copytree(ROOT / ".cloud", tmp_path / ".cloud")
    file = tmp_path / values.PARAMETERS
    file.parent.mkdir()
    file.write_text(json.dumps({"parameters": {"gitHubAppId": {"value": "123"}}}))
    return tmp_path


def test_a_github_app_takes_the_place_of_the_token(with_app: Path) -> None:
    """Its key goes where the token would go, and a token that is left over does not."""
    key = "-----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY-----"
    read = values.read(GIVEN | {"APP_PRIVATE_KEY": key}, with_app)
    assert (read.token, read.app_key) == ("", key)
    assert key not in repr(read)
    parameters = deployment.core_parameters(read, "https://github.com", [])
    assert parameters["gitHubAppPrivateKey"]["value"] == key
    assert values.read(GIVEN | {"APP_PRIVATE_KEY": key}).app_key == ""


@pytest.mark.parametrize(("key", "words"), [("", "names a GitHub App"), ("123", "the whole .pem file")])
def test_a_github_app_needs_its_key(with_app: Path, key: str, words: str) -> None:
    """A token alone does not help: the app would be given the App's id and no key."""
    with pytest.raises(SetupFault, match=words):
        values.read(GIVEN | {"APP_PRIVATE_KEY": key}, with_app)


def test_all_faults_are_told_at_once() -> None:
    """Nobody has to run the set-up five times to find five mistakes."""
    with pytest.raises(SetupFault) as raised:
        values.read({})
    assert len(raised.value.sentences) == 4
    assert values.is_untouched({}) is True
    assert values.is_untouched({"RESOURCE_GROUP": "signalbox"}) is False


PLAIN = st.dictionaries(
    st.sampled_from([name for name in GIVEN if name != "PATTOKEN"]), st.text("abc-/{}01 ", max_size=60)
)
SECRET = st.dictionaries(
    st.sampled_from(["PATTOKEN", "AZURE_CREDENTIALS"]), st.text(max_size=60).map("SECRET{}".format)
)


@given(PLAIN, SECRET)
def test_no_value_breaks_the_check_and_no_secret_is_told(plain: dict[str, str], secret: dict[str, str]) -> None:
    """Whatever stands there, it is taken or refused in sentences, and those never hold a secret."""
    told = ""
    try:
        values.read({**plain, **secret})
    except SetupFault as fault:
        told = str(fault)
    assert "SECRET" not in told


def test_a_repository_where_nothing_is_set_is_left_green(tmp_path: Path) -> None:
    """The push that makes a repository from this one fails nothing; by hand the same is a fault."""
    for event, status in (("push", 0), ("workflow_dispatch", 1)):
        done = step("check", tmp_path, GITHUB_EVENT_NAME=event)
        assert done.returncode == status
    assert (tmp_path / "output").read_text() == "ready=false\n"
    assert "::error title=Set-up, check::PATTOKEN is not set" in done.stdout


def test_a_ready_repository_goes_on(tmp_path: Path) -> None:
    """The summary says how it signs in, and holds no secret."""
    assert step("check", tmp_path, **GIVEN).returncode == 0
    assert (tmp_path / "output").read_text() == "ready=true\n"
    summary = (tmp_path / "summary.md").read_text()
    assert "OpenID Connect" in summary
    assert GIVEN["PATTOKEN"] not in summary


def repository(**more: Any) -> dict[str, Any]:
    """A repository as GitHub gives it, as far as it is read."""
    return {"private": True, "default_branch": "main", "permissions": {"push": True}, **more}


@pytest.mark.parametrize(
    ("answers", "headers", "words"),
    [
        ([(200, repository()), (200, {})], {}, None),
        ([(200, repository()), (200, {})], {"X-OAuth-Scopes": "repo, workflow"}, None),
        ([(200, repository(private=False)), (200, {})], {"X-OAuth-Scopes": "public_repo"}, None),
        ([(401, {})], {}, "it is wrong or has expired"),
        ([(404, {})], {}, "may not see octo/models (GitHub answered 404)"),
        ([(200, repository()), (200, {})], {"X-OAuth-Scopes": "public_repo"}, "and not 'repo'"),
        ([(200, repository(permissions={"push": False})), (200, {})], {}, "'Contents: read and write'"),
        ([(200, repository()), (403, {})], {}, "'Actions: read'"),
        ([(200, repository(default_branch="trunk")), (200, {})], {}, "of the default branch, trunk"),
    ],
)
def test_the_token_is_tried_before_anything_is_deployed(
    web: Web, answers: list[tuple[int, Any]], headers: dict[str, str], words: str | None
) -> None:
    """What GitHub says to it, in words that name the mend; a good one passes."""
    web.answers, web.headers = answers, headers
    found = github_access.faults(web.url, "octo/models", "token", "main")
    assert found == [] if words is None else words in found[0], found


def test_a_refused_token_stops_the_set_up(web: Web, tmp_path: Path) -> None:
    """The step that checks the values ends there, with one error line."""
    web.answers = [(401, {})]
    done = step("check", tmp_path, **GIVEN, GITHUB_API_URL=web.url, GITHUB_REF_NAME="main")
    assert done.returncode == 1
    assert "::error title=Set-up, check::PATTOKEN is refused by GitHub" in done.stdout
    assert not (tmp_path / "output").exists()


# Subjects


@pytest.mark.parametrize("prefix", ["repo:octo/models", "repo:octo@12/models@34"])
@pytest.mark.parametrize("rest", ["ref:refs/heads/main", "environment:production", "pull_request"])
def test_the_prefix_is_read_out_of_any_subject(prefix: str, rest: str) -> None:
    """Old and immutable form, whatever started the run."""
    assert subjects.prefix_of(f"{prefix}:{rest}") == prefix
    assert subjects.of_prefix(prefix, "main")[1] == f"{prefix}:environment:dev"


def test_a_customized_subject_is_refused() -> None:
    """Guessing would take working sign-ins away."""
    with pytest.raises(SetupFault, match="gitHubSubjects"):
        subjects.prefix_of("repository_owner_id:1:job_workflow_ref:octo/x")


def test_environments_are_those_of_the_rollout() -> None:
    """Each environment that a workflow deploys in may sign in."""
    used = set()
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        used |= set(re.findall(r"^    environment: (\w+)$", workflow.read_text(), re.MULTILINE))
    assert used <= set(subjects.ENVIRONMENTS)


def test_the_jobs_own_subject_is_read_from_its_token(web: Web) -> None:
    """Only the token knows the form; without `id-token: write` there is none."""
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "repo:o@1/r@2:ref:refs/heads/main"}).encode()).decode()
    web.answers = [(200, {"value": f"header.{claims.rstrip('=')}.signature"})]
    environment = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{web.url}/t?v=1", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x"}
    assert subjects.own_subject(environment) == "repo:o@1/r@2:ref:refs/heads/main"
    assert "audience=api://AzureADTokenExchange" in web.requests[0][0]
    assert subjects.own_subject({}) == ""
    web.answers = [(200, {"value": "nonsense"})]
    with pytest.raises(SetupFault, match="no readable"):
        subjects.own_subject(environment)
