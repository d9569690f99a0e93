"""A manifest of many blocks, written over Azurite by two instances at once."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import requests

from functions.adapters.account import StateStorage
from functions.adapters.storage import AzureStore
from functions.core.manifest import Header
from functions.flow.ports import StorageUnavailable
from functions.settings import StateAccount
from local.provision import provision

LARGE = 65 * 1024 * 1024  # over the 64 MiB that the SDK writes in one request


def header_of(dispatch_id: str, body: bytes) -> Header:
    return Header(
        dispatch_id=dispatch_id,
        sha256=hashlib.sha256(body).hexdigest(),
        count=1,
        size=len(body),
        first_event=None,
        last_event=None,
        sealed=datetime(2026, 11, 20, tzinfo=UTC),
        lines=1,
        duplicates=0,
        superseded=0,
    )


async def test_two_writers_of_one_manifest_do_not_mix(azurite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two versions of the app list a window each in its own way: what stands then is one of the two, whole."""
    provision(azurite)
    dispatch_id = f"sb-{uuid4().hex[:20]}"
    ours, theirs = (bytes([letter]) * 1_023 + b"\n" for letter in b"ab")
    ours, theirs = ours * (LARGE // 1_024), theirs * (LARGE // 1_024)
    one, other = (AzureStore(StateStorage(StateAccount(connection_string=azurite))) for _ in range(2))
    request = requests.Session.request
    begun: list[str] = []

    def meet(session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
        if "comp=blocklist" in url and not begun:  # the other begins just then, and breaks off after its first block
            begun.append("other")
            with pytest.raises(StorageUnavailable):
                AzureStore.write_manifest.__wrapped__(other, header_of(dispatch_id, theirs), theirs)  # type: ignore[attr-defined]
        elif begun == ["other", "block"]:
            begun.append("end")
            raise requests.ConnectionError
        elif begun == ["other"]:
            begun.append("block")
        return request(session, method, url, **options)

    monkeypatch.setattr(requests.Session, "request", meet)
    standing = await one.write_manifest(header_of(dispatch_id, ours), ours)
    assert "end" in begun
    found = hashlib.sha256()
    async for line in one.read_manifest(dispatch_id):
        found.update(line)
    assert found.hexdigest() == standing.sha256
