"""The machine's clock and chance, as the flow needs them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from functions.adapters.system import SystemChance, SystemClock


async def test_time_is_aware_and_sleep_takes_it() -> None:
    """Whoever waits for his next try really waits."""
    clock = SystemClock()
    before = clock.now()
    await clock.sleep(timedelta(seconds=0.2))
    assert timedelta(seconds=0.2) <= clock.now() - before < timedelta(seconds=5)
    assert abs(before - datetime.now(UTC)) < timedelta(minutes=1)


def test_no_token_comes_twice_and_shares_stay_in_their_bounds() -> None:
    """Two watches or two alarms of one token would both go on; a share above one would outgrow what it spreads."""
    chance = SystemChance()
    tokens = [chance.token() for _ in range(1_000)]
    assert len(set(tokens)) == len(tokens)
    assert all(re.fullmatch("[0-9a-f]{26}", token) for token in tokens)
    assert all(0 <= chance.share() < 1 for _ in range(1_000))
