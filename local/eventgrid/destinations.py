"""Where Event Grid delivers to on one machine: a function's webhook, a storage queue, and the dead-letter container."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import aiohttp
from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import ContainerClient
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

from local.eventgrid.retry import NOT_REACHED, TIMED_OUT, Answer
from local.eventgrid.store import Delivery

ANSWER_SECONDS = 30
"""How long Event Grid waits for an answer."""

STORAGE_OPTIONS: dict[str, Any] = {"connection_timeout": 2, "read_timeout": 5, "retry_total": 0}
"""Fail quickly: the engine has its own way to try again."""

log = logging.getLogger("eventgrid")


class Destination(Protocol):
    """Takes the events of one delivery."""

    async def handshake(self) -> str | None:
        """Ask whether the destination wants the events; None if it does, else a sentence why not (yet)."""

    async def deliver(self, batch: Sequence[Delivery]) -> Answer:
        """Deliver events, all or none. Never raises for what the other side does."""


class FunctionWebhook:
    """A function's Event Grid trigger, addressed as on Azure: `/runtime/webhooks/eventgrid?functionName=…`."""

    def __init__(self, session: aiohttp.ClientSession, functions: str, function: str, subscription: str) -> None:
        self._session = session
        self._url = f"{functions.rstrip('/')}/runtime/webhooks/eventgrid?functionName={function}"
        self._function = function
        self._subscription = subscription

    async def handshake(self) -> str | None:
        """Send a validation code, and expect it back."""
        code = str(uuid.uuid4())
        event = {
            "id": str(uuid.uuid4()),
            "topic": "",
            "subject": "",
            "data": {"validationCode": code},
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": timestamp(datetime.now(UTC)),
            "metadataVersion": "1",
            "dataVersion": "2",
        }
        headers = self._headers("SubscriptionValidation", 0)
        try:
            async with self._session.post(self._url, data=json.dumps([event]), headers=headers) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"{self._url} does not answer ({type(error).__name__})."
        if answer.status != 200:
            return f"{self._url} answered {answer.status} to the handshake: {text[:200]}"
        return None if _echoes(text, code) else f"{self._url} did not return the validation code, but: {text[:200]}"

    async def deliver(self, batch: Sequence[Delivery]) -> Answer:
        """Post the events of one schema; an array, except for a single CloudEvent."""
        headers = self._headers("Notification", max(delivery.attempts for delivery in batch))
        body = "[" + ",".join(delivery.body for delivery in batch) + "]"
        if batch[0].cloud:
            kind = "cloudevents-batch" if len(batch) > 1 else "cloudevents"
            headers["Content-Type"] = f"application/{kind}+json; charset=utf-8"
            body = body if len(batch) > 1 else batch[0].body
        try:
            async with self._session.post(self._url, data=body.encode(), headers=headers) as answer:
                text = await answer.text(errors="replace")
        except TimeoutError:
            return TIMED_OUT
        except aiohttp.ClientError:
            return NOT_REACHED
        if not answer.ok:
            log.warning("%s answered %s to %s event(s): %s", self._function, answer.status, len(batch), text[:200])
        return Answer.of(answer.status)

    def _headers(self, kind: str, attempts: int) -> dict[str, str]:
        return {
            "Content-Type": "application/json; charset=utf-8",
            "aeg-event-type": kind,
            "aeg-subscription-name": self._subscription.upper(),
            "aeg-delivery-count": str(attempts),
            "aeg-data-version": "",
            "aeg-metadata-version": "1",
        }


def _echoes(text: str, code: str) -> bool:
    try:
        answer = json.loads(text)
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.get("validationResponse") == code


class StorageQueue:
    """A storage queue: one event a message, base64, as Event Grid writes it. Made when it is missing."""

    def __init__(self, connection: str, queue: str, time_to_live_seconds: int) -> None:
        policy = TextBase64EncodePolicy()
        self._client: QueueClient = QueueClient.from_connection_string(
            connection, queue, message_encode_policy=policy, **STORAGE_OPTIONS
        )
        self._time_to_live = time_to_live_seconds

    async def handshake(self) -> str | None:
        """Make the queue where it is missing; a queue then takes whatever it is sent."""
        try:
            await asyncio.to_thread(self._client.create_queue)
        except ResourceExistsError:
            return None
        except AzureError as error:
            return f"storage does not take the queue: {str(error).splitlines()[0]}"
        return None

    async def deliver(self, batch: Sequence[Delivery]) -> Answer:
        """Send one message an event."""
        try:
            for delivery in batch:
                await asyncio.to_thread(self._client.send_message, delivery.body, time_to_live=self._time_to_live)
        except HttpResponseError as error:
            return Answer.of(error.status_code or 500)
        except AzureError:
            return NOT_REACHED
        return Answer.of(201)


class DeadLetters:
    """The blob container for what could not be delivered; made when it is missing."""

    def __init__(self, connection: str, container: str) -> None:
        self._container: ContainerClient = ContainerClient.from_connection_string(
            connection, container, **STORAGE_OPTIONS
        )

    async def write(self, subscription: str, letters: Sequence[Delivery], now: datetime) -> str:
        """Write one blob with all these events and give its name. Raises `AzureError` where storage is away."""
        name = f"{subscription.upper()}/{now.year}/{now.month}/{now.day}/{now.hour}/{uuid.uuid4()}.json"
        content = json.dumps([dead_letter(letter) for letter in letters], ensure_ascii=False)
        await asyncio.to_thread(self._upload, name, content.encode())
        return name

    def _upload(self, name: str, content: bytes) -> None:
        try:
            self._container.upload_blob(name, content)
        except ResourceNotFoundError:
            try:
                self._container.create_container()
            except ResourceExistsError:
                log.debug("another subscription has just made the container")
            self._container.upload_blob(name, content)


def dead_letter(letter: Delivery) -> dict[str, Any]:
    """Give the event with the documented fields; in a CloudEvent their names are in lower case."""
    attempted = None if letter.attempted is None else timestamp(datetime.fromtimestamp(letter.attempted, UTC))
    fate = {
        "deadLetterReason": letter.reason,
        "deliveryAttempts": letter.attempts,
        "lastDeliveryOutcome": letter.outcome,
        "publishTime": timestamp(datetime.fromtimestamp(letter.published, UTC)),
        "lastDeliveryAttemptTime": attempted,
    }
    if letter.cloud:
        fate = {key.lower(): value for key, value in fate.items()}
    return {**json.loads(letter.body), **fate}


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC with a Z, as Event Grid writes its times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
