"""`signalbox rollback`: finds the place, says who and why, and turns the script's fault into a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local import cli


def test_without_a_place_it_says_how_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs there, and no registry is named: one sentence, and nothing is started."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert cli.main(["rollback", "digits", "--reason", "wrong", "--dir", str(tmp_path)]) == 1
    assert "MLFLOW_TRACKING_URI is not set" in capsys.readouterr().err


def test_the_local_runs_endpoints_are_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It goes to the run in --dir; that its endpoints part does not answer is told as that, without a traceback."""
    run = {"mlflow": f"sqlite:///{tmp_path}/mlflow.db", "endpoints": "http://127.0.0.1:9"}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert cli.main(["rollback", "digits", "--reason", "100% wrong", "--dir", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("signalbox: The endpoints part does not answer at http://127.0.0.1:9")
    assert "::error" not in said.out + said.err
    assert "Traceback" not in said.out + said.err
