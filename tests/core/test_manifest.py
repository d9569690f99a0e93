"""The manifest's bytes, its header, and the identities that it lists."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from functions.core.events import Event, identity_digest, parse
from functions.core.manifest import Entry, Header, blob_digest, build, entry, read_listed

from .strategies import NOW, any_event, any_text, blob_event, blob_events, times

headers = st.builds(
    Header,
    any_text,
    any_text,
    st.integers(0),
    st.integers(0),
    st.none() | times,
    st.none() | times,
    times,
    st.integers(0),
    st.integers(0),
    st.integers(0),
    st.integers(0),
    st.none() | times,
)


def built(events: list[Event]) -> tuple[bytes, Header]:
    """A manifest of these events."""
    entries = [Entry.of(event) for event in events]
    return build("sb-1", entries, sealed=NOW, lines=9, duplicates=2, superseded=1, repeated_ids=3, reach=NOW)


@given(st.lists(blob_events, max_size=5))
def test_header_says_what_the_body_holds(events: list[Event]) -> None:
    """Count, size, digest and times are those of the bytes that were written."""
    body, header = built(events)
    assert header.count == len(events) == body.count(b"\n")
    assert header.size == len(body)
    assert header.sha256 == hashlib.sha256(body).hexdigest()
    times_of = [event.time for event in events if event.time]
    assert (header.first_event, header.last_event) == (min(times_of, default=None), max(times_of, default=None))
    assert (header.lines, header.duplicates, header.superseded, header.sealed) == (9, 2, 1, NOW)
    assert (header.repeated_ids, header.reach) == (3, NOW)


@given(headers)
def test_header_is_read_back(header: Header) -> None:
    """It is one ASCII text, and nothing of it is lost."""
    assert Header.from_text(header.to_text()) == header
    assert header.to_text().isascii()


def test_header_of_an_earlier_version_is_read() -> None:
    """One that says nothing of repeated ids and reach has neither."""
    _, header = built([])
    kept = json.loads(header.to_text())
    del kept["repeated_ids"], kept["reach"]
    assert Header.from_text(json.dumps(kept)) == replace(header, repeated_ids=0, reach=None)
    assert header.reaches(NOW)
    assert not header.reaches(NOW + timedelta(microseconds=1))


@pytest.mark.parametrize("without", [["blob"], ["etag"], ["blob", "etag"]])
def test_line_of_an_earlier_version_is_read(without: list[str]) -> None:
    """A line without a blob's digest or etag still says which event it is."""
    event = parse(blob_event())
    line = {**entry(event), **dict.fromkeys(without)}
    found = read_listed(json.dumps(line).encode())
    assert (found.identity, found.sequencer, found.version) == (identity_digest(event), "0001", "")


@given(st.lists(blob_events, max_size=5))
def test_lines_name_the_identities_of_the_events(events: list[Event]) -> None:
    """A later window is compared with exactly these."""
    body, _ = built(events)
    listed = [read_listed(line) for line in body.splitlines(keepends=True)]
    assert [one.identity for one in listed] == [identity_digest(event) for event in events]


def test_entry_of_a_blob() -> None:
    """What it takes to fetch exactly this version, and to find the event again."""
    event = parse(blob_event(contentLength=7))
    assert entry(event) == {
        "url": "https://acme.blob.core.windows.net/training-data/digits/part-01.csv",
        "etag": "0x8D1",
        "size": 7,
        "sequencer": "0001",
        "event_id": "id-1",
        "event_time": "2026-11-20T11:59:00.000000Z",
        "type": "Microsoft.Storage.BlobCreated",
        "subject": "/blobServices/default/containers/training-data/blobs/digits/part-01.csv",
        "identity": identity_digest(event),
        "blob": blob_digest(event.blob),
    }


def test_missing_values_are_null() -> None:
    """A blob without etag, size and sequencer, and an event about no blob."""
    bare = entry(parse(blob_event(eTag=None, contentLength=None, sequencer=None, eventTime=None)))
    assert [bare[name] for name in ("etag", "size", "sequencer", "event_time")] == [None] * 4
    other = entry(any_event({}, "s", "1"))
    assert [other[name] for name in ("url", "etag", "size", "sequencer")] == [None] * 4
    listed = Entry.of(any_event({}, "s", "1"))
    assert (listed.blob, listed.sequencer) == ("", "")


@given(st.text())
def test_any_name_stays_one_line(path: str) -> None:
    """JSON Lines: a newline in a blob's name is no newline in the file."""
    body, _ = built([parse(blob_event(path))])
    assert body.count(b"\n") == 1
    assert json.loads(body)["subject"].endswith(path)


def test_times_of_timeless_events_are_null() -> None:
    """A manifest without any time says so."""
    _, header = built([parse(blob_event(eventTime=None))])
    assert header.first_event is None
    assert isinstance(header.sealed, datetime)
