"""Who may do what: the identities, the calls that their code makes, and the roles that they have for it."""

from __future__ import annotations

import ast
import fnmatch
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from azure.data.tables import TableClient, TableServiceClient
from azure.eventgrid import EventGridPublisherClient
from azure.storage.blob import BlobClient, BlobServiceClient, ContainerClient
from azure.storage.queue import QueueClient, QueueServiceClient
from infra_permissions import (
    ADD_MESSAGE,
    BLOBS,
    DATA,
    GET_SECRET,
    ML,
    PERMISSIONS,
    QUEUES,
    READ_BLOB,
    READ_ENTITY,
    READ_MESSAGE,
    ROLES,
    SEND_EVENT,
    UNPRIVILEGED,
    WRITE_BLOB,
    Role,
)
from infra_variants import THEIR_IDENTITY

from local.arm.deployment import Declared

PROJECT = Path(__file__).resolve().parents[2]

_ML_COLLECTIONS = {
    *("batch_deployments", "batch_endpoints", "components", "compute", "connections", "data", "datastores"),
    *("environments", "jobs", "models", "online_deployments", "online_endpoints", "registries", "schedules"),
    *("workspace_connections", "workspaces"),
}
_CLIENTS = (
    *(BlobServiceClient, ContainerClient, BlobClient),
    *(QueueServiceClient, QueueClient),
    *(TableServiceClient, TableClient),
    EventGridPublisherClient,
)
_METHODS = {
    name for client in _CLIENTS for name in dir(client) if not name.startswith("_") and callable(getattr(client, name))
}


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """An identity, the code that runs with it, and what of Azure that code works on."""

    name: str
    principals: tuple[str, ...]
    """Patterns of the ids whose principal it is, or of the principal's own id."""
    code: tuple[str, ...] = ()
    """Globs below the project."""
    not_code: tuple[str, ...] = ()
    works_on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The beginning of a permission → the targets on which the code needs it."""
    platform: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """What Azure's services and our commands do with this identity → the target, and the permissions."""


_IDENTITIES = "*/Microsoft.ManagedIdentity/userAssignedIdentities/*"
_TOPIC = {
    "what it cannot deliver": ("eventGridDeadLetters", (WRITE_BLOB,)),
    "delivery into the queue": ("queue", (ADD_MESSAGE,)),
}
CALLERS: tuple[Caller, ...] = (
    Caller(
        "function",
        (f"{_IDENTITIES}-function",),
        ("functions/**/*.py", "function_app.py"),
        works_on={"Microsoft.Storage": ("state",)},
        platform={
            "the Functions host's leases and keys": ("state", (f"{BLOBS}/write", READ_BLOB, WRITE_BLOB)),
            "the published package": ("package", (READ_BLOB,)),
            "the Functions host's queue triggers": ("state", (f"{QUEUES}/write", READ_MESSAGE)),
            "PAT_TOKEN": ("patSecret", (GET_SECRET,)),
            "GITHUB_APP_PRIVATE_KEY": ("appKeySecret", (GET_SECRET,)),
            "the Functions host's telemetry": ("insights", (f"{DATA}Microsoft.Insights/Telemetry/Write",)),
        },
    ),
    Caller(
        "training",
        (f"{_IDENTITIES}-training",),
        ("code/**/*.py",),
        ("code/mlops/azure/*.py", "code/mlops/runevents.py", "code/submit.py", "code/deploy/*.py"),
        works_on={"Microsoft.Storage": ("data", "manifests"), "Microsoft.EventGrid": ("topic",)},
        platform={
            "images of a job's environment": ("registry", ("Microsoft.ContainerRegistry/registries/pull/read",)),
            "a job's code and outputs": ("workspaceAccount", (READ_BLOB, WRITE_BLOB)),
            "MLflow in a job": ("workspace", (f"{ML}/experiments/runs/write", f"{ML}/models/versions/write")),
        },
    ),
    Caller(
        "github",
        (f"{_IDENTITIES}-github", THEIR_IDENTITY),
        ("code/mlops/azure/*.py", "code/submit.py", "code/deploy/*.py"),
        works_on={
            "Microsoft.Storage": ("workspaceAccount",),
            "Microsoft.MachineLearningServices": ("workspace",),
            "Microsoft.ManagedIdentity": ("trainingIdentity",),
            "Microsoft.Insights": ("workspace",),
        },
        platform={
            "watch.yml: dead letters": ("deadLetters", (READ_BLOB,)),
            "watch.yml: Event Grid's dead letters": ("eventGridDeadLetters", (READ_BLOB,)),
            "watch.yml: refused and parked dispatches": ("ledger", (READ_ENTITY,)),
            "setup.yml: the proof": ("topic", (SEND_EVENT,)),
            "setup.yml: find what was deployed": ("group", ("Microsoft.Resources/deployments/read",)),
            "MLflow in a workflow": ("workspace", (f"{ML}/models/versions/read", f"{ML}/experiments/runs/read")),
        },
    ),
    Caller("storage topic", ("*/Microsoft.EventGrid/systemTopics/*-storage",), platform=_TOPIC),
    Caller("workspace topic", ("*/Microsoft.EventGrid/systemTopics/*-workspace",), platform=_TOPIC),
    Caller("custom topic", ("*/Microsoft.EventGrid/topics/*",), platform=_TOPIC),
)
DEPLOYING = Caller(
    "github",
    (f"{_IDENTITIES}-github", THEIR_IDENTITY),
    platform={
        "setup.yml: deploy and publish": (
            "group",
            ("Microsoft.Web/sites/write", "Microsoft.Resources/deployments/write"),
        ),
        "setup.yml: assign roles": ("group", ("Microsoft.Authorization/roleAssignments/write",)),
    },
)
"""What gitHubDeploys adds."""
ADMINISTRATORS = ("Contributor", "Role Based Access Control Administrator")
TARGETS: Mapping[str, str] = {
    "appKeySecret": "[variables('appKeySecretId')]",
    "data": "[variables('dataContainerId')]",
    "deadLetters": "[variables('deadLettersId')]",
    "eventGridDeadLetters": "[variables('deadLetterContainerId')]",
    "group": "[resourceGroup().id]",
    "insights": "[variables('insightsId')]",
    "ledger": "[variables('ledgerId')]",
    "manifests": "[variables('manifestContainerId')]",
    "package": "[concat(variables('stateId'), '/blobServices/default/containers/app-package')]",
    "patSecret": "[variables('patSecretId')]",
    "queue": "[concat(variables('stateId'), '/queueServices/default/queues/signalbox-events')]",
    "registry": "[variables('registryId')]",
    "state": "[variables('stateId')]",
    "topic": "[variables('topicId')]",
    "trainingIdentity": "[variables('trainingIdentityId')]",
    "workspace": "[variables('workspaceId')]",
    "workspaceAccount": "[variables('workspaceAccountId')]",
}
"""Target → its id, as deploy.core-infra.json spells it."""


@dataclass(frozen=True, slots=True)
class Need:
    """One permission on one target, and who needs it."""

    permission: str
    target: str
    who: str


@dataclass(frozen=True, slots=True)
class Held:
    """One role assignment."""

    caller: str
    role: Role
    scope: str


def methods_called(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each call of an Azure SDK's method; of azure-ai-ml's with the collection, `jobs.get`."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        method, target = node.func.attr, node.func.value
        if (
            isinstance(target, ast.Attribute)
            and target.attr in _ML_COLLECTIONS
            and "client" in ast.unparse(target.value)
        ):
            yield node.lineno, f"{target.attr}.{method}"
        elif method in _METHODS:
            yield node.lineno, method


def calls_of(caller: Caller, project: Path = PROJECT) -> dict[str, str]:
    """SDK method → a place that calls it, in the modules that use an Azure SDK."""
    files = {path for glob in caller.code for path in project.glob(glob)}
    files -= {path for glob in caller.not_code for path in project.glob(glob)}
    found: dict[str, str] = {}
    for path in sorted(files):
        source = path.read_text(encoding="utf-8")
        if "azure." in source:
            for line, method in methods_called(source):
                found.setdefault(method, f"{path.relative_to(project)}:{line}")
    return found


def unknown_calls(called: Mapping[str, str]) -> list[str]:
    """Calls that stand in neither table."""
    return [
        f"{place} calls {method}(): say in tests/contract/infra_roles.py which permission it needs"
        for method, place in called.items()
        if method not in PERMISSIONS and method not in UNPRIVILEGED
    ]


def needs_of(caller: Caller) -> list[Need]:
    """Everything that an identity has to be permitted."""
    needs = [
        Need(permission, target, f"{place} calls {method}()")
        for method, place in calls_of(caller).items()
        for permission in PERMISSIONS.get(method, ())
        for target in next(
            (found for start, found in caller.works_on.items() if permission.removeprefix(DATA).startswith(start)),
            ("",),
        )
    ]
    return needs + [
        Need(permission, target, what)
        for what, (target, permissions) in caller.platform.items()
        for permission in permissions
    ]


def assignments(resources: Iterable[Declared]) -> list[Held]:
    """Every role assignment. Raises LookupError for one of nobody that is known here, or of an unknown role."""
    found = []
    for resource in resources:
        if resource.exists and resource.type == "Microsoft.Authorization/roleAssignments":
            principal = str(resource.body["properties"]["principalId"]).partition(">")[0]
            names = [one.name for one in CALLERS if any(fnmatch.fnmatchcase(principal, id_) for id_ in one.principals)]
            if len(names) != 1:
                raise LookupError(f"{resource.place}: {principal} is nobody that infra_roles.py knows")
            role = ROLES[resource.body["properties"]["roleDefinitionId"].rpartition("/")[2]]
            found.append(Held(names[0], role, resource.id.rpartition("/providers/Microsoft.Authorization/")[0]))
    return found


def role_faults(held: Iterable[Held], targets: Mapping[str, str], callers: Iterable[Caller] = CALLERS) -> list[str]:
    """Needs that no role meets on its target, and roles without which every need would still be met."""
    faults = []
    roles = list(held)
    for caller in callers:
        its = [one for one in roles if one.caller == caller.name]
        unmet = _unmet(caller, its, targets)
        faults += [f"{caller.name} lacks {one.permission} on {one.target}: {one.who}" for one in unmet]
        for index, one in enumerate(its):
            if len(_unmet(caller, its[:index] + its[index + 1 :], targets)) == len(unmet):
                faults.append(f"{caller.name} has {one.role.name} on {one.scope}, and nothing needs it")
    return faults


def _unmet(caller: Caller, held: Iterable[Held], targets: Mapping[str, str]) -> list[Need]:
    roles = list(held)
    return [need for need in _needs(caller) if not any(_meets(one, need, targets) for one in roles)]


def _meets(held: Held, need: Need, targets: Mapping[str, str]) -> bool:
    target = targets.get(need.target, "").lower()
    return f"{target}/".startswith(f"{held.scope.lower()}/") and held.role.permits(need.permission)


_needs = functools.cache(needs_of)
