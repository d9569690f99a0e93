"""How long a call of storage may take, and that StorageUnavailable comes out where no whole answer comes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import loopback
import pytest
import requests
from requests.adapters import HTTPAdapter

from functions.adapters.account import StateStorage
from functions.adapters.history import History
from functions.adapters.queues import AzureQueue
from functions.adapters.storage import AzureStore
from functions.core.budget import Spending
from functions.core.dispatch import Dispatch, State
from functions.core.manifest import Header
from functions.core.windows import Head, Segment
from functions.flow.ports import StorageUnavailable, Watch
from functions.settings import StateAccount
from local.azurite import connection_string

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SEGMENT = Segment("route", "digest", 1, 0)
HEADER = Header("sb-x", "0" * 64, 1, 1, None, None, NOW, 1, 0, 0)
DISPATCH = Dispatch(
    id="sb-x",
    route="route",
    key="key",
    event_type="storage-blobcreated",
    repository="octo/models",
    source="Microsoft.Storage.BlobCreated",
    subject="",
    data={},
    event_count=1,
    manifest=None,
    created=NOW,
    version='W/"1"',
)
BODIES = {
    "application/json": b'{"value": [',
    "multipart/mixed; boundary=batchresponse_1": b"--batchresponse_1\r\nContent-Type: multipart/mixed\r\n",
}
SUCCESS = {"GET": 200, "PATCH": 204, "POST": 201, "PUT": 201}

Call = Callable[[AzureStore, AzureQueue], Awaitable[Any]]


async def read(lines: AsyncIterator[bytes]) -> None:
    """Read to the end."""
    async for _ in lines:
        pass


CALLS: dict[str, Call] = {
    "append": lambda store, _: store.append(SEGMENT, b"line\n"),
    "create_segment": lambda store, _: store.create_segment(SEGMENT, "rule"),
    "lead_watch": lambda store, _: store.lead_watch("octo/models", Watch("token")),
    "insert_dispatch": lambda store, _: store.insert_dispatch(DISPATCH),
    "insert_head": lambda store, _: store.write_head(Head("route", "key", "epoch")),
    "insert_spending": lambda store, _: store.write_spending(Spending("route")),
    "read_dispatch": lambda store, _: store.read_dispatch("sb-x"),
    "read_head": lambda store, _: store.read_head("route", "digest"),
    "read_segment": lambda store, _: read(store.read_segment(SEGMENT)),
    "replace_dispatch": lambda store, _: store.replace_dispatch(DISPATCH),
    "seal_segment": lambda store, _: store.seal_segment(SEGMENT),
    "send": lambda _, queue: queue.send({"kind": "send"}),
    "take_poison": lambda _, queue: queue.take_poison("work"),
    "write_manifest": lambda store, _: store.write_manifest(HEADER, b"line\n"),
}
QUERIES: dict[str, Call] = {
    "count_open": lambda store, _: store.count_open("route", 1),
    "heads_to_look_at": lambda store, _: store.heads_to_look_at(),
    "unfinished_dispatches": lambda store, _: store.unfinished_dispatches(),
}


class BreakingOff(loopback.Handler):
    """Promises more than it sends, and closes the connection."""

    def get(self) -> None:
        self.body()
        transaction = self.path.split("?")[0].endswith("$batch")
        kind = next(kind for kind in BODIES if ("multipart" in kind) is transaction)
        self.send_response_only(202 if transaction else SUCCESS[self.command])
        headers = {"Date": self.date_time_string(), "Content-Type": kind, "Content-Length": "1000"}
        for name, value in {**headers, "Content-Range": "bytes 0-999/1000", "x-ms-blob-type": "AppendBlob"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(BODIES[kind])
        self.close_connection = True

    post = put = patch = get


class Faulty(loopback.Handler):
    """A front end without a clock: it answers 503, and no Date."""

    def head(self) -> None:
        self.send_response_only(503)
        self.send_header("Content-Length", "0")
        self.end_headers()


def storage_at(port: int) -> StateStorage:
    return StateStorage(StateAccount(connection_string=connection_string(port, port, port)))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """How long each request would wait for a connection and for its answer; none goes out."""
    noted: list[tuple[float, float]] = []

    def send(_: HTTPAdapter, __: requests.PreparedRequest, *, timeout: tuple[float, float], **___: Any) -> None:
        noted.append(timeout)
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(HTTPAdapter, "send", send)
    return noted


@pytest.mark.parametrize("name", [*CALLS, *QUERIES])
async def test_no_call_outlasts_event_grid(name: str, waits: list[tuple[float, float]]) -> None:
    """Two seconds for a connection, five for an answer; ten for a query, which Azure itself runs for up to five."""
    storage = storage_at(1)
    with pytest.raises(StorageUnavailable):
        await {**CALLS, **QUERIES}[name](AzureStore(storage), AzureQueue(storage))
    assert waits == [(2, 10 if name in QUERIES else 5)]


def test_people_wait_for_queries_too(waits: list[tuple[float, float]]) -> None:
    """The commands' scans of the ledger are queries."""
    with pytest.raises(StorageUnavailable):
        History(storage_at(1)).dispatches_in(State.PARKED)
    assert waits == [(2, 10)]


async def test_a_token_is_not_waited_for_longer(waits: list[tuple[float, float]], identity: None) -> None:
    """The app's identity is asked once, with the same patience, and its silence is storage's."""
    store = AzureStore(StateStorage(StateAccount(name="someaccount", client_id="some-client")))
    with pytest.raises(StorageUnavailable):
        await store.read_head("route", "digest")
    assert waits == [(2, 5)]


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An identity endpoint, as the platform names it to an app, that has no token."""

    class NoToken(loopback.Handler):
        def get(self) -> None:
            self.reply(500, {"statusCode": 500, "message": "no token now"})

    with loopback.Server(NoToken) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "secret")
        yield


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_missing_token_passes(identity: None) -> None:
    """Where the identity's service fails for a while, the call may be made again, like one that storage refused."""
    store = AzureStore(StateStorage(StateAccount(name="someaccount", client_id="some-client")))
    with pytest.raises(StorageUnavailable, match="no token now"):
        await store.read_head("route", "digest")


async def test_requests_are_not_logged(waits: list[tuple[float, float]], caplog: pytest.LogCaptureFixture) -> None:
    """Microsoft's worker passes on whatever is logged at INFO: two records for each call of storage, unsampled."""
    monitored = logging.getLogger("azure.core.pipeline.policies.http_logging_policy")
    monitored.setLevel(logging.NOTSET)
    caplog.set_level(logging.INFO)
    with pytest.raises(StorageUnavailable):
        await AzureStore(storage_at(1)).read_head("route", "digest")
    assert waits
    assert [record for record in caplog.records if record.name == monitored.name] == []


@pytest.mark.parametrize("name", [*CALLS, *QUERIES])
async def test_an_answer_that_breaks_off_is_none(name: str) -> None:
    """Whether the call took effect is then not known, whichever of the three services was asked."""
    with loopback.Server(BreakingOff) as server:
        storage = storage_at(server.server_port)
        with pytest.raises(StorageUnavailable):
            await {**CALLS, **QUERIES}[name](AzureStore(storage), AzureQueue(storage))


async def test_a_fault_may_come_without_a_date() -> None:
    """The date is read from answers that tell of a segment only."""
    with loopback.Server(Faulty) as server, pytest.raises(StorageUnavailable, match="503"):
        await AzureStore(storage_at(server.server_port)).segment_state(SEGMENT)
