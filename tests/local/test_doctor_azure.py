"""`signalbox doctor` in Azure: function app, roles, state account, subscriptions, sign-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doctor_scenes import Api, faults

from local.commands import (
    doctor_azure,
)
from local.commands.doctor import ManagementRest
from local.commands.doctor_azure import VERSIONS, Group, Refused
from local.commands.doctor_findings import Finding

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
