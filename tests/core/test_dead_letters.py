"""Reading dead letters of both kinds, and telling whether they can be taken in today."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from functions.core.dead_letters import DeadLetter, of_bytes, of_value, prospect, read_letters, replayed, without
from functions.core.dispatch import Dispatch, State
from functions.core.events import parse
from functions.core.routes import Route, Settle, Where
from functions.core.values import compact_json
from functions.core.windows import LARGEST_LINE, Line

from .strategies import json_objects, json_values

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
        (
            {**event(), "data": {"x": "x" * LARGEST_LINE, **event()["data"]}},
            "more than the 3145728 that a window takes",
        ),
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
    unheard = replayed(
        Dispatch("sb-1", "train", "", "t", "o/r", "s", "", {}, 1, None, NOW, state=State.PARKED, sent=NOW)
    )
    assert (unheard.state, unheard.sending_since) == (State.SENDING, NOW)
    assert [one.replays for one in (refused, replayed(refused), replayed(replayed(refused)))] == [0, 1, 2]


def nested(levels: int, inner: str = "1") -> str:
    """JSON that nests so deep, by turns in objects and arrays."""
    text = inner
    for level in range(levels):
        text = f'{{"a,":0,"b":{text}}}' if level % 2 else f"[{text},null]"
    return text


@given(json_values)
def test_any_value_is_kept(value: object) -> None:
    """An object as it is, anything else as its JSON."""
    kept = of_value(value)["event"]
    assert compact_json(kept if isinstance(value, dict) else json.loads(str(kept))) == compact_json(value)
    assert isinstance(kept, dict) == isinstance(value, dict)


@pytest.mark.parametrize("text", [nested(201), nested(900), "[]", "{}", nested(901, "[]"), nested(300, "{}")])
def test_value_of_any_depth_is_kept(text: str) -> None:
    """What could be read, but could not be written back by recursion, is kept as its JSON."""
    value = json.loads(text)
    kept = of_value(value)["event"]
    assert kept == (value if text == "{}" else text)


@given(st.binary(max_size=200))
def test_any_bytes_are_kept(raw: bytes) -> None:
    """And come back from the letter as they were."""
    assert base64.b64decode(str(of_bytes(raw)["raw"])) == raw


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
@example(f"[{nested(100)}, {nested(500)}]".encode())
@example(nested(900).encode())
@example(b'[{"window": "w", "raw": 7}, {"received": 5}, {"deadLetterReason": "r", "publishTime": [1]}]')
def test_any_blob_in_the_container_is_read(content: bytes) -> None:
    """Each letter has a reason and an outlook, and each can be put away by itself."""
    found = read_letters("box", "a/b.json", content, NOW)
    with suppress(ValueError, RecursionError):  # a blob that cannot be read is one letter that stays
        assert without(content, {letter.text for letter in found}) == b""
    for letter in found:
        assert isinstance(letter.event_id + letter.type + letter.subject, str)
        outlook = prospect(letter, (ROUTE,), frozenset({"acme"}))
        assert bool(outlook.keys) != bool(outlook.obstacle)


@given(st.lists(json_objects, max_size=5), st.data())
def test_what_was_replayed_goes_and_nothing_else(values: list[dict[str, Any]], data: st.DataObject) -> None:
    """Whatever the letters are."""
    content = json.dumps(values).encode()
    texts = [compact_json(value) for value in values]
    gone = data.draw(st.sets(st.sampled_from(texts))) if texts else set()
    left = without(content, gone)
    assert [compact_json(value) for value in json.loads(left or b"[]")] == [one for one in texts if one not in gone]
