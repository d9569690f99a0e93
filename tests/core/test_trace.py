"""What an id stands for, how its traces are recognized, and the fate of a dispatch in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from functions.core import manifest
from functions.core.dispatch import Dispatch, State
from functions.core.events import parse
from functions.core.trace import Kind, cause, fate, read_id, seek

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ID = "sb-k3v2abcdefghijklmnop"


@pytest.mark.parametrize(
    ("written", "kind", "parts"),
    [
        (ID, Kind.DISPATCH, ()),
        ("1234567890", Kind.RUN, ()),
        (f"train-{ID}-1", Kind.JOB, (ID,)),
        ("train-push-0a1b2c-77-1-2", Kind.JOB, ("push-0a1b2c-77-1",)),
        ("digits/3", Kind.MODEL, ("digits", "3")),
        ("digits:3", Kind.MODEL, ("digits", "3")),
        ("models:/digits/3", Kind.MODEL, ("digits", "3")),
        ("endpoints/signalbox-digits", Kind.ENDPOINT, ("signalbox-digits", "")),
        ("endpoints/signalbox-digits/v3", Kind.ENDPOINT, ("signalbox-digits", "v3")),
        ("http://127.0.0.1:7071/endpoints/signalbox-digits/score", Kind.ENDPOINT, ("signalbox-digits", "")),
        ("http://127.0.0.1:7071/endpoints/digits/deployments/v3", Kind.ENDPOINT, ("digits", "v3")),
        ("https://digits.westeurope.inference.ml.azure.com/score", Kind.ENDPOINT, ("digits", "")),
        ("https://acme.blob.core.windows.net/c/digits/3", Kind.BLOB, ()),
        ("https://acme.blob.core.windows.net/endpoints/digits", Kind.BLOB, ()),
        ("831e1650-001e-001b-66ab-eeb76e069631", Kind.EVENT, ()),
        ("sb-short", Kind.EVENT, ()),
    ],
)
def test_form_tells_the_kind(written: str, kind: Kind, parts: tuple[str, ...]) -> None:
    """Nobody has to say what an id is of."""
    asked = read_id(written)
    assert (asked.kind, asked.parts, asked.id) == (kind, parts, written)


def entry(path: str, url: str, event_id: str = "e1") -> dict[str, Any]:
    value = {
        "id": event_id,
        "eventType": "Microsoft.Storage.BlobCreated",
        "subject": f"/blobServices/default/containers/c/blobs/{path}",
        "data": {"url": url},
    }
    return manifest.entry(parse(value))


HOST = "https://acme.blob.core.windows.net/c/"


@pytest.mark.parametrize(
    ("path", "url", "given"),
    [
        ("d/a.csv", HOST + "d/a.csv", HOST + "d/a.csv"),
        ("d/a b.csv", HOST + "d/a%20b.csv", HOST + "d/a%20b.csv"),
        ("d/a b.csv", HOST + "d/a%20b.csv", HOST + "d/a b.csv"),
        ("d/50%25.csv", HOST + "d/50%2525.csv", HOST + "d/50%25.csv"),
        ("d/a.csv", HOST + "d/a.csv", HOST + "d/a.csv?sv=2026&sig=x"),
        ("d/é\"'.csv", HOST + "d/x", HOST + "d/é\"'.csv"),
        ("d/a.csv", "http://127.0.0.1:7/dev/c/d/a.csv", "http://127.0.0.1:8/dev/c/d/a.csv"),
        ("d/a.csv", "https://acme.dfs.core.windows.net/c/d/a.csv", HOST + "d/a.csv"),
    ],
)
def test_blob_is_recognized_however_its_address_is_written(path: str, url: str, given: str) -> None:
    """Encoded or not, with a signature, on another port or endpoint of the same account."""
    sought, line = seek(read_id(given)), entry(path, url)
    assert sought.may_be_in(json.dumps(line).encode())
    assert sought.is_meant(line)


@pytest.mark.parametrize("given", ["http://[", "x://", HOST, "https://acme.blob.core.windows.net/c", HOST + "d/other"])
def test_other_address_is_not(given: str) -> None:
    """An address of another blob, or of none, finds nothing."""
    sought = seek(read_id(given))
    assert not sought.may_be_in(json.dumps(entry("d/a.csv", HOST + "d/a.csv")).encode())
    assert not sought.is_meant(entry("d/a.csv", HOST + "d/a.csv"))


def test_event_is_recognized_by_its_id() -> None:
    """The whole id, not a part of it."""
    sought = seek(read_id('e"1'))
    assert sought.may_be_in(json.dumps(entry("d/a", HOST + "d/a", 'e"1')).encode())
    assert sought.is_meant(entry("d/a", HOST + "d/a", 'e"1'))
    assert not sought.is_meant(entry("d/a", HOST + "d/a", 'e"12'))


def dispatch(**changes: Any) -> Dispatch:
    values = {"source": "Microsoft.Storage.BlobCreated", "subject": "", "data": {}, **changes}
    return Dispatch(
        id=ID, route="r", key="k", event_type="t", repository="o/n", event_count=1, manifest=None, created=NOW, **values
    )


def test_cause_of_a_dispatch() -> None:
    """The end of one of our jobs names origin and job; no other event does."""
    data = {"runId": f"train-{ID}-1", "runTags": {"signalbox_origin": ID}}
    assert cause(dispatch(source="Microsoft.MachineLearningServices.RunCompleted", data=data)) == (ID, f"train-{ID}-1")
    assert cause(dispatch()) == ("", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "waits to be sent"),
        (
            {"not_before": NOW, "reason": "GitHub is away"},
            "from 2026-11-20T12:00:00.000000Z on, because GitHub is away",
        ),
        ({"state": State.SENDING}, "is being sent"),
        (
            {"state": State.SENDING, "reason": "a time-out"},
            "is being sent, but its run is looked for first: a time-out",
        ),
        ({"state": State.SENT}, "its run is looked for"),
        ({"state": State.CONFIRMED, "run_id": 7}, "started run 7, which is going"),
        ({"state": State.DONE, "run_id": 7, "conclusion": "success"}, "started run 7, which ended: success"),
        ({"state": State.PARKED, "reason": "PAT_TOKEN expired"}, "mends this: PAT_TOKEN expired"),
        ({"state": State.DEAD, "reason": "no"}, "was refused for good: no"),
        ({"state": State.EMPTY, "reason": "all repeat"}, "was not sent: all repeat"),
    ],
)
def test_fate_in_words(changes: dict[str, Any], said: str) -> None:
    """Each state is told with what a person needs next."""
    assert said in fate(dispatch(**changes))
