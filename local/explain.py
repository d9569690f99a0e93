"""`signalbox explain`: what would become of each event in a file, and why."""

from __future__ import annotations

from functions.core.events import Event, UnreadableEvent, parse_document
from functions.core.routes import Route, is_marker, key_of, matching, why_not
from functions.core.values import JsonObject
from local.commands.plain import plain


def explain(document: bytes, routes: tuple[Route, ...]) -> list[JsonObject]:
    """One report for each event in `document` (Event Grid schema or CloudEvents, one or an array).

    A document that is no JSON gives a single unreadable report.
    """
    try:
        read = [event for _, event in parse_document(document)]
    except UnreadableEvent as error:
        read = [error]
    return [_report(index, event, routes) for index, event in enumerate(read)]


def _report(index: int, event: Event | UnreadableEvent, routes: tuple[Route, ...]) -> JsonObject:
    if isinstance(event, UnreadableEvent):
        return {"index": index, "readable": False, "reason": str(event)}
    taken = matching(routes, event)
    keys: JsonObject = {route.name: key_of(route, event) for route in taken}
    return {
        "index": index,
        "readable": True,
        "schema": event.schema,
        "id": event.id,
        "type": event.type,
        "subject": event.subject,
        "identity": " ".join(event.identity),
        "routes": [route.name for route in taken],
        "key": key_of(taken[0], event) if taken else None,
        "keys": keys,
        "dispatches": {route.name: route.dispatch for route in taken},
        "workflows": {route.name: f"{route.workflow} on {route.ref}" for route in taken if route.workflow},
        "marker_of": [route.name for route in routes if is_marker(route, event)],
        "why_not": {route.name: why_not(route, event) for route in routes if route not in taken},
    }


def as_text(report: JsonObject) -> str:
    """A report for a person."""
    if not report["readable"]:
        return plain(f"event {report['index']}: unreadable: {report['reason']}")
    lines = [
        f"event {report['index']}: {report['type']}, id {report['id']} ({report['schema']})",
        f"  subject   {report['subject']}",
        f"  identity  {report['identity']}",
    ]
    keys, dispatches, reasons = report["keys"], report["dispatches"], report["why_not"]
    workflows = report["workflows"]
    if isinstance(keys, dict) and isinstance(dispatches, dict) and isinstance(workflows, dict):
        for name, key in keys.items():
            sent_to = f" to {workflows[name]}" if name in workflows else ""
            lines.append(f"  taken by  {name}, key '{key}', dispatched as {dispatches[name]}{sent_to}")
    if isinstance(markers := report["marker_of"], list):
        lines += [f"  marker    shortens the quiet time of {name}" for name in markers]
    if isinstance(reasons, dict):
        lines += [f"  not by    {name}: {reason}" for name, reason in reasons.items()]
    return "\n".join(map(plain, lines))
