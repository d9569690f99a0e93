"""The workflow files: valid, pinned, safe with what an event brings, and heard by the routes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from functions.core.routes_file import load_routes

ROOT = Path(__file__).resolve().parents[2]
NAMES = tuple(sorted(path.name for path in (ROOT / ".github/workflows").glob("*.yml")))


def text(name: str) -> str:
    """Return a workflow's text."""
    return (ROOT / ".github/workflows" / name).read_text(encoding="utf-8")


def load(name: str) -> Any:
    """Load a workflow; a plain YAML loader reads the key `on` as true."""
    document = yaml.safe_load(text(name))
    document["on"] = document.pop(True, document.get("on"))
    return document


@pytest.mark.parametrize("name", NAMES)
def test_zizmor_finds_nothing(name: str) -> None:
    """The strictest persona of the workflow linter has no finding."""
    program = Path(sys.executable).with_name("zizmor")
    done = subprocess.run(
        [str(program), "--pedantic", "--offline", str(ROOT / ".github/workflows" / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_workflow_matches_githubs_schema(name: str, contracts: Path) -> None:
    """Every key is one that GitHub knows."""
    schema = json.loads((contracts / "schemastore/github-workflow.json").read_text())
    jsonschema.validate(load(name), schema, cls=jsonschema.validators.validator_for(schema))


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_pinned_to_published_commits(name: str, contracts: Path) -> None:
    """Each action's commit and version comment are a release's own."""
    pins = json.loads((contracts / "github/action-pins.json").read_text())["actions"]
    used = re.findall(r"uses: (\S+)@([0-9a-f]{40}) # (v[\d.]+)", text(name))
    assert len(used) == text(name).count("uses:")
    for action, commit, version in used:
        assert any(commit == pin and version in release for release, pin in pins[action].items())


@pytest.mark.parametrize("name", NAMES)
def test_no_value_of_an_event_reaches_a_script(name: str) -> None:
    """Scripts hold no expressions; values come through the environment."""
    for job in load(name)["jobs"].values():
        assert all("${{" not in step.get("run", "") for step in job["steps"])


def test_each_dispatch_type_is_listened_to_and_the_other_way_round() -> None:
    """What the routes send has a workflow, and no workflow waits for what is never sent."""
    routes = load_routes((ROOT / "routes.yml").read_text(encoding="utf-8"))
    heard = [kind for name in NAMES for kind in load(name)["on"].get("repository_dispatch", {}).get("types", [])]
    assert sorted(heard) == sorted({route.dispatch for route in routes})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train_model.yml", "storage-blobcreated"),
        ("deploy_model.yml", "machinelearningservices-runcompleted"),
        ("notify.yml", "machinelearningservices-runstatuschanged"),
    ],
)
def test_the_workflow_listens_and_shows_the_dispatch_id(name: str, kind: str) -> None:
    """The dispatch type is the documented one, and the run's name holds the id that the ledger searches for."""
    workflow = load(name)
    assert workflow["on"]["repository_dispatch"]["types"] == [kind]
    assert "client_payload.dispatch_id" in workflow["run-name"]
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["cancel-in-progress"] is False
