"""Points in time as people write them: `2026-11-20T10:00:00Z`, or a span back such as `2h`."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta

from functions.core.values import parse_time

_SPAN = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(written: str) -> datetime:
    """The moment in UTC, for argparse."""
    if span := _SPAN.fullmatch(written):
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        return parse_time(written)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{written}' is no time: write 2026-11-20T10:00:00Z, or a span back such as 30m, 2h or 7d"
        ) from None


def shown(time: datetime | None) -> str:
    """To the second, in UTC; "-" for none."""
    return "-" if time is None else f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
