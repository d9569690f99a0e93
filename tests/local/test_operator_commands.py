"""Where the operators' commands look, and that they work beside a running `signalbox up`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from operator_account import Account
from test_up import FakeGitHub, Up, environment, event as event_of, eventually, github, post  # noqa: F401 - two of them are fixtures

from functions.adapters.account import translation
from functions.settings import StateAccount
from local.azurite import ACCOUNT
from local.cli import main
from local.commands.surroundings import CommandError, Surroundings, asking
from local.provision import DATA_CONTAINER


class TestSurroundings:
    """Where the commands look."""

    @pytest.mark.parametrize("command", [["dead-letters"], ["replay"], ["trace", "e1"], ["rescan"]])
    def test_nothing_to_ask(self, command: list[str], signalbox: Callable[..., str], monkeypatch: Any) -> None:
        """Without a run and without settings, one sentence says how to get to either."""
        monkeypatch.delenv("AzureWebJobsStorage")
        assert "start 'signalbox up', name its folder with --dir, or set" in signalbox(*command, status=1)

    @pytest.mark.parametrize("command", [["dead-letters"], ["replay"], ["trace", "e1"], ["rescan"]])
    def test_storage_away(
        self, command: list[str], signalbox: Callable[..., str], account: Account, monkeypatch: Any
    ) -> None:
        """Storage that does not answer is one sentence, not a traceback."""
        port = account.connection.partition("BlobEndpoint=http://127.0.0.1:")[2].partition("/")[0]
        monkeypatch.setenv("AzureWebJobsStorage", account.connection.replace(f":{port}/", ":9/"))
        said = signalbox(*command, status=1)
        assert "does not answer" in said
        assert said.count("\n") == 1

    @pytest.mark.parametrize("fault", [CredentialUnavailableError("no identity"), ClientAuthenticationError("no")])
    def test_nobody_is_signed_in(self, fault: Exception) -> None:
        """Whether no token could be had, or storage takes none such: 'az login' is what mends it."""
        surroundings = Surroundings("Azure", StateAccount(name="someaccount"), {}, "", "")
        with pytest.raises(CommandError, match="run 'az login'"), asking(surroundings), translation("read"):
            raise fault

    def test_unreadable_connection_string(self, signalbox: Callable[..., str], monkeypatch: Any) -> None:
        """The setting is named."""
        monkeypatch.setenv("AzureWebJobsStorage", "x")
        assert "AzureWebJobsStorage cannot be read" in signalbox("dead-letters", status=1)


def test_beside_a_running_signalbox_up(
    tmp_path: Path,
    environment: dict[str, str],  # noqa: F811
    github: FakeGitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With --dir alone the commands find the run, its routes and its settings; what they take in is dispatched."""
    folder = tmp_path / "state"

    def signalbox(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main([*arguments, "--dir", str(folder)]) == status
        said = capsys.readouterr()
        return said.err if status else said.out

    def found(*arguments: str) -> bool:
        capsys.readouterr()
        return main([*arguments, "--dir", str(folder)]) == 0 and "ended: success" in capsys.readouterr().out

    up = Up(folder, environment, "--only", "storage,functions")  # no Event Grid: uploads raise no event
    try:
        kept = json.loads((folder / "run.json").read_text())
        assert "PAT_TOKEN" not in kept["settings"]
        file = tmp_path / "a.csv"
        file.write_text("x\n1\n")
        signalbox("upload", str(file), "--folder", "mine")
        assert "to quick, key 'mine'" in signalbox("rescan", "--until", "0s", "--yes")
        eventually(lambda: bool(github.dispatches), "no dispatch came")
        payload = github.dispatches[0]["client_payload"]
        assert (payload["key"], payload["manifest"]["count"]) == ("mine", 1)
        stranger = event_of("b")
        stranger["data"]["url"] = "https://stranger.blob.core.windows.net/training-data/digits/b.csv"
        assert post(up.intake, [stranger])
        assert "'stranger' is not among" in signalbox("dead-letters")
        assert "stays: its storage account 'stranger'" in signalbox("replay", "--yes")
        url = f"http://127.0.0.1:1/{ACCOUNT}/{DATA_CONTAINER}/mine/a.csv"
        eventually(lambda: found("trace", url), "the run was not found")
        assert payload["dispatch_id"] in signalbox("trace", "1")
    finally:
        up.stop()
    assert "does not answer" in signalbox("dead-letters", status=1)
