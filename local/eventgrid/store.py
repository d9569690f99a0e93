"""Event Grid's memory on one machine: a SQLite file with one row for each event and subscription still to be served."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY,
    subscription TEXT NOT NULL,
    body TEXT NOT NULL,
    cloud INTEGER NOT NULL,       -- 1: a CloudEvent
    published REAL NOT NULL,      -- seconds since 1970
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    claimed INTEGER NOT NULL DEFAULT 0,
    attempted REAL,               -- when the last delivery was tried
    outcome TEXT,                 -- how it ended
    reason TEXT                   -- not null: a dead letter that waits to be written
);
CREATE INDEX IF NOT EXISTS waiting ON deliveries (subscription, claimed, due) WHERE reason IS NULL;
CREATE INDEX IF NOT EXISTS dead ON deliveries (subscription) WHERE reason IS NOT NULL;
CREATE TABLE IF NOT EXISTS totals (
    subscription TEXT, fate TEXT, number INTEGER NOT NULL, PRIMARY KEY (subscription, fate)
);
"""

DELIVERED, DEAD_LETTERED, DROPPED, UNMATCHED = "delivered", "dead_lettered", "dropped", "unmatched"
"""Fates that are counted. Dropped: undeliverable, and the subscription has no dead-letter target."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one subscription."""

    id: int
    body: str
    cloud: bool
    published: float
    attempts: int
    attempted: float | None
    outcome: str | None
    reason: str | None


_COLUMNS = "id, body, cloud, published, attempts, attempted, outcome, reason"


class DeliveryStore:
    """What a crash must not lose; each method is one transaction. Not for use by several processes."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; deliveries that a killed process had under way are due again."""
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._db.execute("UPDATE deliveries SET claimed = 0 WHERE claimed = 1")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, rows: Iterable[tuple[str, str, bool]], unmatched: int, now: float) -> None:
        """Keep (subscription, body, cloud) rows, all or none; count the events that no subscription wanted."""
        with _Transaction(self._db):
            self._db.executemany(
                "INSERT INTO deliveries (subscription, body, cloud, published, due) VALUES (?, ?, ?, ?, ?)",
                [(subscription, body, cloud, now, now) for subscription, body, cloud in rows],
            )
            self._count("", UNMATCHED, unmatched)

    def claim(self, subscription: str, now: float, limit: int) -> list[Delivery]:
        """Take up to `limit` due deliveries; nobody else gets them until they are settled or the process restarts."""
        query = (
            "UPDATE deliveries SET claimed = 1 WHERE id IN (SELECT id FROM deliveries WHERE subscription = ?"  # noqa: S608
            " AND claimed = 0 AND due <= ? AND reason IS NULL ORDER BY due, id LIMIT ?) RETURNING " + _COLUMNS
        )
        rows = self._db.execute(query, (subscription, now, limit))
        return sorted((_delivery(row) for row in rows.fetchall()), key=lambda delivery: delivery.id)

    def next_due(self, subscription: str) -> float | None:
        """When the next unclaimed delivery is due (seconds since 1970); None where none waits."""
        query = "SELECT min(due) FROM deliveries WHERE subscription = ? AND claimed = 0 AND reason IS NULL"
        due: float | None = self._db.execute(query, (subscription,)).fetchone()[0]
        return due

    def finish(self, subscription: str, ids: Sequence[int], fate: str) -> None:
        """Forget deliveries that came to their end, and count them."""
        with _Transaction(self._db):
            self._db.executemany("DELETE FROM deliveries WHERE id = ?", [(row,) for row in ids])
            self._count(subscription, fate, len(ids))

    def retry(self, row: int, *, due: float, attempted: float, outcome: str) -> None:
        """Give a delivery back after a failed attempt."""
        self._db.execute(
            "UPDATE deliveries SET claimed = 0, attempts = attempts + 1, due = ?, attempted = ?, outcome = ?"
            " WHERE id = ?",
            (due, attempted, outcome, row),
        )

    def bury(self, row: int, *, reason: str, attempts: int, attempted: float | None, outcome: str | None) -> None:
        """Make a delivery a dead letter that waits to be written."""
        self._db.execute(
            "UPDATE deliveries SET attempts = ?, attempted = ?, outcome = ?, reason = ? WHERE id = ?",
            (attempts, attempted, outcome, reason, row),
        )

    def dead(self, subscription: str, limit: int) -> list[Delivery]:
        """Dead letters that are not written yet, the oldest first."""
        query = (
            "SELECT " + _COLUMNS + " FROM deliveries WHERE subscription = ? AND reason IS NOT NULL"  # noqa: S608 - constant
            " ORDER BY id LIMIT ?"
        )
        return [_delivery(row) for row in self._db.execute(query, (subscription, limit))]

    def forget_all_but(self, subscriptions: Sequence[str]) -> int:
        """Drop the deliveries of subscriptions that are gone; gives their number."""
        marks = ", ".join("?" * len(subscriptions))
        query = f"DELETE FROM deliveries WHERE subscription NOT IN ({marks})"  # noqa: S608 - only question marks
        return self._db.execute(query, tuple(subscriptions)).rowcount

    def pending(self) -> dict[str, int]:
        """Deliveries that are not at their end (dead letters still to be written included), by subscription."""
        return dict(self._db.execute("SELECT subscription, count(*) FROM deliveries GROUP BY subscription"))

    def totals(self) -> dict[tuple[str, str], int]:
        """(subscription, fate) → events since the file was made."""
        rows = self._db.execute("SELECT subscription, fate, number FROM totals")
        return {(subscription, fate): number for subscription, fate, number in rows}

    def _count(self, subscription: str, fate: str, number: int) -> None:
        self._db.execute(
            "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number",
            (subscription, fate, number),
        )


class _Transaction:
    """`with` block that is one SQLite transaction; begun as a writer, so that it cannot fail half way on a lock."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._db.execute("ROLLBACK" if error else "COMMIT")


def _delivery(row: Sequence[Any]) -> Delivery:
    identity, body, cloud, *rest = row
    return Delivery(identity, body, bool(cloud), *rest)
