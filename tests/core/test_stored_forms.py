"""What stands in storage is read by another version of the app: the stored forms and the names, letter by letter.

A change here is a change of a format. It must leave what an earlier version wrote readable, and needs a line in
docs/formats.md; a form that an earlier version would misread needs another version mark.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from functions.core.budget import Spending
from functions.core.dispatch import Dispatch, ManifestRef, State, readable
from functions.core.events import UnreadableEvent, parse
from functions.core.manifest import Header, build
from functions.core.routes import Hold, Settle
from functions.core.windows import Head, Line, Rule, Segment

from .strategies import NOW, a_dispatch, blob_event

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

HEAD = Head("train", "digits", "epoch", 3, 2, is_open=True, unfinished=2, last_segment=1, alarm="t", marked=True)
HEAD_TEXT = (
    '{"route":"train","key":"digits","epoch":"epoch","number":3,"segment":2,"is_open":true,"unfinished":2,'
    '"last_segment":1,"alarm":"t","marked":true}'
)

WHOLE = Settle(MINUTE, 15 * MINUTE, 1_048_576, "_SUCCESS")
RULE = Rule("train", "digits", "storage-blobcreated", "octo/models", WHOLE, Hold(HOUR), template="folder")
RULE_TEXT = (
    '{"v":1,"route":"train","key":"digits","event_type":"storage-blobcreated","repository":"octo/models",'
    '"template":"folder","quiet":60.0,"max_wait":900.0,"max_bytes":1048576,"marker":"_SUCCESS","hold":3600.0}'
)

PLAIN = Settle(MINUTE, 15 * MINUTE)
WORKFLOW_RULE = Rule("train", "digits", "train", "octo/models", PLAIN, None, "train.yml", "main", "{path}")
WORKFLOW_RULE_TEXT = (
    '{"v":1,"route":"train","key":"digits","workflow_dispatch":{"event_type":"train","workflow":"train.yml",'
    '"ref":"main"},"repository":"octo/models","template":"{path}","quiet":60.0,"max_wait":900.0,"max_bytes":268435456,'
    '"marker":"","hold":null}'
)

SPENDING = Spending("train", (("sb-a", NOW), ("sb-b", NOW + SECOND)))
SPENDING_TEXT = '{"v":1,"slots":[["sb-a","2026-11-20T12:00:00.000000Z"],["sb-b","2026-11-20T12:00:01.000000Z"]]}'

HEADER = Header("sb-a", "ff", 2, 512, NOW - SECOND, None, NOW, 4, 1, 1, 0, NOW + SECOND)
HEADER_TEXT = (
    '{"v":1,"dispatch_id":"sb-a","sha256":"ff","count":2,"bytes":512,"first_event":"2026-11-20T11:59:59.000000Z",'
    '"last_event":null,"sealed":"2026-11-20T12:00:00.000000Z","lines":4,"duplicates":1,"superseded":1,'
    '"repeated_ids":0,"reach":"2026-11-20T12:00:01.000000Z"}'
)

DISPATCH = a_dispatch(manifest=ManifestRef("https://m", "ff", 2, 512), sent=NOW, state=State.SENT, attempts=1)
DISPATCH_TEXT = (
    '{"id":"sb-aaaaaaaaaaaaaaaaaaaa","route":"train","key":"digits","event_type":"storage-blobcreated",'
    '"repository":"octo/models","source":"Microsoft.Storage.BlobCreated",'
    '"subject":"/blobServices/default/containers/c/blobs/p","data":{"url":"u"},"event_count":1,'
    '"manifest":{"url":"https://m","sha256":"ff","count":2,"bytes":512},"created":"2026-11-20T12:00:00.000000Z",'
    '"workflow":"","ref":"","state":"sent","reason":"","attempts":1,"not_before":null,"sending_since":null,'
    '"sent":"2026-11-20T12:00:00.000000Z","looked":null,"parked":null,"probes":0,"unheard":0,"replays":0,"unstarted":[],'
    '"restarts":0,"run_id":null,"run_url":"","other_runs":[],"conclusion":""}'
)

LINE = Line(parse(blob_event("d/a.csv")), NOW)
LINE_TEXT = (
    '{"v":1,"received":"2026-11-20T12:00:00.000000Z","event":{"id":"id-1",'
    '"eventType":"Microsoft.Storage.BlobCreated",'
    '"topic":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/acme",'
    '"subject":"/blobServices/default/containers/training-data/blobs/d/a.csv",'
    '"eventTime":"2026-11-20T11:59:00+00:00","data":{"api":"PutBlob","eTag":"0x8D1","contentLength":12,'
    '"url":"https://acme.blob.core.windows.net/training-data/d/a.csv","sequencer":"0001"}}}\n'
)

FORMS = {
    "head": (HEAD, HEAD_TEXT, lambda text: Head.from_text(text, "")),
    "rule": (RULE, RULE_TEXT, Rule.from_text),
    "rule of one workflow": (WORKFLOW_RULE, WORKFLOW_RULE_TEXT, Rule.from_text),
    "budget": (SPENDING, SPENDING_TEXT, lambda text: Spending.from_text("train", text, "")),
    "header": (HEADER, HEADER_TEXT, Header.from_text),
    "dispatch": (DISPATCH, DISPATCH_TEXT, lambda text: Dispatch.from_text(text, "")),
}


@pytest.mark.parametrize(("value", "text", "read"), FORMS.values(), ids=FORMS)
class TestForms:
    """Rows, metadata and headers."""

    def test_is_written_so(self, value: Any, text: str, read: Callable[[str], object]) -> None:
        """Every key and value, with the version mark where the form has one."""
        assert json.loads(value.to_text()) == json.loads(text)

    def test_is_read_back(self, value: object, text: str, read: Callable[[str], object]) -> None:
        """What this form says is understood."""
        assert read(text) == value


def test_a_line_of_a_window() -> None:
    """Written and read so; an appended line ends in a newline."""
    assert LINE.to_bytes() == LINE_TEXT.encode("ascii")
    assert Line.from_bytes(LINE_TEXT.encode("ascii")) == LINE


@pytest.mark.parametrize(("raw", "wrong"), [(b"torn", "Expecting value"), (b"{}", "'v'")])
def test_what_is_no_line_says_so(raw: bytes, wrong: str) -> None:
    """The dead letter that is made of it gives this as its reason."""
    with pytest.raises(UnreadableEvent, match=f"^no line of a window: {wrong}"):
        Line.from_bytes(raw)


def test_dispatch_ids_stay_the_same() -> None:
    """Another version that closes the same window must come to the same id, or the window would be sent twice."""
    assert HEAD.dispatch_id(3) == "sb-y3bqbmc2eo3h7qg6crxb"


def test_blob_names_stay_the_same() -> None:
    """Another version must find the window's blobs."""
    assert HEAD.current.name == "train/mrnmjnk5wk45hgtzul7u/0000000003/00002"


@given(st.sampled_from(["train", "a-b"]), st.sampled_from(["", "digits"]), st.integers(1, 10**9), st.integers(0, 9**5))
def test_a_segment_is_known_by_its_name(route: str, key: str, number: int, segment: int) -> None:
    """Listed blobs are told apart by nothing else."""
    known = Head(route, key, "epoch", number, segment).current
    assert Segment.from_name(known.name) == known


def test_rows_keep_their_versions() -> None:
    """A row that was listed is written back only where nobody changed it meanwhile, so its ETag comes with it."""
    first, second = readable([(DISPATCH_TEXT, "v1"), (DISPATCH_TEXT, "v2")])
    assert (first.version, second.version) == ("v1", "v2")


def test_a_manifest_names_its_dispatch() -> None:
    """The header says which dispatch carries it."""
    _, header = build("sb-7", [], sealed=NOW, lines=0, duplicates=0, superseded=0, repeated_ids=0, reach=None)
    assert header.dispatch_id == "sb-7"
