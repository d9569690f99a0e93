"""The storage part: the real SDK, through the proxy, to a real Azurite; events to a receiver in this process."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import psutil
import pytest
import requests
from aiohttp import web
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError, ServiceResponseError
from azure.storage.blob import BlobServiceClient, ContainerClient, generate_container_sas

from local.azurite import connection_string
from local.sockets import free_port

PROJECT = Path(__file__).resolve().parents[2]
ODD_NAMES = [
    "plain.csv",
    "a b/ c.csv",
    "100%.csv",
    "%41 is not A.csv",
    "plus+and&equals=.csv",
    "question?mark#hash.csv",
    "größe/数据/😀.csv",
    "quote'\"[x]{y}.csv",
    "new\nline.csv",
    "tilde~/semi;colon,comma.csv",
]


class Receiver:
    """Takes the place of Event Grid's topic `storage`: keeps what is published, and can refuse it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.batches: list[int] = []
        self.refusing = False
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        """Address to give to the storage part as Event Grid's."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        app = web.Application()
        app.router.add_post("/storage/api/events", self._take)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _take(self, request: web.Request) -> web.Response:
        if self.refusing:
            return web.Response(status=503)
        events = await request.json()
        self.events += events
        self.batches.append(len(events))
        return web.Response()

    def of(self, container: str, count: int) -> list[dict[str, Any]]:
        """The events of a container, once there are `count` of them."""
        prefix = f"/blobServices/default/containers/{container}/"
        eventually(lambda: len([e for e in self.events if e["subject"].startswith(prefix)]) >= count)
        return [event for event in self.events if event["subject"].startswith(prefix)]


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition; fail where it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class StoragePart:
    """`python -m local.storage.server` as a process of its own."""

    def __init__(self, folder: Path, eventgrid: str | None) -> None:
        self.ports = [free_port() for _ in range(3)]
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self._folder = folder
        self._eventgrid = eventgrid
        self.start()

    @property
    def connection(self) -> str:
        """Connection string through the proxy."""
        return connection_string(*self.ports)

    def start(self) -> None:
        """Start the process, on the same ports and files each time, and wait until it is ready."""
        blob, queue, table = map(str, self.ports)
        command = [sys.executable, "-m", "local.storage.server", "--port", blob, "--queue-port", queue]
        command += ["--table-port", table, "--dir", str(self._folder)]
        command += ["--eventgrid", self._eventgrid] if self._eventgrid else []
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=PROJECT, stderr=log)
        eventually(self._ready)

    def _ready(self) -> bool:
        assert self.process.poll() is None, "the storage part ended"
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/healthz", timeout=5).ok
        return False

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as the supervisor does; gives its exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def fault(self, **fault: Any) -> None:
        """Inject a fault."""
        assert requests.post(f"{self.url}/_faults", json=fault, timeout=5).status_code == 204


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """An Event Grid that only listens."""
    one = Receiver()
    one.start()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def part(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoragePart]:
    """A running storage part that publishes to the receiver."""
    one = StoragePart(tmp_path_factory.mktemp("storage"), receiver.url)
    yield one
    one.stop()


_numbers = itertools.count()


@pytest.fixture
def container(part: StoragePart) -> Iterator[ContainerClient]:
    """A fresh container, reached through the proxy by an SDK that does not retry by itself."""
    with BlobServiceClient.from_connection_string(part.connection, retry_total=0) as service:
        yield service.create_container(f"data-{next(_numbers)}")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_blob_name_passes(container: ContainerClient, receiver: Receiver, name: str) -> None:
    """A blob of any name can be written and read through the proxy, and its event names it exactly."""
    container.upload_blob(name, b"1,2\n")
    assert container.download_blob(name).readall() == b"1,2\n"
    assert [blob.name for blob in container.list_blobs(name_starts_with=name)] == [name]
    (event,) = receiver.of(container.container_name, 1)
    assert event["subject"] == f"/blobServices/default/containers/{container.container_name}/blobs/{name}"
    address = container.get_blob_client(name).url
    assert event["data"]["url"].replace("%2F", "/") == address.replace("%2F", "/")


def test_put_blob_event(container: ContainerClient, receiver: Receiver, contracts: Path) -> None:
    """An upload in one request raises PutBlob, with what the storage service itself says about the blob."""
    blob = container.get_blob_client("digits/one.csv")
    answer = blob.upload_blob(b"x" * 100, client_request_id="my-request")
    (event,) = receiver.of(container.container_name, 1)
    data, properties = event["data"], blob.get_blob_properties()
    assert event["eventType"] == "Microsoft.Storage.BlobCreated"
    assert (data["api"], data["blobType"], data["contentLength"]) == ("PutBlob", "BlockBlob", properties.size)
    assert data["eTag"] == properties.etag.strip('"')
    assert data["contentType"] == properties.content_settings.content_type
    assert (data["clientRequestId"], data["requestId"]) == ("my-request", answer["request_id"])
    schema = json.loads((contracts / "events/systemevents.schema.json").read_text())
    jsonschema.validate([event], schema)
    jsonschema.validate(event, {**schema["definitions"]["EventGridEvent"], "definitions": schema["definitions"]})


def test_blocks_raise_one_event(container: ContainerClient, receiver: Receiver) -> None:
    """20 MB uploaded by blocks arrive unchanged and raise one PutBlockList with the whole length."""
    content = os.urandom(1 << 20) * 20
    blob = container.get_blob_client("big.bin")
    with BlobServiceClient(
        f"{container.url.rsplit('/', 1)[0]}", credential=container.credential, max_single_put_size=1 << 20
    ) as service:
        service.get_blob_client(container.container_name, "big.bin").upload_blob(content, max_concurrency=4)
    downloaded = blob.download_blob(max_concurrency=4).readall()
    assert hashlib.sha256(downloaded).digest() == hashlib.sha256(content).digest()
    container.upload_blob("end", b"")
    events = receiver.of(container.container_name, 2)
    assert [(event["data"]["api"], event["data"]["contentLength"]) for event in events] == [
        ("PutBlockList", len(content)),
        ("PutBlob", 0),
    ]
    assert events[0]["data"]["eTag"] == blob.get_blob_properties().etag.strip('"')


def test_copy_and_delete(container: ContainerClient, receiver: Receiver, contracts: Path) -> None:
    """A copy raises CopyBlob with the copy's own ETag and length, a deletion raises DeleteBlob without ETag."""
    source = container.get_blob_client("from.csv")
    source.upload_blob(b"abc")
    copy = container.get_blob_client("to ü.csv")
    copy.start_copy_from_url(source.url)
    etag = copy.get_blob_properties().etag
    source.delete_blob()
    _, copied, deleted = receiver.of(container.container_name, 3)
    assert (copied["data"]["api"], copied["data"]["contentLength"]) == ("CopyBlob", 3)
    assert copied["data"]["eTag"] == etag.strip('"')
    assert (deleted["eventType"], deleted["data"]["api"]) == ("Microsoft.Storage.BlobDeleted", "DeleteBlob")
    assert deleted["data"]["blobType"] == "BlockBlob"
    assert "eTag" not in deleted["data"]
    jsonschema.validate([copied, deleted], json.loads((contracts / "events/systemevents.schema.json").read_text()))


def test_what_raises_nothing(container: ContainerClient, receiver: Receiver) -> None:
    """Containers, blocks, appends, seals, metadata, reads, and refused requests raise no event."""
    blob = container.get_blob_client("log")
    blob.create_append_blob(match_condition=MatchConditions.IfMissing)
    blob.append_block(b"line\n")
    blob.seal_append_blob()
    with pytest.raises(HttpResponseError) as refused:
        blob.append_block(b"late\n")
    assert refused.value.error_code == "BlobIsSealed"
    assert blob.download_blob().readall() == b"line\n"
    container.get_blob_client("log").set_blob_metadata({"a": "b"})
    container.get_blob_client("blocks").stage_block("1", b"x")
    with pytest.raises(HttpResponseError):
        container.get_blob_client("log").create_append_blob(match_condition=MatchConditions.IfMissing)
    with pytest.raises(HttpResponseError):
        container.delete_blob("never-was")
    container.upload_blob("end", b"")
    apis = [event["data"]["api"] for event in receiver.of(container.container_name, 2)]
    assert apis == ["PutBlob", "PutBlob"]


def test_conditions_reach_storage(container: ContainerClient) -> None:
    """A write on condition of an old ETag is refused by storage, through the proxy."""
    blob = container.get_blob_client("state")
    old = blob.upload_blob(b"1")["etag"]
    blob.upload_blob(b"2", overwrite=True)
    with pytest.raises(ResourceModifiedError):
        blob.upload_blob(b"3", overwrite=True, etag=old, match_condition=MatchConditions.IfNotModified)
    assert blob.download_blob().readall() == b"2"


def test_sequencers_follow_the_last_write(container: ContainerClient, receiver: Receiver) -> None:
    """Of many writers of one blob at once, the event with the highest sequencer names the ETag that stays."""
    blob = container.get_blob_client("contended")
    threads = [Thread(target=blob.upload_blob, args=(bytes(5000),), kwargs={"overwrite": True}) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = receiver.of(container.container_name, 24)
    last = max(events, key=lambda event: event["data"]["sequencer"])
    assert last["data"]["eTag"] == blob.get_blob_properties().etag.strip('"')
    assert len({event["id"] for event in events}) == 24


def test_events_survive_a_kill(tmp_path: Path) -> None:
    """Events that Event Grid refused are sent, in batches, after the part was killed and started again."""
    receiver = Receiver()
    receiver.refusing = True
    receiver.start()
    part = StoragePart(tmp_path, receiver.url)
    try:
        with BlobServiceClient.from_connection_string(part.connection) as service:
            data = service.create_container("data")
            for number in range(40):
                data.upload_blob(f"{number}.csv", b"x")
        part.kill()
        assert receiver.events == []
        receiver.refusing = False
        part.start()
        events = receiver.of("data", 40)
        names = [event["subject"].rpartition("/")[2] for event in events]
        assert names == [f"{number}.csv" for number in range(40)]
        assert max(receiver.batches) > 1
        with BlobServiceClient.from_connection_string(part.connection) as service:
            data = service.get_container_client("data")
            assert len(list(data.list_blobs())) == 40
            data.upload_blob("later.csv", b"x")
        later = receiver.of("data", 41)[-1]
        assert later["data"]["sequencer"] > max(event["data"]["sequencer"] for event in events)
    finally:
        part.stop()
        receiver.stop()


def test_stop_saves(tmp_path: Path) -> None:
    """After a stop by SIGTERM, what was acknowledged a moment before is still there; without Event Grid, too."""
    part = StoragePart(tmp_path, None)
    with BlobServiceClient.from_connection_string(part.connection) as service:
        service.create_container("data").upload_blob("x", b"kept")
    assert part.stop() == 0
    part.start()
    with BlobServiceClient.from_connection_string(part.connection) as service:
        assert service.get_blob_client("data", "x").download_blob().readall() == b"kept"
    part.stop()


def test_azurite_dies(tmp_path: Path) -> None:
    """When Azurite dies, the part ends with a failure instead of answering without storage."""
    part = StoragePart(tmp_path, None)
    (child,) = psutil.Process(part.process.pid).children()
    child.send_signal(signal.SIGKILL)
    assert part.process.wait(30) == 1


def test_taken_port(tmp_path: Path, part: StoragePart) -> None:
    """A taken port gives one sentence that names it, and no trace."""
    blob, queue, table = free_port(), part.ports[1], free_port()
    command = [sys.executable, "-m", "local.storage.server", "--port", str(blob), "--queue-port", str(queue)]
    command += ["--table-port", str(table), "--dir", str(tmp_path)]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert f"Port {queue} for the queue endpoint is taken" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_injected_error(part: StoragePart, container: ContainerClient) -> None:
    """A status fault answers for storage as often as it says, then requests pass again."""
    part.fault(status=503, count=1, match="/faulty")
    with pytest.raises(HttpResponseError) as refused:
        container.upload_blob("faulty", b"x")
    assert (refused.value.status_code, refused.value.error_code) == (503, "ServerBusy")
    assert not container.get_blob_client("faulty").exists()
    container.upload_blob("faulty", b"x")


def test_injected_error_meets_large_bodies(part: StoragePart, container: ContainerClient) -> None:
    """A status fault, with the code that it names, answers an upload of any size."""
    part.fault(status=500, code="OperationTimedOut", match="/large")
    with pytest.raises(HttpResponseError) as refused:
        container.upload_blob("large", bytes(3 << 20))
    assert refused.value.error_code == "OperationTimedOut"


def test_injected_delay(part: StoragePart, container: ContainerClient, receiver: Receiver) -> None:
    """A delayed upload is overtaken by a later one, and still takes effect."""
    part.fault(delay=2, match="/slow")
    slow = Thread(target=container.upload_blob, args=("slow", b"x"))
    slow.start()
    container.upload_blob("fast", b"x")
    slow.join()
    names = [event["subject"].rpartition("/")[2] for event in receiver.of(container.container_name, 2)]
    assert names == ["fast", "slow"]


def test_uploader_dies(part: StoragePart, container: ContainerClient, receiver: Receiver) -> None:
    """An upload whose sender dies half way leaves no blob and raises no event, and the next upload passes."""
    name = f"/devstoreaccount1/{container.container_name}/half"
    signature = generate_container_sas(
        "devstoreaccount1",
        container.container_name,
        account_key=container.credential.account_key,
        permission="cw",
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    head = f"PUT {name}?{signature} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-ms-blob-type: BlockBlob\r\n"
    with socket.create_connection(("127.0.0.1", part.ports[0])) as uploader:
        uploader.sendall(f"{head}x-ms-version: 2021-12-02\r\nContent-Length: 2000000\r\n\r\n".encode())
        uploader.sendall(bytes(1_000_000))
    container.upload_blob("whole", b"x")
    (event,) = receiver.of(container.container_name, 1)
    assert event["subject"].endswith("/whole")
    assert [blob.name for blob in container.list_blobs()] == ["whole"]
    container.upload_blob("half", b"x")
    assert len(receiver.of(container.container_name, 2)) == 2


def test_dropped_answer(part: StoragePart, container: ContainerClient, receiver: Receiver) -> None:
    """A drop fault lets the upload take effect and raise its event, though its sender never hears of it."""
    part.fault(drop=True, match="/unheard")
    with pytest.raises(ServiceResponseError):
        container.upload_blob("unheard", b"x")
    assert container.download_blob("unheard").readall() == b"x"
    assert receiver.of(container.container_name, 1)[0]["data"]["api"] == "PutBlob"


def test_unknown_fault(part: StoragePart) -> None:
    """A fault with an unknown key is refused by its name."""
    answer = requests.post(f"{part.url}/_faults", json={"statsu": 503}, timeout=5)
    assert answer.status_code == 400
    assert "'statsu'" in answer.json()["error"]
