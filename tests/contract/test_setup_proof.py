"""The end of setup.yml, without Azure: the package, the waiting, and the proof of the path."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from setup_fakes import NOT_LONG, ROOT, SOON, FakeCli, Web

from infra.setup import package, proof, references
from infra.setup.faults import SetupFault
from infra.setup.patience import Patience

# Package


def test_the_package_is_the_app_and_nothing_else(tmp_path: Path) -> None:
    """What `.funcignore` leaves: the app's own files, byte for byte the same each time."""
    first, second = tmp_path / "a/first.zip", tmp_path / "second.zip"
    written = package.write(ROOT, first)
    assert package.write(ROOT, second) == written
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == written
        assert archive.read("host.json") == (ROOT / "host.json").read_bytes()
    assert {name.split("/")[0] for name in written} == {
        "function_app.py", "functions", "host.json", "requirements.txt", "routes.yml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ignore", "words"), [(None, "is missing"), ("host.json\n", "leaves out host.json"), ("/*\n", "leaves out")]
)
def test_a_package_that_cannot_run_is_refused(tmp_path: Path, ignore: str | None, words: str) -> None:
    """Too much and too little are both told before anything is published."""
    for name in package.NEEDED:
        (tmp_path / name).write_text("")
    if ignore is not None:
        (tmp_path / ".funcignore").write_text(ignore)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    with pytest.raises(SetupFault, match=re.escape(words)):
        package.files(tmp_path)


# Waiting, and the proof


def reference(name: str, status: str) -> dict[str, Any]:
    """A Key Vault reference as "Get App Settings Key Vault References" lists it, as far as it is read."""
    return {"name": f"func/{name}", "properties": {"status": status, "secretName": "pat-token"}}


def test_the_app_reads_its_token_anew(az: FakeCli) -> None:
    """Azure looks once a day by itself; so it is asked to look, until it could read."""
    for status in ("AccessToKeyVaultDenied", "Resolved"):
        az.will("rest --method post")
        az.will("rest --method get", {"value": [reference("PAT_TOKEN", status)]})
    said: list[str] = []
    assert references.await_resolved("signalbox", "func", SOON, said.append) == ["PAT_TOKEN"]
    assert said == ["waiting for PAT_TOKEN (AccessToKeyVaultDenied)"]
    asked = [arguments[arguments.index("--url") + 1] for arguments, _, _ in az.calls]
    site = "/subscriptions/{subscriptionId}/resourceGroups/signalbox/providers/Microsoft.Web/sites/func"
    list_of_all = f"{site}/config/configreferences/appsettings"
    assert asked[:2] == [f"{list_of_all}/refresh?api-version=2024-11-01", f"{list_of_all}?api-version=2024-11-01"]


def test_a_secret_that_cannot_be_read_is_named(az: FakeCli) -> None:
    """Before anything is published that could not start."""
    az.will("rest --method post")
    az.will("rest --method get", {"value": [reference("A", "Resolved"), reference("PAT_TOKEN", "SecretNotFound")]})
    with pytest.raises(SetupFault, match=r"PAT_TOKEN \(SecretNotFound\)\. Is the secret there") as told:
        references.await_resolved("signalbox", "func", Patience(0, 0), lambda _: None)
    assert "A (" not in str(told.value)


def test_functions_are_waited_for() -> None:
    """The step goes on once all are there, and names those that never come."""
    seen = iter([[], ["intake"], ["intake", "work"]])
    said: list[str] = []
    proof.await_functions(lambda: next(seen), frozenset({"intake", "work"}), SOON, said.append)
    assert said == ["waiting for intake, work", "waiting for work"]
    with pytest.raises(SetupFault, match="has no function work"):
        proof.await_functions(lambda: ["intake"], frozenset({"intake", "work"}), NOT_LONG, said.append)


def test_the_functions_waited_for_are_the_apps_own() -> None:
    """A renamed function is waited for under its new name."""
    from infra.setup.__main__ import FUNCTIONS

    triggers = (ROOT / "functions/triggers.py").read_text()
    assert set(re.findall(r'function_name\("(\w+)"\)', triggers)) == FUNCTIONS


def test_a_new_role_is_waited_for(web: Web) -> None:
    """Event Grid refuses at first; the same event is sent again, with the same id."""
    web.answers = [(403, {}), (401, {}), (200, {})]
    proof.send(f"{web.url}/api/events", "probe-1", "bearer", SOON)
    assert len(web.requests) == 3
    assert {json.loads(body)[0]["id"] for _, _, body in web.requests} == {"probe-1"}
    assert web.requests[0][1]["Authorization"] == "Bearer bearer"


def test_a_topic_that_never_takes_it_is_named(web: Web) -> None:
    """The sentence has Event Grid's words and the role that is missing."""
    web.answers = [(403, {"error": {"code": "Forbidden"}})]
    with pytest.raises(SetupFault, match=r"403 .*Forbidden.*EventGrid Data Sender"):
        proof.send(f"{web.url}/api/events", "probe-1", "bearer", NOT_LONG)
    web.answers = [(400, {})]
    with pytest.raises(SetupFault, match="400"):
        proof.send(f"{web.url}/api/events", "probe-1", "bearer", SOON)


def run_of(title: str, status: str = "completed", conclusion: str | None = "success") -> dict[str, Any]:
    """A workflow run as GitHub lists it, as far as the proof reads it."""
    return {"display_title": title, "status": status, "conclusion": conclusion, "html_url": "https://github.test/run/1"}


def listing(*runs: dict[str, Any]) -> tuple[int, Any]:
    """GitHub's answer."""
    return 200, {"total_count": len(runs), "workflow_runs": list(runs)}


def test_the_proof_is_a_run_that_ended_well(web: Web) -> None:
    """Other runs, faults of GitHub and a run that is still going are no proof yet."""
    web.answers = [
        listing(run_of("probe probe-2 sb-x")),
        (502, {}),
        listing(run_of("probe probe-1 sb-y", "in_progress", None)),
        listing(run_of("probe probe-2 sb-x"), run_of("probe probe-1 sb-y")),
    ]
    found = proof.await_run(web.url, "octo/models", "token", "probe-1", SOON)
    assert found["display_title"] == "probe probe-1 sb-y"
    assert len(web.requests) == 4
    assert "event=repository_dispatch" in web.requests[0][0]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ((), "No workflow run has probe-1 in its name"),
        ((run_of("probe-1", "queued", None),), "has not ended"),
        ((run_of("probe-1", conclusion="failure"),), "ended as failure"),
    ],
)
def test_no_proof_says_where_to_look(web: Web, runs: tuple[dict[str, Any], ...], words: str) -> None:
    """Nothing is taken for confirmed that is not."""
    web.answers = [listing(*runs)]
    with pytest.raises(SetupFault, match=words):
        proof.await_run(web.url, "octo/models", "token", "probe-1", NOT_LONG)


def test_the_probe_takes_the_route_that_is_made_for_it() -> None:
    """The app reads it, one route takes it, it settles at once, and it is sent to the probe's own workflow."""
    from functions.core import events, routes
    from functions.core.routes_file import load_routes

    probe = f"probe-{uuid.UUID(int=1).hex[:16]}"
    event = events.parse({**proof.event(probe, datetime.now(UTC)), "topic": "/subscriptions/x"})
    (taken,) = routes.matching(load_routes((ROOT / "routes.yml").read_text()), event)
    assert (taken.name, taken.dispatch, taken.settle) == ("prove-the-path", "signalbox-setupprobe", None)
