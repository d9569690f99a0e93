"""The workflow of the drift check: off until switched on, and it hands over all that its script reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def job() -> Any:
    """Return the workflow's only job."""
    document = yaml.safe_load((ROOT / ".github/workflows/check_data.yml").read_text(encoding="utf-8"))
    (only,) = document["jobs"].values()
    return only


def test_checking_by_the_clock_is_off_until_switched_on() -> None:
    """The schedule does nothing unless a repository variable says so."""
    assert "github.event_name != 'schedule' || vars.CHECK_DATA_ON_SCHEDULE == 'true'" in job()["if"]


def test_the_script_gets_what_it_reads() -> None:
    """Each variable that the check asks for by name is set, and a drift event has somewhere to go."""
    last = job()["steps"][-1]
    assert last["run"] == "python code/check/drift.py"
    mlops = ROOT / "code/mlops"
    sources = [ROOT / "code/check/drift.py", *(mlops / "drift").glob("*.py"), mlops / "data/storage.py"]
    asked = {
        name
        for source in sources
        for name in re.findall(r"(?:environ\.get|required)\(\s*\"([A-Z_]+)\"", source.read_text(encoding="utf-8"))
    }
    assert {"FOLDER", "DRIFT_EVENTS_ENDPOINT", "DRIFT_EVENTS_KEY", "STORAGE_CONNECTION_STRING"} <= asked
    assert asked <= set(last["env"])
