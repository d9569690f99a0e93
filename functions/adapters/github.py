"""GitHub's REST API as the flow's port: its calls. What an answer means is decided in core."""

from __future__ import annotations

from functions.adapters.github_http import GitHubHttp
from functions.adapters.github_tokens import Token
from functions.adapters.threads import in_github_thread
from functions.core.github import PAGE, RUN_DETAILS, Answer, NoAnswer, Span, moved_within, refuses_run_details
from functions.core.github_app import read_second_refusal, refuses_token
from functions.core.values import JsonObject, compact_json

_TIMEOUT = (5, 15)  # seconds to connect, seconds between bytes of the answer


class GitHubRest:
    """Follows GitHub's descriptions of its endpoints for repository and workflow dispatches, workflow runs and jobs.

    Workflow files have names of letters, digits, dots, dashes and underscores; the routes file sees to that.
    """

    def __init__(self, api_url: str, token: Token) -> None:
        """`api_url` without a slash at its end."""
        self._api_url = api_url
        self._http = GitHubHttp(api_url)
        self._token = token

    @in_github_thread
    def create_dispatch(self, repository: str, body: JsonObject) -> Answer | NoAnswer:
        """POST /repos/{repository}/dispatches."""
        return self._call("POST", f"/repos/{repository}/dispatches", body=compact_json(body))

    @in_github_thread
    def start_workflow(self, repository: str, workflow: str, body: JsonObject) -> Answer | NoAnswer:
        """POST /repos/{repository}/actions/workflows/{workflow}/dispatches; once more where it is an older server's."""
        path = f"/repos/{repository}/actions/workflows/{workflow}/dispatches"
        answer = self._call("POST", path, body=compact_json(body))
        if not refuses_run_details(answer):
            return answer
        known = {name: value for name, value in body.items() if name != RUN_DETAILS}
        return self._call("POST", path, body=compact_json(known))

    @in_github_thread
    def list_runs(self, repository: str, trigger: str, span: Span, page: int) -> Answer | NoAnswer:
        """GET /repos/{repository}/actions/runs."""
        query = {"event": trigger, "created": span.query, "per_page": str(PAGE), "page": str(page)}
        return self._get(f"/repos/{repository}/actions/runs", query)

    @in_github_thread
    def get_run(self, repository: str, run_id: int) -> Answer | NoAnswer:
        """GET /repos/{repository}/actions/runs/{run_id}."""
        return self._get(f"/repos/{repository}/actions/runs/{run_id}")

    @in_github_thread
    def list_jobs(self, repository: str, run_id: int) -> Answer | NoAnswer:
        """GET /repos/{repository}/actions/runs/{run_id}/jobs, with those of the attempts before it was run again."""
        query = {"filter": "all", "per_page": "100"}
        return self._get(f"/repos/{repository}/actions/runs/{run_id}/jobs", query)

    def _get(self, path: str, query: dict[str, str] | None = None) -> Answer | NoAnswer:
        """Ask, and once more where a repository that was renamed has moved to. A dispatch to it is parked instead."""
        answer = self._call("GET", path, query=query)
        moved = moved_within(answer, self._api_url)
        if not moved:
            return answer
        return self._call("GET", moved, query=None if "?" in moved else query)

    def _call(
        self, method: str, path: str, *, body: str | None = None, query: dict[str, str] | None = None
    ) -> Answer | NoAnswer:
        """Make the call; where GitHub refuses the token, once more with another. A refused call had no effect."""

        def send(token: str) -> Answer | NoAnswer:
            return self._http.call(method, path, token, timeout=_TIMEOUT, body=body, query=query)

        token = self._token.get()
        if not isinstance(token, str):
            return token
        answer = send(token)
        if not refuses_token(answer) or not self._token.drop(token):
            return answer
        another = self._token.get()
        if not isinstance(another, str):
            return another
        answer = send(another)
        return read_second_refusal(answer) if refuses_token(answer) else answer
