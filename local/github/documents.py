"""The JSON documents of GitHub's REST API, in the shapes of its OpenAPI description."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

from local.github.runs import Run
from local.github.workflows import Workflow

BRANCH = "main"
"""The one branch of the repository: the working tree as it stands."""

_REPOSITORY_URLS = {
    "archive": "/{archive_format}{/ref}",
    "assignees": "{/user}",
    "blobs": "/git/blobs{/sha}",
    "branches": "{/branch}",
    "collaborators": "{/collaborator}",
    "comments": "{/number}",
    "commits": "{/sha}",
    "compare": "/{base}...{head}",
    "contents": "/{+path}",
    "contributors": "",
    "deployments": "",
    "downloads": "",
    "events": "",
    "forks": "",
    "git_commits": "/git/commits{/sha}",
    "git_refs": "/git/refs{/sha}",
    "git_tags": "/git/tags{/sha}",
    "hooks": "",
    "issue_comment": "/issues/comments{/number}",
    "issue_events": "/issues/events{/number}",
    "issues": "{/number}",
    "keys": "{/key_id}",
    "labels": "{/name}",
    "languages": "",
    "merges": "",
    "milestones": "{/number}",
    "notifications": "{?since,all,participating}",
    "pulls": "{/number}",
    "releases": "{/id}",
    "stargazers": "",
    "statuses": "/{sha}",
    "subscribers": "",
    "subscription": "",
    "tags": "",
    "teams": "",
    "trees": "/git/trees{/sha}",
}
_USER_URLS = {
    "events": "/events{/privacy}",
    "followers": "/followers",
    "following": "/following{/other_user}",
    "gists": "/gists{/gist_id}",
    "organizations": "/orgs",
    "received_events": "/received_events",
    "repos": "/repos",
    "starred": "/starred{/owner}{/repo}",
    "subscriptions": "/subscriptions",
}


def number_of(text: str) -> int:
    """A steady id for something that GitHub numbers."""
    return zlib.crc32(text.encode()) + 1


def error(message: str, status: int, page: str = "") -> dict[str, str]:
    """GitHub's answer to a request that it refuses."""
    return {"message": message, "documentation_url": f"https://docs.github.com/rest{page}", "status": str(status)}


def _node(kind: str, number: int) -> str:
    return f"{kind}_{base64.urlsafe_b64encode(str(number).encode()).decode().rstrip('=')}"


@dataclass(frozen=True, slots=True)
class Documents:
    """Writes the documents of one repository; `base` is the address at which this server is reached."""

    base: str
    owner: str
    name: str
    since: str

    @property
    def api(self) -> str:
        """The repository's address in the API."""
        return f"{self.base}/repos/{self.owner}/{self.name}"

    @property
    def html(self) -> str:
        """The repository's address for people."""
        return f"{self.base}/{self.owner}/{self.name}"

    def user(self) -> dict[str, Any]:
        """The owner: `simple-user`."""
        number, url = number_of(self.owner), f"{self.base}/users/{self.owner}"
        return {
            "login": self.owner,
            "id": number,
            "node_id": _node("U", number),
            "avatar_url": f"{self.base}/avatars/{self.owner}",
            "gravatar_id": "",
            "url": url,
            "html_url": f"{self.base}/{self.owner}",
            "type": "User",
            "site_admin": False,
            **{f"{name}_url": url + rest for name, rest in _USER_URLS.items()},
        }

    def short_repository(self) -> dict[str, Any]:
        """`minimal-repository`."""
        number = number_of(f"{self.owner}/{self.name}")
        urls = {
            f"{name}_url": self.api + (rest if rest.startswith(("/git/", "/issues/")) else f"/{name}{rest}")
            for name, rest in _REPOSITORY_URLS.items()
        }
        return {
            "id": number,
            "node_id": _node("R", number),
            "name": self.name,
            "full_name": f"{self.owner}/{self.name}",
            "owner": self.user(),
            "private": True,
            "html_url": self.html,
            "description": None,
            "fork": False,
            "url": self.api,
            **urls,
        }

    def repository(self) -> dict[str, Any]:
        """`full-repository`."""
        counts = ("forks", "forks_count", "open_issues", "open_issues_count", "size", "stargazers_count")
        more = ("watchers", "watchers_count", "network_count", "subscribers_count")
        switches = ("has_issues", "has_projects", "has_wiki", "has_pages", "has_discussions", "archived", "disabled")
        clone = f"https://github.com/{self.owner}/{self.name}"
        return {
            **self.short_repository(),
            "clone_url": f"{clone}.git",
            "git_url": f"git://github.com/{self.owner}/{self.name}.git",
            "ssh_url": f"git@github.com:{self.owner}/{self.name}.git",
            "svn_url": clone,
            "default_branch": BRANCH,
            **dict.fromkeys((*counts, *more), 0),
            **dict.fromkeys(switches, False),
            **dict.fromkeys(("homepage", "language", "mirror_url", "license")),
            **dict.fromkeys(("pushed_at", "created_at", "updated_at"), self.since),
            "has_downloads": False,
            "is_template": False,
            "web_commit_signoff_required": False,
            "topics": [],
            "visibility": "private",
            "custom_properties": {},
            "permissions": {"admin": False, "maintain": False, "push": True, "triage": True, "pull": True},
        }

    def run(self, run: Run) -> dict[str, Any]:
        """`workflow-run`."""
        url, workflow = f"{self.api}/actions/runs/{run.id}", number_of(run.workflow_path)
        return {
            "id": run.id,
            "name": run.workflow_name,
            "node_id": _node("WFR", run.id),
            "check_suite_id": run.id,
            "head_branch": BRANCH,
            "head_sha": run.head_sha,
            "path": run.workflow_path,
            "display_title": run.display_title,
            "run_number": run.run_number,
            "run_attempt": 1,
            "event": run.event_name,
            "status": run.status,
            "conclusion": run.conclusion,
            "workflow_id": workflow,
            "url": url,
            "html_url": f"{self.html}/actions/runs/{run.id}",
            "pull_requests": [],
            "created_at": run.created_at,
            "updated_at": run.updated_at,
            "run_started_at": run.run_started_at,
            "actor": self.user(),
            "triggering_actor": self.user(),
            "referenced_workflows": [],
            "jobs_url": f"{url}/jobs",
            "logs_url": f"{url}/logs",
            "check_suite_url": f"{self.api}/check-suites/{run.id}",
            "artifacts_url": f"{url}/artifacts",
            "cancel_url": f"{url}/cancel",
            "rerun_url": f"{url}/rerun",
            "previous_attempt_url": None,
            "workflow_url": f"{self.api}/actions/workflows/{workflow}",
            "head_commit": None,
            "repository": self.short_repository(),
            "head_repository": self.short_repository(),
        }

    def job(self, run: Run, place: int, job: dict[str, Any]) -> dict[str, Any]:
        """`job`; `place` is its place in the run, from 0."""
        number = run.id * 100 + place
        url = f"{self.api}/actions/jobs/{number}"
        return {
            "id": number,
            "run_id": run.id,
            "run_url": f"{self.api}/actions/runs/{run.id}",
            "run_attempt": 1,
            "node_id": _node("CR", number),
            "head_sha": run.head_sha,
            "head_branch": BRANCH,
            "workflow_name": run.workflow_name,
            "name": job["name"],
            "url": url,
            "html_url": f"{self.html}/actions/runs/{run.id}#job-{place}",
            "check_run_url": f"{self.api}/check-runs/{number}",
            "status": job["status"],
            "conclusion": job["conclusion"],
            "created_at": run.created_at,
            "started_at": job["started_at"] or run.run_started_at,
            "completed_at": job["completed_at"],
            "steps": job["steps"],
            "labels": ["ubuntu-latest"],
            "runner_id": 1,
            "runner_name": "this machine",
            "runner_group_id": 1,
            "runner_group_name": "Default",
        }

    def workflow(self, workflow: Workflow) -> dict[str, Any]:
        """`workflow`."""
        number = number_of(workflow.path)
        return {
            "id": number,
            "node_id": _node("W", number),
            "name": workflow.name,
            "path": workflow.path,
            "state": "active",
            "created_at": self.since,
            "updated_at": self.since,
            "url": f"{self.api}/actions/workflows/{number}",
            "html_url": f"{self.html}/blob/main/{workflow.path}",
            "badge_url": f"{self.html}/workflows/{number}/badge.svg",
        }

    def dispatch_event(self, event_type: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The webhook event `repository_dispatch` as a workflow finds it in `github.event`."""
        return {"action": event_type, "branch": BRANCH, "client_payload": payload, **self._where()}

    def workflow_dispatch_event(self, workflow_path: str, inputs: dict[str, str]) -> dict[str, Any]:
        """The webhook event `workflow_dispatch` as a workflow finds it in `github.event`."""
        return {"inputs": inputs, "ref": f"refs/heads/{BRANCH}", "workflow": workflow_path, **self._where()}

    def _where(self) -> dict[str, Any]:
        """The repository and the sender as webhook events have them."""
        only_in_the_api = {"network_count", "subscribers_count"}
        repository = {key: value for key, value in self.repository().items() if key not in only_in_the_api}
        return {"repository": repository, "sender": self.user()}

    def started_run(self, run: Run) -> dict[str, Any]:
        """`workflow-dispatch-response`."""
        return {
            "workflow_run_id": run.id,
            "run_url": f"{self.api}/actions/runs/{run.id}",
            "html_url": f"{self.html}/actions/runs/{run.id}",
        }
