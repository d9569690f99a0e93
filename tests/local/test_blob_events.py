"""Which events storage requests raise: the decision by itself, without any server."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st
from multidict import CIMultiDict

from local.storage.blob_events import (
    Operation,
    Properties,
    blob_event,
    operation,
    properties_of_upload,
    sequencer,
    took_effect,
)

PATH = "/devstoreaccount1/data/a.csv"
BLOCK = {"X-Ms-Blob-Type": "BlockBlob"}


def api(method: str, target: str, headers: dict[str, str] | None = None) -> str | None:
    """The api of the operation that a request is; None for none."""
    found = operation(method, target, CIMultiDict(headers or {}))
    return found.api if found else None


@pytest.mark.parametrize(
    ("method", "target", "headers", "expected"),
    [
        ("PUT", PATH, BLOCK, "PutBlob"),
        ("PUT", f"{PATH}?sv=1&sig=x", BLOCK, "PutBlob"),
        ("PUT", f"{PATH}?comp=blocklist", {}, "PutBlockList"),
        ("PUT", PATH, {"x-ms-copy-source": "http://x/y"}, "CopyBlob"),
        ("DELETE", PATH, {}, "DeleteBlob"),
        ("DELETE", PATH, {"x-ms-delete-snapshots": "include"}, "DeleteBlob"),
        ("DELETE", PATH, {"x-ms-delete-snapshots": "only"}, None),
        ("DELETE", f"{PATH}?snapshot=2026", {}, None),
        ("PUT", f"{PATH}?comp=block&blockid=1", {}, None),
        ("PUT", f"{PATH}?comp=appendblock", {}, None),
        ("PUT", f"{PATH}?comp=metadata", {}, None),
        ("PUT", f"{PATH}?comp=seal", {}, None),
        ("GET", PATH, {}, None),
        ("HEAD", PATH, {}, None),
        ("PUT", "/devstoreaccount1/data?restype=container", {}, None),
        ("DELETE", "/devstoreaccount1/data?restype=container", {}, None),
        ("PUT", "/other/data/a.csv", BLOCK, None),
    ],
)
def test_operations(method: str, target: str, headers: dict[str, str], expected: str | None) -> None:
    """Whole blobs that are made, copied or deleted raise events; nothing else does."""
    assert api(method, target, headers) == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_names_survive(name: str) -> None:
    """A blob's name comes out of the request's path as it went in, and its address leads back to it."""
    target = f"/devstoreaccount1/data/{quote(name, safe='')}"
    found = operation("PUT", target, BLOCK_HEADERS)
    assert found == Operation("PutBlob", "data", name)
    assert operation("PUT", found.path, BLOCK_HEADERS) == found


BLOCK_HEADERS = CIMultiDict(BLOCK)


@given(st.integers(0, 2**60), st.integers(0, 2**60))
def test_sequencers_sort_as_text(one: int, other: int) -> None:
    """Sequencers compare as strings exactly as their numbers do."""
    assert (sequencer(one) < sequencer(other)) == (one < other)


def test_effects() -> None:
    """Only 201 and 202 count, and not a copy that is still under way."""
    assert took_effect(201, {})
    assert took_effect(202, {"x-ms-copy-status": "success"})
    assert not took_effect(202, {"x-ms-copy-status": "pending"})
    assert not any(took_effect(status, {}) for status in (200, 304, 403, 404, 409, 412, 500, 503))


def test_upload_properties() -> None:
    """The blob's own type goes before the request's; an append blob begins empty, whatever the header says."""
    both = CIMultiDict({**BLOCK, "Content-Type": "a/b", "x-ms-blob-content-type": "c/d", "Content-Length": "7"})
    assert properties_of_upload(both) == Properties("c/d", 7, "BlockBlob")
    append = CIMultiDict({"x-ms-blob-type": "AppendBlob", "Content-Length": "0"})
    assert properties_of_upload(append) == Properties("application/octet-stream", 0, "AppendBlob")
    page = CIMultiDict({"x-ms-blob-type": "PageBlob", "Content-Length": "0", "x-ms-blob-content-length": "512"})
    assert properties_of_upload(page).content_length == 512


def test_length_of_another_version_is_left_out() -> None:
    """Where the blob was written again before its length was asked for, the event does not claim that length."""
    event = blob_event(
        Operation("PutBlockList", "data", "a"),
        Properties("text/csv", 9, "BlockBlob", etag="0x2"),
        endpoint="http://127.0.0.1:1",
        number=1,
        now=datetime(2026, 11, 20, tzinfo=UTC),
        batch_id="b",
        request_headers={},
        answer_headers={"ETag": '"0x1"', "x-ms-request-id": "831e1650-001e-001b-66ab-eeb76e069631"},
    )
    assert event["data"]["eTag"] == "0x1"
    assert "contentLength" not in event["data"]
