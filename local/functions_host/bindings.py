"""What crosses the border between this host and a function, in both directions.

Values are laid out as the platform's language worker receives them (`Datum`), and converted by azure-functions' own
converters, so that a function sees here what it sees on Azure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http.cookies import SimpleCookie
from typing import Any

import azure.functions as func
from azure.functions.meta import Datum


@dataclass(frozen=True, slots=True)
class Payload:
    """What triggered a function: its data and the metadata that the platform hands over beside it."""

    data: Datum
    metadata: Mapping[str, Datum] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A function's HTTP response, ready to be sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def converter(binding_type: str) -> Any:
    """Microsoft's converter of a binding type, such as `queueTrigger`."""
    return func.get_binding_registry().get(binding_type)  # type: ignore[no-untyped-call, unused-ignore]


def decode(trigger_type: str, payload: Payload) -> Any:
    """The object that the function receives, made by Microsoft's converter of `trigger_type`.

    Whatever that converter raises is raised here: on Azure it fails the invocation too.
    """
    return converter(trigger_type).decode(payload.data, trigger_metadata=payload.metadata)


def event_payload(event: Any) -> Payload:
    """One element of an Event Grid delivery (any JSON value)."""
    return Payload(Datum(json.dumps(event, ensure_ascii=False), "json"))


def queue_payload(body: bytes, message: Mapping[str, Any]) -> Payload:
    """A queue message: its decoded body, and its properties by the platform's names (Id, DequeueCount, …)."""
    metadata = {
        name: Datum(json.dumps(value.isoformat() if isinstance(value, datetime) else value), "json")
        for name, value in message.items()
        if value is not None
    }
    try:
        return Payload(Datum(body.decode("utf-8"), "string"), metadata)
    except UnicodeDecodeError:
        return Payload(Datum(body, "bytes"), metadata)


def timer_payload(*, past_due: bool, last: datetime | None, next_run: datetime | None) -> Payload:
    """One tick of a timer, with the schedule's state as the host's schedule monitor keeps it."""
    status = {
        "Last": last.isoformat() if last else None,
        "LastUpdated": last.isoformat() if last else None,
        "Next": next_run.isoformat() if next_run else None,
    }
    document = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": status, "IsPastDue": past_due}
    return Payload(Datum(json.dumps(document), "json"))


def http_payload(
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    route: Mapping[str, str],
    body: bytes,
) -> Payload:
    """An HTTP request; of repeated headers and query parameters the caller passes one each."""

    def texts(values: Mapping[str, str]) -> dict[str, Datum]:
        return {name: Datum(value, "string") for name, value in values.items()}

    request = {
        "method": Datum(method, "string"),
        "url": Datum(url, "string"),
        "headers": texts(headers),
        "query": texts(query),
        "params": texts(route),
        "body": Datum(body, "bytes"),
    }
    return Payload(Datum(request, "http"))


def http_answer(result: Any) -> HttpAnswer:
    """What an HTTP function returned, by Microsoft's converter; nothing at all is 204, as on Azure.

    Raises NotImplementedError for a value that is neither an HttpResponse nor a text.
    """
    if result is None:
        return HttpAnswer(204, (), b"")
    datum = converter("http").encode(result, expected_type=None)
    if datum.type == "string":
        return HttpAnswer(200, (("Content-Type", "text/plain; charset=utf-8"),), datum.value.encode("utf-8"))
    value = datum.value
    headers = [(name, str(content.value)) for name, content in value["headers"].items()]
    cookies: list[SimpleCookie] = value.get("cookies") or []
    headers += [("Set-Cookie", morsel.OutputString()) for cookie in cookies for morsel in cookie.values()]
    return HttpAnswer(int(value["status_code"].value), tuple(headers), value["body"].value)
