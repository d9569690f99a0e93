"""A history as text: what came in, and every call that an instance made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from functions.core.dispatch import Dispatch
from functions.core.windows import Head, Segment
from functions.flow.ports import PoisonMessage

from .history import History


def trace_of(history: History) -> Iterator[str]:
    """The script, the calls in order with time, instance and fault, and what the ledger holds in the end."""
    script = history.script
    rates = f"faults {script.faults}, stalls {script.stalls}, latency {script.latency}"
    yield f"seed {script.seed}: {rates}, calm {script.calm:.1f}"
    for version, routes in (("at first", script.routes), ("later", script.later_routes or ())):
        for route in routes:
            yield f"route {version}: {route}"
    for delivery in sorted(script.deliveries, key=lambda one: one.moment):
        events = ", ".join(
            f"{one.kind} {one.name} {one.version} ({one.value.get('eventTime', '')})" for one in delivery.events
        )
        door = "trigger" if delivery.raw is None else "queue"
        yield f"delivery at {delivery.moment:.3f} by {door}: {events or delivery.raw!r}"
    for number, (moment, instance, method, arguments, fault) in enumerate(history.trace):
        said = ", ".join(_brief(one) for one in arguments)
        yield f"{number:5} {moment:10.3f} #{instance} {method}({said}){' <- ' + fault if fault else ''}"
    for error in history.errors:
        yield f"error {type(error).__name__}: {error}"
    for row in history.ledger():
        yield f"ledger {row.id} {row.route} '{row.key}' {row.state} {row.event_count} {row.reason}"


def _brief(value: Any) -> str:
    if isinstance(value, Head):
        state = f"open={value.is_open} unfinished={value.unfinished} alarm={value.alarm}"
        return f"head {value.route} '{value.key}' {value.number}/{value.segment} {state}"
    if isinstance(value, Segment):
        return value.name
    if isinstance(value, Dispatch):
        return f"{value.id} {value.state}"
    if isinstance(value, PoisonMessage):
        return value.text
    if isinstance(value, bytes):
        return f"{len(value)} bytes, {value.count(b'received')} lines"
    text = str(value)
    return text if len(text) < 120 else text[:120] + "…"
