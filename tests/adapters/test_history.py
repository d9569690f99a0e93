"""Reading what the state account remembers, over Azurite."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event
from uuid import uuid4

import pytest
from azure.storage.blob import BlobServiceClient

from functions.adapters.account import WINDOWS, StateStorage
from functions.adapters.history import History
from functions.core.windows import Segment
from functions.settings import StateAccount
from local.provision import provision

LINE = b"x" * 99_999 + b"\n"


@pytest.fixture
def open_segment(azurite: str) -> Iterator[Segment]:
    """A window of 3 MB to which somebody appends all the time."""
    provision(azurite)
    segment = Segment(f"r-{uuid4().hex}", "key", 1, 0)
    blob = BlobServiceClient.from_connection_string(azurite).get_blob_client(WINDOWS, segment.name)
    blob.create_append_blob()
    blob.append_block(LINE * 30)
    over = Event()

    def append() -> None:
        for number in count():
            if over.is_set():
                return
            blob.append_block(f"late {number}\n")

    with ThreadPoolExecutor(1) as pool:
        appending = pool.submit(append)
        yield segment
        over.set()
        appending.result()


def test_lines_of_a_window_that_grows(azurite: str, open_segment: Segment) -> None:
    """`signalbox trace` and `rescan` read open windows in mid-burst."""
    lines = History(StateStorage(StateAccount(connection_string=azurite))).lines(open_segment)
    assert lines[:30] == [LINE.removesuffix(b"\n")] * 30
    assert all(line.startswith(b"late ") for line in lines[30:])
