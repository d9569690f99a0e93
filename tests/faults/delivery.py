"""Event Grid's side: batches, duplicates, and the same batch again until it is answered 2xx."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import requests

from local.azurite import ACCOUNT

PATIENCE = 30.0
"""Seconds that Event Grid waits for an answer."""
PAUSE = 0.2
"""Seconds until a refused batch comes again; Event Grid waits ten and more."""
GIVE_UP = 90.0
"""Seconds after which a batch that is refused all the time fails the test; Event Grid tries for a day."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try to deliver a batch; times are of the monotonic clock, status 0 means that no answer came."""

    began: float
    ended: float
    status: int


def event(number: int, folder: str) -> dict[str, Any]:
    """A BlobCreated of a blob of its own."""
    path = f"{folder}/part-{number:06d}.csv"
    return {
        "id": f"event-{number:06d}",
        "eventType": "Microsoft.Storage.BlobCreated",
        "topic": f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}",
        "subject": f"/blobServices/default/containers/training-data/blobs/{path}",
        "eventTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "data": {
            "api": "PutBlob",
            "url": f"http://127.0.0.1:1/{ACCOUNT}/training-data/{path}",
            "eTag": f"0x{number:016X}",
            "contentLength": 1000 + number,
            "sequencer": f"{number:032d}",
        },
        "dataVersion": "",
        "metadataVersion": "1",
    }


@dataclass(slots=True)
class Sender:
    """Delivers batches and keeps what was acknowledged.

    Attributes:
        sent: the folder of each event that was ever posted, by the event's id.
        acknowledged: ids of events whose batch was answered 2xx.
        deliveries: every try.
    """

    door: str
    sent: dict[str, str] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    deliveries: list[Delivery] = field(default_factory=list)

    def deliver(self, batch: list[dict[str, Any]]) -> None:
        """Post the batch until it is answered 2xx."""
        for one in batch:
            self.sent[one["id"]] = one["subject"].split("/")[6]
        deadline = time.monotonic() + GIVE_UP
        while not self._try(batch):
            assert time.monotonic() < deadline, f"a batch was refused for {GIVE_UP:.0f} s: {self.deliveries[-5:]}"
            time.sleep(PAUSE)
        self.acknowledged.update(one["id"] for one in batch)

    def _try(self, batch: list[dict[str, Any]]) -> bool:
        began = time.monotonic()
        try:
            status = requests.post(
                self.door, json=batch, headers={"aeg-event-type": "Notification"}, timeout=PATIENCE
            ).status_code
        except requests.RequestException:
            status = 0
        self.deliveries.append(Delivery(began, time.monotonic(), status))
        return 200 <= status < 300


class Traffic:
    """A stream of batches from several threads, a fifth of it repeating earlier events, until `stop`."""

    def __init__(self, sender: Sender, folders: list[str], *, seed: int, threads: int = 4, batch: int = 10) -> None:
        self._sender, self._folders, self._batch = sender, folders, batch
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._past: list[dict[str, Any]] = []
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._tasks = [self._pool.submit(self._run) for _ in range(threads)]

    def stop(self) -> None:
        """End the stream; returns once everything that was begun is acknowledged."""
        self._stopped.set()
        for task in self._tasks:
            task.result()
        self._pool.shutdown()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._sender.deliver(self._next())
            self._stopped.wait(0.05)

    def _next(self) -> list[dict[str, Any]]:
        """Fresh events of all folders, with duplicates of any earlier ones among them."""
        with self._lock:
            fresh = [
                event(len(self._past) + offset, self._chance.choice(self._folders)) for offset in range(self._batch)
            ]
            again = self._chance.choices(self._past, k=self._batch // 5) if self._past else []
            self._past.extend(fresh)
            batch = [*fresh, *again]
            self._chance.shuffle(batch)
        return batch


def in_parallel(
    work: Callable[[list[dict[str, Any]]], None], batches: list[list[dict[str, Any]]], threads: int
) -> None:
    """Do `work` on every batch, several at a time."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, batches))
