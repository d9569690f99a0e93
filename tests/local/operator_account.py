"""What the tests of the operators' commands share: a state account that events go into, and the command itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from azure.storage.blob import ContainerClient

from functions.adapters.account import CONTAINERS, StateStorage
from functions.adapters.dead_letters import EVENT_GRID_DEAD_LETTERS
from functions.adapters.queues import AzureQueue
from functions.adapters.storage import AzureStore
from functions.adapters.system import SystemChance, SystemClock
from functions.core.dispatch import Dispatch
from functions.core.github import Answer, NoAnswer, Span
from functions.core.routes_file import load_routes
from functions.core.values import JsonObject
from functions.flow.orchestrator import Orchestrator
from functions.settings import StateAccount
from local.azurite import ACCOUNT
from local.cli import main
from local.provision import DATA_CONTAINER, provision

ROUTES = """
routes:
  - name: train
    on: Microsoft.Storage.BlobCreated
    where: {container: training-data, suffix: .csv}
    key: folder
    settle: {quiet: 1s, max_wait: 1s}
    dispatch: storage-blobcreated
  - name: deploy
    on: Microsoft.MachineLearningServices.RunCompleted
    where: {root_run: true}
    settle: none
"""
TOPIC = f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"


class NoGitHub:
    """No test here sends anything."""

    async def create_dispatch(self, repository: str, body: JsonObject) -> Answer | NoAnswer:
        raise AssertionError

    async def start_workflow(self, repository: str, workflow: str, body: JsonObject) -> Answer | NoAnswer:
        raise AssertionError

    async def list_runs(self, repository: str, trigger: str, span: Span, page: int) -> Answer | NoAnswer:
        raise AssertionError

    async def get_run(self, repository: str, run_id: int) -> Answer | NoAnswer:
        raise AssertionError

    async def list_jobs(self, repository: str, run_id: int) -> Answer | NoAnswer:
        raise AssertionError


@dataclass
class Account:
    """The emptied local account, and the function app's flow over it."""

    storage: StateStorage
    connection: str

    def flow(self) -> Orchestrator:
        """A fresh one for each event loop, with windows that settle at once."""
        routes = tuple(
            replace(route, settle=replace(route.settle, quiet=timedelta(), max_wait=timedelta()))
            if route.settle
            else route
            for route in load_routes(ROUTES)
        )
        return Orchestrator.build(
            routes=routes,
            store=AzureStore(self.storage),
            queue=AzureQueue(self.storage),
            github=NoGitHub(),
            clock=SystemClock(),
            chance=SystemChance(),
            repository="octo/models",
            data_accounts=frozenset({ACCOUNT}),
        )

    def take(self, *events: object) -> None:
        """Take events in."""

        async def take() -> None:
            flow = self.flow()
            await asyncio.gather(*(flow.intake.take_value(event) for event in events))

        asyncio.run(take())

    def close(self) -> None:
        """Close every open window."""

        async def close() -> None:
            flow = self.flow()
            for head in await flow.store.heads_to_look_at():
                await flow.closer.look(head.route, head.key)

        asyncio.run(close())

    def dispatches(self) -> list[Dispatch]:
        """Unfinished ledger rows."""
        return asyncio.run(self.flow().store.unfinished_dispatches())

    def change(self, dispatch: Dispatch, **changes: Any) -> Dispatch:
        """Write a ledger row as the sender would leave it."""
        return asyncio.run(self.flow().store.replace_dispatch(replace(dispatch, **changes)))

    def container(self, name: str) -> ContainerClient:
        """Its client."""
        return self.storage.blobs.get_container_client(name)

    def names(self, container: str) -> list[str]:
        """Names of the blobs."""
        return [str(blob.name) for blob in self.container(container).list_blobs()]

    def listed(self) -> list[str]:
        """Paths' last parts of all lines of all manifests, sorted."""
        names = self.names("manifests")
        manifests = [self.container("manifests").download_blob(name).readall() for name in names]
        lines = [line for content in manifests for line in content.splitlines()]
        return sorted(json.loads(line)["subject"].rsplit("/", 1)[-1] for line in lines)

    def upload(self, path: str, content: bytes = b"x\n1\n") -> dict[str, Any]:
        """Put a blob into the data container; gives the event that storage raises for it."""
        blob = self.container(DATA_CONTAINER).get_blob_client(path)
        done = blob.upload_blob(content, overwrite=True)
        return event(path, etag=str(done["etag"]).strip('"'), time=datetime.now(UTC))


def event(path: str, *, etag: str = "0x1", time: datetime | None = None, account: str = ACCOUNT) -> dict[str, Any]:
    """BlobCreated."""
    return {
        "id": f"id-{path}",
        "eventType": "Microsoft.Storage.BlobCreated",
        "topic": TOPIC,
        "subject": f"/blobServices/default/containers/{DATA_CONTAINER}/blobs/{path}",
        "eventTime": (time or datetime.now(UTC)).isoformat(),
        "data": {
            "api": "PutBlob",
            "eTag": etag,
            "contentLength": 4,
            "url": f"http://127.0.0.1:1/{account}/{DATA_CONTAINER}/{path}",
            "sequencer": f"{crc32(etag.encode()):048x}",
        },
    }


@pytest.fixture
def account(azurite: str) -> Account:
    """The local account, with nothing in it that another test left."""
    provision(azurite)
    storage = StateStorage(StateAccount(connection_string=azurite))
    found = Account(storage, azurite)
    for name in (*CONTAINERS, DATA_CONTAINER, EVENT_GRID_DEAD_LETTERS):
        for blob in found.names(name):
            found.container(name).delete_blob(blob)
    for table in ("heads", "ledger"):
        client = storage.tables.get_table_client(table)
        for row in client.list_entities(select=["PartitionKey", "RowKey"]):
            client.delete_entity(row["PartitionKey"], row["RowKey"])
    return found


@pytest.fixture
def signalbox(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command with its settings from the environment; gives what it says. Its status is expected to be 0."""
    routes = tmp_path / "routes.yml"
    routes.write_text(ROUTES)
    for name in ("PAT_TOKEN", "MLFLOW_TRACKING_URI", "ENDPOINTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AzureWebJobsStorage", account.connection)
    monkeypatch.setenv("GITHUB_REPOSITORY", "octo/models")
    monkeypatch.setenv("SIGNALBOX_DATA_ACCOUNTS", ACCOUNT)
    monkeypatch.setenv("SIGNALBOX_ROUTES", str(routes))

    def run(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        ended = main([*arguments, "--dir", str(tmp_path / "none")])
        said = capsys.readouterr()
        assert ended == status, said.err
        assert "Traceback" not in said.err
        return said.err if status else said.out

    return run


def give_up(account: Account, *events: dict[str, Any]) -> None:
    """What Event Grid writes once it has tried for long enough."""
    fate = {
        "deadLetterReason": "MaxDeliveryAttemptsExceeded",
        "deliveryAttempts": 30,
        "lastDeliveryOutcome": "NotFound",
        "publishTime": "2026-11-20T10:00:00.0000000Z",
        "lastDeliveryAttemptTime": "2026-11-20T11:00:00.0000000Z",
    }
    content = json.dumps([{**one, **fate} for one in events])
    account.container(EVENT_GRID_DEAD_LETTERS).upload_blob("STORAGE/2026/11/20/11/1.json", content.encode())
