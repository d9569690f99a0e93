"""The local backend hands its steps what the Azure backend hands its own, and says what it leaves out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlops import environment, local_backend, pipeline, settings

JOB = replace(environment.read({"ORIGIN": "sb-aaaabbbbccccddddeeee", "FOLDER": "digits"}), job="train-x-1")
PROBE = """import json, os, sys
names = ("OWN", "HOME", "JOB_NAME", "MLFLOW_RUN_ID", "ORIGIN")
with open({into!r}, "w") as file:
    json.dump({{"environment": {{name: os.environ.get(name) for name in names}}, "arguments": sys.argv[1:]}}, file)
sys.exit({status})
"""


@pytest.mark.parametrize("status", [0, 3])
def test_a_step_gets_its_names_and_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """run.json's own variables are there and hide nothing; the name of a failed step comes back."""
    into, probe = tmp_path / "seen.json", tmp_path / "probe.py"
    probe.write_text(PROBE.format(into=str(into), status=status))
    monkeypatch.setattr(pipeline, "STEPS", (pipeline.Step("probe", str(probe), ("data",), ("model",)),))
    monkeypatch.setenv("HOME", "/home/somebody")
    failed = local_backend._steps(JOB, "run-1", {"OWN": "1", "HOME": "/own", "JOB_NAME": "own"})
    assert failed == ("probe" if status else None)
    seen = json.loads(into.read_text())
    assert seen["environment"] == {
        "OWN": "1",
        "HOME": "/home/somebody",
        "JOB_NAME": "train-x-1",
        "MLFLOW_RUN_ID": "run-1",
        "ORIGIN": JOB.origin,
    }
    assert seen["arguments"][::2] == ["--data", "--model"]


@pytest.mark.parametrize("key", ["sweep", "distribution"])
def test_what_only_azure_does_is_said(capsys: pytest.CaptureFixture[str], key: str) -> None:
    """A sweep or a distribution in run.json has no effect here, and the log says so; else it says nothing."""
    loaded = settings.load()
    local_backend._say_what_is_azures(loaded)
    assert capsys.readouterr().out == ""
    local_backend._say_what_is_azures(replace(loaded, run={**loaded.run, key: {"type": "mpi"}}))
    assert f"run.json: {key} is for Azure ML" in capsys.readouterr().out
