"""What each role permits, and which permission each call of an Azure SDK needs.

Permissions of data operations: "Authorize with Microsoft Entra ID"
(https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory), of roles: "Azure built-in
roles" (https://learn.microsoft.com/azure/role-based-access-control/built-in-roles), both as of 2026.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers"
QUEUES = "Microsoft.Storage/storageAccounts/queueServices/queues"
TABLES = "Microsoft.Storage/storageAccounts/tableServices/tables"
ML = "Microsoft.MachineLearningServices/workspaces"
DATA = "data:"


@dataclass(frozen=True, slots=True)
class Role:
    """A built-in role; `*` stands for any characters in its patterns."""

    name: str
    actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()

    def permits(self, permission: str) -> bool:
        """Whether the role holds the permission; one of data begins with `data:`. In doubt it does not.

        `/*/` may stand for `/` too: that counts where it takes away, and not where it gives.
        """
        wanted = permission.lower()
        if wanted.startswith(DATA):
            return _matches(wanted.removeprefix(DATA), self.data_actions)
        taken = (*self.not_actions, *(one.replace("/*/", "/") for one in self.not_actions))
        return _matches(wanted, self.actions) and not _matches(wanted, taken)


def _matches(permission: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(permission, pattern.lower()) for pattern in patterns)


_EVERY_ENTITY = tuple(f"{TABLES}/entities/{one}" for one in ("read", "write", "delete", "add/action", "update/action"))
ROLES: Mapping[str, Role] = {
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": Role("AcrPull", ("Microsoft.ContainerRegistry/registries/pull/read",)),
    "e503ece1-11d0-4e8e-8e2c-7a6c3bf38815": Role("AzureML Compute Operator", (f"{ML}/computes/*",)),
    "f6c7c914-8db3-469d-8ca1-694a8f32e121": Role(
        "AzureML Data Scientist",
        tuple(f"{ML}/*/{verb}" for verb in ("read", "action", "delete", "write")),
        not_actions=(f"{ML}/write", f"{ML}/delete", f"{ML}/computes/*/write", f"{ML}/computes/*/delete"),
    ),
    "b24988ac-6180-42a0-ab88-20f7382dd24c": Role("Contributor", ("*",), not_actions=("Microsoft.Authorization/*",)),
    "d5a91429-5739-47e2-a06b-3470a27159e7": Role(
        "EventGrid Data Sender", data_actions=("Microsoft.EventGrid/events/send/action",)
    ),
    "4633458b-17de-408a-b874-0445c86b69e6": Role(
        "Key Vault Secrets User", data_actions=("Microsoft.KeyVault/vaults/secrets/getSecret/action",)
    ),
    "f1a07417-d97a-45cb-824c-7a7467783830": Role(
        "Managed Identity Operator", ("Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",)
    ),
    "3913510d-42f4-4e42-8a64-420c390055eb": Role(
        "Monitoring Metrics Publisher", data_actions=("Microsoft.Insights/Telemetry/Write",)
    ),
    "acdd72a7-3385-48ef-bd42-f606fba81ae7": Role("Reader", ("*/read",)),
    "f58310d9-a9f6-439a-9e8d-f62e7b41a168": Role(
        "Role Based Access Control Administrator", ("Microsoft.Authorization/roleAssignments/write", "*/read")
    ),
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": Role(
        "Storage Blob Data Contributor",
        tuple(f"{BLOBS}/{one}" for one in ("read", "write", "delete")),
        tuple(f"{BLOBS}/blobs/{one}" for one in ("read", "write", "delete", "move/action", "add/action")),
    ),
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": Role("Storage Blob Data Owner", (f"{BLOBS}/*",), (f"{BLOBS}/blobs/*",)),
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1": Role(
        "Storage Blob Data Reader", (f"{BLOBS}/read",), (f"{BLOBS}/blobs/read",)
    ),
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": Role(
        "Storage Queue Data Contributor",
        tuple(f"{QUEUES}/{one}" for one in ("read", "write", "delete")),
        tuple(f"{QUEUES}/messages/{one}" for one in ("read", "write", "delete", "process/action")),
    ),
    "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a": Role(
        "Storage Queue Data Message Sender", data_actions=(f"{QUEUES}/messages/add/action",)
    ),
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": Role(
        "Storage Table Data Contributor",
        tuple(f"{TABLES}/{one}" for one in ("read", "write", "delete")),
        _EVERY_ENTITY,
    ),
    "76199698-9eea-4c19-bc75-cec21354c6b6": Role(
        "Storage Table Data Reader", (f"{TABLES}/read",), (f"{TABLES}/entities/read",)
    ),
}
"""Role id → what it permits; of large roles, the part that matters here."""

READ_BLOB, WRITE_BLOB, DELETE_BLOB = (f"{DATA}{BLOBS}/blobs/{verb}" for verb in ("read", "write", "delete"))
READ_ENTITY, WRITE_ENTITY, DELETE_ENTITY = (f"{DATA}{TABLES}/entities/{v}" for v in ("read", "write", "delete"))
READ_MESSAGE, WRITE_MESSAGE, DELETE_MESSAGE = (f"{DATA}{QUEUES}/messages/{v}" for v in ("read", "write", "delete"))
ADD_MESSAGE = f"{DATA}{QUEUES}/messages/add/action"
SEND_EVENT = f"{DATA}Microsoft.EventGrid/events/send/action"
GET_SECRET = f"{DATA}Microsoft.KeyVault/vaults/secrets/getSecret/action"
PERMISSIONS: Mapping[str, tuple[str, ...]] = {
    "append_block": (WRITE_BLOB,),
    "create_append_blob": (WRITE_BLOB,),
    "delete_blob": (DELETE_BLOB,),
    "download_blob": (READ_BLOB,),
    "exists": (f"{BLOBS}/read",),
    "get_blob_properties": (READ_BLOB,),
    "list_blobs": (READ_BLOB,),
    "seal_append_blob": (WRITE_BLOB,),
    "upload_blob": (WRITE_BLOB,),
    "stage_block": (WRITE_BLOB,),
    "commit_block_list": (WRITE_BLOB,),
    "delete_message": (DELETE_MESSAGE,),
    "receive_messages": (READ_MESSAGE, DELETE_MESSAGE),
    "send_message": (WRITE_MESSAGE,),
    "create_entity": (WRITE_ENTITY,),
    "get_entity": (READ_ENTITY,),
    "query_entities": (READ_ENTITY,),
    "submit_transaction": (WRITE_ENTITY, DELETE_ENTITY),
    "update_entity": (WRITE_ENTITY,),
    "upsert_entity": (WRITE_ENTITY,),
    "send": (SEND_EVENT,),
    "send_request": ("Microsoft.Insights/metrics/read",),
    "compute.begin_attach": (f"{ML}/computes/write",),
    "compute.begin_create_or_update": (
        f"{ML}/computes/write",
        "Microsoft.ManagedIdentity/userAssignedIdentities/x/assign/action",
    ),
    "compute.get": (f"{ML}/computes/read",),
    "environments.create_or_update": (f"{ML}/environments/versions/write",),
    "environments.get": (f"{ML}/environments/versions/read",),
    # Its code goes up first, into the workspace's own account.
    "jobs.create_or_update": (f"{ML}/jobs/write", f"{ML}/codes/versions/write", WRITE_BLOB),
    "jobs.get": (f"{ML}/jobs/read",),
    "jobs.stream": (f"{ML}/jobs/read", READ_BLOB),
    "online_deployments.begin_create_or_update": (f"{ML}/onlineEndpoints/deployments/write", WRITE_BLOB),
    "online_deployments.begin_delete": (f"{ML}/onlineEndpoints/deployments/delete",),
    "online_deployments.get": (f"{ML}/onlineEndpoints/deployments/read",),
    "online_deployments.get_logs": (f"{ML}/onlineEndpoints/deployments/getLogs/action",),
    "online_endpoints.begin_create_or_update": (f"{ML}/onlineEndpoints/write",),
    "online_endpoints.get": (f"{ML}/onlineEndpoints/read",),
    "online_endpoints.get_keys": (f"{ML}/onlineEndpoints/listKeys/action",),
    "workspaces.get": (f"{ML}/read",),
}
"""SDK method → the permissions that it needs."""

UNPRIVILEGED: Mapping[str, str] = {
    "close": "closes connections",
    "from_connection_string": "one machine only: there is no key in Azure",
    "get_blob_client": "makes no call",
    "get_container_client": "makes no call",
    "get_queue_client": "makes no call",
    "get_table_client": "makes no call",
    "get_account_information": (
        "needs blobServices/getInfo/action, which no data role has: the app takes a refusal for 'unknown', "
        "and the template makes the account's namespace flat"
    ),
    "workspaces.begin_create": "for those without the template: with an identity of theirs, Contributor of the group",
}
"""SDK method → why no role of the template has to permit it."""
