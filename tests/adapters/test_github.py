"""GitHubRest against a real HTTP server: what is sent, and what becomes of every way in which a call can end."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import pytest

from functions.adapters import github
from functions.adapters.github import GitHubRest
from functions.adapters.github_tokens import PersonalToken
from functions.adapters.threads import THREADS, in_thread
from functions.core.dispatch import Dispatch
from functions.core.github import Answer, NoAnswer, Span
from functions.core.payload import build_inputs, build_request

TOKEN = "github_pat_made_up"
SINCE = datetime(2026, 11, 20, 12, 0, 0, 999_999, tzinfo=UTC)


@dataclass
class Request:
    """What came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The path without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's values."""
        return parse_qs(urlsplit(self.target).query, strict_parsing=True)


@dataclass
class Server:
    """A small server; `answer` is written as it stands, `reset` closes the connection hard, None never answers.

    `first` are the answers to the first requests.
    """

    answer: bytes | None = b"HTTP/1.1 204 No Content\r\n\r\n"
    reset: bool = False
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    first: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests on one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append(Request(method, target, headers, body))
                if self.reset:
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    break
                if self.answer is None:
                    await asyncio.Event().wait()
                writer.write(self.first.pop(0) if self.first else self.answer or b"")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Server]:
    """The server on a free port of 127.0.0.1."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await server.serve(reader, writer)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def response(status: str, body: str = "", **headers: str) -> bytes:
    """An HTTP response."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    lines.append(f"Content-Length: {len(body.encode())}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def a_dispatch() -> Dispatch:
    """A dispatch, as either door gets it."""
    return Dispatch(
        id="sb-aaaaaaaaaaaaaaaaaaaa",
        route="train",
        key="digits",
        event_type="storage-blobcreated",
        repository="octo/models",
        source="Microsoft.Storage.BlobCreated",
        subject="/s/é",
        data={"url": "u"},
        event_count=1,
        manifest=None,
        created=SINCE,
        ref="main",
    )


def a_request() -> dict[str, Any]:
    """The body of a dispatch to the repository."""
    return dict(build_request(a_dispatch()))


@pytest.fixture
def operation(contracts: Path) -> Callable[[str, str], dict[str, Any]]:
    """Finds an operation of GitHub's published description."""
    document = json.loads((contracts / "github/openapi.pruned.json").read_bytes())

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                target: Any = document
                for part in node["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
                return resolved(target)
            return {name: resolved(value) for name, value in node.items() if name != "responses"}
        return [resolved(item) for item in node] if isinstance(node, list) else node

    return lambda method, path: dict(resolved(document["paths"][path][method]))


async def test_the_dispatch_request(operation: Callable[[str, str], dict[str, Any]]) -> None:
    """POST to the documented path, with a body that GitHub's own description accepts."""
    async with running(Server()) as server:
        answer = await GitHubRest(server.url, PersonalToken(TOKEN)).create_dispatch("octo/models", a_request())
    assert answer == Answer(204, {}, "")
    (request,) = server.requests
    described = operation("post", "/repos/{owner}/{repo}/dispatches")
    assert (request.method, request.target) == ("POST", "/repos/octo/models/dispatches")
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == a_request()
    jsonschema.validate(json.loads(request.body), described["requestBody"]["content"]["application/json"]["schema"])


async def test_the_workflow_request(operation: Callable[[str, str], dict[str, Any]]) -> None:
    """POST to the documented path of one workflow file, with a body that GitHub's own description accepts."""
    told = '{"workflow_run_id": 7, "run_url": "https://api/7", "html_url": "https://html/7"}'
    body = dict(build_inputs(a_dispatch()))
    async with running(Server(response("200 OK", told))) as server:
        rest = GitHubRest(server.url, PersonalToken(TOKEN))
        answer = await rest.start_workflow("octo/models", "train_model.yml", body)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (200, told)
    (request,) = server.requests
    described = operation("post", "/repos/{owner}/{repo}/actions/workflows/{workflow_id}/dispatches")
    assert (request.method, request.target) == (
        "POST",
        "/repos/octo/models/actions/workflows/train_model.yml/dispatches",
    )
    assert json.loads(request.body) == body
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    assert set(body) == set(schema["properties"])
    jsonschema.validate(json.loads(request.body), schema)


async def test_a_server_that_cannot_name_the_run() -> None:
    """GitHub Enterprise Server 3.19 refuses the wish for it (benc-uk/workflow-dispatch#86): then it is not asked."""
    refusal = json.dumps({"message": 'Invalid request.\n\n"return_run_details" is not a permitted key.'})
    body = dict(build_inputs(a_dispatch()))
    async with running(Server(first=[response("422 Unprocessable Entity", refusal)])) as server:
        answer = await GitHubRest(server.url, PersonalToken(TOKEN)).start_workflow("octo/models", "t.yml", body)
    assert isinstance(answer, Answer)
    assert answer.status == 204
    first, second = (json.loads(request.body) for request in server.requests)
    assert first == body
    assert second == {"ref": body["ref"], "inputs": body["inputs"]}


@pytest.mark.parametrize(
    ("span", "created"),
    [
        (Span(SINCE), ">=2026-11-20T12:00:00Z"),
        (Span(SINCE, SINCE + timedelta(minutes=1)), "2026-11-20T12:00:00Z..2026-11-20T12:01:00Z"),
    ],
)
async def test_the_listing_request(operation: Callable[[str, str], dict[str, Any]], span: Span, created: str) -> None:
    """GET with the documented parameters only, each of the documented type."""
    async with running(Server(response("200 OK", '{"workflow_runs": []}'))) as server:
        answer = await GitHubRest(server.url, PersonalToken(TOKEN)).list_runs(
            "octo/models", "workflow_dispatch", span, 3
        )
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (200, '{"workflow_runs": []}')
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/repos/octo/models/actions/runs")
    assert request.query == {
        "event": ["workflow_dispatch"],
        "created": [created],
        "per_page": ["100"],
        "page": ["3"],
    }
    described = {
        parameter["name"]: parameter["schema"]
        for parameter in operation("get", "/repos/{owner}/{repo}/actions/runs")["parameters"]
        if parameter["in"] == "query"
    }
    for name, (value,) in request.query.items():
        instance = int(value) if described[name]["type"] == "integer" else value
        jsonschema.validate(instance, {key: item for key, item in described[name].items() if key != "format"})


@pytest.mark.parametrize("rest", ["", "?page=7"])
async def test_a_renamed_repository_is_read_where_it_is_now(rest: str) -> None:
    """What it accepted under its old name is found: "you should follow the redirect", says GitHub of any request."""
    async with running(Server(response("200 OK", '{"workflow_runs": []}'))) as server:
        server.first.append(response("301 Moved", Location=f"{server.url}/repositories/1/actions/runs{rest}"))
        answer = await GitHubRest(server.url, PersonalToken(TOKEN)).list_runs(
            "octo/old", "repository_dispatch", Span(SINCE), 3
        )
    assert isinstance(answer, Answer)
    assert answer.status == 200
    first, second = server.requests
    assert second.path == "/repositories/1/actions/runs"
    assert second.query == ({"page": ["7"]} if rest else first.query)
    assert second.headers["authorization"] == f"Bearer {TOKEN}"


async def test_the_request_of_one_run(operation: Callable[[str, str], dict[str, Any]]) -> None:
    """GET to the documented path."""
    async with running(Server(response("200 OK", '{"id": 7}'))) as server:
        answer = await GitHubRest(server.url, PersonalToken(TOKEN)).get_run("octo/models", 7)
    assert isinstance(answer, Answer)
    assert answer.body == '{"id": 7}'
    assert [(request.method, request.target) for request in server.requests] == [
        ("GET", "/repos/octo/models/actions/runs/7")
    ]
    operation("get", "/repos/{owner}/{repo}/actions/runs/{run_id}")


async def test_the_jobs_request(operation: Callable[[str, str], dict[str, Any]]) -> None:
    """GET to the documented path, with documented parameters; GitHub's default are the jobs of the last attempt."""
    async with running(Server(response("200 OK", '{"total_count": 0, "jobs": []}'))) as server:
        answer = await GitHubRest(server.url, PersonalToken(TOKEN)).list_jobs("octo/models", 7)
    assert isinstance(answer, Answer)
    assert answer.body == '{"total_count": 0, "jobs": []}'
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/repos/octo/models/actions/runs/7/jobs")
    assert request.query == {"filter": ["all"], "per_page": ["100"]}
    described = operation("get", "/repos/{owner}/{repo}/actions/runs/{run_id}/jobs")["parameters"]
    (attempts,) = (parameter["schema"] for parameter in described if parameter["name"] == "filter")
    assert "all" in attempts["enum"]
    assert attempts["default"] == "latest"


async def test_headers() -> None:
    """Token, API version, and the User-Agent without which GitHub refuses."""
    async with running(Server()) as server:
        await GitHubRest(server.url, PersonalToken(TOKEN)).create_dispatch("octo/models", a_request())
    headers = server.requests[0].headers
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["accept"] == "application/vnd.github+json"
    assert headers["x-github-api-version"] == "2022-11-28"
    assert headers["user-agent"] == "signalbox"


async def test_a_netrc_does_not_replace_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engineer's own credentials for the same host are never sent instead of ours."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with running(Server()) as server:
        await GitHubRest(server.url, PersonalToken(TOKEN)).create_dispatch("octo/models", a_request())
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """The token goes to no other address, and a moved repository is told."""
    async with running(Server()) as elsewhere:
        moved = response(f"{status} Moved", Location=f"{elsewhere.url}/repositories/1/dispatches")
        async with running(Server(moved)) as server:
            answer = await GitHubRest(server.url, PersonalToken(TOKEN)).create_dispatch("octo/models", a_request())
    assert isinstance(answer, Answer)
    assert (answer.status, answer.headers["location"]) == (status, f"{elsewhere.url}/repositories/1/dispatches")
    assert len(server.requests) == 1
    assert not elsewhere.requests


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429, 500, 503])
async def test_every_status_is_an_answer(status: int) -> None:
    """Status, headers in lower case and body come back as they are; nothing is sent again from here."""
    told = response(f"{status} X", '{"message": "é"}', Retry_After="7", X_RateLimit_Remaining="0")
    async with running(Server(told)) as server:
        answer = await GitHubRest(server.url, PersonalToken(TOKEN)).create_dispatch("octo/models", a_request())
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (status, '{"message": "é"}')
    assert (answer.headers["retry-after"], answer.headers["x-ratelimit-remaining"]) == ("7", "0")
    assert len(server.requests) == 1


async def test_a_refused_connection_never_got_there(free_port: Callable[[], int]) -> None:
    """Nobody listens: it can be sent again without looking."""
    answer = await GitHubRest(f"http://127.0.0.1:{free_port()}", PersonalToken(TOKEN)).create_dispatch(
        "octo/models", a_request()
    )
    assert isinstance(answer, NoAnswer)
    assert answer.reached is False
    assert "GitHub" in answer.reason


async def test_an_unknown_name_never_got_there() -> None:
    """The name does not resolve: neither did the request leave."""
    answer = await GitHubRest("https://github.invalid", PersonalToken(TOKEN)).create_dispatch(
        "octo/models", a_request()
    )
    assert isinstance(answer, NoAnswer)
    assert answer.reached is False


async def test_a_reset_after_the_request_is_unknown() -> None:
    """GitHub read it and the connection broke: it may have been taken."""
    async with running(Server(reset=True)) as server:
        answer = await GitHubRest(server.url, PersonalToken(TOKEN)).create_dispatch("octo/models", a_request())
    assert isinstance(answer, NoAnswer)
    assert answer.reached is True
    assert len(server.requests) == 1


async def test_a_reset_on_a_connection_used_before_is_unknown() -> None:
    """The pooled connection breaks under the second request: unknown, and not sent again from here."""
    async with running(Server()) as server:
        rest = GitHubRest(server.url, PersonalToken(TOKEN))
        assert await rest.create_dispatch("octo/models", a_request()) == Answer(204, {}, "")
        server.reset = True
        answer = await rest.create_dispatch("octo/models", a_request())
    assert isinstance(answer, NoAnswer)
    assert answer.reached is True
    assert len(server.requests) == 2


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
async def test_an_answer_that_does_not_come_is_unknown(answer: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence, and an answer that stops in its middle: it may have been taken."""
    monkeypatch.setattr(github, "_TIMEOUT", (5, 0.3))
    async with running(Server(answer)) as server:
        found = await GitHubRest(server.url, PersonalToken(TOKEN)).create_dispatch("octo/models", a_request())
    assert isinstance(found, NoAnswer)
    assert found.reached is True
    assert len(server.requests) == 1


async def test_a_listing_that_breaks_off_is_not_repeated_from_here() -> None:
    """A GET is asked again by the watch, at GitHub's pace; not at once by the pool."""
    async with running(Server(reset=True)) as server:
        answer = await GitHubRest(server.url, PersonalToken(TOKEN)).list_runs("octo/models", "x", Span(SINCE), 1)
    assert isinstance(answer, NoAnswer)
    assert len(server.requests) == 1


async def test_a_host_that_does_not_take_connections_was_never_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection times out: it can be sent again without looking."""
    monkeypatch.setattr(github, "_TIMEOUT", (0.3, 5))
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        answer = await GitHubRest(url, PersonalToken(TOKEN)).create_dispatch("octo/models", a_request())
    assert isinstance(answer, NoAnswer)
    assert answer.reached is False


@pytest.mark.parametrize(
    "answer",
    [
        response("200 OK", "no gzip", Content_Encoding="gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
    ],
)
async def test_an_answer_that_cannot_be_decoded_is_unknown(answer: bytes) -> None:
    """A proxy spoils it on its way: it may have been taken."""
    async with running(Server(answer)) as server:
        found = await GitHubRest(server.url, PersonalToken(TOKEN)).create_dispatch("octo/models", a_request())
    assert isinstance(found, NoAnswer)
    assert found.reached is True


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 99999 X\r\n\r\n", b"\r\n" * 200])
async def test_an_answer_that_is_no_http_is_unknown(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a broken proxy writes is no exception, and no proof that GitHub did not take it."""
    monkeypatch.setattr(github, "_TIMEOUT", (5, 0.3))
    async with running(Server(answer)) as server:
        found = await GitHubRest(server.url, PersonalToken(TOKEN)).create_dispatch("octo/models", a_request())
    assert isinstance(found, NoAnswer)
    assert found.reached is True


async def test_a_storage_that_hangs_holds_up_no_request() -> None:
    """Every thread for storage is taken; a dispatch that is `sending` goes out all the same."""
    go_on = threading.Event()

    class Hanging:
        @in_thread
        def call(self) -> None:
            go_on.wait()

    calls = [asyncio.ensure_future(Hanging().call()) for _ in range(2 * THREADS)]
    await asyncio.sleep(0)
    try:
        async with running(Server()) as server:
            rest = GitHubRest(server.url, PersonalToken(TOKEN))
            answer = await asyncio.wait_for(rest.create_dispatch("octo/models", a_request()), timeout=10)
    finally:
        go_on.set()
        await asyncio.gather(*calls)
    assert isinstance(answer, Answer)
