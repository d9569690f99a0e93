"""Storage events that Event Grid lacks yet: on disk before an upload is answered, gone after Event Grid's 200."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

BATCH_EVENTS = 500
BATCH_BYTES = 512 * 1024
"""Half of what Event Grid takes in one request."""
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 5.0
ANSWER_SECONDS = 10.0

log = logging.getLogger("storage.events")


class Outbox:
    """A SQLite file; the number of a row is also the event's place in the order of all events."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        # AUTOINCREMENT: a number is never given twice, also after its row is deleted.
        self._db.execute("CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL)")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, build: Callable[[int], dict[str, Any]]) -> None:
        """Keep the event that `build` makes from its number."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            number = self._db.execute("INSERT INTO outbox (body) VALUES ('')").lastrowid or 0
            body = json.dumps(build(number), ensure_ascii=False)
            self._db.execute("UPDATE outbox SET body = ? WHERE id = ?", (body, number))
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def first(self) -> tuple[int, str] | None:
        """Give the oldest events that fit into one request: the number of the last one, and a JSON array of them."""
        last, size = 0, 0
        bodies: list[str] = []
        for number, body in self._db.execute("SELECT id, body FROM outbox ORDER BY id LIMIT ?", (BATCH_EVENTS,)):
            size += len(body.encode())
            if bodies and size > BATCH_BYTES:
                break
            last = number
            bodies.append(body)
        return (last, "[" + ",".join(bodies) + "]") if bodies else None

    def remove_to(self, number: int) -> None:
        """Forget the events up to this one."""
        self._db.execute("DELETE FROM outbox WHERE id <= ?", (number,))


class Sender:
    """Publishes what is in the outbox, oldest first, again and again until Event Grid took it."""

    def __init__(self, outbox: Outbox, address: str) -> None:
        """`address` is where the topic takes events."""
        self._outbox = outbox
        self._address = address
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look into the outbox now."""
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            wait = FIRST_WAIT_SECONDS
            while True:
                self._wake.clear()
                batch = self._outbox.first()
                if batch is None:
                    await self._wake.wait()
                elif (refusal := await self._publish(session, batch[1])) is None:
                    self._outbox.remove_to(batch[0])
                    wait = FIRST_WAIT_SECONDS
                else:
                    log.warning("Storage events wait, because Event Grid did not take them: %s", refusal)
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    async def _publish(self, session: aiohttp.ClientSession, events: str) -> str | None:
        """None if Event Grid has the events now, else a sentence why not."""
        headers = {"Content-Type": "application/json; charset=utf-8"}
        try:
            async with session.post(self._address, data=events.encode(), headers=headers) as answer:
                text = await answer.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"{self._address} does not answer ({type(error).__name__})."
        return None if answer.ok else f"{self._address} answered {answer.status}: {text[:300]}"
