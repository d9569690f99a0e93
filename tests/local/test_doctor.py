"""`signalbox doctor`: each fault is found, named and has its mend; what is right is not complained about."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from doctor_scenes import GOOD, ROOT, SIGNALBOX, Api, faults

from functions.adapters.account import CONTAINERS, QUEUES, TABLES, StateStorage
from functions.core.routes_file import load_routes
from functions.settings import StateAccount
from local import azurite as emulator
from local.commands import (
    doctor_files,
    doctor_storage,
)
from local.commands.doctor_findings import Finding, as_text


def project(tmp_path: Path, routes: str, **workflows: str) -> list[Finding]:
    """What is found in a project with these files, and this one's own templates."""
    for path in ("infra/deploy.core-infra.json", ".cloud/.azure/workspace.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in workflows.items():
        (folder / f"{name}.yml").write_text(text)
    (tmp_path / "routes.yml").write_text(routes)
    return list(doctor_files.check(tmp_path, tmp_path / "routes.yml"))


ROUTES = "routes: [{name: r, on: Microsoft.Storage.BlobCreated, settle: none, dispatch: storage-blobcreated}]"
DOOR = "via: workflow_dispatch, workflow: train.yml"
BY_DOOR = ROUTES.replace("settle: none", f"settle: none, {DOOR}")


# Files


def test_this_project_is_in_order() -> None:
    """The planned deployment of this very project has no fault."""
    done = subprocess.run(
        [str(SIGNALBOX), "doctor", "--planned", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    states = {one["state"] for one in json.loads(done.stdout)}
    assert states <= {"ok", "unknown"}


def test_files_in_order_have_no_fault(tmp_path: Path) -> None:
    """A route, and a workflow that hears it."""
    findings = project(tmp_path, ROUTES, train=GOOD)
    assert faults(findings) == []
    assert "0 faults, 0 unknown" in as_text(findings)


@pytest.mark.parametrize(
    ("routes", "workflow", "words"),
    [
        (ROUTES, GOOD.replace("storage-blobcreated", "other"), "no workflow in .github/workflows listens"),
        (ROUTES, GOOD.replace("train ${{ github.event.client_payload.dispatch_id }}", "train"), "no run of it is ever"),
        (ROUTES, "jobs: [", "is no readable YAML"),
        (BY_DOOR, GOOD, "started by route 'r', but its run's name lacks the dispatch id"),
        (BY_DOOR, GOOD, "with inputs that it lacks: dispatch_id, event_type, key, manifest_sha256, payload"),
        (BY_DOOR.replace("train.yml", "gone.yml"), GOOD, "route 'r' starts it, and it is not in .github/workflows"),
        ("routes: [{name: r}]", GOOD, "routes routes.yml: routes.yml:1:"),
    ],
)
def test_each_fault_of_the_files_is_named(tmp_path: Path, routes: str, workflow: str, words: str) -> None:
    """The sentence says what will happen, and there is a mend."""
    found = faults(project(tmp_path, routes, train=workflow))
    assert any(words in one for one in found), found
    assert all(not one.endswith("-> ") for one in found)


def test_a_type_that_no_route_sends_is_mentioned(tmp_path: Path) -> None:
    """It may be sent by something else, so it is no fault."""
    findings = project(tmp_path, ROUTES, train=GOOD, other=GOOD.replace("storage-blobcreated", "nobody-sends"))
    assert faults(findings) == []
    assert any(one.state == "unknown" and "nobody-sends" in one.says for one in findings)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """No traceback where nothing is there."""
    found = faults(list(doctor_files.check(tmp_path, tmp_path / "routes.yml")))
    assert [one.split(":")[0] for one in found] == ["routes routes.yml", "workspace .cloud/.azure/workspace.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"PAT_TOKEN": "[parameters('pat_token')]"}, "PAT_TOKEN: it is no Key Vault reference"),
        ({"PAT_TOKEN": "", "GITHUB_APP_ID": "", "GITHUB_APP_INSTALLATION_ID": "", "GITHUB_APP_PRIVATE_KEY": ""}, "PAT"),
        ({"SIGNALBOX_DATA_ACCOUNTS": None}, "SIGNALBOX_DATA_ACCOUNTS: infra/deploy.core-infra.json does not set it"),
    ],
)
def test_app_settings_of_the_template_are_looked_at(tmp_path: Path, change: dict[str, str | None], words: str) -> None:
    """A setting that the app needs is there, and a secret comes from the vault."""
    project(tmp_path, ROUTES, train=GOOD)
    template = tmp_path / "infra/deploy.core-infra.json"
    document = json.loads(template.read_text())
    for resource in document["resources"]:
        if resource["type"] == "Microsoft.Web/sites/config" and "/appsettings" in resource["name"]:
            resource["properties"] |= change
            for name in [name for name, value in change.items() if value is None]:
                del resource["properties"][name]
    template.write_text(json.dumps(document))
    found = faults(list(doctor_files.check(tmp_path, tmp_path / "routes.yml")))
    assert any(words in one for one in found), found


# The state account


def test_an_account_without_its_parts_is_named(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """The sentence says what is missing, and which template makes it; with all of it, there is no fault."""
    running = emulator.start(tmp_path, free_port(), free_port(), free_port())
    try:
        account = StateStorage(StateAccount(running.connection_string))
        found = faults(list(doctor_storage.check(account, datetime.now(UTC))))
        assert "it lacks container windows" in found[0]
        assert "deploy infra/deploy.core-infra.json" in found[0]
        for name in CONTAINERS:
            account.blobs.create_container(name)
        for name in TABLES:
            account.tables.create_table(name)
        for name in QUEUES:
            account.queues.create_queue(name)
        assert faults(list(doctor_storage.check(account, datetime.now(UTC)))) == []
    finally:
        running.stop()


def test_an_account_out_of_reach_is_named() -> None:
    """One sentence, and no traceback."""
    dead = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:9/a;"
    dead += "QueueEndpoint=http://127.0.0.1:9/a;TableEndpoint=http://127.0.0.1:9/a;"
    (found,) = faults(list(doctor_storage.check(StateStorage(StateAccount(dead)), datetime.now(UTC))))
    assert "is it running, and in reach?" in found


def test_an_account_that_one_may_not_read_is_unknown(azurite: str) -> None:
    """A missing right of the person is no fault of the deployment."""
    wrong = re.sub("AccountKey=[^;]+", "AccountKey=bm90IHRoZSBrZXk=", azurite)
    findings = list(doctor_storage.check(StateStorage(StateAccount(wrong)), datetime.now(UTC)))
    assert {one.state for one in findings} == {"unknown"}
    assert "Data Reader" in findings[0].mend


def test_a_clock_that_is_off_storages_is_named(azurite: str) -> None:
    """Storage's Date is held against this machine's; a minute is let pass."""
    account = StateStorage(StateAccount(azurite))
    for minutes, count in ((-10, 1), (10, 1), (0, 0)):
        now = datetime.now(UTC) + timedelta(minutes=minutes)
        found = faults(list(doctor_storage.check(account, now)))
        assert len([one for one in found if one.startswith("clock")]) == count


# One machine


def doctor(folder: Path, environment: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    given = {name: value for name, value in os.environ.items() if name not in {"PAT_TOKEN", "GITHUB_API_URL"}}
    command = [str(SIGNALBOX), "doctor", "--dir", str(folder), *options]
    return subprocess.run(command, env={**given, **environment}, capture_output=True, text=True, check=False)


def test_a_running_machine_is_looked_at(tmp_path: Path) -> None:
    """Storage, settings, token, workflows and clock of a real local run, through the app's own adapters."""
    parts = "storage,eventgrid,functions,github"
    with subprocess.Popen(
        [str(SIGNALBOX), "up", "--json", "--only", parts, "--dir", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as up:  # fmt: skip
        try:
            assert up.stdout is not None
            assert up.stdout.readline()
            done = doctor(tmp_path, {}, "--json")
            assert done.returncode == 0, done.stdout + done.stderr
            found = json.loads(done.stdout)
            routes = load_routes((ROOT / "routes.yml").read_text())
            heard = " ".join(one["says"] for one in found if one["check"] == "workflow")
            assert all(route.dispatch in heard for route in routes)
            assert {one["check"] for one in found} >= {"storage", "app settings", "token", "clock", "workflow"}
        finally:
            up.terminate()
            up.communicate(timeout=30)
    after = doctor(tmp_path, {})
    assert after.returncode == 1
    assert re.search(r"fault +storage.*\n +mend: is it running", after.stdout), after.stdout


def test_an_app_elsewhere_is_looked_at_by_its_settings(azurite: str, github: Api, tmp_path: Path) -> None:
    """The settings in the environment count; the token goes to the GitHub that they name, and only there."""
    routes = tmp_path / "routes.yml"
    routes.write_text(ROUTES)
    app = {
        "AzureWebJobsStorage": azurite, "SIGNALBOX_DATA_ACCOUNTS": "data", "GITHUB_REPOSITORY": "octo/models",
        "GITHUB_API_URL": github.url, "SIGNALBOX_ROUTES": str(routes),
    }  # fmt: skip
    unasked = doctor(tmp_path, app, "--json")
    assert github.asked == []
    assert any(one["check"] == "GitHub" and one["state"] == "unknown" for one in json.loads(unasked.stdout))
    asked = json.loads(doctor(tmp_path, {**app, "PAT_TOKEN": "github_pat_made_up"}, "--json").stdout)
    assert any(one["check"] == "workflow" and one["state"] == "ok" for one in asked)
    assert any("repo:octo@1/models@2:ref:refs/heads/main" in one["says"] for one in asked)
    routes.write_text("routes: []")
    wrong = doctor(tmp_path, app)
    assert wrong.returncode == 1
    assert re.search(r"fault +app settings", wrong.stdout), wrong.stdout


def test_nowhere_to_look_is_one_sentence(tmp_path: Path) -> None:
    """Without a run and without settings, the command says what to set."""
    done = doctor(tmp_path, {"AzureWebJobsStorage": "", "AzureWebJobsStorage__accountName": ""})
    assert done.returncode == 1
    assert "AzureWebJobsStorage__accountName is not set" in done.stderr
    assert "Traceback" not in done.stderr
