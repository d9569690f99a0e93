"""What becomes of queue messages that the host gave up."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, strategies as st

from functions.core.poison import MOST_RETURNS, body_of, put_back

from .strategies import any_text, json_values


@given(st.binary(max_size=60))
def test_the_body_is_decoded(body: bytes) -> None:
    """Messages are base64, as host.json says."""
    assert body_of(base64.b64encode(body).decode("ascii")) == body


@pytest.mark.parametrize("text", ['{"a": 1}', "é", "abc", "\ud800"])
def test_what_is_no_base64_is_itself_the_body(text: str) -> None:
    """Somebody else put it there."""
    assert body_of(text) == text.encode("utf-8", "replace")


def test_it_is_put_back_three_times() -> None:
    """The count travels in the message; then there is a reason to give it up."""
    message: object = {"kind": "send", "dispatch": "sb-1"}
    for returned in range(1, MOST_RETURNS + 1):
        message = put_back(json.dumps(message).encode())
        assert message == {"kind": "send", "dispatch": "sb-1", "returned": returned}
    assert put_back(json.dumps(message).encode()) == (
        "a message of the work queue failed again after it was put back 3 times"
    )


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"no JSON", "that is no JSON"),
        (b"[" * 100_000, "that is no JSON"),
        (b"\xff", "that is no JSON"),
        (b"[]", "that no version of Signalbox wrote"),
        (b'{"kind": 1}', "that no version of Signalbox wrote"),
        (b'{"kind": "send", "x": ' + b"[" * 500 + b"]" * 500 + b"}", "that no version of Signalbox wrote"),
        (b'{"kind": "send", "returned": -1}', "was put back -1 times"),
        (b'{"kind": "send", "returned": "often"}', "was put back often times"),
    ],
)
def test_what_can_never_be_handled(body: bytes, says: str) -> None:
    """It goes to the dead letters at once."""
    found = put_back(body)
    assert isinstance(found, str)
    assert says in found


@given(json_values, any_text)
def test_anything_is_put_back_or_given_up(value: object, text: str) -> None:
    """Whatever stands in the queue."""
    for body in (json.dumps(value).encode(), body_of(text)):
        assert isinstance(put_back(body), dict | str)
