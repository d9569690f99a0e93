"""`signalbox rescan`: what no event has told of, over Azurite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from operator_account import ROUTES, Account, give_up

from local.azurite import ACCOUNT
from local.commands.surroundings import Surroundings


class TestRescan:
    """Blobs that no event has told of."""

    NOW = ("--until", "0s")

    def test_takes_in_what_is_missing_and_only_once(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Blobs whose events came are known; the others are told, taken in with --yes, and known from then on."""
        account.take(account.upload("digits/told.csv"))
        account.close()
        account.take(account.upload("digits/waiting.csv"))
        account.upload("digits/missing one.csv")
        account.upload("digits/readme.txt")
        said = signalbox("rescan", *self.NOW)
        assert "4 blobs: 2 known, 1 wanted by no route, 0 in the dead letters" in said
        assert "digits/missing one.csv" in said
        assert "to train, key 'digits'" in said
        account.close()
        assert account.listed() == ["told.csv", "waiting.csv"]
        assert "took 1 in" in signalbox("rescan", "--yes", *self.NOW)
        assert "3 known" in signalbox("rescan", "--yes", *self.NOW)
        account.close()
        assert account.listed() == ["missing one.csv", "told.csv", "waiting.csv"]
        assert "0 missing" in signalbox("rescan", "--yes", *self.NOW)

    def test_its_events_are_the_same_each_time(
        self, account: Account, signalbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two rescans that did not see each other's events still dispatch a blob once."""
        account.upload("digits/a.csv")
        monkeypatch.setattr("functions.core.rescan.Known.has", lambda *_: False)
        for _ in range(2):
            signalbox("rescan", "--yes", *self.NOW)
            signalbox("rescan", "--yes", *self.NOW)
            account.close()
        assert account.listed() == ["a.csv"]

    def test_new_version_of_a_known_blob_is_missing(self, account: Account, signalbox: Callable[..., str]) -> None:
        """What counts is the etag, not the name."""
        account.take(account.upload("digits/a.csv"))
        account.upload("digits/a.csv", b"y\n2\n")
        assert "1 missing" in signalbox("rescan", *self.NOW)

    def test_dead_letter_is_left_to_replay(self, account: Account, signalbox: Callable[..., str]) -> None:
        """The real event knows more than a made-up one: as long as it can be replayed, rescan leaves it."""
        give_up(account, account.upload("digits/a.csv"))
        assert "1 in the dead letters ('signalbox replay' takes them in), 0 missing" in signalbox("rescan", *self.NOW)

    def test_event_of_a_route_without_window_is_known(
        self, account: Account, signalbox: Callable[..., str], tmp_path: Path
    ) -> None:
        """Such an event stands in no manifest, but in the ledger."""
        text = ROUTES.replace("settle: {quiet: 1s, max_wait: 1s}", "settle: none")
        (tmp_path / "routes.yml").write_text(text)
        account.upload("digits/a.csv")
        assert "took 1 in" in signalbox("rescan", "--yes", *self.NOW)
        assert "1 known" in signalbox("rescan", "--yes", *self.NOW)

    def test_what_is_looked_through(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Prefix and span narrow it; young blobs are left, because their events may still be under way."""
        account.upload("digits/a.csv")
        account.upload("iris/a.csv")
        assert "0 blobs:" in signalbox("rescan")
        assert "1 blob:" in signalbox("rescan", "--prefix", "iris/", *self.NOW)
        assert "0 blobs:" in signalbox("rescan", "--since", "2099-01-01", *self.NOW)
        said = signalbox("rescan", "--container", "nowhere", status=1)
        assert said == f"signalbox: account {ACCOUNT} has no container 'nowhere': name another with --container\n"

    def test_containers_of_several_accounts(
        self, account: Account, signalbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A container need not be in each data account: it is looked through where it is."""

        class Other:
            """An account that has none of the containers."""

            def get_container_client(self, name: str) -> ContainerClient:
                return account.container(f"other-{name}")

        own = Surroundings.data
        monkeypatch.setattr(Surroundings, "data", lambda found, name: Other() if name == "other" else own(found, name))
        monkeypatch.setenv("SIGNALBOX_DATA_ACCOUNTS", f"{ACCOUNT},other")
        account.upload("digits/a.csv")
        assert "took 1 in" in signalbox("rescan", "--yes", *self.NOW)
        said = signalbox("rescan", "--container", "nowhere", status=1)
        assert f"accounts {ACCOUNT}, other have no container 'nowhere'" in said

    def test_the_whole_past(self, account: Account, signalbox: Callable[..., str]) -> None:
        """A span that reaches back before the calendar looks through everything."""
        account.upload("digits/a.csv")
        assert "1 missing" in signalbox("rescan", "--since", "999999d", *self.NOW)

    def test_route_that_names_the_topic(self, account: Account, signalbox: Callable[..., str], tmp_path: Path) -> None:
        """A made-up event has the form of a topic, of which only the account's name is known."""
        where = f"where: {{topic: '/subscriptions/*/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}', "
        (tmp_path / "routes.yml").write_text(ROUTES.replace("where: {container", where + "container"))
        account.upload("digits/a.csv")
        assert "1 missing" in signalbox("rescan", *self.NOW)
