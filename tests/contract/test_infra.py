"""The ARM templates against Azure's published schemas and type models, and against their own parameter files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from local.arm.template import Template, load
from local.eventgrid.subscriptions import subscriptions

INFRA = Path(__file__).resolve().parents[2] / "infra"
SIX_STORAGE_EVENTS = {
    f"Microsoft.Storage.{name}"
    for name in (
        "BlobCreated",
        "BlobDeleted",
        "BlobRenamed",
        "DirectoryCreated",
        "DirectoryRenamed",
        "DirectoryDeleted",
    )
}


@pytest.mark.parametrize("name", ["deploy_event_grid"])
def test_template_is_valid(contracts: Path, name: str) -> None:
    """Each template, with its parameter file, holds against the official schemas and type models."""
    command = [sys.executable, contracts / "tools/armcheck.py", INFRA / f"{name}.json", INFRA / f"params.{name}.json"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_parameter_is_described() -> None:
    """Every parameter of the template says what it is for."""
    parameters = load(INFRA / "deploy_event_grid.json")["parameters"]
    assert [name for name, one in parameters.items() if not one.get("metadata", {}).get("description")] == []


def test_known_events_can_be_chosen() -> None:
    """The six storage events that users may choose from are accepted, each and all."""
    chosen = {"parameters": {"storageEvents": {"value": sorted(SIX_STORAGE_EVENTS)}}}
    given = load(INFRA / "params.deploy_event_grid.json")
    given["parameters"] |= chosen["parameters"]
    storage, _, _ = subscriptions(Template(load(INFRA / "deploy_event_grid.json"), given))
    for kind in SIX_STORAGE_EVENTS:
        subject = "/blobServices/default/containers/training-data/blobs/x"
        assert storage.filter.wants({"eventType": kind, "subject": subject})


def test_what_the_subscriptions_take(contracts: Path) -> None:
    """Of the documented events, the template's subscriptions take those that routes need, from the data only."""
    given = load(INFRA / "params.deploy_event_grid.json")
    read = subscriptions(Template(load(INFRA / "deploy_event_grid.json"), given))
    storage, workspace, custom = read
    assert [one.topic for one in read] == ["storage", "workspace", "signalbox"]
    assert {one.dead_letter_container for one in read} == {"eventgrid-dead-letters"}
    taken = set()
    for sample in (contracts / "events/samples").glob("*.eventgrid.json"):
        content = json.loads(sample.read_text())
        for event in content if isinstance(content, list) else [content]:
            assert not storage.filter.wants(event), "no sample is about the container training-data"
            assert custom.filter.wants(event)
            if workspace.filter.wants(event):
                taken.add(event["eventType"].rpartition(".")[2])
    assert taken == {"RunCompleted", "RunStatusChanged", "ModelRegistered", "DatasetDriftDetected"}
    created = {"eventType": "Microsoft.Storage.BlobCreated"}
    data = "/blobServices/default/containers/training-data/blobs/digits/1.csv"
    assert storage.filter.wants({**created, "subject": data})
    assert not storage.filter.wants({**created, "subject": data.replace("training-data", "training-data-2")})
