"""Reading dead letters of both kinds, and telling whether they can be taken in today."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.core.dead_letters import DeadLetter, prospect, read_letters, replayed, without
from functions.core.dispatch import Dispatch, State
from functions.core.events import parse
from functions.core.routes import Route, Settle, Where
from functions.core.windows import Line

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ROUTE = Route(
    "train",
    ("Microsoft.Storage.BlobCreated",),
    "storage-blobcreated",
    Where(container=("training-data",), suffix=(".csv",)),
    key="folder",
    settle=Settle(MINUTE, MINUTE, marker="_SUCCESS"),
)


def event(path: str = "digits/a.csv", account: str = "acme") -> dict[str, Any]:
    return {
        "id": "e1",
        "eventType": "Microsoft.Storage.BlobCreated",
        "topic": f"/s/storageAccounts/{account}",
        "subject": f"/blobServices/default/containers/training-data/blobs/{path}",
        "eventTime": "2026-11-20T10:00:00Z",
        "data": {"api": "PutBlob", "url": f"https://{account}.blob.core.windows.net/training-data/{path}"},
    }


FATE = {
    "deadLetterReason": "MaxDeliveryAttemptsExceeded",
    "deliveryAttempts": 30,
    "lastDeliveryOutcome": "NotFound",
    "publishTime": "2026-11-20T10:00:01Z",
    "lastDeliveryAttemptTime": "2026-11-20T11:00:00Z",
}


def letters(document: object) -> list[DeadLetter]:
    return read_letters("box", "a/b.json", json.dumps(document).encode(), NOW)


def test_event_grid_letters_are_an_array_with_the_fate_beside_the_event() -> None:
    """Each element is a letter of its own, with Event Grid's reason, the time of the last attempt, and the event."""
    first, second = letters([{**event(), **FATE}, {**event("digits/b.csv"), **FATE}])
    assert first.reason == "MaxDeliveryAttemptsExceeded, last outcome NotFound"
    assert first.time == NOW - 60 * MINUTE
    assert (first.event_id, first.type, first.subject[-5:]) == ("e1", "Microsoft.Storage.BlobCreated", "a.csv")
    assert first.id != second.id
    assert prospect(first, (ROUTE,), frozenset({"acme"})).keys == {"train": "digits"}


def test_cloudevents_carry_the_fate_in_lower_case() -> None:
    """Names are read without regard to case; without a last attempt the time of publishing stands in."""
    fate = {"deadletterreason": "TimeToLiveExceeded", "publishtime": "2026-11-20T10:00:01Z"}
    (letter,) = letters([{"specversion": "1.0", "id": "c", "type": "T", "data": {}, **fate}])
    assert (letter.reason, letter.type, letter.time.second) == ("TimeToLiveExceeded", "T", 1)


def test_our_own_letter() -> None:
    """The event as it was decoded, the reason and when it came; the same letter has the same id each time."""
    document = {"schema": 1, "reason": "r", "received": "2026-11-20T09:00:00Z", "event": event()}
    (letter,) = letters(document)
    assert (letter.reason, letter.time.hour, letter.event) == ("r", 9, event())
    assert letters(document) == [letter]
    assert letter.replayed_name == f"replayed/a/b-{letter.id}.json"


def test_line_of_a_window() -> None:
    """A line that an older version could not read holds its event; one that is none at all holds nothing."""
    line = Line(parse(event()), NOW).to_bytes().decode()
    (letter,) = letters({"schema": 1, "reason": "r", "window": "w", "raw": line})
    assert (letter.event_id, letter.time) == ("e1", NOW)
    for raw in ("{", "[]"):
        (letter,) = letters({"schema": 1, "reason": "r", "window": "w", "raw": raw})
        assert letter.event is None


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"7", b"[null]"])
def test_unreadable_blob_is_one_letter_that_says_so(content: bytes) -> None:
    """Nothing in the container is passed over, whatever it is; nothing of it can be replayed."""
    (letter,) = read_letters("box", "x", content, NOW)
    assert letter.reason
    assert (letter.event_id, letter.time) == ("", NOW)
    assert prospect(letter, (ROUTE,), frozenset()).obstacle == letter.reason


@pytest.mark.parametrize(
    ("value", "obstacle"),
    [
        (event(account="other"), "'other' is not among SIGNALBOX_DATA_ACCOUNTS"),
        (event("digits/a.txt"), "no route takes it"),
        ({**event(), "eventTime": "soon"}, "still cannot be read: 'eventTime' is 'soon'"),
        ("text", "an event is a JSON object, this is text"),
    ],
)
def test_what_would_only_be_refused_again_says_why(value: object, obstacle: str) -> None:
    """A replay that could not help is told before it is made."""
    (letter,) = letters({"reason": "r", "event": value})
    outlook = prospect(letter, (ROUTE,), frozenset({"acme"}))
    assert outlook.keys == {}
    assert obstacle in outlook.obstacle


def test_marker_counts_as_taken() -> None:
    """A marker is not listed in a manifest, but its route wants it."""
    (letter,) = letters({"reason": "r", "event": event("digits/_SUCCESS")})
    assert prospect(letter, (ROUTE,), frozenset({"acme"})).keys == {"train": "digits"}


def test_without_what_was_replayed() -> None:
    """What is left keeps its form; nothing left is empty, and a letter that is not the same stays."""
    values = [{**event("digits/a.csv"), **FATE}, {**event("digits/b.csv"), **FATE}]
    content = json.dumps(values).encode()
    first, second = letters(values)
    assert json.loads(without(content, {first.text})) == values[1:]
    assert without(content, {first.text, second.text}) == b""
    (own,) = letters(values[0])
    assert without(json.dumps(values[0]).encode(), {own.text}) == b""
    assert json.loads(without(json.dumps(values[1]).encode(), {own.text})) == values[1]


def test_unheard_dispatch_has_its_run_looked_for_first() -> None:
    """GitHub accepted it once, so a replay must not start a second run; every other one is sent again at once."""
    refused = Dispatch(
        "sb-1", "train", "", "t", "o/r", "s", "", {}, 1, None, NOW, state=State.PARKED, not_before=NOW + MINUTE
    )  # fmt: skip
    assert (replayed(refused).state, replayed(refused).not_before) == (State.READY, None)
    unheard = replayed(Dispatch("sb-1", "train", "", "t", "o/r", "s", "", {}, 1, None, NOW, State.PARKED, sent=NOW))
    assert (unheard.state, unheard.sending_since) == (State.SENDING, NOW)
