"""The steps of setup.yml, without Azure: the Azure CLI, both deployments, and the first one by a person."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from setup_fakes import GIVEN, GUID, ROOT, SOON, FakeCli, step

from infra.setup import (
    addresses,
    azure_cli,
    deployment,
    first_deployment,
    principal,
    providers,
)
from infra.setup.faults import SetupFault
from infra.setup.patience import Patience
from infra.setup.values import Values

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


def test_whoever_may_not_register_is_told_who_may(az: FakeCli) -> None:
    """It takes a role on the subscription, which no role on the resource group makes up for."""
    az.will("provider show --namespace Microsoft.App", {"registrationState": "NotRegistered"})
    az.will("provider register", status=1, error="ERROR: (AuthorizationFailed) The client has no authorization")
    with pytest.raises(SetupFault, match=r"does not know Microsoft\.App yet.*role on the subscription itself"):
        providers.register(["Microsoft.App"], lambda _: None)


@pytest.mark.parametrize("private", [True, False])
def test_a_private_network_needs_one_more_provider(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private: bool
) -> None:
    """No template has a resource of it: the app's subnet is delegated to its environments."""
    template = tmp_path / deployment.CORE_TEMPLATE.name
    template.write_text(deployment.CORE_TEMPLATE.read_text())
    chosen = {"parameters": {"privateNetworking": {"value": private}}}
    (tmp_path / f"params.{template.name}").write_text(json.dumps(chosen))
    monkeypatch.setattr(deployment, "CORE_TEMPLATE", template)
    needed = deployment.needed_providers()
    assert ("Microsoft.App" in needed) == private
    assert set(needed) - {"Microsoft.App"} == set(providers.namespaces(deployment.TEMPLATES))


# Deployments


def test_a_topics_new_role_is_waited_for(az: FakeCli) -> None:
    """Event Grid refuses a dead-letter target until the role is known there: the same deployment is made again."""
    az.will("deployment group create", status=1, error="ERROR: the identity may not write to the dead-letter container")
    az.will("deployment group create", {"properties": {}})
    said: list[str] = []
    deployment.deploy_patiently("signalbox", {}, SOON, said.append)
    assert len(az.calls) == 2
    assert az.calls[0][0][:7] == az.calls[1][0][:7]
    assert "the dead-letter container" in said[0]


@pytest.mark.parametrize(
    ("patience", "error"), [(SOON, "ERROR: (AuthorizationFailed) no"), (Patience(0, 0), "ERROR: something new")]
)
def test_a_refused_deployment_is_not_tried_for_ever(az: FakeCli, patience: Patience, error: str) -> None:
    """What somebody has to mend is told at once, all else when the time is over."""
    az.will("deployment group create", status=1, error=error)
    with pytest.raises(SetupFault, match=re.escape(error)):
        deployment.deploy_patiently("signalbox", {}, patience, lambda _: None)
    assert len(az.calls) == 1


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


def test_topics_are_made_where_everything_else_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The region of the first deployment counts, not the group's; one in the second's file has the last word."""
    assert deployment.event_parameters({"location": "northeurope"})["location"] == {"value": "northeurope"}
    template = tmp_path / deployment.EVENTS_TEMPLATE.name
    template.write_text(deployment.EVENTS_TEMPLATE.read_text())
    chosen = {"parameters": {"location": {"value": "westus3"}}}
    (tmp_path / f"params.{template.name}").write_text(json.dumps(chosen))
    monkeypatch.setattr(deployment, "EVENTS_TEMPLATE", template)
    assert deployment.event_parameters({"location": "northeurope"})["location"] == {"value": "westus3"}


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
