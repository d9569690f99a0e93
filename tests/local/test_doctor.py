"""`signalbox doctor`: each fault is found, named and has its mend; what is right is not complained about."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, strategies as st

from functions.adapters.account import CONTAINERS, QUEUES, TABLES, StateStorage
from functions.adapters.github_http import GitHubHttp
from functions.adapters.github_tokens import PersonalToken
from functions.core.routes import Route
from functions.core.routes_file import load_routes
from functions.settings import StateAccount
from local import azurite as emulator
from local.commands import doctor_azure, doctor_files, doctor_github, doctor_storage, doctor_workflows
from local.commands.doctor import GitHubApi, ManagementRest
from local.commands.doctor_azure import VERSIONS, Group, Refused
from local.commands.doctor_findings import Finding, as_text
from local.github.documents import Documents
from local.github.workflows import Workflow

ROOT = Path(__file__).resolve().parents[2]
SIGNALBOX = Path(sys.executable).with_name("signalbox")
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ROUTE = Route(name="train", on=("Microsoft.Storage.BlobCreated",), dispatch="storage-blobcreated")
GOOD = """
name: train
run-name: train ${{ github.event.client_payload.dispatch_id }}
on: {repository_dispatch: {types: [storage-blobcreated]}}
jobs: {}
"""


def faults(findings: list[Finding]) -> list[str]:
    """The faults, as one text each."""
    return [f"{one.check} {one.about}: {one.says} -> {one.mend}" for one in findings if one.state == "fault"]


def project(tmp_path: Path, routes: str, **workflows: str) -> list[Finding]:
    """What is found in a project with these files, and this one's own templates."""
    for path in ("infra/deploy.core-infra.json", ".cloud/.azure/workspace.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in workflows.items():
        (folder / f"{name}.yml").write_text(text)
    (tmp_path / "routes.yml").write_text(routes)
    return list(doctor_files.check(tmp_path, tmp_path / "routes.yml"))


ROUTES = "routes: [{name: r, on: Microsoft.Storage.BlobCreated, settle: none, dispatch: storage-blobcreated}]"
DOOR = "via: workflow_dispatch, workflow: train.yml"
BY_DOOR = ROUTES.replace("settle: none", f"settle: none, {DOOR}")


# Files


def test_this_project_is_in_order() -> None:
    """The planned deployment of this very project has no fault."""
    done = subprocess.run(
        [str(SIGNALBOX), "doctor", "--planned", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    states = {one["state"] for one in json.loads(done.stdout)}
    assert states <= {"ok", "unknown"}


def test_files_in_order_have_no_fault(tmp_path: Path) -> None:
    """A route, and a workflow that hears it."""
    findings = project(tmp_path, ROUTES, train=GOOD)
    assert faults(findings) == []
    assert "0 faults, 0 unknown" in as_text(findings)


@pytest.mark.parametrize(
    ("routes", "workflow", "words"),
    [
        (ROUTES, GOOD.replace("storage-blobcreated", "other"), "no workflow in .github/workflows listens"),
        (ROUTES, GOOD.replace("train ${{ github.event.client_payload.dispatch_id }}", "train"), "no run of it is ever"),
        (ROUTES, "jobs: [", "is no readable YAML"),
        (BY_DOOR, GOOD, "started by route 'r', but its run's name lacks the dispatch id"),
        (BY_DOOR, GOOD, "with inputs that it lacks: dispatch_id, event_type, key, manifest_sha256, payload"),
        (BY_DOOR.replace("train.yml", "gone.yml"), GOOD, "route 'r' starts it, and it is not in .github/workflows"),
        ("routes: [{name: r}]", GOOD, "routes routes.yml: routes.yml:1:"),
    ],
)
def test_each_fault_of_the_files_is_named(tmp_path: Path, routes: str, workflow: str, words: str) -> None:
    """The sentence says what will happen, and there is a mend."""
    found = faults(project(tmp_path, routes, train=workflow))
    assert any(words in one for one in found), found
    assert all(not one.endswith("-> ") for one in found)


def test_a_type_that_no_route_sends_is_mentioned(tmp_path: Path) -> None:
    """It may be sent by something else, so it is no fault."""
    findings = project(tmp_path, ROUTES, train=GOOD, other=GOOD.replace("storage-blobcreated", "nobody-sends"))
    assert faults(findings) == []
    assert any(one.state == "unknown" and "nobody-sends" in one.says for one in findings)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """No traceback where nothing is there."""
    found = faults(list(doctor_files.check(tmp_path, tmp_path / "routes.yml")))
    assert [one.split(":")[0] for one in found] == ["routes routes.yml", "workspace .cloud/.azure/workspace.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"PAT_TOKEN": "[parameters('pat_token')]"}, "PAT_TOKEN: it is no Key Vault reference"),
        ({"PAT_TOKEN": "", "GITHUB_APP_ID": "", "GITHUB_APP_INSTALLATION_ID": "", "GITHUB_APP_PRIVATE_KEY": ""}, "PAT"),
        ({"SIGNALBOX_DATA_ACCOUNTS": None}, "SIGNALBOX_DATA_ACCOUNTS: infra/deploy.core-infra.json does not set it"),
    ],
)
def test_app_settings_of_the_template_are_looked_at(tmp_path: Path, change: dict[str, str | None], words: str) -> None:
    """A setting that the app needs is there, and a secret comes from the vault."""
    project(tmp_path, ROUTES, train=GOOD)
    template = tmp_path / "infra/deploy.core-infra.json"
    document = json.loads(template.read_text())
    for resource in document["resources"]:
        if resource["type"] == "Microsoft.Web/sites/config" and "/appsettings" in resource["name"]:
            resource["properties"] |= change
            for name in [name for name, value in change.items() if value is None]:
                del resource["properties"][name]
    template.write_text(json.dumps(document))
    found = faults(list(doctor_files.check(tmp_path, tmp_path / "routes.yml")))
    assert any(words in one for one in found), found


# A small server for GitHub and for Azure Resource Manager


class Api:
    """Answers GETs by path; everything else is refused. Notes what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, body = outer.answers.get(self.path.partition("?")[0], (404, {"message": "Not Found"}))
                content = json.dumps(body).encode()
                self.send_response_only(status)
                for name, value in {"Date": format_datetime(NOW, usegmt=True), **outer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    yield server
    server.close()


# GitHub

WORKFLOW = Workflow(".github/workflows/train.yml", "train", {})
DOCUMENTS = Documents("https://github.test", "octo", "models", "2026-01-01T00:00:00Z")


@pytest.fixture
def github(api: Api, contracts: Path) -> Api:
    """A repository with one workflow that hears the route; its documents follow GitHub's own description."""
    content = {
        "type": "file", "encoding": "base64", "size": len(GOOD), "name": "train.yml", "path": WORKFLOW.path,
        "content": base64.encodebytes(GOOD.encode()).decode(), "sha": "0" * 40, "url": "https://github.test/c",
        "git_url": "https://x", "html_url": "https://x", "download_url": "https://x",
        "_links": {"git": "https://x", "html": "https://x", "self": "https://x"},
    }  # fmt: skip
    prefix = {"use_default": True, "sub_claim_prefix": "repo:octo@1/models@2"}
    listed = {"total_count": 1, "workflows": [DOCUMENTS.workflow(WORKFLOW)]}
    description = json.loads((contracts / "github/openapi.pruned.json").read_text())["components"]
    for name, document in (("content-file", content), ("oidc-custom-sub-repo", prefix)):
        jsonschema.validate(document, {"$ref": f"#/components/schemas/{name}", "components": description})
    base = "/repos/octo/models"
    api.answers = {
        base: (200, DOCUMENTS.repository()),
        f"{base}/actions/workflows": (200, listed),
        f"{base}/contents/.github/workflows/train.yml": (200, content),
        f"{base}/actions/oidc/customization/sub": (200, prefix),
    }
    return api


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


def test_a_clock_that_is_off_is_named(github: Api) -> None:
    """More than a minute, either way."""
    for seconds, count in ((-300, 1), (300, 1), (30, 0)):
        found = faults(list(seen(github, now=NOW + timedelta(seconds=seconds)).findings))
        assert len([one for one in found if one.startswith("clock")]) == count


# The state account


def test_an_account_without_its_parts_is_named(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """The sentence says what is missing, and which template makes it; with all of it, there is no fault."""
    running = emulator.start(tmp_path, free_port(), free_port(), free_port())
    try:
        account = StateStorage(StateAccount(running.connection_string))
        found = faults(list(doctor_storage.check(account, datetime.now(UTC))))
        assert "it lacks container windows" in found[0]
        assert "deploy infra/deploy.core-infra.json" in found[0]
        for name in CONTAINERS:
            account.blobs.create_container(name)
        for name in TABLES:
            account.tables.create_table(name)
        for name in QUEUES:
            account.queues.create_queue(name)
        assert faults(list(doctor_storage.check(account, datetime.now(UTC)))) == []
    finally:
        running.stop()


def test_an_account_out_of_reach_is_named() -> None:
    """One sentence, and no traceback."""
    dead = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:9/a;"
    dead += "QueueEndpoint=http://127.0.0.1:9/a;TableEndpoint=http://127.0.0.1:9/a;"
    (found,) = faults(list(doctor_storage.check(StateStorage(StateAccount(dead)), datetime.now(UTC))))
    assert "is it running, and in reach?" in found


def test_an_account_that_one_may_not_read_is_unknown(azurite: str) -> None:
    """A missing right of the person is no fault of the deployment."""
    wrong = re.sub("AccountKey=[^;]+", "AccountKey=bm90IHRoZSBrZXk=", azurite)
    findings = list(doctor_storage.check(StateStorage(StateAccount(wrong)), datetime.now(UTC)))
    assert {one.state for one in findings} == {"unknown"}
    assert "Data Reader" in findings[0].mend


def test_a_clock_that_is_off_storages_is_named(azurite: str) -> None:
    """Storage's Date is held against this machine's; a minute is let pass."""
    account = StateStorage(StateAccount(azurite))
    for minutes, count in ((-10, 1), (10, 1), (0, 0)):
        now = datetime.now(UTC) + timedelta(minutes=minutes)
        found = faults(list(doctor_storage.check(account, now)))
        assert len([one for one in found if one.startswith("clock")]) == count


# Azure

GROUP = "/subscriptions/s/resourceGroups/g"
ROLE = "/subscriptions/s/providers/Microsoft.Authorization/roleDefinitions/"


def resource(of: str, name: str, parent: str = "", **more: Any) -> dict[str, Any]:
    """A resource as Azure Resource Manager gives it."""
    whole = f"{of}/{parent}/{name}" if parent else f"{of}/{name}"
    return {"id": f"{GROUP}/providers/{whole}", "name": f"{parent}/{name}" if parent else name, "type": of, **more}


def listing(*values: dict[str, Any], following: str = "") -> tuple[int, Any]:
    """A page of a listing."""
    return 200, {"value": list(values), **({"nextLink": following} if following else {})}


@pytest.fixture
def azure(api: Api) -> Api:
    """A group in order."""
    identity = {"userAssignedIdentities": {"id": {"principalId": "p", "clientId": "c"}}}
    app = resource(
        doctor_azure.SITES, "func", kind="functionapp,linux", identity=identity, properties={"state": "Running"}
    )
    flat = {"isHnsEnabled": False, "allowSharedKeyAccess": False}
    letters = {"deadLetterDestination": {"endpointType": "StorageBlob", "properties": {}}}
    delivers = {"provisioningState": "Succeeded", "deadLetterWithResourceIdentity": letters}
    trusts = {"issuer": "https://token.actions.githubusercontent.com", "subject": "repo:o/r:ref:refs/heads/main"}
    at = f"{GROUP}/providers"
    roles = [role for (role,) in doctor_azure.ROLES.values()]
    api.answers = {
        f"{at}/{doctor_azure.SITES}": listing(app),
        f"{at}/{doctor_azure.SITES}/func/functions": listing(
            *(resource(f"{doctor_azure.SITES}/functions", name, "func") for name in doctor_azure.FUNCTIONS)
        ),
        f"{at}/{doctor_azure.SITES}/func/config/configreferences/appsettings": listing(
            resource(f"{doctor_azure.SITES}/configreferences", "PAT_TOKEN", properties={"status": "Resolved"})
        ),
        f"{at}/Microsoft.Authorization/roleAssignments": listing(
            *(
                resource("Microsoft.Authorization/roleAssignments", role, properties={"roleDefinitionId": ROLE + role})
                for role in roles
            )
        ),
        f"{at}/{doctor_azure.STORAGE}": listing(resource(doctor_azure.STORAGE, "state", properties=flat)),
        f"{at}/{doctor_azure.SYSTEM_TOPICS}": listing(resource(doctor_azure.SYSTEM_TOPICS, "storage")),
        f"{at}/{doctor_azure.SYSTEM_TOPICS}/storage/eventSubscriptions": listing(
            resource(f"{doctor_azure.SYSTEM_TOPICS}/eventSubscriptions", "s", properties=delivers)
        ),
        f"{at}/{doctor_azure.TOPICS}": listing(),
        f"{at}/{doctor_azure.IDENTITIES}": listing(resource(doctor_azure.IDENTITIES, "github")),
        f"{at}/{doctor_azure.IDENTITIES}/github/federatedIdentityCredentials": listing(
            resource(f"{doctor_azure.IDENTITIES}/federatedIdentityCredentials", "main", properties=trusts)
        ),
    }
    return api


def looked_at(azure: Api, subject: str = "repo:o/r:ref:refs/heads/main") -> list[Finding]:
    """What the doctor finds in the group."""
    return list(doctor_azure.check(Group(ManagementRest(azure.url, "bearer"), "s", "g"), "state", [subject]))


def test_a_group_in_order_has_no_fault(azure: Api) -> None:
    """Every call is a GET with its type's API version."""
    findings = looked_at(azure)
    assert [one for one in findings if one.state != "ok"] == []
    assert all("api-version=" in path for path in azure.asked)


def test_the_shapes_are_the_published_ones(azure: Api, contracts: Path) -> None:
    """Every property of the answers, and so every one that the doctor reads, is in Azure's own type models."""
    checked = set()
    for status, page in azure.answers.values():
        assert status == 200
        for one in page["value"]:
            kind = str(one["type"])
            version = next((VERSIONS[known] for known in VERSIONS if kind.startswith(known)), VERSIONS["roles"])
            file = contracts / f"arm/bicep-types/{kind.replace('/', '_')}@{version}.json"
            if file.is_file() and "properties" in one:
                known = properties_of(json.loads(file.read_text())["types"])
                assert set(one["properties"]) <= known, kind
                checked.add(kind)
    assert len(checked) == 5, checked


def properties_of(types: list[dict[str, Any]]) -> set[str]:
    """Names of the properties that a type model knows, wherever in the resource."""
    return {name for one in types if one["$type"] in {"ObjectType", "DiscriminatedObjectType"}
            for name in {**one.get("properties", {}), **one.get("baseProperties", {})}}  # fmt: skip


def edit(azure: Api, kind: str, rest: str = "", **properties: Any) -> None:
    """Change the properties of a listing's first resource."""
    _, page = azure.answers[f"{GROUP}/providers/{kind}{rest}"]
    page["value"][0]["properties"] = {**page["value"][0].get("properties", {}), **properties}


AZURE_FAULTS: list[tuple[Callable[[Api], None], str]] = [
    (lambda azure: edit(azure, doctor_azure.SITES, state="Stopped"), "az functionapp start --name func"),
    (lambda azure: empty(azure, f"{doctor_azure.SITES}/func/functions"), "it lacks the functions intake"),
    (lambda azure: empty(azure, doctor_azure.SITES), "the resource group has none"),
    (
        lambda azure: edit(
            azure, doctor_azure.SITES, "/func/config/configreferences/appsettings", status="AccessToKeyVaultDenied"
        ),
        "its Key Vault reference is not resolved (AccessToKeyVaultDenied)",
    ),
    (
        lambda azure: empty(azure, "Microsoft.Authorization/roleAssignments"),
        "its identity lacks Storage Blob Data Owner",
    ),
    (lambda azure: edit(azure, doctor_azure.STORAGE, isHnsEnabled=True), "its namespace is hierarchical"),
    (lambda azure: edit(azure, doctor_azure.STORAGE, allowSharedKeyAccess=True), "its keys open it"),
    (
        lambda azure: edit(
            azure, doctor_azure.SYSTEM_TOPICS, "/storage/eventSubscriptions", provisioningState="AwaitingManualAction"
        ),
        "it is AwaitingManualAction: no event comes through it",
    ),
    (
        lambda azure: edit(
            azure, doctor_azure.SYSTEM_TOPICS, "/storage/eventSubscriptions", deadLetterWithResourceIdentity=None
        ),
        "it has no dead-letter target",
    ),
    (
        lambda azure: empty(azure, f"{doctor_azure.SYSTEM_TOPICS}/storage/eventSubscriptions"),
        "there are none: no event",
    ),
]


def empty(azure: Api, rest: str) -> None:
    """Nothing of that kind is there."""
    azure.answers[f"{GROUP}/providers/{rest}"] = listing()


@pytest.mark.parametrize(("spoil", "words"), AZURE_FAULTS, ids=[words[:40] for _, words in AZURE_FAULTS])
def test_each_fault_in_azure_is_named(azure: Api, spoil: Callable[[Api], None], words: str) -> None:
    """One thing is wrong, and exactly that is told, with its mend."""
    spoil(azure)
    (found,) = faults(looked_at(azure))
    assert words in found


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("repo:o@1/r@2:ref:refs/heads/main", "no identity of the group trusts it"),
        ("repo:O/R:ref:refs/heads/main", "in other letters only"),
    ],
)
def test_a_subject_in_another_form_is_named(azure: Api, subject: str, words: str) -> None:
    """The repository signs in by its ids, or in other letters, and Azure trusts the old form."""
    (found,) = faults(looked_at(azure, subject))
    assert words in found


def test_all_pages_are_read(azure: Api) -> None:
    """The second page holds the functions that the first lacks."""
    path = f"{GROUP}/providers/{doctor_azure.SITES}/func/functions"
    _, page = azure.answers[path]
    first, rest = page["value"][:1], page["value"][1:]
    azure.answers[path] = listing(*first, following=f"https://management.azure.com{path}/page2?api-version=1")
    azure.answers[f"{path}/page2"] = listing(*rest)
    assert faults(looked_at(azure)) == []


def test_what_may_not_be_read_is_unknown(azure: Api) -> None:
    """A missing right of the person is no fault of the deployment; the other checks go on."""
    azure.answers[f"{GROUP}/providers/{doctor_azure.SITES}"] = (403, {"error": {"code": "AuthorizationFailed"}})
    findings = looked_at(azure)
    assert faults(findings) == []
    (unsaid,) = [one for one in findings if one.state == "unknown"]
    assert "403 AuthorizationFailed" in unsaid.says
    assert "Reader" in unsaid.mend


def test_azures_limit_is_waited_for_and_then_told(azure: Api) -> None:
    """Three times, as long as it asks, and then the check is unknown."""
    azure.headers = {"Retry-After": "0"}
    azure.answers["/subscriptions/s"] = (429, {"error": {"code": "TooManyRequests"}})
    with pytest.raises(Refused, match="429 TooManyRequests"):
        ManagementRest(azure.url, "bearer").get("/subscriptions/s")
    assert len(azure.asked) == 3


def test_no_azure_is_a_refusal() -> None:
    """Out of reach, one sentence."""
    api = Api()
    api.close()
    with pytest.raises(Refused, match="cannot be reached"):
        ManagementRest(api.url, "bearer").get("/subscriptions/s")


# One machine


def doctor(folder: Path, environment: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    given = {name: value for name, value in os.environ.items() if name not in {"PAT_TOKEN", "GITHUB_API_URL"}}
    command = [str(SIGNALBOX), "doctor", "--dir", str(folder), *options]
    return subprocess.run(command, env={**given, **environment}, capture_output=True, text=True, check=False)


def test_a_running_machine_is_looked_at(tmp_path: Path) -> None:
    """Storage, settings, token, workflows and clock of a real local run, through the app's own adapters."""
    parts = "storage,eventgrid,functions,github"
    with subprocess.Popen(
        [str(SIGNALBOX), "up", "--json", "--only", parts, "--dir", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as up:  # fmt: skip
        try:
            assert up.stdout is not None
            assert up.stdout.readline()
            done = doctor(tmp_path, {}, "--json")
            assert done.returncode == 0, done.stdout + done.stderr
            found = json.loads(done.stdout)
            routes = load_routes((ROOT / "routes.yml").read_text())
            heard = " ".join(one["says"] for one in found if one["check"] == "workflow")
            assert all(route.dispatch in heard for route in routes)
            assert {one["check"] for one in found} >= {"storage", "app settings", "token", "clock", "workflow"}
        finally:
            up.terminate()
            up.communicate(timeout=30)
    after = doctor(tmp_path, {})
    assert after.returncode == 1
    assert re.search(r"fault +storage.*\n +mend: is it running", after.stdout), after.stdout


def test_an_app_elsewhere_is_looked_at_by_its_settings(azurite: str, github: Api, tmp_path: Path) -> None:
    """The settings in the environment count; the token goes to the GitHub that they name, and only there."""
    routes = tmp_path / "routes.yml"
    routes.write_text(ROUTES)
    app = {
        "AzureWebJobsStorage": azurite, "SIGNALBOX_DATA_ACCOUNTS": "data", "GITHUB_REPOSITORY": "octo/models",
        "GITHUB_API_URL": github.url, "SIGNALBOX_ROUTES": str(routes),
    }  # fmt: skip
    unasked = doctor(tmp_path, app, "--json")
    assert github.asked == []
    assert any(one["check"] == "GitHub" and one["state"] == "unknown" for one in json.loads(unasked.stdout))
    asked = json.loads(doctor(tmp_path, {**app, "PAT_TOKEN": "github_pat_made_up"}, "--json").stdout)
    assert any(one["check"] == "workflow" and one["state"] == "ok" for one in asked)
    assert any("repo:octo@1/models@2:ref:refs/heads/main" in one["says"] for one in asked)
    routes.write_text("routes: []")
    wrong = doctor(tmp_path, app)
    assert wrong.returncode == 1
    assert re.search(r"fault +app settings", wrong.stdout), wrong.stdout


def test_nowhere_to_look_is_one_sentence(tmp_path: Path) -> None:
    """Without a run and without settings, the command says what to set."""
    done = doctor(tmp_path, {"AzureWebJobsStorage": "", "AzureWebJobsStorage__accountName": ""})
    assert done.returncode == 1
    assert "AzureWebJobsStorage__accountName is not set" in done.stderr
    assert "Traceback" not in done.stderr
