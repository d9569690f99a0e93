"""The steps of setup.yml, without Azure: values, packages, parameters, waiting, and the proof of the path."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.setup import (
    addresses,
    azure_cli,
    deployment,
    first_deployment,
    github_access,
    package,
    principal,
    proof,
    providers,
    subjects,
    values,
)
from infra.setup.faults import SetupFault
from infra.setup.proof import Patience
from infra.setup.values import Values

ROOT = Path(__file__).resolve().parents[2]
GUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
GIVEN = {
    "AZURE_CLIENT_ID": GUID,
    "AZURE_TENANT_ID": GUID,
    "AZURE_SUBSCRIPTION_ID": GUID,
    "PATTOKEN": "github_pat_" + "a" * 30,
    "RESOURCE_GROUP": "signalbox",
    "GITHUB_REPOSITORY": "octo/models",
}
SOON = Patience(longest=5, pace=0.01)
NOT_LONG = Patience(longest=0.2, pace=0.01)


class FakeCli:
    """Stands for `az` or `gh` on PATH: notes each call and what its parameter file held, and answers from a list."""

    def __init__(self, folder: Path, name: str) -> None:
        self._calls, self._answers = folder / f"{name}.calls", folder / f"{name}.answers"
        self._answers.write_text("[]")
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, pathlib, sys\n"
            f"calls, answers = pathlib.Path({str(self._calls)!r}), pathlib.Path({str(self._answers)!r})\n"
            "arguments = sys.argv[1:]\n"
            "files = [json.loads(pathlib.Path(a[1:]).read_text()) for a in arguments if a.startswith('@')]\n"
            "modes = [oct(pathlib.Path(a[1:]).stat().st_mode & 0o777) for a in arguments if a.startswith('@')]\n"
            "with calls.open('a') as file:\n"
            "    file.write(json.dumps([arguments, files, modes]) + '\\n')\n"
            "rest = json.loads(answers.read_text())\n"
            "for number, (prefix, status, out, error) in enumerate(rest):\n"
            "    if ' '.join(arguments).startswith(prefix):\n"
            "        del rest[number]\n"
            "        answers.write_text(json.dumps(rest))\n"
            "        print(out)\n"
            "        print(error, file=sys.stderr)\n"
            "        sys.exit(status)\n"
            "sys.exit('not expected: ' + ' '.join(arguments))\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def will(self, prefix: str, answer: Any = None, status: int = 0, error: str = "") -> None:
        """Answer the next call that begins so."""
        rest = json.loads(self._answers.read_text())
        rest.append([prefix, status, "" if answer is None else json.dumps(answer), error])
        self._answers.write_text(json.dumps(rest))

    @property
    def calls(self) -> list[tuple[list[str], list[Any], list[str]]]:
        """(arguments, parameter files, their permissions) of each call."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [tuple(json.loads(line)) for line in lines]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FakeCli]:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda name: FakeCli(folder, name)


@pytest.fixture
def az(cli: Callable[[str], FakeCli]) -> FakeCli:
    return cli("az")


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


def step(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one step as the workflow does."""
    outputs = {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return subprocess.run(
        [sys.executable, "-m", "infra.setup", name],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **outputs, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


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


# The Azure CLI


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("(AuthorizationFailed) The client may not", "Role Based Access Control Administrator"),
        ("ERROR: (MissingSubscriptionRegistration) The subscription", "az provider register --namespace NAME"),
        ("something new", "something new"),
    ],
)
def test_azures_refusal_names_its_mend(az: FakeCli, error: str, words: str) -> None:
    """Known codes get a mend, all others Azure's own words."""
    az.will("group show", status=1, error=error)
    with pytest.raises(SetupFault, match=re.escape(words)):
        azure_cli.az("group", "show", "--name", "x")


def test_a_missing_cli_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No traceback where `az` is not installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupFault, match="'az' is not on PATH"):
        azure_cli.az("group", "list")


def test_providers_of_all_templates_are_registered(az: FakeCli) -> None:
    """Nested deployments count; what is registered already is left alone; the step waits for the others."""
    wanted = providers.namespaces(deployment.TEMPLATES)
    assert {"Microsoft.EventGrid", "Microsoft.Web", "Microsoft.MachineLearningServices"} <= set(wanted)
    assert "Microsoft.Authorization" not in wanted
    az.will("provider show --namespace Microsoft.Web", {"registrationState": "Registered"})
    for state in ("NotRegistered", "Registering", "Registered"):
        az.will("provider show --namespace Microsoft.EventGrid", {"registrationState": state})
    az.will("provider register --namespace Microsoft.EventGrid")
    done = providers.register(["Microsoft.EventGrid", "Microsoft.Web"], lambda _: None, pace=0.01)
    assert done == ["Microsoft.EventGrid"]


# Deployments


def test_the_token_is_on_no_command_line(az: FakeCli) -> None:
    """It goes through a file that only this user may read, and that is gone afterwards."""
    token = GIVEN["PATTOKEN"]
    given = Values("signalbox", "octo/models", token, oidc=True)
    parameters = deployment.core_parameters(given, "https://github.com", [])
    made = {"properties": {"outputs": {"FunctionName": {"type": "String", "value": "func"}}}}
    az.will("deployment group create", made)
    assert deployment.deploy("signalbox", "x", deployment.CORE_TEMPLATE, parameters) == {"FunctionName": "func"}
    ((arguments, (file,), modes),) = az.calls
    assert file["parameters"]["pat_token"]["value"] == token
    assert token not in " ".join(arguments)
    assert modes == ["0o600"]
    (path,) = (argument[1:] for argument in arguments if argument.startswith("@"))
    assert not Path(path).exists()


def test_training_and_template_mean_the_same_workspace() -> None:
    """Names come from .cloud/.azure, the repository from GitHub, and every name is one that the template knows."""
    given = Values("signalbox", "octo/models", "t", oidc=True)
    parameters = deployment.core_parameters(given, "https://github.com", ["repo:octo/models:environment:dev"])
    flat = {name: parameter["value"] for name, parameter in parameters.items()}
    workspace = json.loads((ROOT / ".cloud/.azure/workspace.json").read_text())
    compute = json.loads((ROOT / ".cloud/.azure/compute.json").read_text())
    assert (flat["workspaceName"], flat["computeName"]) == (workspace["name"], compute["name"])
    assert flat["GitHubURL"] == "https://github.com/octo/models"
    assert flat["gitHubSubjects"] == ["repo:octo/models:environment:dev"]
    declared = json.loads(deployment.CORE_TEMPLATE.read_text())["parameters"]
    assert set(flat) <= set(declared)
    assert {name for name, one in declared.items() if "defaultValue" not in one} <= set(flat)


def test_two_names_for_one_workspace_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the parameter file says another name than the training's settings, nothing is deployed."""
    template = tmp_path / "deploy.core-infra.json"
    template.write_text(json.dumps({"parameters": {"workspaceName": {"type": "string"}}}))
    chosen = {"parameters": {"workspaceName": {"value": "another"}}}
    (tmp_path / "params.deploy.core-infra.json").write_text(json.dumps(chosen))
    monkeypatch.setattr(deployment, "CORE_TEMPLATE", template)
    with pytest.raises(SetupFault, match=r"workspaceName 'another', but \.cloud/\.azure/workspace\.json says name"):
        deployment.core_parameters(Values("g", "o/r", "t", oidc=True), "https://github.com", [])


def test_what_the_second_template_needs_comes_out_of_the_first() -> None:
    """No name has to be written twice: each parameter without a default is an output of the core deployment."""
    outputs = json.loads(deployment.CORE_TEMPLATE.read_text())["outputs"]
    parameters = deployment.event_parameters({name: f"made-{name}" for name in outputs})
    declared = json.loads(deployment.EVENTS_TEMPLATE.read_text())["parameters"]
    for name, one in declared.items():
        if "defaultValue" not in one:
            assert str(parameters[name]["value"]).startswith("made-"), name
    assert set(parameters) <= set(declared)


def test_every_address_is_an_output() -> None:
    """What the workflows read as step outputs is what the core deployment gives."""
    outputs = json.loads(deployment.CORE_TEMPLATE.read_text())["outputs"]
    found = addresses.of_outputs({name: f"/subscriptions/{name}/resourceGroups/g/x" for name in outputs})
    assert set(found) == {*addresses.NAMES, "subscription_id"}
    assert found["subscription_id"] == "workspaceId"
    read = set()
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        read |= set(re.findall(r"steps\.(?:azure|core)\.outputs\.(\w+)", workflow.read_text()))
    assert read <= set(found)


def test_the_preview_counts_changes(az: FakeCli) -> None:
    """What-if is told as how many resources would change, and how."""
    az.will(
        "deployment group what-if", {"changes": [{"changeType": kind} for kind in ("Create", "Create", "NoChange")]}
    )
    parameters = {"baseName": {"value": "signalbox"}}
    assert deployment.preview("g", "x", deployment.CORE_TEMPLATE, parameters) == "2 Create, 1 NoChange"


def test_a_missing_group_needs_a_region(az: FakeCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made where workspace.json has a location, and asked for where not."""
    az.will("group show", status=3, error="(ResourceGroupNotFound) not there")
    with pytest.raises(SetupFault, match="write a location"):
        deployment.ensure_group("signalbox")
    monkeypatch.setattr(deployment, "cloud_settings", lambda _: {"location": "westeurope"})
    az.will("group show", status=3, error="(ResourceGroupNotFound) not there")
    az.will("group create", {"location": "westeurope"})
    assert deployment.ensure_group("signalbox") == "westeurope"


def test_before_the_set_up_there_are_no_addresses(az: FakeCli, tmp_path: Path) -> None:
    """The step that training and deployment share says what to run first."""
    az.will("deployment group show", status=3, error="(DeploymentNotFound) not there")
    done = step("find", tmp_path, RESOURCE_GROUP="signalbox")
    assert done.returncode == 1
    assert "run setup.yml first" in done.stdout


def test_addresses_become_step_outputs(az: FakeCli, tmp_path: Path) -> None:
    """One line each, also where a value holds a line end."""
    outputs = {"stateAccountName": {"value": "state"}, "FunctionName": {"value": "func\nready=true"}}
    az.will("deployment group show", {"properties": {"outputs": outputs}})
    assert step("find", tmp_path, RESOURCE_GROUP="signalbox").returncode == 0
    assert (tmp_path / "output").read_text() == "function_app=func ready=true\nstate_account=state\n"


# The first deployment, by a person


def test_the_first_deployment_trusts_what_github_says(cli: Callable[[str], FakeCli], az: FakeCli) -> None:
    """The subjects have the form that GitHub tells, the identity may deploy, and the four values come out."""
    gh = cli("gh")
    told = {
        "nameWithOwner": "octo/models",
        "url": "https://github.com/octo/models",
        "defaultBranchRef": {"name": "trunk"},
    }
    gh.will("repo view", told)
    gh.will("api repos/octo/models/actions/oidc", {"use_default": True, "sub_claim_prefix": "repo:octo@1/models@2"})
    for name in providers.namespaces(deployment.TEMPLATES):
        az.will(f"provider show --namespace {name}", {"registrationState": "Registered"})
    az.will("group show", {"location": "westeurope"})
    outputs = json.loads(deployment.CORE_TEMPLATE.read_text())["outputs"]
    made = {name: {"value": f"the-{name}"} for name in outputs}
    made["workspaceId"] = {"value": f"/subscriptions/{GUID}/resourceGroups/signalbox/providers/x"}
    az.will("deployment group create", {"properties": {"outputs": made}})
    commands = first_deployment.commands(first_deployment.run(lambda _: None))
    assert commands[:4] == [
        "gh variable set AZURE_CLIENT_ID --body the-gitHubIdentityClientId",
        "gh variable set AZURE_TENANT_ID --body the-tenantId",
        f"gh variable set AZURE_SUBSCRIPTION_ID --body {GUID}",
        "gh variable set RESOURCE_GROUP --body signalbox",
    ]
    parameters = az.calls[-1][1][0]["parameters"]
    assert parameters["gitHubDeploys"]["value"] is True
    assert parameters["gitHubSubjects"]["value"][0] == "repo:octo@1/models@2:ref:refs/heads/trunk"
    assert parameters["pat_token"]["value"] == ""


def access_token(**claims: str) -> dict[str, str]:
    """What `az account get-access-token` prints."""
    return {"accessToken": f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.s"}


def test_an_identity_that_was_brought_along_gets_its_roles(az: FakeCli) -> None:
    """The template's own identity is known by its client id; any other is named to the template."""
    for listed, principal_id in (
        ([{"clientId": GUID.upper()}], ""),
        ([{"clientId": "other"}], "the-oid"),
        (None, "the-oid"),
    ):
        az.will("account get-access-token", access_token(appid=GUID, oid="the-oid"))
        az.will("identity list", listed)
        assert principal.brought_along("signalbox") == principal_id
    given = Values("signalbox", "octo/models", "t", oidc=False)
    parameters = deployment.core_parameters(given, "https://github.com", [], "the-oid")
    assert parameters["gitHubPrincipalId"] == {"value": "the-oid"}
    assert "gitHubPrincipalId" in json.loads(deployment.CORE_TEMPLATE.read_text())["parameters"]


def test_a_token_without_an_object_id_is_refused(az: FakeCli) -> None:
    """One sentence, no traceback."""
    for answer in (access_token(appid=GUID), {"accessToken": "nonsense"}):
        az.will("account get-access-token", answer)
        with pytest.raises(SetupFault, match="access token"):
            principal.brought_along("signalbox")


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


# Package


def test_the_package_is_the_app_and_nothing_else(tmp_path: Path) -> None:
    """What `.funcignore` leaves: the app's own files, byte for byte the same each time."""
    first, second = tmp_path / "a/first.zip", tmp_path / "second.zip"
    written = package.write(ROOT, first)
    assert package.write(ROOT, second) == written
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == written
        assert archive.read("host.json") == (ROOT / "host.json").read_bytes()
    assert {name.split("/")[0] for name in written} == {
        "function_app.py", "functions", "host.json", "requirements.txt", "routes.yml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ignore", "words"), [(None, "is missing"), ("host.json\n", "leaves out host.json"), ("/*\n", "leaves out")]
)
def test_a_package_that_cannot_run_is_refused(tmp_path: Path, ignore: str | None, words: str) -> None:
    """Too much and too little are both told before anything is published."""
    for name in package.NEEDED:
        (tmp_path / name).write_text("")
    if ignore is not None:
        (tmp_path / ".funcignore").write_text(ignore)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    with pytest.raises(SetupFault, match=re.escape(words)):
        package.files(tmp_path)


# Waiting, and the proof


def test_functions_are_waited_for() -> None:
    """The step goes on once all are there, and names those that never come."""
    seen = iter([[], ["intake"], ["intake", "work"]])
    said: list[str] = []
    proof.await_functions(lambda: next(seen), frozenset({"intake", "work"}), SOON, said.append)
    assert said == ["waiting for intake, work", "waiting for work"]
    with pytest.raises(SetupFault, match="has no function work"):
        proof.await_functions(lambda: ["intake"], frozenset({"intake", "work"}), NOT_LONG, said.append)


def test_the_functions_waited_for_are_the_apps_own() -> None:
    """A renamed function is waited for under its new name."""
    from infra.setup.__main__ import FUNCTIONS

    triggers = (ROOT / "functions/triggers.py").read_text()
    assert set(re.findall(r'function_name\("(\w+)"\)', triggers)) == FUNCTIONS


class Web:
    """A small server whose answers the test lines up; the last one stays."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.reply(self.rfile.read(int(self.headers["Content-Length"])))

            def do_GET(self) -> None:
                self.reply(b"")

            def reply(self, body: bytes) -> None:
                outer.requests.append((self.path, dict(self.headers), body))
                status, answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                content = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**outer.headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
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
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def test_a_new_role_is_waited_for(web: Web) -> None:
    """Event Grid refuses at first; the same event is sent again, with the same id."""
    web.answers = [(403, {}), (401, {}), (200, {})]
    proof.send(f"{web.url}/api/events", "probe-1", "bearer", SOON)
    assert len(web.requests) == 3
    assert {json.loads(body)[0]["id"] for _, _, body in web.requests} == {"probe-1"}
    assert web.requests[0][1]["Authorization"] == "Bearer bearer"


def test_a_topic_that_never_takes_it_is_named(web: Web) -> None:
    """The sentence has Event Grid's words and the role that is missing."""
    web.answers = [(403, {"error": {"code": "Forbidden"}})]
    with pytest.raises(SetupFault, match=r"403 .*Forbidden.*EventGrid Data Sender"):
        proof.send(f"{web.url}/api/events", "probe-1", "bearer", NOT_LONG)
    web.answers = [(400, {})]
    with pytest.raises(SetupFault, match="400"):
        proof.send(f"{web.url}/api/events", "probe-1", "bearer", SOON)


def run_of(title: str, status: str = "completed", conclusion: str | None = "success") -> dict[str, Any]:
    """A workflow run as GitHub lists it, as far as the proof reads it."""
    return {"display_title": title, "status": status, "conclusion": conclusion, "html_url": "https://github.test/run/1"}


def listing(*runs: dict[str, Any]) -> tuple[int, Any]:
    """GitHub's answer."""
    return 200, {"total_count": len(runs), "workflow_runs": list(runs)}


def test_the_proof_is_a_run_that_ended_well(web: Web) -> None:
    """Other runs, faults of GitHub and a run that is still going are no proof yet."""
    web.answers = [
        listing(run_of("probe probe-2 sb-x")),
        (502, {}),
        listing(run_of("probe probe-1 sb-y", "in_progress", None)),
        listing(run_of("probe probe-2 sb-x"), run_of("probe probe-1 sb-y")),
    ]
    found = proof.await_run(web.url, "octo/models", "token", "probe-1", SOON)
    assert found["display_title"] == "probe probe-1 sb-y"
    assert len(web.requests) == 4
    assert "event=repository_dispatch" in web.requests[0][0]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ((), "No workflow run has probe-1 in its name"),
        ((run_of("probe-1", "queued", None),), "has not ended"),
        ((run_of("probe-1", conclusion="failure"),), "ended as failure"),
    ],
)
def test_no_proof_says_where_to_look(web: Web, runs: tuple[dict[str, Any], ...], words: str) -> None:
    """Nothing is taken for confirmed that is not."""
    web.answers = [listing(*runs)]
    with pytest.raises(SetupFault, match=words):
        proof.await_run(web.url, "octo/models", "token", "probe-1", NOT_LONG)


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


def test_the_probe_takes_the_route_that_is_made_for_it() -> None:
    """The app reads it, one route takes it, it settles at once, and it is sent to the probe's own workflow."""
    from functions.core import events, routes
    from functions.core.routes_file import load_routes

    probe = f"probe-{uuid.UUID(int=1).hex[:16]}"
    event = events.parse({**proof.event(probe, datetime.now(UTC)), "topic": "/subscriptions/x"})
    (taken,) = routes.matching(load_routes((ROOT / "routes.yml").read_text()), event)
    assert (taken.name, taken.dispatch, taken.settle) == ("prove-the-path", "signalbox-setupprobe", None)
