"""Delivers one subscription's events: handshake first, then many at once, each until it is at its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from azure.core.exceptions import AzureError

from local.eventgrid.destinations import DeadLetters, Destination
from local.eventgrid.retry import (
    SCHEDULE_SECONDS,
    SUCCESS,
    TIME_EXCEEDED,
    Answer,
    Verdict,
    after_delivery,
)
from local.eventgrid.store import DEAD_LETTERED, DELIVERED, DROPPED, Delivery, DeliveryStore
from local.eventgrid.subscriptions import FunctionDestination, Subscription

CONCURRENCY = 32
"""Deliveries of one subscription under way at once."""
HANDSHAKE_SECONDS = 0.5
"""Between two handshakes. Azure tries once, when the subscription is made; here the function may start later."""
HANDSHAKE_LOG_SECONDS = 30.0
DEAD_LETTER_SECONDS = 1.0
"""Dead letters are collected so long for one blob. Azure: five minutes, to save storage operations."""
DEAD_LETTER_RETRY_SECONDS = 10.0
"""Wait where storage is away. Azure gives up after four hours and drops the event; here nothing is dropped."""
DEAD_LETTERS_A_BLOB = 500

log = logging.getLogger("eventgrid")


class Deliverer:
    """Runs one subscription. `wake` tells it that there is something new."""

    def __init__(
        self,
        subscription: Subscription,
        store: DeliveryStore,
        destination: Destination,
        dead_letters: DeadLetters | None,
        schedule: tuple[float, ...] = SCHEDULE_SECONDS,
    ) -> None:
        self.subscription = subscription
        self.validated = False
        self._store = store
        self._destination = destination
        self._dead_letters = dead_letters
        self._schedule = schedule
        self._wake = asyncio.Event()
        self._buried = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Look for due deliveries now."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled; what is under way then comes again after the next start."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_dead_letters())
            await self._shake_hands()
            try:
                await self._deliver_what_is_due()
            finally:
                for task in self._under_way:
                    task.cancel()

    async def _shake_hands(self) -> None:
        name, quiet_until = self.subscription.name, 0.0
        while (refusal := await self._destination.handshake()) is not None:
            if time.monotonic() >= quiet_until:
                log.info("Subscription %s waits for its handshake: %s", name, refusal)
                quiet_until = time.monotonic() + HANDSHAKE_LOG_SECONDS
            await asyncio.sleep(HANDSHAKE_SECONDS)
        self.validated = True
        log.info("Subscription %s is validated; it delivers events of topic %s.", name, self.subscription.topic)

    async def _deliver_what_is_due(self) -> None:
        name, (most, kilobytes) = self.subscription.name, _batch_limits(self.subscription)
        while True:
            self._wake.clear()
            free = CONCURRENCY - len(self._under_way)
            claimed = self._store.claim(name, time.time(), free * most) if free else []
            for batch in batches(claimed, most, kilobytes * 1024):
                task = asyncio.create_task(self._deliver(batch))
                self._under_way.add(task)
                task.add_done_callback(self._ended)
            due = None if len(self._under_way) >= CONCURRENCY else self._store.next_due(name)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), None if due is None else max(0.0, due - time.time()))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A delivery of subscription %s broke off.", self.subscription.name, exc_info=error)

    async def _deliver(self, batch: Sequence[Delivery]) -> None:
        now = time.time()
        limits = self.subscription.limits
        for delivery in batch:
            if now >= limits.expires(delivery.published):
                self._bury(delivery, TIME_EXCEEDED, delivery.attempts, delivery.attempted, delivery.outcome)
        batch = [delivery for delivery in batch if now < limits.expires(delivery.published)]
        if not batch:
            return
        answer = await self._destination.deliver(batch)
        if answer.status in SUCCESS:
            self._store.finish(self.subscription.name, [delivery.id for delivery in batch], DELIVERED)
            return
        for delivery in batch:
            self._settle_failure(delivery, answer, now)

    def _settle_failure(self, delivery: Delivery, answer: Answer, attempted: float) -> None:
        attempts = delivery.attempts + 1
        then = after_delivery(
            answer,
            self.subscription.limits,
            attempts=attempts,
            published=delivery.published,
            now=time.time(),
            jitter=random.random(),  # noqa: S311 - spreads retries, keeps no secret
            schedule=self._schedule,
        )
        if then.verdict is Verdict.DEAD:
            self._bury(delivery, then.reason, attempts, attempted, answer.outcome)
        else:
            self._store.retry(delivery.id, due=then.due, attempted=attempted, outcome=answer.outcome)

    def _bury(
        self, delivery: Delivery, reason: str, attempts: int, attempted: float | None, outcome: str | None
    ) -> None:
        name = self.subscription.name
        if self._dead_letters is None:
            log.error("Subscription %s has no dead-letter target: an event is dropped (%s).", name, reason)
            self._store.finish(name, [delivery.id], DROPPED)
            return
        self._store.bury(delivery.id, reason=reason, attempts=attempts, attempted=attempted, outcome=outcome)
        self._buried.set()

    async def _write_dead_letters(self) -> None:
        """Write what is buried, several in one blob; keep it until storage took it."""
        name = self.subscription.name
        while self._dead_letters is not None:
            letters = self._store.dead(name, DEAD_LETTERS_A_BLOB)
            if not letters:
                self._buried.clear()
                await self._buried.wait()
                await asyncio.sleep(DEAD_LETTER_SECONDS)
                continue
            try:
                blob = await self._dead_letters.write(name, letters, datetime.now(UTC))
            except AzureError as error:
                sentence = str(error).splitlines()[0]
                log.warning("%s dead letter(s) of %s wait for storage: %s", len(letters), name, sentence)
                await asyncio.sleep(DEAD_LETTER_RETRY_SECONDS)
                continue
            self._store.finish(name, [letter.id for letter in letters], DEAD_LETTERED)
            log.warning("%s event(s) of %s became dead letters: %s", len(letters), name, blob)


def _batch_limits(subscription: Subscription) -> tuple[int, int]:
    """(events, kilobytes) that one delivery may hold."""
    destination = subscription.destination
    if isinstance(destination, FunctionDestination):
        return destination.max_events, destination.preferred_kilobytes
    return 1, 64


def batches(deliveries: Sequence[Delivery], most: int, preferred_bytes: int) -> Iterator[list[Delivery]]:
    """Cut deliveries into batches of one schema: at most `most` events, and as long as they fit `preferred_bytes`.

    An event that is larger than that by itself still goes, alone.
    """
    batch: list[Delivery] = []
    size = 0
    for delivery in deliveries:
        length = len(delivery.body.encode())
        if batch and (len(batch) >= most or size + length > preferred_bytes or delivery.cloud != batch[0].cloud):
            yield batch
            batch, size = [], 0
        batch.append(delivery)
        size += length
    if batch:
        yield batch
