"""The ARM templates, in every variant: schemas, names, order, secrets, and that they and the code say the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flow.scenes import DEPLOY, HOUR, MINUTE, run_completed
from flow.simulation import World
from hypothesis import given, settings, strategies as st
from infra_checks import ArmCheck, dependency_faults, flex_faults, name_faults, secret_faults
from infra_variants import CORE, EVENTS, INFRA, SECRET, deployed, outputs, parameters, template, together, variants

from functions import settings as app
from functions.adapters import account, dead_letters
from functions.core.github import Answer
from local import provision
from local.arm.deployment import Declared, resources_of
from local.arm.template import Template
from local.eventgrid.subscriptions import QueueDestination, subscriptions

BOTH = (CORE, EVENTS)
SIX_STORAGE_EVENTS = {
    f"Microsoft.Storage.{name}"
    for name in (
        "BlobCreated",
        "BlobDeleted",
        "BlobRenamed",
        "DirectoryCreated",
        "DirectoryRenamed",
        "DirectoryDeleted",
    )
}
DOCUMENTED = (
    *("workspaceName", "baseName", "OwnerName", "GitHubBranch", "eventGridTopicPrefix", "eventGridSubscriptionName"),
    *("FunctionName", "subscriptionID", "GitHubURL", "funcProjectFolder", "repo_name", "pat_token"),
)
"""The parameters that users of the seeds know."""


@pytest.fixture(scope="module")
def check(contracts: Path) -> ArmCheck:
    """The official schemas and type models."""
    return ArmCheck(contracts)


def of_type(resources: list[Declared], kind: str) -> list[Declared]:
    """The resources of a type that exist."""
    return [resource for resource in resources if resource.exists and resource.type == kind]


@pytest.mark.parametrize("name", BOTH)
def test_template_is_valid(contracts: Path, name: str) -> None:
    """Each template, with its parameter file, holds against the official schemas and type models as it stands."""
    command = [sys.executable, contracts / "tools/armcheck.py", INFRA / f"{name}.json", INFRA / f"params.{name}.json"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert "unused parameter" not in checked.stdout


@pytest.mark.parametrize("name", BOTH)
def test_every_variant_is_valid(check: ArmCheck, name: str) -> None:
    """With every expression evaluated, each resource of each variant holds too."""
    for variant in variants(name):
        resources = [resource for resource in deployed(name, variant) if resource.exists]
        assert [fault for resource in resources for fault in check.faults(resource)] == [], variant


@pytest.mark.parametrize("name", BOTH)
def test_names_and_order(name: str) -> None:
    """Every variant has names that Azure takes, once each, and nothing is named before it is there."""
    for variant in variants(name):
        resources = deployed(name, variant)
        assert name_faults(resources) + dependency_faults(resources) == [], variant
        ids = [resource.id.lower() for resource in resources]
        assert len(ids) == len(set(ids)), variant


@given(st.from_regex(r"[A-Za-z0-9-]{3,10}", fullmatch=True).filter(lambda name: len(name.replace("-", "")) > 2))
@settings(max_examples=40, deadline=None)
def test_any_base_name_gives_valid_names(base: str) -> None:
    """Whatever letters, digits and hyphens the base name has, every name that is made of it is valid."""
    core = Template(template(CORE), parameters(CORE, {"baseName": base, "privateNetworking": True}))
    assert name_faults(resources_of(core)) == []


@pytest.mark.parametrize("name", BOTH)
def test_secrets_stay(name: str) -> None:
    """In no variant does a secret reach an output or a plain setting, and no template reads an account's keys."""
    for variant in variants(name):
        assert secret_faults(deployed(name, variant), outputs(name, variant), SECRET) == [], variant
    text = json.dumps(template(name))
    assert re.findall(r"\blist\w*\(", text) == []
    secret = {name for name, one in template(name)["parameters"].items() if one["type"] == "securestring"}
    assert secret == ({"pat_token", "gitHubAppPrivateKey"} if name == CORE else set())


@pytest.mark.parametrize("name", BOTH)
def test_deploying_twice_changes_nothing(name: str) -> None:
    """No value depends on the moment or on chance."""
    assert re.findall(r"(?i)\b(?:newguid|utcnow)\(", json.dumps(template(name))) == []


@pytest.mark.parametrize("name", BOTH)
def test_api_versions_are_recent(check: ArmCheck, name: str) -> None:
    """Each API version is among the newest two stable ones of its type, or no newer type is known than its parent's."""
    old = {
        (resource.type, resource.body["apiVersion"])
        for variant in variants(name)
        for resource in deployed(name, variant)
        if resource.exists and resource.body["apiVersion"] not in (check.versions(resource.type) or [""])[-2:]
    }
    tables = "Microsoft.Storage/storageAccounts/tableServices"
    assert old == ({(f"{tables}/tables", "2025-08-01")} if name == CORE else set()), "tables are in no contract"
    assert name == EVENTS or check.versions(tables)[-2] == "2025-08-01"


@pytest.mark.parametrize("name", BOTH)
def test_every_parameter_is_described(name: str) -> None:
    """Every parameter says what it is for."""
    declared = template(name)["parameters"]
    assert [key for key, one in declared.items() if not one.get("metadata", {}).get("description")] == []


@pytest.mark.parametrize("name", BOTH)
def test_documentation_names_every_parameter(name: str) -> None:
    """docs/infrastructure.md explains each parameter, in the template's own words."""
    text = (INFRA.parent / "docs/infrastructure.md").read_text(encoding="utf-8")
    for key, one in template(name)["parameters"].items():
        assert re.search(rf"^\| `{key}` \| [^|]+ \| {re.escape(one['metadata']['description'])}", text, re.MULTILINE), (
            key
        )


def test_documented_parameters_do_something() -> None:
    """Every parameter that users of the seeds know is there under its name, and changes what is deployed or said."""

    def whole(given: dict[str, Any]) -> str:
        core = Template(template(CORE), parameters(CORE, given))
        made = [[one.exists, one.name, one.body] for one in resources_of(core)]
        return json.dumps([made, {name: core.value(one["value"], name) for name, one in core.outputs.items()}])

    for name in DOCUMENTED:
        assert whole({name: "other"}) != whole({name: "another"}), name


def test_what_setup_hands_over(contracts: Path) -> None:
    """Every parameter of the second template that has no default of its own is an output of the first."""
    assert contracts.is_dir()
    made = {name.lower() for name in outputs(CORE, variants(CORE)[0])}
    needed = {name for name, one in template(EVENTS)["parameters"].items() if "defaultValue" not in one}
    assert {name for name in needed if name.lower() not in made} == set()


def test_accounts_are_closed() -> None:
    """Every new storage account refuses keys, public blobs and old TLS; that for state is flat and zone-redundant."""
    for variant in variants(CORE):
        accounts = of_type(deployed(CORE, variant), "Microsoft.Storage/storageAccounts")
        for one in accounts:
            properties = one.body["properties"]
            assert (properties["allowSharedKeyAccess"], properties["allowBlobPublicAccess"]) == (False, False)
            assert (properties["minimumTlsVersion"], properties["supportsHttpsTrafficOnly"]) == ("TLS1_2", True)
        (state,) = [one for one in accounts if "state" in one.name]
        assert (state.body["properties"]["isHnsEnabled"], state.body["sku"]) == (False, {"name": "Standard_ZRS"})


def test_private_networking_closes_the_doors() -> None:
    """With it, everything refuses the internet (the state account all but Azure's own services) and has an endpoint."""
    private = next(variant for variant in variants(CORE) if "/private/" in variant)
    resources = deployed(CORE, private)
    doors = {one.name: one.body["properties"].get("publicNetworkAccess") for one in resources if one.exists}
    state = next(one for one in of_type(resources, "Microsoft.Storage/storageAccounts") if "state" in one.name)
    assert {name for name, door in doors.items() if door == "Enabled"} == {state.name}
    assert state.body["properties"]["networkAcls"] == {"bypass": "AzureServices", "defaultAction": "Deny"}
    behind = {
        one.body["properties"]["privateLinkServiceConnections"][0]["properties"]["privateLinkServiceId"]
        for one in of_type(resources, "Microsoft.Network/privateEndpoints")
    }
    assert {one.id for one in resources if doors.get(one.name) == "Disabled"} | {state.id} == behind
    assert outputs(CORE, private)["delivery"] == "queue"


def test_app_settings_are_those_that_the_code_reads() -> None:
    """The template sets every setting of functions/settings.py but the one with a key, and none that nobody reads."""
    host = {
        "AzureWebJobsStorage__credential",
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    }
    for variant in variants(CORE):
        (found,) = [one for one in deployed(CORE, variant) if one.exists and one.name.endswith("/appsettings")]
        values = found.body["properties"]
        assert set(values) - host == set(app.NAMES) - {app.STATE_ACCOUNT}
        token, key = values[app.PAT_TOKEN], values[app.GITHUB_APP_PRIVATE_KEY]
        assert ["@Microsoft.KeyVault(VaultName=" in one for one in (token, key)].count(True) == 1
        assert bool(key) == bool(values[app.GITHUB_APP_ID]) == variant.endswith("/app")


def test_settings_wait_for_the_right_to_read_their_secrets() -> None:
    """Azure looks a Key Vault reference up when the setting is written; one that fails is the setting's value."""
    resources = deployed(CORE)
    (settings_of_app,) = [one for one in resources if one.name.endswith("/appsettings")]
    roles = {one.id for one in of_type(resources, "Microsoft.Authorization/roleAssignments") if "/secrets/" in one.id}
    assert len(roles) == 2
    assert roles <= set(settings_of_app.waits_for)


def test_a_flex_plan_takes_the_app() -> None:
    """Nothing is set that such a plan refuses, although the schema knows it."""
    for variant in variants(CORE):
        assert flex_faults(deployed(CORE, variant)) == [], variant


def test_the_app_starts_with_the_templates_settings() -> None:
    """With its references resolved, functions/settings.py takes the template's settings as they are."""
    (found,) = [one for one in deployed(CORE) if one.name.endswith("/appsettings")]
    resolved = {name: "token" if "@Microsoft" in value else value for name, value in found.body["properties"].items()}
    read = app.read_settings(resolved)
    assert read.state.name == outputs(CORE, variants(CORE)[0])["stateAccountName"]
    assert read.data_accounts == {outputs(CORE, variants(CORE)[0])["dataAccountName"]}


def test_state_is_what_the_app_uses() -> None:
    """Containers, tables and queues of the template are those of the code and of a local run."""
    storage = "Microsoft.Storage/storageAccounts"
    resources = [one for one in deployed(CORE) if "state" in one.name]

    def names(kind: str) -> set[str]:
        return {one.name.rpartition("/")[2] for one in of_type(resources, f"{storage}/{kind}")}

    events = dead_letters.EVENT_GRID_DEAD_LETTERS
    assert names("blobServices/containers") == {*account.CONTAINERS, events, "app-package"}
    assert names("tableServices/tables") == set(account.TABLES)
    assert names("queueServices/queues") == set(account.QUEUES)
    assert events == provision.EVENT_GRID_DEAD_LETTERS
    data = [one.name.rpartition("/")[2] for one in deployed(CORE) if one.deployment]
    assert provision.DATA_CONTAINER in data
    declared = template(EVENTS)["parameters"]
    assert declared["deadLetterContainer"]["defaultValue"] == events
    assert declared["eventQueue"]["defaultValue"] == account.EVENTS_QUEUE


def test_only_replayed_letters_are_forgotten() -> None:
    """The lifecycle rule names nothing but what `signalbox replay` put away."""
    (policy,) = of_type(deployed(CORE), "Microsoft.Storage/storageAccounts/managementPolicies")
    (rule,) = policy.body["properties"]["policy"]["rules"]
    wanted = {f"{container}/{dead_letters.REPLAYED}" for container in dead_letters.CONTAINERS}
    assert set(rule["definition"]["filters"]["prefixMatch"]) == wanted


def test_the_identity_for_github_needs_no_secret() -> None:
    """GitHub's tokens are trusted for the branch and the environments, and nothing else is."""
    trusted = of_type(deployed(CORE), "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials")
    assert [one.body["properties"]["subject"] for one in trusted] == [
        "repo:OWNER/NAME:ref:refs/heads/main",
        *(f"repo:OWNER/NAME:environment:{stage}" for stage in ("dev", "test", "production")),
    ]
    assert {one.body["properties"]["issuer"] for one in trusted} == {"https://token.actions.githubusercontent.com"}


def test_easy_auth_lets_event_grid_through() -> None:
    """Where sign-in guards the app, Event Grid's webhook is left out: a 401 would never be tried again."""
    variant = next(variant for variant in variants(CORE) if variant.endswith("/app"))
    (found,) = [one for one in deployed(CORE, variant) if one.exists and one.name.endswith("/authsettingsV2")]
    assert found.body["properties"]["globalValidation"]["excludedPaths"] == ["/runtime/webhooks/*"]


async def test_alerts_see_what_the_app_says(caplog: pytest.LogCaptureFixture) -> None:
    """Each alert on a log line matches what the running flow writes in its case, and no line of the others."""
    world = World([DEPLOY])
    caplog.set_level("INFO", logger="signalbox")
    lines: dict[str, list[str]] = {}
    for case, answer in (("parked", Answer(401, {}, "{}")), ("refused", Answer(422, {}, "{}")), ("fine", None)):
        caplog.clear()
        if answer is not None:
            world.github.answers.append(answer)
        await world.deliver(run_completed(f"train-{case}"))
        await (world.run_for(MINUTE) if case == "parked" else world.finish(within=HOUR))
        lines[case] = [record.getMessage() for record in caplog.records]
        if case == "parked":
            world = World([DEPLOY])
    caplog.clear()
    await world.deliver({"id": "no event"})
    lines["dead letter"] = [record.getMessage() for record in caplog.records]
    patterns = {
        rule.name.partition("signalbox-")[2]: found[1]
        for rule in of_type(deployed(CORE), "Microsoft.Insights/scheduledQueryRules")
        if (found := re.search(r'matches regex "(.*)"', rule.body["properties"]["criteria"]["allOf"][0]["query"]))
    }
    seen = {
        name: [
            case for case, said in lines.items() if any(re.search(pattern.replace(r"\\", "\\"), line) for line in said)
        ]
        for name, pattern in patterns.items()
    }
    assert seen == {
        "dead-letters": ["dead letter"],
        "parked-dispatches": ["parked"],
        "refused-dispatches": ["refused"],
    }


def test_known_events_can_be_chosen() -> None:
    """The six storage events that users may choose from are accepted, each and all."""
    core = Template(template(EVENTS), parameters(EVENTS, {"storageEvents": sorted(SIX_STORAGE_EVENTS)}))
    storage, _, _ = subscriptions(core)
    for kind in SIX_STORAGE_EVENTS:
        subject = "/blobServices/default/containers/training-data/blobs/x"
        assert storage.filter.wants({"eventType": kind, "subject": subject})


def test_what_the_subscriptions_take(contracts: Path) -> None:
    """Of the documented events, the template's subscriptions take those that routes need, from the data only."""
    read = subscriptions(Template(template(EVENTS), parameters(EVENTS)))
    storage, workspace, custom = read
    assert [one.topic for one in read] == ["storage", "workspace", "signalbox"]
    assert {one.dead_letter_container for one in read} == {"eventgrid-dead-letters"}
    taken = set()
    for sample in (contracts / "events/samples").glob("*.eventgrid.json"):
        content = json.loads(sample.read_text())
        for event in content if isinstance(content, list) else [content]:
            assert not storage.filter.wants(event), "no sample is about the container training-data"
            assert custom.filter.wants(event)
            if workspace.filter.wants(event):
                taken.add(event["eventType"].rpartition(".")[2])
    assert taken == {"RunCompleted", "RunStatusChanged", "ModelRegistered", "DatasetDriftDetected"}
    created = {"eventType": "Microsoft.Storage.BlobCreated"}
    data = "/blobServices/default/containers/training-data/blobs/digits/1.csv"
    assert storage.filter.wants({**created, "subject": data})
    assert not storage.filter.wants({**created, "subject": data.replace("training-data", "training-data-2")})


def test_delivery_into_the_queue() -> None:
    """With `queue`, every subscription writes with its topic's identity into the queue that the app reads, for ever."""
    read = subscriptions(Template(template(EVENTS), parameters(EVENTS, {"delivery": "queue"})))
    assert {one.destination for one in read} == {QueueDestination(account.EVENTS_QUEUE, -1)}
    for one in of_type(deployed(EVENTS, "queue/alert"), "Microsoft.EventGrid/topics/eventSubscriptions"):
        assert one.body["properties"]["destination"] is None
        assert one.body["properties"]["deliveryWithResourceIdentity"]["identity"] == {"type": "SystemAssigned"}


def test_both_templates_name_the_same_things() -> None:
    """What the second template subscribes to, and writes into, is what the first one makes."""
    for delivery in ("function", "queue"):
        resources = together(delivery=delivery)
        made = {one.id.lower() for one in resources if one.exists}
        for kind in ("topics", "systemTopics"):
            for one in of_type(resources, f"Microsoft.EventGrid/{kind}/eventSubscriptions"):
                assert one.id.lower().rpartition("/eventsubscriptions/")[0] in made
        named = re.findall(r'"(/subscriptions/[^"]*)"', json.dumps([one.body for one in resources if one.exists]))
        roles = re.compile(
            r"/providers/microsoft\.authorization/roledefinitions/|/sites/[^/]*/functions/intake$|/subnets/"
        )
        assert {one for one in named if one.lower() not in made and not roles.search(one.lower())} == set()
