"""An id that repeats with other content: both events are kept, and manifest, log and `signalbox trace` say so."""

from __future__ import annotations

import json
from collections.abc import Callable

from operator_account import Account, event


def test_trace_tells_of_all_events_of_an_id(account: Account, signalbox: Callable[..., str]) -> None:
    """In one window or in several; the header of the window that held two of them counts the id."""
    several = [{**event(f"digits/{name}.csv"), "id": "again"} for name in ("one", "two", "three")]
    account.take(*several[:2], several[0], event("digits/other.csv"))
    account.close()
    account.take(several[2])
    account.close()
    assert account.listed() == ["one.csv", "other.csv", "three.csv", "two.csv"]
    trace = json.loads(signalbox("trace", "again", "--json"))
    assert len(trace["events"]) == 3
    note = "the id stands for 3 events with different content, each of which is kept"
    assert note in trace["notes"]
    assert note in signalbox("trace", "again")
    assert "different content" not in signalbox("trace", "id-digits/other.csv")
    blobs = account.container("manifests")
    headers = [
        blobs.get_blob_client(name).get_blob_properties().metadata["header"] for name in account.names("manifests")
    ]
    assert sorted(json.loads(header)["repeated_ids"] for header in headers) == [0, 1]
