"""`signalbox rescan` over a real Azurite, and the real events that come before, meanwhile and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from operator_account import Account

NOW = ("--until", "0s")


def quoted(event: dict[str, Any]) -> dict[str, Any]:
    """The event as some of Azure's captures have it, with quotes inside of the etag."""
    return {**event, "data": {**event["data"], "eTag": f'"{event["data"]["eTag"]}"'}}


@pytest.mark.parametrize("form", [quoted, dict])
def test_real_event_after_the_rescan_is_no_second_dispatch(
    account: Account,
    signalbox: Callable[..., str],
    form: Callable[..., dict[str, Any]],
) -> None:
    """Deliveries were late, somebody rescanned, then they came: each version is dispatched once."""
    real = form(account.upload("digits/a.csv"))
    assert "took 1 in" in signalbox("rescan", "--yes", *NOW)
    account.close()
    account.take(real)
    account.close()
    assert account.listed() == ["a.csv"]
    assert [row.event_count for row in account.dispatches()] == [1]
    account.take(account.upload("digits/a.csv", b"x\n2\n"))
    account.close()
    assert account.listed() == ["a.csv", "a.csv"]


def test_real_events_while_the_rescan_takes_in(
    account: Account,
    signalbox: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both forms of an event stand in one open window and are listed once."""
    real = [account.upload(f"digits/{number}.csv") for number in range(3)]
    monkeypatch.setattr("functions.core.rescan.Known.has", lambda *_: False)
    account.take(*real[:2])
    signalbox("rescan", "--yes", *NOW)
    account.take(*real)
    account.close()
    assert account.listed() == ["0.csv", "1.csv", "2.csv"]
