"""The machine's clock and its chance."""

from __future__ import annotations

import asyncio
import random
import secrets
from datetime import UTC, datetime, timedelta


class SystemClock:
    """The port `Clock`."""

    def now(self) -> datetime:
        """Now, aware, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, delay: timedelta) -> None:
        """Return after `delay`."""
        await asyncio.sleep(delay.total_seconds())


class SystemChance:
    """The port `Chance`."""

    def token(self) -> str:
        """26 hexadecimal characters."""
        return secrets.token_hex(13)

    def share(self) -> float:
        """A number from 0 up to 1."""
        return random.random()  # noqa: S311 - it spreads retries, it protects nothing
