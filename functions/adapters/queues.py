"""Azure Storage as the flow's queue: the work queue, and what the host gave up of it and of the events queue.

Follows the REST reference of Queue storage.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.queue import TextBase64EncodePolicy

from functions.adapters.account import EVENTS_QUEUE, WORK_QUEUE, StateStorage, error_code, translated
from functions.adapters.threads import in_thread
from functions.core.values import JsonObject, compact_json
from functions.flow.ports import PoisonMessage

_POISON_HIDDEN = 240  # seconds; less than the five minutes until the timer comes again
_NEVER = datetime(9999, 12, 31, tzinfo=UTC)  # when a message expires that does not


class AzureQueue:
    """The port `Queue` over the work queue, in the encoding that host.json tells the Functions host to expect."""

    def __init__(self, storage: StateStorage) -> None:
        """`storage` holds the clients."""
        self._queue = storage.queues.get_queue_client(WORK_QUEUE, message_encode_policy=TextBase64EncodePolicy())
        self._poison = {
            "work": storage.queues.get_queue_client(f"{WORK_QUEUE}-poison"),
            "events": storage.queues.get_queue_client(f"{EVENTS_QUEUE}-poison"),
        }

    @in_thread
    @translated
    def send(self, message: JsonObject, delay: timedelta = timedelta()) -> None:
        seconds = max(0, min(round(delay.total_seconds() + 0.5), 7 * 86_400))
        self._queue.send_message(
            compact_json(message), visibility_timeout=seconds if delay > timedelta() else None, time_to_live=-1
        )

    @in_thread
    @translated
    def take_poison(self, queue: str) -> list[PoisonMessage]:
        client = self._poison[queue]
        try:
            # Without a page's size each request takes a single message.
            messages = client.receive_messages(max_messages=32, messages_per_page=32, visibility_timeout=_POISON_HIDDEN)
            taken = list(messages)
        except ResourceNotFoundError:  # the host creates the queue once it gives up a message
            return []
        found = []
        for item in taken:
            standing, deliveries = item, item.dequeue_count or 1
            if item.expires_on is None or item.expires_on >= _NEVER:
                deliveries += 1  # it is what the first taking made of the host's
            else:
                # The host's would be gone after seven days. One without an end stands before that one goes.
                standing = client.send_message(item.content, visibility_timeout=_POISON_HIDDEN, time_to_live=-1)
                client.delete_message(item)
            found.append(PoisonMessage(queue, standing.id, standing.pop_receipt or "", str(item.content), deliveries))
        return found

    @in_thread
    @translated
    def drop_poison(self, message: PoisonMessage) -> None:
        try:
            self._poison[message.queue].delete_message(message.id, message.receipt)
        except HttpResponseError as error:
            # Gone, or taken again meanwhile, which made this receipt void: whoever has it drops it.
            if error_code(error) not in {"MessageNotFound", "PopReceiptMismatch", "QueueNotFound"}:
                raise
