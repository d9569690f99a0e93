"""Queue poison: what becomes of messages that the Functions host gave up after too many failures."""

from __future__ import annotations

import base64
import json

from functions.core.events import DEEPEST, is_deeper
from functions.core.values import JsonObject

MOST_RETURNS = 3
"""How often a work message is put back; what is unfinished is also found by the slow timer, so nothing hangs on it."""

MOST_TAKES = 5
"""How often an events message is taken in again before it becomes a dead letter."""


def body_of(text: str) -> bytes:
    """The bytes of a message, as the encoding in host.json has them; a text that is no base64 is itself the body."""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        return text.encode("utf-8", "replace")


def put_back(body: bytes) -> JsonObject | str:
    """The work message with one more return noted in it, or why it goes to the dead letters."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return "a message of the work queue that is no JSON"
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str) or is_deeper(message, DEEPEST):
        return "a message of the work queue that no version of Signalbox wrote"
    returned = message.get("returned", 0)
    if not isinstance(returned, int) or not 0 <= returned < MOST_RETURNS:
        return f"a message of the work queue failed again after it was put back {returned} times"
    return {**message, "returned": returned + 1}
