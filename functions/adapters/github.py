"""GitHub's REST API as the flow's port: its calls. What an answer means is decided in core."""

from __future__ import annotations

from functions.adapters.github_http import GitHubHttp
from functions.adapters.github_tokens import Token
from functions.adapters.threads import in_github_thread
from functions.core.github import PAGE, Answer, NoAnswer, Span
from functions.core.github_app import read_second_refusal, refuses_token
from functions.core.values import JsonObject, compact_json

_TIMEOUT = (5, 15)  # seconds to connect, seconds between bytes of the answer


class GitHubRest:
    """Follows "Create a repository dispatch event", "Create a workflow dispatch event", "List workflow runs", and jobs.

    Workflow files have names of letters, digits, dots, dashes and underscores; the routes file sees to that.
    """

    def __init__(self, api_url: str, token: Token) -> None:
        """`api_url` without a slash at its end."""
        self._http = GitHubHttp(api_url)
        self._token = token

    @in_github_thread
    def create_dispatch(self, repository: str, body: JsonObject) -> Answer | NoAnswer:
        """POST /repos/{repository}/dispatches."""
        return self._call("POST", f"/repos/{repository}/dispatches", body=compact_json(body))

    @in_github_thread
    def start_workflow(self, repository: str, workflow: str, body: JsonObject) -> Answer | NoAnswer:
        """POST /repos/{repository}/actions/workflows/{workflow}/dispatches."""
        return self._call(
            "POST", f"/repos/{repository}/actions/workflows/{workflow}/dispatches", body=compact_json(body)
        )

    @in_github_thread
    def list_runs(self, repository: str, trigger: str, span: Span, page: int) -> Answer | NoAnswer:
        """GET /repos/{repository}/actions/runs."""
        query = {"event": trigger, "created": span.query, "per_page": str(PAGE), "page": str(page)}
        return self._call("GET", f"/repos/{repository}/actions/runs", query=query)

    @in_github_thread
    def list_jobs(self, repository: str, run_id: int) -> Answer | NoAnswer:
        """GET /repos/{repository}/actions/runs/{run_id}/jobs."""
        return self._call("GET", f"/repos/{repository}/actions/runs/{run_id}/jobs", query={"per_page": "100"})

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
