"""`signalbox doctor`: the resources in Azure, through the management API. Only GETs; a Reader of the group can do it.

Follows the REST references of Web Apps, Event Grid, Storage, Managed Identity and Authorization.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from local.commands.doctor_findings import Finding, fault, ok, unknown

SITES, STORAGE = "Microsoft.Web/sites", "Microsoft.Storage/storageAccounts"
SYSTEM_TOPICS, TOPICS = "Microsoft.EventGrid/systemTopics", "Microsoft.EventGrid/topics"
IDENTITIES = "Microsoft.ManagedIdentity/userAssignedIdentities"

VERSIONS: Mapping[str, str] = {
    SITES: "2024-11-01",
    STORAGE: "2025-06-01",
    SYSTEM_TOPICS: "2025-02-15",
    TOPICS: "2025-02-15",
    IDENTITIES: "2024-11-30",
    "resources": "2021-04-01",
    "roles": "2022-04-01",
}
"""API versions; `resources` lists a group, `roles` are role assignments."""

FUNCTIONS = frozenset({"intake", "intake_queue", "work", "reconcile", "status"})

ROLES: Mapping[str, tuple[str, ...]] = {
    "Storage Blob Data Owner": ("b7e6dc6d-f1e8-4753-8033-0f276bb0955b",),
    "Storage Queue Data Contributor": ("974c5e8b-45b9-4653-ba55-5f855dd0fb88",),
    "Storage Table Data Contributor": ("0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3",),
    "Key Vault Secrets User": ("4633458b-17de-408a-b874-0445c86b69e6",),
}
"""Roles that the function app's identity cannot do without: name, and the ids that serve for it."""

SETUP = "run setup.yml again"
_ROLE_ID = re.compile(r"[0-9a-f-]{36}$", re.IGNORECASE)


class Management(Protocol):
    """Azure Resource Manager."""

    def get(self, path: str) -> Mapping[str, Any]:
        """GET a path that begins with `/subscriptions`, with its api-version. Raises Refused."""


class Refused(RuntimeError):
    """Azure Resource Manager did not give what was asked for; the text says why."""


@dataclass(frozen=True, slots=True)
class Group:
    """A resource group, and the calls that look into it."""

    management: Management
    subscription: str
    name: str

    @property
    def path(self) -> str:
        """Its address."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.name}"

    def resources(self) -> list[Mapping[str, Any]]:
        """Everything in it, by type and name only."""
        return self.list(f"{self.path}/resources", VERSIONS["resources"])

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """All resources of one type, in full."""
        return self.list(f"{self.path}/providers/{kind}", VERSIONS[kind])

    def list(self, path: str, version: str, more: str = "") -> list[Mapping[str, Any]]:
        """All pages of a listing."""
        found: list[Mapping[str, Any]] = []
        following = f"{path}?api-version={version}{more}"
        while following:
            page = self.management.get(following)
            found += page.get("value") or []
            link = str(page.get("nextLink") or "")
            following = link[link.index("/subscriptions") :] if "/subscriptions" in link else ""
        return found


def check(group: Group, state_account: str, subjects: Iterable[str]) -> Iterator[Finding]:
    """Look at the group's resources.

    `state_account` is the one that the app is to use ("" if not known), `subjects` are those that GitHub signs in with.
    """
    looks: dict[str, Callable[[], Iterator[Finding]]] = {
        "function app": lambda: _apps(group),
        "state account": lambda: _state(group, state_account),
        "subscriptions": lambda: _subscriptions(group),
        "sign-in": lambda: _sign_in(group, list(subjects)),
    }
    for name, look in looks.items():
        try:
            yield from look()
        except Refused as error:
            yield unknown(name, group.name, str(error), "you need the role Reader on the resource group")


def _apps(group: Group) -> Iterator[Finding]:
    apps = [site for site in group.of(SITES) if "functionapp" in str(site.get("kind", ""))]
    if not apps:
        yield fault("function app", group.name, "the resource group has none", SETUP)
    for app in apps:
        name, properties = str(app["name"]), app.get("properties", {})
        if properties.get("state") != "Running":
            yield fault(
                "function app", name, f"it is {properties.get('state')}",
                f"az functionapp start --name {name} --resource-group {group.name}",
            )  # fmt: skip
        there = {
            str(one["name"]).rpartition("/")[2].lower()
            for one in group.list(f"{group.path}/providers/{SITES}/{name}/functions", VERSIONS[SITES])
        }
        missing = sorted(FUNCTIONS - there)
        if missing:
            yield fault(
                "function app", name, f"it lacks the functions {', '.join(missing)}",
                "its log stream names a setting that stops its start; else publish it again: " + SETUP,
            )  # fmt: skip
        else:
            yield ok("function app", name, "all its functions are there")
        yield from _references(group, name)
        yield from _roles(group, app)


def _references(group: Group, app: str) -> Iterator[Finding]:
    """Key Vault references ("Get App Settings Key Vault References"): an unresolved one is the setting's value."""
    path = f"{group.path}/providers/{SITES}/{app}/config/configreferences/appsettings"
    for reference in group.list(path, VERSIONS[SITES]):
        name = str(reference["name"]).rpartition("/")[2]
        status = str(reference.get("properties", {}).get("status"))
        if status == "Resolved":
            yield ok("app settings", name, "its Key Vault reference is resolved")
        else:
            details = str(reference.get("properties", {}).get("details") or status)
            yield fault(
                "app settings", name, f"its Key Vault reference is not resolved ({details})",
                "is the secret there, and may the app's identity read it (Key Vault Secrets User)? Then " + SETUP
                + ": Azure looks again once a day only",
            )  # fmt: skip


def _roles(group: Group, app: Mapping[str, Any]) -> Iterator[Finding]:
    identity = app.get("identity") or {}
    principals = [str(one.get("principalId")) for one in (identity.get("userAssignedIdentities") or {}).values()]
    principals += [str(identity["principalId"])] if identity.get("principalId") else []
    held: set[str] = set()
    for principal in principals:
        query = f"&$filter=assignedTo('{principal}')"
        path = f"{group.path}/providers/Microsoft.Authorization/roleAssignments"
        for assignment in group.list(path, VERSIONS["roles"], query):
            found = _ROLE_ID.search(str(assignment.get("properties", {}).get("roleDefinitionId")))
            held |= {found[0].lower()} if found else set()
    missing = [name for name, ids in ROLES.items() if not held & set(ids)]
    if missing:
        yield fault("roles", str(app["name"]), f"its identity lacks {', '.join(missing)}", SETUP)
    else:
        yield ok("roles", str(app["name"]), "its identity has what it needs")


def _state(group: Group, wanted: str) -> Iterator[Finding]:
    for account in group.of(STORAGE):
        name, properties = str(account["name"]), account.get("properties", {})
        if name != wanted:
            continue
        if properties.get("isHnsEnabled"):
            yield fault(
                "state account", name, "its namespace is hierarchical: append blobs there cannot be sealed",
                "name another account; this cannot be changed",
            )  # fmt: skip
        elif properties.get("allowSharedKeyAccess", True):
            yield fault(
                "state account", name, "its keys open it", f"az storage account update --name {name} "
                "--allow-shared-key-access false",
            )  # fmt: skip
        else:
            yield ok("state account", name, "flat, and no key opens it")


def _subscriptions(group: Group) -> Iterator[Finding]:
    count = 0
    for kind in (SYSTEM_TOPICS, TOPICS):
        for topic in group.of(kind):
            path = f"{group.path}/providers/{kind}/{topic['name']}/eventSubscriptions"
            for subscription in group.list(path, VERSIONS[kind]):
                count += 1
                yield from _subscription(subscription)
    if not count:
        yield fault("subscriptions", group.name, "there are none: no event comes", SETUP)


def _subscription(subscription: Mapping[str, Any]) -> Iterator[Finding]:
    name, properties = str(subscription["name"]), subscription.get("properties", {})
    state = properties.get("provisioningState")
    if state != "Succeeded":
        yield fault("subscriptions", name, f"it is {state}: no event comes through it", SETUP)
    elif not (properties.get("deadLetterDestination") or properties.get("deadLetterWithResourceIdentity")):
        yield fault("subscriptions", name, "it has no dead-letter target: what is not delivered is gone", SETUP)
    else:
        yield ok("subscriptions", name, "it delivers, and keeps what it cannot deliver")


def _sign_in(group: Group, subjects: list[str]) -> Iterator[Finding]:
    """Whether an identity of the group trusts the subjects; one in another group, or an app's, is not seen here."""
    trusted: set[str] = set()
    for identity in group.of(IDENTITIES):
        path = f"{group.path}/providers/{IDENTITIES}/{identity['name']}/federatedIdentityCredentials"
        for credential in group.list(path, VERSIONS[IDENTITIES]):
            trusted.add(str(credential.get("properties", {}).get("subject")))
    for subject in subjects:
        if subject in trusted:
            yield ok("sign-in", subject, "an identity of the group trusts it")
        elif any(subject.lower() == one.lower() for one in trusted):
            yield fault("sign-in", subject, "it is trusted in other letters only, and Azure tells them apart", SETUP)
        elif trusted:
            yield fault(
                "sign-in", subject, "no identity of the group trusts it: azure/login is refused (AADSTS700213)",
                "give the subjects in this form as gitHubSubjects, and " + SETUP,
            )  # fmt: skip
        else:
            yield unknown("sign-in", subject, "no identity of the group trusts GitHub; another may")
