"""Small values that every core module shares: JSON types, digests and times."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]

_ID_CHARACTERS = 20
_KNOWN_DIGESTS = 4_096  # the same routes and keys are asked for again and again
_LONGEST_KNOWN = 1_000  # characters; an event's whole data would stay in memory with its digest

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True)


def compact_json(value: object) -> str:
    """JSON without spaces and in pure ASCII, so that its length in characters is its length in bytes."""
    return _ENCODER.encode(value)


def digest(*parts: str) -> str:
    """20 lowercase base32 characters (100 bits of SHA-256) that stand for the list `parts`.

    Safe in a blob name, a table key, a job name and a run name; lists that differ give other digests.
    """
    if sum(map(len, parts)) > _LONGEST_KNOWN:
        return _digest(*parts)
    return _remembered_digest(*parts)


def _digest(*parts: str) -> str:
    hashed = hashlib.sha256(compact_json(parts).encode("ascii")).digest()
    return base64.b32encode(hashed).decode("ascii").lower()[:_ID_CHARACTERS]


_remembered_digest = lru_cache(_KNOWN_DIGESTS)(_digest)


def field(data: Mapping[str, Json], name: str) -> Json:
    """The value under `name` without regard to the key's case, or None: Azure's documents and captures differ in it."""
    if name in data:
        return data[name]
    wanted = name.lower()
    return next((value for key, value in data.items() if key.lower() == wanted), None)


def text(data: Mapping[str, Json], name: str) -> str:
    """The field as text: numbers are written out, anything missing or of another type is empty."""
    value = field(data, name)
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""


def parse_time(value: str) -> datetime:
    """An RFC 3339 time as an aware UTC datetime; digits beyond microseconds are cut, no offset means UTC.

    Raises ValueError for anything else, also for a time that leaves the years 1 to 9999 once it is in UTC.
    """
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{value!r} is outside of the years 1 to 9999 in UTC") from error


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC, always with microseconds, so that times also sort as text."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def earlier(moment: datetime, by: timedelta) -> datetime:
    """`moment` minus `by`, or the first moment there is where that would leave the calendar."""
    try:
        return moment - by
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
