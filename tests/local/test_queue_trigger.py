"""The Functions host's queue trigger, over real storage queues."""

from __future__ import annotations

import asyncio
import base64
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest
from azure.storage.queue import QueueClient
from functions_app import RunningHost, eventually, running_host

from local.functions_host import queue_trigger
from local.functions_host.index import HostedFunction
from local.functions_host.invocation import Invoker
from local.functions_host.queue_trigger import QueueListener
from local.functions_host.settings import QueueSettings

APP = """
@app.queue_trigger(arg_name="message", queue_name="%WORK%", connection="AzureWebJobsStorage")
async def work(message: func.QueueMessage):
    body = message.get_body().decode()
    record("work", body=body, id=message.id, count=message.dequeue_count, inserted=message.insertion_time,
           receipt=message.pop_receipt)
    if body == "bad":
        raise RuntimeError("cannot")
    if body == "stuck" and message.dequeue_count == 1:
        await asyncio.sleep(60)
    record("done", body=body)
"""
HOST_JSON = {
    "extensions": {"queues": {"maxDequeueCount": 2, "visibilityTimeout": "00:00:01", "maxPollingInterval": "00:00:01"}}
}


class Queues:
    """A work queue of its own and its poison queue."""

    def __init__(self, connection: str) -> None:
        self.name = f"work-{uuid.uuid4().hex[:8]}"
        self.work = QueueClient.from_connection_string(connection, self.name)
        self.poison = QueueClient.from_connection_string(connection, f"{self.name}-poison")

    def send(self, body: str) -> str:
        """Put a message in as host.json's default encoding asks; answers its id."""
        return str(self.work.send_message(base64.b64encode(body.encode()).decode()).id)

    def empty(self) -> bool:
        """Whether no message is left, visible or not."""
        return self.work.get_queue_properties().approximate_message_count == 0


@pytest.fixture
def queues(azurite: str) -> Iterator[Queues]:
    """Queues of this test alone."""
    made = Queues(azurite)
    yield made
    made.work.close()
    made.poison.close()


@pytest.fixture
def host(tmp_path: Path, azurite: str, queues: Queues) -> Iterator[RunningHost]:
    """A host with one queue function."""
    settings = {"AzureWebJobsStorage": azurite, "WORK": queues.name}
    with running_host(tmp_path, APP, settings, HOST_JSON) as running:
        eventually(lambda: _exists(queues.work))
        yield running


def _exists(queue: QueueClient) -> bool:
    try:
        queue.get_queue_properties()
    except Exception:
        return False
    return True


def test_a_message_runs_once_and_is_deleted(host: RunningHost, queues: Queues) -> None:
    """The function sees body and properties; success deletes the message. The queue was made by the host."""
    number = queues.send("höhe")
    seen: dict[str, Any] = eventually(lambda: host.records("done", body="höhe") and host.records("work"))[0]
    assert (seen["body"], seen["id"], seen["count"]) == ("höhe", number, 1)
    assert seen["inserted"].endswith("+00:00")
    assert seen["receipt"]
    eventually(queues.empty)


def test_a_failing_message_is_tried_again_then_moved_to_poison(host: RunningHost, queues: Queues) -> None:
    """It comes maxDequeueCount times, each after visibilityTimeout; then `<queue>-poison` holds the same text."""
    queues.send("bad")
    queues.work.send_message("#not base64#")
    eventually(lambda: _exists(queues.poison) and len(queues.poison.peek_messages(max_messages=5)) == 2)
    assert [x["count"] for x in host.records("work", body="bad")] == [1, 2]
    texts = {message.content for message in queues.poison.peek_messages(max_messages=5)}
    assert texts == {base64.b64encode(b"bad").decode(), "#not base64#"}
    eventually(queues.empty)


def test_a_message_survives_the_hosts_death(host: RunningHost, queues: Queues) -> None:
    """SIGKILL in the middle of a function: the next start runs the message again at once."""
    queues.send("stuck")
    eventually(lambda: host.records("work", body="stuck"))
    host.stop(signal.SIGKILL)
    host.start()
    eventually(lambda: host.records("done", body="stuck"), 10)
    assert [x["count"] for x in host.records("work", body="stuck")] == [1, 2]
    eventually(queues.empty)


async def test_a_long_run_keeps_its_message(
    tmp_path: Path, azurite: str, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that outlasts the lease runs once, because the lease is renewed meanwhile."""
    monkeypatch.setattr(queue_trigger, "LEASE_SECONDS", 2)
    monkeypatch.setenv("STORAGE", azurite)
    runs: list[str] = []
    ended = asyncio.Event()

    async def work(message: func.QueueMessage) -> None:
        runs.append(message.get_body().decode())
        await asyncio.sleep(4)
        ended.set()

    trigger = {"type": "queueTrigger", "name": "message", "queueName": queues.name, "connection": "STORAGE"}
    function = HostedFunction("work", work, trigger, True, False, False, tmp_path)
    queues.work.create_queue()
    queues.send("long")
    listener = QueueListener(function, QueueSettings(max_polling_interval=0.2), Invoker(), tmp_path)
    task = asyncio.create_task(listener.run())
    await asyncio.wait_for(ended.wait(), 20)
    task.cancel()
    await listener.close(5)
    assert runs == ["long"]
    assert queues.empty()
