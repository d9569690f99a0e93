"""Submitting a job, through the real SDK over a workspace in memory: what is sent, sent twice, and refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlops import environment, pipeline, settings
from mlops.report import Fault

from tests.model.azure_contracts import complaints, recorded
from tests.model.azure_fake import WORKSPACE, Credential, FakeAzure, Sent, azure

with warnings.catch_warnings():
    # azure-ai-ml warns of what marshmallow 4 will take away; its own business.
    warnings.simplefilter("ignore")
    from mlops.azure import backend as azure_backend, workspace as azure_workspace

pytestmark = pytest.mark.filterwarnings("ignore:The `context` parameter")

JOB = environment.read(
    {
        "ORIGIN": "sb-aaaabbbbccccddddeeee",
        "FOLDER": "digits",
        "MANIFEST_SHA256": "a" * 64,
        "GITHUB_SHA": "c" * 40,
        "GITHUB_RUN_ID": "42",
    }
)
NAME = "train-sb-aaaabbbbccccddddeeee-1"


@dataclass
class Submission:
    """A client over a workspace in memory."""

    fake: FakeAzure
    client: Any
    settings: settings.Settings

    def go(self, **run: Any) -> None:
        """Submit the job, with other values in run.json."""
        wanted = replace(self.settings, run={**self.settings.run, **run})
        azure_backend.submit(JOB, wanted, "cpu-cluster", self.client)


@pytest.fixture
def submission(monkeypatch: pytest.MonkeyPatch) -> Iterator[Submission]:
    """Return an empty workspace to submit to, from a workflow of a repository."""
    with azure() as fake:
        for name, value in {
            "AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-00000000000a",
            "GITHUB_REPOSITORY": "o/r",
            "GITHUB_REF_NAME": "main",
            "STORAGE_ACCOUNT": "data",
        }.items():
            monkeypatch.setenv(name, value)
        loaded = settings.load()
        yield Submission(fake, azure_workspace.connect(loaded, Credential()), loaded)


def jobs(submission: Submission) -> list[str]:
    """Return the names of the jobs that were submitted."""
    return [sent.path.rsplit("/", 1)[-1] for sent in submission.fake.requests("PUT", "/jobs/")]


def test_a_submission_sends_the_pipeline_and_returns(
    submission: Submission, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job is put, made of registered components, with its git properties; nothing waits for it."""
    submission.go()
    body = submission.fake.one("PUT", f"/jobs/{NAME}$").body["properties"]
    assert body["jobType"] == "Pipeline"
    assert body["tags"]["signalbox_origin"] == JOB.origin
    assert body["properties"]["mlflow.source.git.commit"] == JOB.commit
    assert body["properties"]["mlflow.source.git.repoURL"] == "https://github.com/o/r"
    assert body["settings"]["default_compute"] == f"{WORKSPACE}/computes/cpu-cluster"
    for step in pipeline.STEPS:
        component = body["jobs"][step.name]["componentId"]
        assert component.lower() in submission.fake.resources
        assert f"/components/signalbox_{step.name}/versions/" in component
        assert body["jobs"][step.name]["environment_variables"]["STORAGE_ACCOUNT"] == "data"
    assert f"Submitted {NAME}: https://ml.azure.com/runs/{NAME}" in capsys.readouterr().out


def test_the_request_has_the_shape_of_the_recorded_ones(submission: Submission, contracts: Path) -> None:
    """Every key of the job is one that Azure ML was recorded to take or to give back, at the recorded API version."""
    submission.go()
    sent = submission.fake.one("PUT", "/jobs/")
    pipeline_job = recorded(contracts, "pipeline.parent-and-steps.json", "GET", "jobs")
    command = recorded(contracts, "job.command.serverless.json", "PUT", "jobs")
    known = pipeline_job["ResponseBody"]["properties"]
    assert sent.version == pipeline_job["RequestUri"].rpartition("api-version=")[2]
    assert set(sent.body) == set(command["RequestBody"])
    for key, value in sent.body["properties"].items():
        if key not in {"jobs", "outputs"}:  # the service gives these back by other calls only
            assert key in known
            assert known[key] is None or isinstance(value, type(known[key])), key
    assert sent.body["properties"]["jobType"] == known["jobType"]


def test_the_cluster_is_one_that_the_resource_manager_takes(submission: Submission, contracts: Path) -> None:
    """The missing cluster is created first, and its body fits the published types."""
    submission.go()
    sent = submission.fake.one("PUT", "/computes/cpu-cluster$")
    assert complaints(contracts, sent) == ""
    assert sent.body["properties"]["properties"]["scaleSettings"]["nodeIdleTimeBeforeScaleDown"] == "PT10M"


def test_a_body_that_is_wrong_is_noticed(submission: Submission, contracts: Path) -> None:
    """The comparison with the published types can fail: a misspelt key and a wrong type are named."""
    submission.go()
    sent = submission.fake.one("PUT", "/computes/cpu-cluster$")
    sent.body["properties"]["properties"]["vmSizes"] = sent.body["properties"]["properties"].pop("vmSize")
    sent.body["properties"]["disableLocalAuth"] = "yes"
    told = complaints(contracts, sent)
    assert "vmSizes" in told
    assert "disableLocalAuth" in told


def test_a_second_submission_does_nothing(submission: Submission, capsys: pytest.CaptureFixture[str]) -> None:
    """A dispatch that comes twice finds its job and leaves it alone."""
    submission.go()
    before = len(submission.fake.sent)
    submission.go()
    assert jobs(submission) == [NAME]
    assert all(sent.method == "GET" for sent in submission.fake.sent[before:])
    assert f"Job {NAME} has been submitted before and is Running" in capsys.readouterr().out


def test_a_job_that_broke_off_is_followed_by_the_next(submission: Submission) -> None:
    """A failed job is not in the way of another try; what was registered for it is not registered again."""
    submission.go()
    submission.fake.resources[f"{WORKSPACE}/jobs/{NAME}".lower()]["properties"]["status"] = "Failed"
    before = len(submission.fake.sent)
    submission.go()
    assert jobs(submission) == [NAME, NAME.removesuffix("1") + "2"]
    later = submission.fake.sent[before:]
    assert [sent.path.rsplit("/", 2)[-2] for sent in later if sent.method == "PUT"] == ["jobs"]


@pytest.mark.parametrize("status", [400, 409])
@pytest.mark.parametrize("what", ["jobs", "components", "environments"])
def test_two_submissions_at_once_end_in_one_job(submission: Submission, what: str, status: int) -> None:
    """Whoever comes second is refused by Azure, finds what the first one made, and is content."""

    def first_wins(sent: Sent) -> Any:
        submission.fake.answers.clear()
        submission.fake.answer(sent)
        return status, {"error": {"code": "UserError", "message": "It exists, and cannot be changed."}}

    submission.fake.on("PUT", f"/{what}/", first_wins)
    submission.go()
    assert f"{WORKSPACE}/jobs/{NAME}".lower() in submission.fake.resources
    assert jobs(submission) == [NAME]


def test_waiting_is_asked_for_by_a_setting(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    """wait_for_completion follows the job's log to its end; without it nobody does."""
    followed: list[str] = []
    monkeypatch.setattr(type(submission.client.jobs), "stream", lambda _, name: followed.append(name))
    submission.go(wait_for_completion=True)
    assert followed == [NAME]


def test_a_missing_workspace_is_said(submission: Submission) -> None:
    """Nothing is made up: the sentence names workspace, group, and what may be wrong."""
    submission.fake.resources.clear()
    with pytest.raises(
        Fault, match=r"no workspace signalbox in resource group signalbox .*workspace\.json.*setup\.yml"
    ):
        submission.go()
    assert not submission.fake.requests("PUT", ".")


def test_a_missing_resource_group_is_said(submission: Submission) -> None:
    """Azure answers 404 for the group too; the same sentence holds."""
    words = "Resource group 'signalbox' could not be found."
    submission.fake.refuse("GET", "/workspaces/signalbox$", 404, "ResourceGroupNotFound", words)
    with pytest.raises(Fault, match="resource group signalbox"):
        submission.go()


def test_a_workspace_is_created_where_settings_say_so(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    """create_workspace asks the SDK for the workspace that workspace.json describes."""
    submission.fake.resources.clear()
    wanted = {
        **submission.settings.workspace,
        "create_workspace": True,
        "location": "westeurope",
        "friendly_name": "Ours",
    }
    made: list[Any] = []

    class Poller:
        def result(self) -> None:
            """End at once."""

    monkeypatch.setattr(
        type(submission.client.workspaces), "begin_create", lambda _, workspace: made.append(workspace) or Poller()
    )
    azure_workspace.ensure_workspace(submission.client, replace(submission.settings, workspace=wanted))
    assert [(one.name, one.location, one.display_name, one.resource_group) for one in made] == [
        ("signalbox", "westeurope", "Ours", "signalbox")
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/workspaces/signalbox$", 403, "Workspace signalbox .* cannot be read: the identity .* may not"),
        ("GET", "/jobs/", 403, f"Job {NAME} cannot be looked up: the identity"),
        ("PUT", "/computes/", 403, "Compute cpu-cluster was not created: the identity .* role"),
        ("PUT", "/components/", 403, f"Job {NAME} was not submitted .*: the identity"),
        ("PUT", "/jobs/", 401, f"Job {NAME} was not submitted .*: Azure does not accept the login"),
    ],
)
def test_a_refusal_is_one_sentence(submission: Submission, method: str, path: str, status: int, words: str) -> None:
    """What the identity may not do is said with what it wanted to do, in Azure's words too."""
    submission.fake.refuse(method, path, status, "AuthorizationFailed", "The client 'x' has no authorization.")
    with pytest.raises(Fault, match=words) as fault:
        submission.go()
    assert "The client 'x' has no authorization" in str(fault.value)
    assert not submission.fake.requests("PUT", "/jobs/") or status == 401


def test_a_request_that_azure_ml_finds_wrong_is_told_with_its_details(submission: Submission, contracts: Path) -> None:
    """The recorded 400 says nothing in its message; the sentence has what its details say."""
    answer = json.loads((contracts / "ml/job.put.invalid.400.json").read_text())["Entries"][0]
    submission.fake.on("PUT", "/jobs/", (400, answer["ResponseBody"]))
    with pytest.raises(Fault, match="Could not find member 'assetVersion'"):
        submission.go()


def test_a_compute_that_failed_is_not_used(submission: Submission) -> None:
    """A cluster that never came up is said before a job waits on it for ever."""
    submission.go()
    submission.fake.resources[f"{WORKSPACE}/computes/cpu-cluster".lower()]["properties"]["provisioningState"] = "Failed"
    submission.fake.resources.pop(f"{WORKSPACE}/jobs/{NAME}".lower())
    with pytest.raises(Fault, match="Compute cpu-cluster is there, but its provisioning failed"):
        submission.go()


def test_a_subscription_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without AZURE_SUBSCRIPTION_ID the sentence names it."""
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
    with pytest.raises(Fault, match="AZURE_SUBSCRIPTION_ID is not set"):
        azure_workspace.connect(settings.load(), Credential())
