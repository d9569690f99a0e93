"""The API of the GitHub stand-in, through a real server, held against GitHub's own OpenAPI description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from github_fixtures import NAME, OWNER, TOKEN, Server
from jsonschema import Draft7Validator
from openapi_core import OpenAPI
from openapi_core.contrib.requests import RequestsOpenAPIRequest, RequestsOpenAPIResponse

from local.github.gate import Gate
from local.github.requests import Refused, created_filter, read_page

LISTENER = """
name: {name}
run-name: {name} ${{{{ github.event.client_payload.dispatch_id }}}}
on: {{repository_dispatch: {{types: [{types}]}}}}
jobs:
  only:
    runs-on: ubuntu-latest
    steps: [{{name: Say, run: echo hello}}]
"""
ODD = '<script>alert("x")</script> & $(touch x)'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which two workflows listen to `two`, one of them to `one`, and three runs have ended."""
    workflows = {
        "train.yml": LISTENER.format(name="Train", types="one, two"),
        "deploy.yml": LISTENER.format(name="Deploy", types="two"),
        "broken.yml": "on: [",
    }
    server = Server(tmp_path_factory.mktemp("github"), workflows).start()
    try:
        server.dispatch("two", dispatch_id="sb-two")
        server.dispatch("one", dispatch_id=ODD)
        server.settled(3)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def openapi(contracts: Path) -> OpenAPI:
    """GitHub's own description of its API."""
    document = json.loads((contracts / "github/openapi.pruned.json").read_text(encoding="utf-8"))
    return OpenAPI.from_dict({**document, "servers": [{"url": "/"}]})


def test_dispatch_starts_each_workflow_that_listens(server: Server) -> None:
    """Each listening workflow gets its own run, titled by its run-name; an event type nobody wants is still 204."""
    server.dispatch("nobody-listens")
    assert [(run["name"], run["display_title"]) for run in server.runs()] == [
        ("Deploy", "Deploy sb-two"),
        ("Train", "Train sb-two"),
        ("Train", f"Train {ODD}"),
    ]
    ids = [run["id"] for run in server.runs()]
    assert ids == sorted(set(ids))
    assert ids[0] > 2**32


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/actions/runs"),
        ("GET", "/actions/runs?event=repository_dispatch&status=success&per_page=1&page=2"),
        ("GET", "/actions/runs/{id}"),
        ("GET", "/actions/runs/{id}/jobs"),
        ("GET", "/actions/workflows"),
        ("POST", "/actions/runs/{id}/cancel"),
    ],
)
def test_answer_follows_githubs_description(server: Server, openapi: OpenAPI, method: str, path: str) -> None:
    """Every answer has the status, fields and types of GitHub's OpenAPI description."""
    answer = server.call(method, path.format(id=server.runs()[0]["id"]))
    assert answer.status_code == (409 if method == "POST" else 200)
    openapi.validate_response(RequestsOpenAPIRequest(answer.request), RequestsOpenAPIResponse(answer))


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "Problems parsing JSON"),
        (b"[]", 400, "Body should be a JSON object"),
        ({}, 422, '"event_type" wasn\'t supplied'),
        ({"event_type": 5}, 422, "is not a string"),
        ({"event_type": ""}, 422, "too short"),
        ({"event_type": "x" * 101}, 422, "too long"),
        ({"event_type": "x", "client_payload": []}, 422, "is not an object"),
        ({"event_type": "x", "other": 1}, 422, "not a permitted key"),
        ({"event_type": "x", "client_payload": {str(n): n for n in range(11)}}, 422, "11 were supplied"),
        ({"event_type": "x", "client_payload": {"a": "x" * 65528}}, 422, "too large"),
    ],
)
def test_unusable_dispatch_is_refused(server: Server, openapi: OpenAPI, body: Any, status: int, reason: str) -> None:
    """A dispatch that GitHub does not take is refused with its status and the shape of its message."""
    data = body if isinstance(body, bytes) else json.dumps(body)
    answer = server.call("POST", "/dispatches", data=data, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert reason in answer.json()["message"]
    if status == 422:
        openapi.validate_response(RequestsOpenAPIRequest(answer.request), RequestsOpenAPIResponse(answer))


def test_largest_dispatch_is_taken(server: Server) -> None:
    """100 characters, 10 keys and one byte below 64 KB pass."""
    payload = {str(n): "" for n in range(9)}
    payload["big"] = "x" * (65535 - len(json.dumps({**payload, "big": ""}, separators=(",", ":"))))
    body = {"event_type": "x" * 100, "client_payload": payload}
    answer = server.call("POST", "/dispatches", json=body)
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"Authorization": "Bearer wrong"}, 401, "Bad credentials"),
        ({"Authorization": f"Basic {TOKEN}"}, 401, "Bad credentials"),
        ({"Authorization": None}, 401, "Requires authentication"),
        ({"User-Agent": ""}, 403, "User-Agent"),
        ({"X-GitHub-Api-Version": "2021-01-01"}, 400, "2021-01-01"),
        ({"Host": "evil.example:80"}, 403, "this machine only"),
    ],
)
def test_caller_is_refused(server: Server, headers: dict[str, str | None], status: int, message: str) -> None:
    """Wrong tokens, no User-Agent, unknown API versions and foreign host names are refused as JSON."""
    answer = server.call("POST", "/dispatches", json={"event_type": "x"}, headers=headers)
    assert answer.status_code == status
    assert message in answer.json()["message"]
    assert answer.json()["status"] == str(status)


@pytest.mark.parametrize("path", [f"/repos/{OWNER}/other/dispatches", "/repos/x/y/dispatches", "/repos/x"])
def test_other_repository_is_not_found(server: Server, path: str) -> None:
    """A repository that is not ours, like one without access on GitHub, is 404."""
    headers = {"Authorization": f"Bearer {TOKEN}", "User-Agent": "tests"}
    answer = requests.post(server.base + path, json={"event_type": "x"}, headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["message"]) == (404, "Not Found")


def test_headers_tell_the_limit(server: Server) -> None:
    """Each answer carries Date, the rate limit, which goes down, and the API version in use."""
    first = server.call("GET", "", headers={"X-GitHub-Api-Version": "2026-03-10"})
    second = server.call("GET", "")
    assert first.headers["X-GitHub-Api-Version-Selected"] == "2026-03-10"
    used = [int(answer.headers["X-RateLimit-Used"]) for answer in (first, second)]
    assert used[1] == used[0] + 1
    assert int(second.headers["X-RateLimit-Remaining"]) + used[1] == int(second.headers["X-RateLimit-Limit"])
    assert int(second.headers["X-RateLimit-Reset"]) > parsedate_to_datetime(second.headers["Date"]).timestamp()


def test_limit_is_kept_and_resets() -> None:
    """Beyond 5,000 calls an hour the answer is 403 with nothing remaining; the next hour starts anew."""
    now = [1000.0]
    gate = Gate("t", lambda: now[0])
    for _ in range(5000):
        gate._count()
    with pytest.raises(Refused) as refused:
        gate._count()
    assert refused.value.status == 403
    now[0] += 3600
    gate._count()


def test_list_is_filtered_and_paged(server: Server) -> None:
    """event, status, created and pages choose among the runs, newest first, with GitHub's Link header."""
    runs = server.runs()
    assert server.runs(event="push") == []
    assert len(server.runs(event="repository_dispatch", status="completed")) == 3
    assert server.runs(status="queued") == []
    assert len(server.runs(created=f">={runs[0]['created_at']}")) == 3
    assert server.runs(created="<2020-01-01") == []
    pages = [server.call("GET", "/actions/runs", params={"per_page": "2", "page": str(page)}) for page in (1, 2)]
    ids = [run["id"] for page in pages for run in page.json()["workflow_runs"]]
    assert ids == [run["id"] for run in reversed(runs)]
    assert pages[0].json()["total_count"] == 3
    assert set(pages[0].links) == {"next", "last"}
    assert requests.utils.urlparse(pages[0].links["next"]["url"]).query.endswith("page=2")
    assert server.call("GET", "/actions/runs", params={"created": "yesterday"}).status_code == 422


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=2026-11-20T10:00:00Z", "2026-11-20T10:00:00", "2026-11-20T09:59:59"),
        (">2026-11-20", "2026-11-21T00:00:00", "2026-11-20T23:59:59"),
        ("<=2026-11-20", "2026-11-20T23:59:59", "2026-11-21T00:00:00"),
        ("2026-11-20", "2026-11-20T12:00:00", "2026-11-19T12:00:00"),
        ("2026-11-20..2026-11-22", "2026-11-22T23:00:00", "2026-11-23T00:00:00"),
        ("*..2026-11-20T10:00:00+02:00", "2026-11-20T08:00:00", "2026-11-20T08:00:01"),
        ("2026-11-20..*", "2030-01-01T00:00:00", "2026-11-19T23:59:59"),
    ],
)
def test_created_ranges(text: str, inside: str, outside: str) -> None:
    """The date syntax of GitHub's search covers whole days and seconds."""
    holds = created_filter(text)
    assert holds(datetime.fromisoformat(inside).replace(tzinfo=UTC))
    assert not holds(datetime.fromisoformat(outside).replace(tzinfo=UTC))


def test_odd_pages_are_brought_into_range() -> None:
    """Sizes above 100, zero and text are brought back to what GitHub serves."""
    sizes = [read_page({"per_page": text}).size for text in ("1000", "0", "x", "7", "9" * 30)]
    assert sizes == [100, 30, 30, 7, 30]


def test_jobs_show_their_steps(server: Server) -> None:
    """A finished job lists its steps in order, each with a conclusion and times."""
    (job,) = server.jobs(server.runs()[0]["id"])
    assert [(step["number"], step["name"]) for step in job["steps"]] == [
        (1, "Set up job"),
        (2, "Say"),
        (3, "Complete job"),
    ]
    assert all(step["conclusion"] == "success" and step["completed_at"] for step in job["steps"])


def test_event_follows_the_webhook_schema(server: Server, contracts: Path) -> None:
    """The event that the workflow reads has the required fields of GitHub's repository_dispatch webhook."""
    file = contracts / "github/webhook-schemas.pruned.json"
    event = json.loads(server.text(server.runs()[2]["id"], "event.json"))
    assert (event["action"], event["client_payload"]) == ("one", {"dispatch_id": ODD})
    definitions = json.loads(file.read_text(encoding="utf-8"))["definitions"]
    schema = {"$ref": "#/definitions/repository_dispatch$event", "definitions": definitions}
    event["installation"] = {"id": 1, "node_id": "x"}  # stands only in what GitHub sends to an App
    faults = [f"{list(fault.path)}: {fault.message[:120]}" for fault in Draft7Validator(schema).iter_errors(event)]
    assert faults == []


def test_pages_escape_what_outsiders_wrote(server: Server) -> None:
    """Titles with markup stand as text in both pages; no token is needed; an unknown run is a page with 404."""
    run = server.runs()[2]
    for url in (f"{server.base}/{OWNER}/{NAME}/actions", run["html_url"]):
        page = requests.get(url, timeout=10)
        assert page.status_code == 200
        assert "<script" not in page.text
        assert "&lt;script&gt;" in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "hello" in page.text
    assert requests.get(f"{server.base}/{OWNER}/{NAME}/actions/runs/5", timeout=10).status_code == 404
