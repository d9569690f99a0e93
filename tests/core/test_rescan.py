"""Which blobs are known, and the events that are made up for the others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.core import manifest
from functions.core.events import identity_digest, parse
from functions.core.rescan import Known, StoredBlob, containers, title, wanted
from functions.core.routes import Route, Where

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BLOB = StoredBlob("acme", "c", "d/a.csv", "https://acme.blob.core.windows.net/c/d/a.csv", "0x1", 9, NOW)
ROUTE = Route("r", ("microsoft.storage.BLOBCREATED",), "t", Where(container=("c",), api=("PutBlob",)))


def test_made_event_is_read_back_the_same() -> None:
    """It goes through intake like any; made again, it has the same id and identity."""
    event = BLOB.event("PutBlob")
    again = parse(event.to_json())
    assert again == event
    assert identity_digest(again) == identity_digest(BLOB.event("FlushWithClose"))
    assert (again.account, again.time) == ("acme", NOW)
    assert identity_digest(replace(BLOB, etag="0x2").event("PutBlob")) != identity_digest(event)
    assert title(event) == "c/d/a.csv  2026-11-20T12:00:00Z"
    assert title(replace(event, subject="")) == event.id


@pytest.mark.parametrize(("api", "made"), [("PutBlob", "PutBlob"), ("FlushWithClose", "FlushWithClose")])
def test_operation_is_one_that_the_route_listens_to(api: str, made: str) -> None:
    """In a hierarchical namespace files are whole after another operation."""
    event = wanted(BLOB, (replace(ROUTE, where=Where(api=(api,))),))
    assert event is not None
    assert event.data["api"] == made


def test_unwanted() -> None:
    """What no route takes is nothing to make up for."""
    assert wanted(replace(BLOB, container="other"), (ROUTE,)) is None


def test_containers() -> None:
    """Those that routes name for new blobs, each once."""
    other = replace(ROUTE, on=("Microsoft.Storage.BlobDeleted",), where=Where(container=("gone",)))
    assert containers([ROUTE, ROUTE, other]) == ["c"]


def told(**changes: Any) -> dict[str, Any]:
    return {**manifest.entry(BLOB.event("PutBlob")), **changes}


@pytest.mark.parametrize(
    ("entry", "known"),
    [
        (told(), True),
        (told(etag="0x2"), False),
        (told(etag=None), True),
        (told(etag=None, event_time="2026-11-20T11:54:59.000000Z"), False),
        (told(etag=None, event_time=None), False),
        (told(blob="other"), False),
        (told(blob=None), False),
    ],
)
def test_known_is_the_version_of_a_blob(entry: dict[str, Any], known: bool) -> None:
    """By its etag; an event without one counts where it is not older than the blob."""
    versions = Known()
    versions.add(entry)
    assert versions.has(BLOB.event("PutBlob")) is known


def test_latest_telling_counts() -> None:
    """Whatever order the lines come in."""
    versions = Known()
    for hours in (0, 1):
        versions.add(told(etag=None, event_time=(NOW - timedelta(hours=hours)).isoformat()))
    assert versions.has(BLOB.event("PutBlob"))


def test_event_about_no_blob_is_never_known() -> None:
    """There is nothing to compare."""
    assert not Known().has(replace(BLOB.event("PutBlob"), subject=""))
