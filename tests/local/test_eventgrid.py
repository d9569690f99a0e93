"""Event Grid on one machine: publishing, delivery, and what a kill leaves."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError
from azure.core.messaging import CloudEvent
from azure.eventgrid import EventGridEvent, EventGridPublisherClient
from azure.storage.queue import QueueClient
from eventgrid_scenes import (
    NO_STORAGE,
    PARAMETERS,
    PROJECT,
    TEMPLATE,
    Function,
    custom,
    event,
    eventually,
    from_template,
    running,
)
from hypothesis import given, strategies as st

from local.eventgrid.delivery import CONCURRENCY, batches
from local.eventgrid.store import Delivery
from local.eventgrid.subscriptions import FunctionDestination, QueueDestination
from local.sockets import free_port


async def test_delivery(tmp_path: Path, function: Function) -> None:
    """An event reaches the function as Azure sends it: after the handshake, in an array of one, with its headers."""
    async with running(tmp_path, function.url, custom()) as grid:
        assert await grid.publish([event(1), event(2)]) == (200, "")
        report = await grid.settled()
    assert function.validated == ["CUSTOM"]
    assert sorted(function.numbers) == [1, 2]
    headers, body = next(one for one in function.deliveries if one[1][0]["id"] == "id-1")
    assert body == [{**event(1), "metadataVersion": "1", "topic": "/custom"}]
    assert (headers["aeg-event-type"], headers["aeg-delivery-count"]) == ("Notification", "0")
    assert (report["delivered"], report["subscriptions"]["custom"]["validated"]) == (2, True)


async def test_template_filters(tmp_path: Path, function: Function) -> None:
    """The template's own subscriptions let new training data through, and nothing else of storage."""
    blob = "/blobServices/default/containers/training-data/blobs/digits/1.csv"
    created = {"eventType": "Microsoft.Storage.BlobCreated", "subject": blob}
    async with running(tmp_path, function.url, *from_template()) as grid:
        await grid.publish([event(1, **created)], "storage")
        await grid.publish([event(2, **{**created, "subject": blob.replace("training-data", "logs")})], "storage")
        await grid.publish([event(3, **{**created, "eventType": "Microsoft.Storage.BlobDeleted"})], "storage")
        await grid.publish([event(4, eventType="Microsoft.MachineLearningServices.RunCompleted")], "workspace")
        report = await grid.settled()
    assert sorted(function.numbers) == [1, 4]
    assert (report["delivered"], report["unmatched"]) == (2, 2)


async def test_function_that_starts_later(tmp_path: Path) -> None:
    """What is published before the function is there waits for its handshake, and is then delivered at once."""
    late = Function()
    port = free_port()
    async with running(tmp_path, f"http://127.0.0.1:{port}", custom()) as grid:
        await grid.publish([event(1)])
        assert (await grid.report())["subscriptions"]["custom"]["validated"] is False
        late.server.port = port
        await late.server.start_server()
        await grid.settled()
    assert [headers["aeg-delivery-count"] for headers, _ in late.deliveries] == ["0"]
    await late.server.close()


async def test_publisher_client(tmp_path: Path, function: Function) -> None:
    """The SDK's publisher client can send both schemas, one event or many."""
    grid_events = [EventGridEvent("s", "t", {"number": number}, "1") for number in (1, 2)]
    cloud = [CloudEvent("/source", "t", data={"number": number}) for number in (3, 4, 5)]

    def send(address: str) -> None:
        with EventGridPublisherClient(address, AzureKeyCredential("any")) as client:
            client.send(grid_events)
            client.send(cloud[:2])
            client.send(cloud[2])

    async with running(tmp_path, function.url, custom()) as grid:
        await asyncio.to_thread(send, grid.topic())
        await grid.settled()
    assert sorted(function.numbers) == [1, 2, 3, 4, 5]
    clouds = [(headers, body) for headers, body in function.deliveries if "cloudevents" in headers["Content-Type"]]
    assert sorted(body["data"]["number"] for _, body in clouds) == [3, 4, 5]
    assert {body["specversion"] for _, body in clouds} == {"1.0"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b'"text"', "array of events"),
        (event(), "must be posted as an array"),
        ([event(), 5], "Event 1 is no JSON object"),
        ([event(), {**event(), "subject": None}], "Event 1 must have the field 'subject'"),
        ([{**event(), "eventTime": 5}], "'eventTime', a string"),
        ({"specversion": "1.0", "id": "1", "type": "t"}, "'source'"),
        ({"specversion": "0.3", "id": "1", "type": "t", "source": "s"}, "specversion '0.3'"),
    ],
)
async def test_malformed(tmp_path: Path, function: Function, body: Any, message: str) -> None:
    """What is no event is refused with a sentence that says which and why, and nothing of the request is kept."""
    async with running(tmp_path, function.url, custom()) as grid:
        status, text = await grid.publish(body)
        report = await grid.settled()
    assert status == 400
    assert message in json.loads(text)["error"]["message"]
    assert report["delivered"] == 0


async def test_refused_addresses_and_sizes(tmp_path: Path, function: Function) -> None:
    """An unknown topic is answered 404 and names the known ones; more than 1 MB is answered 413."""
    async with running(tmp_path, function.url, custom()) as grid:
        status, text = await grid.publish([event()], "nope")
        assert (status, "signalbox" in text) == (404, True)
        status, _ = await grid.publish([event(data={"text": "x" * (1 << 20)})])
        assert status == 413


async def test_batches_are_delivered(tmp_path: Path, function: Function) -> None:
    """A subscription with maxEventsPerBatch gets arrays of up to so many events, and every event."""
    wanted = custom(destination=FunctionDestination("intake", max_events=10, preferred_kilobytes=1024))
    async with running(tmp_path, function.url, wanted) as grid:
        await grid.publish([event(number) for number in range(95)])
        await grid.settled()
    assert max(len(body) for _, body in function.deliveries) == 10
    assert sorted(function.numbers) == list(range(95))


async def test_many_at_once(tmp_path: Path, function: Function) -> None:
    """Deliveries run side by side, but never more than the bound at once."""
    function.seconds = 0.02
    async with running(tmp_path, function.url, custom()) as grid:
        await grid.publish([event(number) for number in range(200)])
        await grid.settled()
    assert 1 < function.most_at_once <= CONCURRENCY
    assert sorted(function.numbers) == list(range(200))


async def test_queue(tmp_path: Path, azurite: str) -> None:
    """A StorageQueue destination gets one base64 message an event, and needs no function."""
    queue = f"events-{uuid.uuid4().hex[:8]}"
    wanted = custom(destination=QueueDestination(queue, -1))
    async with running(tmp_path, "http://127.0.0.1:1", wanted, storage=azurite) as grid:
        await grid.publish([event(1), event(2)])
        await grid.settled()
    with QueueClient.from_connection_string(azurite, queue) as client:
        messages = [json.loads(base64.b64decode(one.content)) for one in client.receive_messages(messages_per_page=32)]
    assert sorted(one["data"]["number"] for one in messages) == [1, 2]
    assert messages[0].items() >= event(messages[0]["data"]["number"]).items()


async def test_subscription_that_is_gone(tmp_path: Path) -> None:
    """Events of a subscription that the template lost are dropped at the next start, as Azure drops them."""
    async with running(tmp_path, "http://127.0.0.1:1", custom()) as grid:
        await grid.publish([event(1)])
        assert (await grid.report())["pending"] == 1
    async with running(tmp_path, "http://127.0.0.1:1", custom(name="other")) as grid:
        assert (await grid.report())["pending"] == 0


class Part:
    """`python -m local.eventgrid.server` as a process of its own."""

    def __init__(self, folder: Path, functions: str) -> None:
        self.port = free_port()
        self._command = [sys.executable, "-m", "local.eventgrid.server", "--port", str(self.port), "--dir", str(folder)]
        self._command += ["--template", str(TEMPLATE), "--parameters", str(PARAMETERS)]
        self._command += ["--functions", functions, "--storage", NO_STORAGE]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, cwd=PROJECT, stderr=subprocess.DEVNULL)

    def kill_and_start(self) -> None:
        """A crash, and the supervisor's answer to it."""
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def stop(self) -> int:
        """End it as the supervisor does; gives its exit status."""
        self.process.terminate()
        return self.process.wait(30)

    async def ready(self) -> bool:
        """Whether it answers."""
        address = f"http://127.0.0.1:{self.port}/healthz"
        try:
            async with aiohttp.ClientSession() as session, session.get(address) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


async def test_kill_amid_deliveries(tmp_path: Path, function: Function) -> None:
    """After a kill amid deliveries every event that was answered 200 is delivered, some of them twice."""
    function.seconds = 0.2
    part = Part(tmp_path, function.url)
    try:
        await eventually(part.ready)
        events = [event(number, eventType="Any") for number in range(100)]
        address = f"http://127.0.0.1:{part.port}/signalbox/api/events"
        async with aiohttp.ClientSession() as session, session.post(address, json=events) as answer:
            assert answer.status == 200
        await eventually(lambda: len(function.deliveries) >= 40)
        await asyncio.to_thread(part.kill_and_start)
        await eventually(lambda: set(function.numbers) == set(range(100)))
    finally:
        assert await asyncio.to_thread(part.stop) == 0
    assert len(function.numbers) > 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        (None, "cannot be read"),
        ('{"resources": [{"type": "Microsoft.EventGrid/systemTopics", "name": "[f()]"}]}', "f() is not known"),
    ],
)
def test_bad_template(tmp_path: Path, content: str | None, message: str) -> None:
    """A template that cannot be used ends the part with a sentence that names it, and no trace."""
    template = tmp_path / "template.json"
    if content is not None:
        template.write_text(content)
    command = [
        sys.executable,
        "-m",
        "local.eventgrid.server",
        "--port",
        "1",
        "--dir",
        str(tmp_path),
        "--template",
        template,
    ]
    command += ["--functions", "http://127.0.0.1:1", "--storage", NO_STORAGE]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert str(template) in ended.stderr
    assert "Traceback" not in ended.stderr


deliveries = st.lists(st.tuples(st.text(max_size=30), st.booleans()), max_size=30).map(
    lambda rows: [Delivery(at, body, cloud, 0.0, 0, None, None, None) for at, (body, cloud) in enumerate(rows)]
)


@given(deliveries, st.integers(1, 5), st.integers(1, 60))
def test_batches(rows: list[Delivery], most: int, size: int) -> None:
    """Batches keep every event, the order, one schema each, and both bounds; one large event still goes alone."""
    cut = list(batches(rows, most, size))
    assert [row for batch in cut for row in batch] == rows
    for batch in cut:
        assert 1 <= len(batch) <= most
        assert len({row.cloud for row in batch}) == 1
        assert len(batch) == 1 or sum(len(row.body.encode()) for row in batch) <= size


def test_publisher_hears_of_refusals(tmp_path: Path) -> None:
    """The SDK raises its own error for an event that Event Grid refuses."""

    async def scenario() -> None:
        async with running(tmp_path, "http://127.0.0.1:1", custom()) as grid:
            with EventGridPublisherClient(grid.topic(), AzureKeyCredential("any"), retry_total=0) as client:
                bad = [{"id": "1", "specversion": "9", "source": "s", "type": "t"}]
                with pytest.raises(HttpResponseError, match="specversion '9'"):
                    await asyncio.to_thread(client.send, bad)

    asyncio.run(scenario())
