"""The request that GitHub gets: at most 10 keys or 25 inputs, under 64 KB, whatever the event held."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from functions.core.dispatch import Dispatch
from functions.core.github import RUN_DETAILS
from functions.core.values import Json, JsonObject, compact_json

PAYLOAD_SCHEMA = 1
LARGEST_DATA = 40_000
"""Characters of `data` in ASCII JSON; the ledger row and the payload keep the same trimmed copy."""

LARGEST_INPUTS = 65_535
"""Characters that GitHub takes as `inputs` of a workflow dispatch; the whole request stays within them."""

LONGEST_SUBJECT = 2_000
_LARGEST_SUBJECT = 12_000
_LONGEST_TEXT = 2_000
_LARGEST_NAMES = 3_900
_DEEPEST = 20
_UNSENDABLE = re.compile(r"[\x00\ud800-\udfff]")


def trim_data(data: JsonObject, largest: int = LARGEST_DATA) -> JsonObject:
    """`data` itself where it is small, else its first fields with long texts cut; `_trimmed` names what is not whole.

    `largest` counts characters of its ASCII JSON, 4,000 of which are for the names. Numbers that JSON has no form for
    (infinite, not a number) become null; see `sendable` for texts.
    """
    clean = {sendable(name): _clean(value, _DEEPEST) for name, value in data.items()}
    if len(compact_json(clean)) <= largest:
        return clean
    kept: JsonObject = {}
    before = clean.pop("_trimmed", None)
    trimmed: list[Json] = before if isinstance(before, list) else []
    room = largest - 4_000  # for the list of names
    for name, value in clean.items():
        short = value[:_LONGEST_TEXT] if isinstance(value, str) else value
        cost = len(compact_json({name: short}))
        if short != value or cost > room:
            trimmed.append(name[:100])
        if cost <= room:
            kept[name] = short
            room -= cost
    kept["_trimmed"] = _first_of(trimmed, _LARGEST_NAMES)
    return kept


def _first_of(items: list[Json], largest: int) -> list[Json]:
    """As many of the first items as fit into a JSON list of so many characters."""
    size = 1  # the brackets, less the last item's comma
    for count, item in enumerate(items):
        size += len(compact_json(item)) + 1
        if size > largest:
            return items[:count]
    return items


def trim_subject(subject: str) -> str:
    """The subject, cut so that neither its characters nor its escaped JSON outgrow what the payload has room for."""
    subject = sendable(subject)[:LONGEST_SUBJECT]
    while len(compact_json(subject)) > _LARGEST_SUBJECT:
        subject = subject[: len(subject) * 3 // 4]
    return subject


def sendable(written: str) -> str:
    """The text with U+FFFD for what no database takes: NUL, and halves of surrogate pairs.

    One odd blob name must not make GitHub refuse the dispatch of a whole window.
    """
    return _UNSENDABLE.sub("\N{REPLACEMENT CHARACTER}", written)


def _clean(value: Json, depth: int) -> Json:
    if isinstance(value, str):
        return sendable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_clean(item, depth - 1) for item in value] if depth else None
    if isinstance(value, dict):
        return {sendable(name): _clean(item, depth - 1) for name, item in value.items()} if depth else None
    return value


def build_request(dispatch: Dispatch) -> JsonObject:
    """The body of "Create a repository dispatch event" for this dispatch."""
    return {"event_type": dispatch.event_type, "client_payload": _payload(dispatch, dispatch.data)}


def build_inputs(dispatch: Dispatch) -> JsonObject:
    """The body of "Create a workflow dispatch event" for this dispatch: what a repository dispatch says, as inputs.

    Inputs are texts, so the payload is JSON inside of JSON, whose quotes and backslashes count twice; `data` gives way.
    """
    largest = LARGEST_DATA
    body = _inputs(dispatch, dispatch.data)
    while len(compact_json(body)) > LARGEST_INPUTS:
        largest = largest * 3 // 4
        body = _inputs(dispatch, trim_data(dispatch.data, largest))
    return body


def _inputs(dispatch: Dispatch, data: JsonObject) -> JsonObject:
    return {
        "ref": dispatch.ref,
        "inputs": {
            "dispatch_id": dispatch.id,
            "event_type": dispatch.event_type,
            "key": sendable(dispatch.key),
            "manifest_sha256": dispatch.manifest.sha256 if dispatch.manifest else "",
            "payload": compact_json(_payload(dispatch, data)),
        },
        RUN_DETAILS: True,
    }


def _payload(dispatch: Dispatch, data: JsonObject) -> JsonObject:
    manifest = dispatch.manifest
    return {
        "schema": PAYLOAD_SCHEMA,
        "dispatch_id": dispatch.id,
        "event_source": dispatch.source,
        "event_type": dispatch.event_type,
        "route": dispatch.route,
        "key": sendable(dispatch.key),
        "subject": dispatch.subject,
        "data": data,
        "manifest": None
        if manifest is None
        else {
            "url": manifest.url,
            "sha256": manifest.sha256,
            "count": manifest.count,
            "bytes": manifest.bytes,
        },
        "replay": dispatch.replays,
    }


def jittered(delay: timedelta, share: float) -> timedelta:
    """`delay` made longer by up to a tenth (`share` is between 0 and 1): jitter only ever adds."""
    return delay * (1 + share / 10)
