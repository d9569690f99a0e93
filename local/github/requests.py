"""What GitHub's REST API accepts: dispatches, filters of the list of runs, pages. Pure; refusals are values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from local.github.runs import Run

MAX_EVENT_TYPE = 100
MAX_KEYS = 10
MAX_PAYLOAD_BYTES = 64 * 1024
MAX_INPUTS = 25
MAX_INPUT_CHARACTERS = 65_535
MAX_PAGE = 100
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[-+]\d\d:?\d\d)?)?")


class Refused(Exception):
    """A request that GitHub refuses with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A repository dispatch that GitHub takes."""

    event_type: str
    client_payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkflowDispatch:
    """A workflow dispatch that may be one; whether the ref and the inputs are right, the workflow file says."""

    ref: str
    inputs: dict[str, Any]
    wants_details: bool


def read_workflow_dispatch(body: bytes) -> WorkflowDispatch:
    """Read the body of `POST …/actions/workflows/{id}/dispatches`; raises Refused with GitHub's message."""
    document = _document(body, {"ref", "inputs", "return_run_details"})
    ref, inputs = document.get("ref"), document.get("inputs") or {}
    details = document.get("return_run_details") or False
    if ref is None:
        raise _invalid('"ref" wasn\'t supplied.')
    for name, value, kind, right in (
        ("ref", ref, str, "a string"),
        ("inputs", inputs, dict, "an object"),
        ("return_run_details", details, bool, "a boolean"),
    ):
        if not isinstance(value, kind):
            raise _invalid(f"For 'properties/{name}', {json.dumps(value)[:200]} is not {right}.")
    if len(inputs) > MAX_INPUTS:
        raise _invalid(f"No more than {MAX_INPUTS} properties are allowed; {len(inputs)} were supplied.")
    if len(json.dumps(inputs, ensure_ascii=False, separators=(",", ":"))) > MAX_INPUT_CHARACTERS:
        raise _invalid(f"inputs are too large (they must have at most {MAX_INPUT_CHARACTERS} characters).")
    return WorkflowDispatch(ref, inputs, details)


def _document(body: bytes, permitted: set[str]) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        raise Refused(400, "Problems parsing JSON") from None
    if not isinstance(document, dict):
        raise Refused(400, "Body should be a JSON object")
    for key in document:
        if key not in permitted:
            raise _invalid(f'"{key}" is not a permitted key.')
    return document


def read_dispatch(body: bytes) -> Dispatch:
    """Read the body of `POST …/dispatches`; raises Refused with GitHub's message."""
    document = _document(body, {"event_type", "client_payload"})
    if document.get("event_type") is None:
        raise _invalid('"event_type" wasn\'t supplied.')
    event_type, payload = document["event_type"], document.get("client_payload", {})
    if not isinstance(event_type, str):
        raise _invalid(f"For 'properties/event_type', {json.dumps(event_type)} is not a string.")
    if not event_type:
        raise _invalid("For 'properties/event_type', \"\" is too short (minimum is 1 character).")
    if len(event_type) > MAX_EVENT_TYPE:
        raise _invalid(f"For 'properties/event_type', the text is too long (maximum is {MAX_EVENT_TYPE} characters).")
    if not isinstance(payload, dict):
        raise _invalid(f"For 'properties/client_payload', {json.dumps(payload)} is not an object.")
    if len(payload) > MAX_KEYS:
        raise _invalid(f"No more than {MAX_KEYS} properties are allowed; {len(payload)} were supplied.")
    if len(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()) >= MAX_PAYLOAD_BYTES:
        raise _invalid("client_payload is too large (it must be smaller than 64 KB).")
    return Dispatch(event_type, payload)


def _invalid(reason: str) -> Refused:
    return Refused(422, f"Invalid request.\n\n{reason}")


def wanted_runs(query: Mapping[str, str], runs: list[Run], actor: str) -> list[Run]:
    """The runs that the filters of `GET …/actions/runs` leave; raises Refused."""
    created = created_filter(query["created"]) if query.get("created") else None
    plain: dict[str, Callable[[Run], tuple[str | None, ...]]] = {
        "event": lambda run: (run.event_name,),
        "status": lambda run: (run.status, run.conclusion),
        "branch": lambda _: ("main",),
        "head_sha": lambda run: (run.head_sha,),
        "check_suite_id": lambda run: (str(run.id),),
        "actor": lambda _: (actor,),
    }
    asked = [(query[name], values) for name, values in plain.items() if query.get(name)]
    return [
        run
        for run in runs
        if all(value in values(run) for value, values in asked)
        and (created is None or created(datetime.fromisoformat(run.created_at)))
    ]


def created_filter(text: str) -> Callable[[datetime], bool]:
    """GitHub's search syntax for dates: `>=…`, `>…`, `<=…`, `<…`, `A..B` (either may be `*`), one date or moment."""
    if ".." in text:
        first, _, last = text.partition("..")
        low = None if first == "*" else _span(first)[0]
        high = None if last == "*" else _span(last)[1]
        return lambda moment: (low is None or moment >= low) and (high is None or moment < high)
    sign = text[:2] if text[:2] in {">=", "<="} else text[:1] if text[:1] in {">", "<"} else ""
    start, end = _span(text[len(sign) :])
    tests: dict[str, Callable[[datetime], bool]] = {
        ">=": lambda moment: moment >= start,
        ">": lambda moment: moment >= end,
        "<=": lambda moment: moment < end,
        "<": lambda moment: moment < start,
        "": lambda moment: start <= moment < end,
    }
    return tests[sign]


def _span(text: str) -> tuple[datetime, datetime]:
    """First moment of a date or second, and the first moment after it."""
    try:
        if not _MOMENT.fullmatch(text):
            raise ValueError
        start = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(
            422, f"Invalid request.\n\nFor 'created', {json.dumps(text)} is not a date or time (ISO 8601)."
        ) from None
    start = start.replace(tzinfo=UTC) if start.tzinfo is None else start
    return start, start + (timedelta(seconds=1) if "T" in text else timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing: `number` from 1, `size` entries."""

    number: int
    size: int

    def cut(self, items: list[Any]) -> list[Any]:
        """The entries on this page."""
        return items[(self.number - 1) * self.size : self.number * self.size]

    def links(self, url: Callable[[int], str], total: int) -> str:
        """The Link header's value; empty where one page holds everything."""
        last = max(1, -(-total // self.size))
        places = {"prev": self.number - 1, "next": self.number + 1, "last": last, "first": 1}
        if self.number <= 1:
            del places["prev"], places["first"]
        if self.number >= last:
            del places["next"], places["last"]
        return ", ".join(f'<{url(number)}>; rel="{name}"' for name, number in places.items())


def read_page(query: Mapping[str, str]) -> Page:
    """`page` and `per_page`; what is no number, or out of range, is brought back into it as GitHub does."""

    def number(name: str, default: int) -> int:
        text = query.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default

    return Page(max(1, number("page", 1)), min(MAX_PAGE, number("per_page", 30)) or 30)
