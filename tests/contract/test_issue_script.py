"""The script behind notify.yml and watch.yml: one issue for each thing that goes wrong, and none is repeated."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import loopback
import pytest
from hypothesis import given, strategies as st

SCRIPTS = Path(__file__).resolve().parents[2] / ".github/scripts"
FAILED = {
    "event_type": "machinelearningservices-runstatuschanged",
    "dispatch_id": "sb-aaaaaaaaaaaaaaaaaaaa",
    "data": {
        "experimentName": "signalbox",
        "RunId": "train-sb-aaaaaaaaaaaaaaaaaaaa-1",
        "runStatus": "Failed",
        "runTags": {"data_set": "digits"},
    },
}


def changed(**data: Any) -> dict[str, Any]:
    """The failed run with other data."""
    return {**FAILED, "data": {**FAILED["data"], **data}}  # type: ignore[dict-item]


class IssueTracker(loopback.Server):
    """A small GitHub with issues, which holds every request body against GitHub's own description."""

    def __init__(self, contracts: Path) -> None:
        self.issues: list[dict[str, Any]] = []
        self.comments: list[tuple[int, str]] = []
        self.wrong: list[str] = []
        self.page = 100
        self.status = 0
        self._description = json.loads((contracts / "github/openapi.pruned.json").read_text())
        outer = self

        class Handler(loopback.Handler):
            def get(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                page, size = int(query.get("page", ["1"])[0]), outer.page
                wanted = [one for one in outer.issues if one["state"] == query["state"][0]]
                headers: dict[str, str] = {}
                if page * size < len(wanted):
                    more = f"{outer.url}/repos/octo/models/issues?state=open&page={page + 1}"
                    headers["Link"] = f'<{more}>; rel="next"'
                self.answer(200, wanted[(page - 1) * size : page * size], headers)

            def post(self) -> None:
                body = json.loads(self.body())
                if self.path.endswith("/comments"):
                    outer.check("/repos/{owner}/{repo}/issues/{issue_number}/comments", "post", body)
                    outer.comments.append((int(self.path.split("/")[-2]), body["body"]))
                    self.answer(201, {})
                    return
                outer.check("/repos/{owner}/{repo}/issues", "post", body)
                self.answer(201, outer.add(body["title"], body["body"]))

            def patch(self) -> None:
                body = json.loads(self.body())
                outer.check("/repos/{owner}/{repo}/issues/{issue_number}", "patch", body)
                issue = outer.issues[int(self.path.split("/")[-1]) - 1]
                issue.update(body)
                self.answer(200, issue)

            def answer(self, status: int, body: Any, headers: Mapping[str, str] = {}) -> None:
                if outer.status:
                    status, body = outer.status, {"message": "no"}
                self.reply(status, body, headers)

        super().__init__(Handler)

    def add(self, title: str, body: str, author: str = "github-actions[bot]", **more: Any) -> dict[str, Any]:
        """Open an issue."""
        number = len(self.issues) + 1
        issue = {"number": number, "title": title, "body": body, "state": "open", "user": {"login": author}, **more}
        self.issues.append(issue)
        return issue

    def check(self, path: str, method: str, body: Any) -> None:
        """Note what GitHub's description says against the body."""
        operation = self._description["paths"][path][method]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        validator = jsonschema.Draft202012Validator({**schema, "components": self._description["components"]})
        self.wrong += [error.message for error in validator.iter_errors(body)]
        self.wrong += [f"unknown key {key}" for key in body if key not in schema["properties"]]


@pytest.fixture
def tracker(contracts: Path) -> Iterator[IssueTracker]:
    with IssueTracker(contracts) as serving:
        yield serving
    assert serving.wrong == []


def tell(
    tracker: IssueTracker, folder: Path, payload: Any, *arguments: str, issues: str = "true"
) -> subprocess.CompletedProcess[str]:
    """Run the script as the workflow does."""
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "issues.py"), *(arguments or ("dispatch",))],
        env={
            "PATH": os.environ["PATH"],
            "GITHUB_API_URL": tracker.url,
            "GITHUB_REPOSITORY": "octo/models",
            "GITHUB_TOKEN": "made-up",
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "ISSUES": issues,
            "PAYLOAD": json.dumps(payload),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_failed_run_opens_one_issue(tracker: IssueTracker, tmp_path: Path) -> None:
    """It names job, status and data set, whatever the case of the event's keys."""
    done = tell(tracker, tmp_path, FAILED)
    assert done.returncode == 0, done.stdout
    (issue,) = tracker.issues
    assert issue["title"] == "Training fails: signalbox / digits"
    assert "job `train-sb-aaaaaaaaaaaaaaaaaaaa-1` ended as `Failed`" in issue["body"]
    assert "opened issue #1" in done.stdout
    assert "train-sb-aaaaaaaaaaaaaaaaaaaa-1" in (tmp_path / "summary.md").read_text()


def test_telling_it_again_changes_nothing(tracker: IssueTracker, tmp_path: Path) -> None:
    """A repeated dispatch neither opens an issue nor adds a comment."""
    tell(tracker, tmp_path, FAILED)
    before = dict(tracker.issues[0])
    done = tell(tracker, tmp_path, FAILED)
    assert "tells it already" in done.stdout
    assert (tracker.issues, tracker.comments) == ([before], [])


def test_the_next_failure_is_told_in_the_same_issue(tracker: IssueTracker, tmp_path: Path) -> None:
    """Its line comes on top of the body, and a comment tells people of it."""
    tell(tracker, tmp_path, FAILED)
    tell(tracker, tmp_path, changed(RunId="train-sb-bbbbbbbbbbbbbbbbbbbb-1"))
    (issue,) = tracker.issues
    told = re.findall(r"^- job `(\S+)`", issue["body"], re.MULTILINE)
    assert told == ["train-sb-bbbbbbbbbbbbbbbbbbbb-1", "train-sb-aaaaaaaaaaaaaaaaaaaa-1"]
    assert [number for number, _ in tracker.comments] == [1]


@pytest.mark.parametrize("other", [{"runTags": {"data_set": "iris"}}, {"experimentName": "other"}])
def test_another_data_set_or_experiment_has_its_own_issue(
    tracker: IssueTracker, tmp_path: Path, other: dict[str, Any]
) -> None:
    """What somebody else has to mend stands elsewhere."""
    tell(tracker, tmp_path, FAILED)
    tell(tracker, tmp_path, changed(**other))
    assert len(tracker.issues) == 2


def test_a_closed_issue_stays_closed(tracker: IssueTracker, tmp_path: Path) -> None:
    """What fails again after it was mended is a new issue."""
    tell(tracker, tmp_path, FAILED)
    tracker.issues[0]["state"] = "closed"
    tell(tracker, tmp_path, changed(RunId="later"))
    assert [issue["state"] for issue in tracker.issues] == ["closed", "open"]


def test_the_issue_is_found_on_a_later_page(tracker: IssueTracker, tmp_path: Path) -> None:
    """Many open issues and pull requests do not hide it."""
    tracker.page = 2
    for number in range(5):
        tracker.add(f"another {number}", "", "somebody")
    tell(tracker, tmp_path, FAILED)
    tell(tracker, tmp_path, changed(RunId="later"))
    assert len(tracker.issues) == 6
    assert "`later`" in tracker.issues[5]["body"]


def test_a_foreign_issue_with_the_marker_is_left_alone(tracker: IssueTracker, tmp_path: Path) -> None:
    """Nobody can make the workflow write into their own issue, or into a pull request."""
    tell(tracker, tmp_path, FAILED)
    body = tracker.issues[0]["body"]
    tracker.issues.clear()
    tracker.add("mine", body, "somebody")
    tracker.add("a pull request", body, pull_request={})
    tell(tracker, tmp_path, FAILED)
    assert len(tracker.issues) == 3


def test_two_that_were_opened_at_once_become_one(tracker: IssueTracker, tmp_path: Path) -> None:
    """The run whose issue is the younger one closes it and adds to the older."""
    tell(tracker, tmp_path, FAILED)
    first = tracker.issues.pop()
    add = tracker.add

    def slower(title: str, body: str) -> dict[str, Any]:
        tracker.issues.append({**first, "number": 1})
        return add(title, body)

    tracker.add = slower  # type: ignore[method-assign,assignment]
    tell(tracker, tmp_path, changed(RunId="later"))
    assert [(issue["number"], issue["state"]) for issue in tracker.issues] == [(1, "open"), (2, "closed")]
    assert "`later`" in tracker.issues[0]["body"]


def test_drift_is_told_with_its_figures(tracker: IssueTracker, tmp_path: Path) -> None:
    """Coefficient and span stand there, in an issue of the monitor."""
    payload = {
        "event_type": "machinelearningservices-datasetdriftdetected",
        "dispatch_id": "sb-cccccccccccccccccccc",
        "data": {"dataDriftName": "digits", "driftCoefficient": 0.42, "startTime": "2026-11-01T00:00:00Z"},
    }
    tell(tracker, tmp_path, payload)
    assert tracker.issues[0]["title"] == "Data drifts: digits"
    assert "coefficient `0.42` from `2026-11-01T00:00:00Z`" in tracker.issues[0]["body"]


def test_dead_letters_and_faults_are_told_once_each(tracker: IssueTracker, tmp_path: Path) -> None:
    """What the commands list day after day comes up once; an empty list opens nothing."""
    letters = [{"id": f"dl-{n}", "type": "T", "subject": "s", "reason": "not JSON"} for n in range(40)]
    faults = [{"check": "token", "about": "o/r", "state": "fault", "says": "it expires", "mend": "renew"}]
    for kind, listed in (("dead-letters", letters), ("faults", faults), ("faults", []), ("dead-letters", [])):
        path = tmp_path / "list.json"
        path.write_text(json.dumps(listed))
        for _ in range(2):
            assert tell(tracker, tmp_path, None, kind, str(path)).returncode == 0
    assert [issue["title"] for issue in tracker.issues] == ["Events could not be used", "Signalbox needs a hand"]
    assert "…and 10 more." in tracker.issues[0]["body"]
    assert "Nothing to report about faults." in (tmp_path / "summary.md").read_text()
    assert tracker.comments == []


def test_one_machine_has_no_issues(tracker: IssueTracker, tmp_path: Path) -> None:
    """There the summary says so, and nobody is called."""
    tracker.status = 500
    done = tell(tracker, tmp_path, FAILED, issues="false")
    assert done.returncode == 0
    assert "no issue tracker on one machine" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(("status", "words"), [(403, "issues: write"), (410, "switch the repository's issues on")])
def test_a_refusal_names_its_mend(tracker: IssueTracker, tmp_path: Path, status: int, words: str) -> None:
    """The run fails with one sentence."""
    tracker.status = status
    done = tell(tracker, tmp_path, FAILED)
    assert done.returncode == 1
    assert done.stdout.startswith("::error title=Report::")
    assert words in done.stdout


def test_an_unknown_kind_is_refused(tracker: IssueTracker, tmp_path: Path) -> None:
    """A type that notify.yml listens to by mistake is named."""
    done = tell(tracker, tmp_path, {"event_type": "storage-blobcreated"})
    assert done.returncode == 1
    assert "storage-blobcreated" in done.stdout


@given(st.text(max_size=400), st.text(max_size=400))
def test_nothing_in_an_event_gets_out_of_its_code_span(run: str, status: str) -> None:
    """No mention, no markup, no hidden marker and no line of its own, whatever an outsider calls a job."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        import issues
        import occurrences
    finally:
        sys.path.remove(str(SCRIPTS))
    report = occurrences.of_dispatch(changed(RunId=run, runStatus=status))
    body = issues.body_of(report, (), report.occurrences, "")
    (line,) = [line for line in body.splitlines() if line.startswith("- ")]
    outside = re.sub(r"`[^`]*`", "", line)
    assert outside == "- job  ended as "
    assert body.count("<!--") == 2
    assert len(issues.known_in(body)) == 1
