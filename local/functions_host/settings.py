"""What the Functions host reads out of host.json.

https://learn.microsoft.com/azure/azure-functions/functions-host-json describes every setting. Those that this host
does not act upon (logging, the extension bundle) are for Azure alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

MAX_BATCH = 32


class HostSettingsError(ValueError):
    """host.json cannot be used; the sentence names the setting and the mend."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """`extensions.queues`: how storage queues are polled. Durations are in seconds."""

    batch_size: int = 16
    """Messages taken at once, 1 to 32."""
    new_batch_threshold: int = 8
    """The next batch is taken when this many messages or fewer are being worked on."""
    max_dequeue_count: int = 5
    """Deliveries after which a message goes to `<queue>-poison`."""
    max_polling_interval: float = 60.0
    """The longest pause between two polls of an empty queue."""
    visibility_timeout: float = 0.0
    """How long a message stays hidden after its function failed."""
    message_encoding: Literal["base64", "none"] = "base64"
    """How the text of a message holds its body."""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """The settings of one host.json."""

    route_prefix: str = "api"
    """First segment of every HTTP route, without slashes; may be empty."""
    queues: QueueSettings = QueueSettings()


def read_host_settings(path: Path) -> HostSettings:
    """Read `path`; a missing file means the platform's defaults.

    Raises HostSettingsError where a value cannot be used.
    """
    if not path.exists():
        return HostSettings()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HostSettingsError(f"{path.name} is not JSON: {error}.") from None
    extensions = _section(document, "extensions")
    prefix = _section(extensions, "http").get("routePrefix", "api")
    if not isinstance(prefix, str):
        raise HostSettingsError(f"host.json: extensions.http.routePrefix must be a text, not {prefix!r}.")
    return HostSettings(route_prefix=prefix.strip("/"), queues=_queue_settings(_section(extensions, "queues")))


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name, {}) if isinstance(document, Mapping) else None
    if not isinstance(value, Mapping):
        raise HostSettingsError(f"host.json: {name} must be an object.")
    return value


def _queue_settings(section: Mapping[str, Any]) -> QueueSettings:
    batch = _number(section, "batchSize", 16, 1, MAX_BATCH)
    encoding = str(section.get("messageEncoding", "base64")).lower()
    if encoding not in ("base64", "none"):
        raise HostSettingsError(
            f"host.json: extensions.queues.messageEncoding must be base64 or none, not {encoding!r}."
        )
    return QueueSettings(
        batch_size=batch,
        new_batch_threshold=_number(section, "newBatchThreshold", batch // 2, 0, 1000),
        max_dequeue_count=_number(section, "maxDequeueCount", 5, 1, 10_000),
        max_polling_interval=_seconds(section, "maxPollingInterval", "00:01:00"),
        visibility_timeout=_seconds(section, "visibilityTimeout", "00:00:00"),
        message_encoding="base64" if encoding == "base64" else "none",
    )


def _number(section: Mapping[str, Any], key: str, default: int, low: int, high: int) -> int:
    value = section.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise HostSettingsError(
            f"host.json: extensions.queues.{key} must be a whole number from {low} to {high}, not {value!r}."
        )
    return value


def _seconds(section: Mapping[str, Any], key: str, default: str) -> float:
    value = section.get(key, default)
    match = re.fullmatch(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)", str(value))
    if match is None:
        raise HostSettingsError(f"host.json: extensions.queues.{key} must read hh:mm:ss, not {value!r}.")
    days, hours, minutes, seconds = match.groups()
    return int(days or 0) * 86_400 + int(hours) * 3_600 + int(minutes) * 60 + float(seconds)
