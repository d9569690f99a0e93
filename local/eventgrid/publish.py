"""What a publisher posts to a topic: Event Grid schema or CloudEvents 1.0, checked as Event Grid does.

Follows https://learn.microsoft.com/azure/event-grid/event-schema and, beside it, cloud-event-schema (structured mode,
one event or a batch).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 1024 * 1024
"""Of one event, and of everything in one request."""

_EVENT_GRID_FIELDS = ("id", "subject", "eventType", "eventTime", "dataVersion")
_CLOUD_EVENT_FIELDS = ("id", "source", "type", "specversion")


class PublishError(ValueError):
    """One sentence that says why a request is refused."""


@dataclass(frozen=True, slots=True)
class Published:
    """One event as it was published."""

    event: Mapping[str, Any]
    cloud: bool
    """It is a CloudEvent."""

    def body(self) -> str:
        """JSON text, as it is delivered."""
        return json.dumps(self.event, ensure_ascii=False, separators=(",", ":"))


def parse_events(body: bytes, content_type: str, source: str) -> list[Published]:
    """Read the events of one request; `source` fills the `topic` of those that have none.

    Raises `PublishError` on anything that Event Grid would answer with 400.
    """
    try:
        posted = json.loads(body)
    except ValueError as error:
        raise PublishError(f"The request's body is not JSON: {error}.") from error
    single = isinstance(posted, dict)
    events = [posted] if single else posted
    if not isinstance(events, list):
        raise PublishError("The request's body must be an array of events, or one CloudEvent.")
    return [_event(event, f"Event {at}", content_type, single, source) for at, event in enumerate(events)]


def _event(event: Any, place: str, content_type: str, single: bool, source: str) -> Published:
    if not isinstance(event, dict):
        raise PublishError(f"{place} is no JSON object.")
    cloud = "specversion" in event or "cloudevents" in content_type
    if single and not cloud:
        raise PublishError("Events of the Event Grid schema must be posted as an array.")
    for field in _CLOUD_EVENT_FIELDS if cloud else _EVENT_GRID_FIELDS:
        if not isinstance(event.get(field), str):
            raise PublishError(f"{place} must have the field {field!r}, a string.")
    if cloud and event["specversion"] != "1.0":
        raise PublishError(f"{place} has the specversion {event['specversion']!r}; Event Grid takes 1.0.")
    if cloud:
        return Published(event, cloud=True)
    stamped = {**event, "metadataVersion": event.get("metadataVersion") or "1", "topic": event.get("topic") or source}
    return Published(stamped, cloud=False)
