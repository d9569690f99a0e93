"""The request that GitHub gets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from functions.core import payload
from functions.core.dispatch import Dispatch, ManifestRef
from functions.core.payload import (
    LARGEST_DATA,
    LARGEST_INPUTS,
    build_inputs,
    build_request,
    jittered,
    sendable,
    trim_data,
    trim_subject,
)
from functions.core.routes import LONGEST_KEY
from functions.core.values import compact_json, digest

from .strategies import a_dispatch, any_event, any_text, json_objects

GITHUB_KEYS, GITHUB_BYTES = 10, 64 * 1024
EMOJI = "\N{STEAM LOCOMOTIVE}"


def dispatch_of(data: Any, subject: str, key: str = "") -> Dispatch:
    """The dispatch for an event with this data and subject, trimmed as intake and closer do."""
    event = any_event(data, subject, "1")
    manifest = ManifestRef("https://x/manifests/sb-1.jsonl", "0" * 64, 1, 1)
    dispatch = a_dispatch(key=key, data=trim_data(event.data), subject=trim_subject(event.subject), manifest=manifest)
    return Dispatch.from_text(dispatch.to_text(), "v")


def request_of(data: Any, subject: str, key: str = "") -> dict[str, Any]:
    """The request for such an event."""
    return build_request(dispatch_of(data, subject, key))


def strict(text: str) -> Any:
    """JSON without Python's extensions."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


large_objects = st.dictionaries(
    st.integers(0, 200).map(lambda n: f"{n}{EMOJI * n}"),
    st.integers(0, 6_000).map(lambda n: EMOJI * n) | st.lists(any_text, max_size=300) | json_objects,
    max_size=60,
)


@given(json_objects | large_objects, any_text | st.integers(0, 20_000).map(lambda n: EMOJI * n))
@example({f"{n}" + "é" * 99: "x" * 3_000 for n in range(60)}, EMOJI * 10_000)
@example({"a" * 70_000: 1, "b": "x" * 70_000, "c": ["x" * 70_000]}, "s")
@example({f"f{n}": "x" * 1_990 for n in range(40)}, "\0" * 10_000)
@example({"x": float("nan"), "y": [float("inf")], "z": {"a": float("-inf")}}, "s")
def test_any_event_fits(data: Any, subject: str) -> None:
    """At most 10 keys, under 64 KB and strict JSON, whatever the event held and however its text is escaped."""
    request = request_of(data, subject, key=EMOJI * LONGEST_KEY + "~" + digest("key"))
    body = compact_json(request)
    payload = strict(body)["client_payload"]
    assert len(payload) <= GITHUB_KEYS
    assert len(body.encode()) < GITHUB_BYTES
    assert len(compact_json(payload["data"])) <= LARGEST_DATA


def all_sendable(data: object) -> bool:
    """Nothing in it that JSON or a database refuses."""
    text = json.dumps(data, ensure_ascii=False)
    return "Infinity" not in text and "NaN" not in text and "\\u0000" not in text and text == sendable(text)


@given(json_objects | large_objects, any_text | st.integers(0, 20_000).map(lambda n: EMOJI * n))
@example({"a": '"' * 19_000, "b": 1}, '"' * 9_000)
@example({f"{n:03}": "\\" * 1_500 for n in range(99)}, "\\" * 9_000)
@example({'"' * 90 + f"{n:03}": "x" * 900 for n in range(60)}, EMOJI * 10_000)
def test_any_event_fits_into_inputs(data: Any, subject: str) -> None:
    """Five texts, within GitHub's limit however often they are escaped; the payload is a repository dispatch's."""
    dispatch = dispatch_of(data, subject, EMOJI * LONGEST_KEY + "~" + digest("key"))
    body: Any = build_inputs(dispatch)
    assert len(compact_json(body)) <= LARGEST_INPUTS
    assert set(map(type, body["inputs"].values())) == {str}
    whole: Any = build_request(dispatch)["client_payload"]
    payload = strict(body["inputs"]["payload"])
    assert {**payload, "data": None} == {**whole, "data": None}
    named = payload["data"].get("_trimmed", [])
    assert payload["data"] == whole["data"] or named


def test_inputs() -> None:
    """The names that a workflow declares, and the ref that the route names; GitHub is asked for the run's id."""
    dispatch = replace(dispatch_of({"runId": "train-1"}, "/s", "digits"), workflow="train_model.yml", ref="v1")
    body: Any = build_inputs(dispatch)
    payload = build_request(dispatch)["client_payload"]
    assert strict(body["inputs"].pop("payload")) == payload
    assert body == {
        "ref": "v1",
        "inputs": {
            "dispatch_id": "sb-aaaaaaaaaaaaaaaaaaaa",
            "event_type": "storage-blobcreated",
            "key": "digits",
            "manifest_sha256": "0" * 64,
        },
        "return_run_details": True,
    }
    assert build_inputs(a_dispatch())["inputs"]["manifest_sha256"] == ""  # type: ignore[index, call-overload]


def test_trimmed_once_more() -> None:
    """What was cut before stays named."""
    once = trim_data({"a": "x" * 50_000, "b": "y" * 2_000, "c": "z" * 2_000})
    assert once == {"a": "x" * 2_000, "b": "y" * 2_000, "c": "z" * 2_000, "_trimmed": ["a"]}
    assert trim_data(once, 6_030) == {"a": "x" * 2_000, "_trimmed": ["a", "b", "c"]}
    assert trim_data({"_trimmed": 5, "a": "x" * 50_000}) == {"a": "x" * 2_000, "_trimmed": ["a"]}


def test_replays_are_told() -> None:
    """How often a person sent the dispatch again."""
    assert build_request(a_dispatch(replays=2))["client_payload"]["replay"] == 2  # type: ignore[index, call-overload]


@given(json_objects.filter(all_sendable))
def test_small_data_stays_whole(data: Any) -> None:
    """What older workflows read stands where they read it, unchanged."""
    assert trim_data(data) == data


def test_payload_keys() -> None:
    """The names that workflows rely on."""
    payload = request_of({"runId": "train-1"}, "/s", "digits")["client_payload"]
    assert payload == {
        "schema": 1,
        "dispatch_id": "sb-aaaaaaaaaaaaaaaaaaaa",
        "event_source": "Microsoft.Storage.BlobCreated",
        "event_type": "storage-blobcreated",
        "route": "train",
        "key": "digits",
        "subject": "/s",
        "data": {"runId": "train-1"},
        "manifest": {"url": "https://x/manifests/sb-1.jsonl", "sha256": "0" * 64, "count": 1, "bytes": 1},
        "replay": 0,
    }
    assert build_request(a_dispatch())["client_payload"]["manifest"] is None  # type: ignore[index, call-overload]


def test_large_data_keeps_its_first_fields() -> None:
    """Long texts are cut, what has no room is left out, and both are named."""
    data: Any = {"runId": "train-1", "log": "x" * 50_000, "list": ["y" * 50_000], "end": 1}
    kept = trim_data(data)
    assert kept == {"runId": "train-1", "log": "x" * 2_000, "end": 1, "_trimmed": ["log", "list"]}


def test_numbers_that_json_lacks_are_null() -> None:
    """Python reads NaN and Infinity, GitHub does not."""
    nan, infinite = float("nan"), float("inf")
    assert trim_data({"a": nan, "b": [infinite, 1.5], "c": {"d": -infinite}}) == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": None},
    }


def test_depth_is_cut() -> None:
    """Twenty levels are kept; no event is so deep that the payload cannot be written."""
    deep: Any = 1
    for _ in range(90):
        deep = [deep]
    text = compact_json(trim_data({"a": deep, "b": {"c": 2}}))
    assert text.count("[") == 20
    assert strict(text)["b"] == {"c": 2}


@given(any_text)
def test_a_short_subject_stays(subject: str) -> None:
    """Only what outgrows its room is cut."""
    assert trim_subject(subject) == sendable(subject)


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=7)), st.floats(0, 1, exclude_max=True))
def test_jitter_only_adds(delay: timedelta, share: float) -> None:
    """Never earlier than asked, and at most a tenth later."""
    assert delay <= jittered(delay, share) <= delay * 1.1 + timedelta(microseconds=1)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_jitter_is_a_share_of_the_delay(share: float) -> None:
    """No share, no jitter; half of it adds a twentieth."""
    assert jittered(timedelta(seconds=100), share) == timedelta(seconds=100 + 10 * share)


def test_what_no_database_takes_is_replaced() -> None:
    """NUL and halves of surrogate pairs in names, texts, subject and key never reach GitHub."""
    odd = "a\x00b\ud800c"
    body = build_request(a_dispatch(key=odd, subject=trim_subject(odd), data=trim_data({odd: [odd, {odd: odd}]})))
    written = json.dumps(body, ensure_ascii=False)
    assert "\\u0000" not in written
    assert written.encode("utf-8").count("a\ufffdb\ufffdc".encode()) == 6


def test_trimming_takes_no_longer_than_the_data_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of very many fields: what is written as JSON on the way stays a small multiple of it."""
    written = 0

    def counting(value: Any) -> str:
        nonlocal written
        text = compact_json(value)
        written += len(text)
        return text

    monkeypatch.setattr(payload, "compact_json", counting)
    data = {f"field{number}": number for number in range(20_000)}
    kept = trim_data(data)
    assert written < 5 * len(compact_json(data))
    names = kept.pop("_trimmed")
    assert len(compact_json(names)) <= 3_900 < len(compact_json([*names, "field99999"]))
    assert [*kept, *names] == list(data)[: len(kept) + len(names)]
