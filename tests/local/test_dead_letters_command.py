"""`signalbox dead-letters` and `signalbox replay`, over Azurite."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from operator_account import Account, event, give_up

from functions.adapters.dead_letters import EVENT_GRID_DEAD_LETTERS, DeadLetterBox
from functions.core.dispatch import State
from functions.core.payload import build_request
from local.azurite import ACCOUNT


class TestDeadLetters:
    """Listing and replaying what could not be used."""

    def test_lists_both_containers(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Our own dead letters and Event Grid's are one list, with id, reason, time, type and subject."""
        assert json.loads(signalbox("dead-letters", "--json")) == []
        account.take(event("digits/a.csv", account="stranger"), {"odd": True})
        give_up(account, event("digits/b.csv"))
        found = {report["container"]: report for report in json.loads(signalbox("dead-letters", "--json"))}
        by_event_grid = found[EVENT_GRID_DEAD_LETTERS]
        assert by_event_grid["reason"] == "MaxDeliveryAttemptsExceeded, last outcome NotFound"
        assert by_event_grid["time"] == "2026-11-20T11:00:00.000000Z"
        assert by_event_grid["subject"].endswith("digits/b.csv")
        text = signalbox("dead-letters")
        assert "'stranger' is not among SIGNALBOX_DATA_ACCOUNTS" in text
        assert "neither the Event Grid schema" in text
        assert all(report["id"] in text for report in found.values())

    def test_replay_says_first_and_does_then_and_never_twice(
        self, account: Account, signalbox: Callable[..., str]
    ) -> None:
        """A dry run changes nothing; --yes takes the events in and puts the letters away; a second time finds none."""
        give_up(account, event("digits/a.csv"), event("digits/b.csv"))
        said = signalbox("replay")
        assert "to train, key 'digits'" in said
        assert "would replay 2 dead letters and 0 dispatches; nothing was changed" in said
        account.close()
        assert account.listed() == []
        assert "replayed 2 dead letters" in signalbox("replay", "--yes")
        account.close()
        assert account.listed() == ["a.csv", "b.csv"]
        assert json.loads(signalbox("dead-letters", "--json")) == []
        assert len([name for name in account.names(EVENT_GRID_DEAD_LETTERS) if name.startswith("replayed/")]) == 2
        assert "nothing to replay" in signalbox("replay", "--yes")

    def test_replay_of_one_leaves_the_others_of_its_blob(self, account: Account, signalbox: Callable[..., str]) -> None:
        """By event id or letter id, just that letter goes; the rest of the blob stays where it is."""
        give_up(account, event("digits/a.csv"), event("digits/b.csv"))
        signalbox("replay", "--yes", "--id", "id-digits/a.csv")
        (left,) = json.loads(signalbox("dead-letters", "--json"))
        assert left["event_id"] == "id-digits/b.csv"
        signalbox("replay", "--yes", "--id", left["id"])
        account.close()
        assert account.listed() == ["a.csv", "b.csv"]

    def test_what_would_be_refused_again_stays(self, account: Account, signalbox: Callable[..., str]) -> None:
        """A letter whose cause is not mended is told, and is still there afterwards; mended, it goes."""
        account.take(event("digits/a.csv", account="stranger"))
        said = signalbox("replay", "--yes")
        assert "stays: its storage account 'stranger'" in said
        assert len(json.loads(signalbox("dead-letters", "--json"))) == 1

    def test_mended_setting_lets_it_go(
        self, account: Account, signalbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once the account is among the data accounts, our own dead letter is taken in like any event."""
        account.take(event("digits/a.csv", account="stranger"))
        monkeypatch.setenv("SIGNALBOX_DATA_ACCOUNTS", f"{ACCOUNT},stranger")
        assert "replayed 1 dead letter and" in signalbox("replay", "--yes", "--route", "train", "--since", "1h")
        account.close()
        assert account.listed() == ["a.csv"]
        assert json.loads(signalbox("dead-letters", "--json")) == []

    def test_crash_between_taking_in_and_putting_away(
        self, account: Account, signalbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The letter is then still there; replayed again, its event is a duplicate and is dispatched once."""
        give_up(account, event("digits/a.csv"))

        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(DeadLetterBox, "put_away", crash)
            signalbox("replay", "--yes", status=130)
        account.close()
        signalbox("replay", "--yes")
        account.close()
        assert account.listed() == ["a.csv"]
        assert [item.event_count for item in account.dispatches()] == [1]

    def test_time_span(self, account: Account, signalbox: Callable[..., str]) -> None:
        """--since and --until bound the time at which a letter was given up."""
        give_up(account, event("digits/a.csv"))
        assert "nothing to replay" in signalbox("replay", "--until", "2026-11-20T10:59:00Z")
        assert "nothing to replay" in signalbox("replay", "--since", "2026-11-20T11:01:00Z")
        span = ("--since", "2026-11-20T11:00:00Z", "--until", "2026-11-20T12:00:00+01:00")
        assert "would replay 1 dead letter" in signalbox("replay", *span)

    def test_parked_dispatch_is_sent_again(self, account: Account, signalbox: Callable[..., str]) -> None:
        """A parked dispatch becomes ready; one that GitHub refused for good only when it is named."""
        account.take(event("digits/a.csv"), event("iris/a.csv"))
        account.close()
        parked, dead = account.dispatches()
        account.change(parked, state=State.PARKED, reason="PAT_TOKEN is refused")
        account.change(dead, state=State.DEAD, reason="GitHub refused it")
        assert "PAT_TOKEN is refused" in signalbox("replay")
        assert [item.state for item in account.dispatches()] == [State.PARKED]
        assert dead.id in signalbox("dead-letters")
        assert "and 1 dispatch" in signalbox("replay", "--yes")
        assert [(item.id, item.state) for item in account.dispatches()] == [(parked.id, State.READY)]
        signalbox("replay", "--yes", "--id", dead.id)
        assert {item.id: item.state for item in account.dispatches()}[dead.id] is State.READY

    def test_replays_are_counted(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Each replay of a dispatch is counted in its row, and told by trace and by what GitHub is sent."""
        account.take(event("digits/a.csv"))
        account.close()
        for count, said in ((1, "replayed once"), (2, "replayed 2 times")):
            (row,) = account.dispatches()
            account.change(row, state=State.PARKED, reason="PAT_TOKEN is refused")
            signalbox("replay", "--yes")
            (row,) = account.dispatches()
            assert build_request(row)["client_payload"]["replay"] == count  # type: ignore[index, call-overload]
            assert said in signalbox("trace", row.id)
            (chain,) = json.loads(signalbox("trace", row.id, "--json"))["chains"]
            assert chain["dispatch"]["replays"] == count

    def test_ids_given_one_by_one(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Each --id counts, not just the last."""
        give_up(account, event("digits/a.csv"), event("digits/b.csv"), event("digits/c.csv"))
        said = signalbox("replay", "--id", "id-digits/a.csv", "--id", "id-digits/b.csv")
        assert "would replay 2 dead letters" in said

    def test_unknown_id_route_and_time(self, signalbox: Callable[..., str]) -> None:
        """Each is one sentence that names what was written."""
        assert "has the id nothing" in signalbox("replay", "--id", "nothing", status=1)
        assert "--route nowhere: the routes are train, deploy" in signalbox("replay", "--route", "nowhere", status=1)
        with pytest.raises(SystemExit):
            signalbox("replay", "--since", "yesterday")
