"""Runs functions with a queue trigger over a storage queue.

As on Azure (https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-queue-trigger): messages are
taken in batches and worked on together; success deletes a message, failure shows it again after host.json's
visibilityTimeout, and after maxDequeueCount it goes to `<queue>-poison`, as does a message that is not in host.json's
messageEncoding. Two things differ: a missing queue is created, and a message is hidden for 20 s at a time (Azure: 10
minutes) while its function runs, and shown again by the next start if the host was killed meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient

from local.functions_host.bindings import queue_payload
from local.functions_host.index import FunctionAppError, HostedFunction
from local.functions_host.invocation import Invoker
from local.functions_host.settings import QueueSettings

log = logging.getLogger("host.queue")

LEASE_SECONDS = 20
SHORTEST_PAUSE = 0.1
CLIENT_OPTIONS: dict[str, Any] = {
    "connection_timeout": 2,
    "read_timeout": 10,
    "retry_total": 2,
    "initial_backoff": 0.3,
    "increment_base": 0.3,
    "random_jitter_range": 0,
}
"""Short: the polling goes on anyway, and the SDK's own pause between two tries would be 15 s."""


@dataclass(slots=True)
class TakenMessage:
    """A message that is hidden from others while its function runs; each renewal changes its receipt."""

    message: QueueMessage
    receipt: str


class Receipts:
    """Notes in a folder which messages are taken, so that a host that was killed can release them at its next start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, taken: TakenMessage) -> None:
        """Remember the message's latest receipt."""
        (self._folder / str(taken.message.id)).write_text(taken.receipt, encoding="utf-8")

    def forget(self, taken: TakenMessage) -> None:
        """The message is deleted, moved or released."""
        (self._folder / str(taken.message.id)).unlink(missing_ok=True)

    async def release(self, queue: QueueClient) -> None:
        """Show the messages again that an earlier run of this host had taken; what is gone meanwhile is forgotten."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for note in sorted(self._folder.iterdir()):
            with contextlib.suppress(AzureError):  # the lease ends by itself
                await queue.update_message(note.name, note.read_text(encoding="utf-8"), visibility_timeout=0)
            note.unlink()


class QueueListener:
    """Polls one function's queue until its `run` is cancelled; `close` then waits for what is under way."""

    def __init__(self, function: HostedFunction, settings: QueueSettings, invoker: Invoker, directory: Path) -> None:
        name = str(function.trigger["queueName"])
        connection = storage_connection(function)
        try:
            self._queue = QueueClient.from_connection_string(connection, name, **CLIENT_OPTIONS)
            self._poison = QueueClient.from_connection_string(connection, f"{name}-poison", **CLIENT_OPTIONS)
        except ValueError as error:
            raise FunctionAppError(
                f"Function {function.name}: the app setting {function.trigger.get('connection')} is no storage "
                f"connection string: {error}"
            ) from None
        self._receipts = Receipts(directory / "taken" / function.name)
        self._function = function
        self._settings = settings
        self._invoker = invoker
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished = asyncio.Event()
        self._reachable = True

    async def run(self) -> None:
        """Poll: at once after a message, else with growing pauses up to maxPollingInterval."""
        await self._receipts.release(self._queue)
        pause = SHORTEST_PAUSE
        while True:
            while len(self._tasks) > self._settings.new_batch_threshold:
                self._finished.clear()
                await self._finished.wait()
            if await self._take():
                pause = SHORTEST_PAUSE
                continue
            jitter = random.uniform(0.8, 1.0)  # noqa: S311 - spreads polls, guards nothing
            await asyncio.sleep(pause * jitter)
            pause = max(SHORTEST_PAUSE, min(pause * 2, self._settings.max_polling_interval))

    async def close(self, seconds: float) -> None:
        """Wait up to `seconds` until finished messages are deleted or released, then disconnect."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._queue.close()
        await self._poison.close()

    async def _take(self) -> bool:
        """Take a batch and start its functions; false when there was nothing to take."""
        try:
            messages = [message async for message in self._receive()]
        except ResourceNotFoundError:
            return await self._create()
        except AzureError as error:
            if self._reachable:
                log.warning("queue %s cannot be read, trying on: %s", self._queue.queue_name, _reason(error))
            self._reachable = False
            return False
        self._reachable = True
        for message in messages:
            taken = TakenMessage(message, str(message.pop_receipt))
            self._receipts.note(taken)
            task = asyncio.create_task(self._work(taken))
            self._tasks.add(task)
            task.add_done_callback(self._done)
        return bool(messages)

    def _receive(self) -> Any:
        size = self._settings.batch_size
        return self._queue.receive_messages(messages_per_page=size, max_messages=size, visibility_timeout=LEASE_SECONDS)

    async def _create(self) -> bool:
        with contextlib.suppress(ResourceExistsError):
            try:
                await self._queue.create_queue()
            except AzureError as error:
                log.warning("queue %s cannot be created: %s", self._queue.queue_name, _reason(error))
        return False

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._finished.set()
        if not task.cancelled() and task.exception() is not None:
            # The message stays hidden until its lease ends, and is then delivered again.
            log.warning("queue %s: %s", self._queue.queue_name, _reason(task.exception()))

    async def _work(self, taken: TakenMessage) -> None:
        await self._settle(taken)
        self._receipts.forget(taken)

    async def _settle(self, taken: TakenMessage) -> None:
        """Run the function, then delete, release or move the message."""
        message = taken.message
        limit = self._settings.max_dequeue_count
        if (message.dequeue_count or 0) > limit:  # its last delivery never ended, as after a kill
            await self._to_poison(taken, f"was delivered {limit} times without an end")
            return
        body = _body(str(message.content), self._settings.message_encoding)
        if body is None:
            await self._to_poison(taken, "is not base64, as host.json's extensions.queues.messageEncoding asks")
            return
        renewal = asyncio.create_task(self._renew(taken))
        try:
            outcome = await self._invoker.invoke(self._function, queue_payload(body, self._properties(taken)))
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
        if outcome.succeeded:
            await self._delete(taken)
        elif (message.dequeue_count or 0) >= limit:
            await self._to_poison(taken, f"failed {limit} times")
        else:
            hidden = round(self._settings.visibility_timeout)
            await self._queue.update_message(message.id, taken.receipt, visibility_timeout=hidden)

    def _properties(self, taken: TakenMessage) -> dict[str, Any]:
        message = taken.message
        return {
            "Id": message.id,
            "DequeueCount": message.dequeue_count,
            "ExpirationTime": message.expires_on,
            "InsertionTime": message.inserted_on,
            "NextVisibleTime": message.next_visible_on,
            "PopReceipt": taken.receipt,
            "QueueTrigger": message.content,
        }

    async def _renew(self, taken: TakenMessage) -> None:
        """Keep the message hidden while its function runs."""
        while True:
            await asyncio.sleep(LEASE_SECONDS / 2)
            try:
                renewed = await self._queue.update_message(
                    taken.message.id, taken.receipt, visibility_timeout=LEASE_SECONDS
                )
                taken.receipt = str(renewed.pop_receipt)
                self._receipts.note(taken)
            except AzureError as error:
                log.warning("queue %s: a message could not be kept: %s", self._queue.queue_name, _reason(error))

    async def _delete(self, taken: TakenMessage) -> None:
        with contextlib.suppress(ResourceNotFoundError):  # another delivery of it was faster
            await self._queue.delete_message(taken.message.id, taken.receipt)

    async def _to_poison(self, taken: TakenMessage, reason: str) -> None:
        with contextlib.suppress(ResourceExistsError):
            await self._poison.create_queue()
        await self._poison.send_message(taken.message.content)  # for seven days, as on Azure
        await self._delete(taken)
        log.error(
            "message %s of queue %s %s; moved to %s",
            taken.message.id,
            self._queue.queue_name,
            reason,
            self._poison.queue_name,
        )


def storage_connection(function: HostedFunction) -> str:
    """Connection string of a queue trigger: the app setting AzureWebJobs<name>, else <name>, as on Azure."""
    name = str(function.trigger.get("connection") or "AzureWebJobsStorage")
    value = os.environ.get(f"AzureWebJobs{name}") or os.environ.get(name)
    if not value:
        raise FunctionAppError(
            f"Function {function.name} needs the app setting {name}, which is not set: "
            "export it as a storage connection string (identities need Azure)."
        )
    return value


def _body(text: str, encoding: str) -> bytes | None:
    """The message's body; None when the text is not in the encoding."""
    if encoding == "none":
        return text.encode("utf-8")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _reason(error: BaseException | None) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
