"""Workflow dispatches at the GitHub stand-in: what starts, what is refused, held against GitHub's description."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flow.memory import MemoryQueue, MemoryStore
from github_fixtures import NAME, OWNER, TOKEN, Server
from jsonschema import Draft7Validator
from openapi_core import OpenAPI
from openapi_core.contrib.requests import RequestsOpenAPIRequest, RequestsOpenAPIResponse

from functions.adapters.github import GitHubRest
from functions.adapters.github_tokens import PersonalToken
from functions.adapters.system import SystemChance, SystemClock
from functions.core.dispatch import Dispatch, ManifestRef, State
from functions.core.github import Answer, NoAnswer, Sent, read_dispatch_answer
from functions.core.payload import build_inputs
from functions.core.values import parse_time
from functions.flow.budget_keeper import BudgetKeeper
from functions.flow.sender import Sender
from local.github.expressions import evaluate_template
from local.github.inputs import take_inputs, typed
from local.github.requests import Refused
from local.github.workflows import read_workflow

ROOT = Path(__file__).resolve().parents[2]
STARTED = """
name: Started
run-name: started ${{ inputs.dispatch_id }}
on:
  workflow_dispatch:
    inputs:
      dispatch_id: {type: string, default: ""}
      event_type: {type: string, default: ""}
      key: {type: string, default: ""}
      manifest_sha256: {type: string, default: ""}
      payload: {type: string, default: ""}
      folder: {type: string, default: all}
      careful: {type: boolean, default: true}
jobs:
  only:
    runs-on: ubuntu-latest
    steps:
      - name: Say
        env:
          KEY: ${{ inputs.key }}
          SUBJECT: ${{ fromJSON(inputs.payload || '{}').subject }}
          FOLDER: ${{ inputs.folder }}
          CAREFUL: ${{ inputs.careful && 'careful' || 'careless' }}
          EVENT: ${{ github.event_name }}
        run: echo "said <$KEY> <$SUBJECT> <$FOLDER> <$CAREFUL> <$EVENT>"
"""
CHOOSY = """
on: {workflow_dispatch: {inputs: {name: {required: true}, size: {type: choice, options: [small, large]}}}}
jobs: {only: {runs-on: ubuntu-latest, steps: [{run: "true"}]}}
"""
LISTENER = """
on: {repository_dispatch: {types: [one]}}
jobs: {only: {runs-on: ubuntu-latest, steps: [{run: "true"}]}}
"""
ODD = 'it\'s $(touch x) "q" \N{STEAM LOCOMOTIVE}'


def a_dispatch(**changes: Any) -> Dispatch:
    """A dispatch to one workflow, with a name that an outsider made."""
    values: dict[str, Any] = {
        "id": "sb-aaaaaaaaaaaaaaaaaaaa",
        "route": "train",
        "key": ODD,
        "event_type": "storage-blobcreated",
        "repository": f"{OWNER}/{NAME}",
        "source": "Microsoft.Storage.BlobCreated",
        "subject": f"/s/{ODD}",
        "data": {"url": "u"},
        "event_count": 1,
        "manifest": ManifestRef("https://x/sb.jsonl", "0" * 64, 1, 1),
        "created": parse_time("2026-11-20T12:00:00Z"),
        "workflow": "started.yml",
        "ref": "main",
    }
    return Dispatch(**{**values, **changes})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over three workflows, two of which can be started."""
    workflows = {"started.yml": STARTED, "choosy.yml": CHOOSY, "listener.yml": LISTENER}
    server = Server(tmp_path_factory.mktemp("github"), workflows).start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def openapi(contracts: Path) -> OpenAPI:
    """GitHub's own description of its API."""
    document = json.loads((contracts / "github/openapi.pruned.json").read_text(encoding="utf-8"))
    return OpenAPI.from_dict({**document, "servers": [{"url": "/"}]})


def start(server: Server, workflow: str = "started.yml", **options: Any) -> Any:
    """POST a workflow dispatch."""
    return server.call("POST", f"/actions/workflows/{workflow}/dispatches", **options)


def test_our_own_request_starts_the_run(server: Server, openapi: OpenAPI, contracts: Path) -> None:
    """The answer names the run; its title, its inputs and its event are those of the request, whatever they hold."""
    dispatch = a_dispatch()
    answer = start(server, dispatch.workflow, json=build_inputs(dispatch))
    openapi.validate_request(RequestsOpenAPIRequest(answer.request))
    openapi.validate_response(RequestsOpenAPIRequest(answer.request), RequestsOpenAPIResponse(answer))
    verdict = read_dispatch_answer(
        Answer(answer.status_code, {}, answer.text), repository="o/r", attempt=1, now=dispatch.created
    )
    assert isinstance(verdict, Sent)
    ended = {"id": verdict.run_id, "status": "completed"}
    run = server.until(lambda: next((one for one in server.runs() if ended.items() <= one.items()), None))
    assert (run["html_url"], run["event"], run["conclusion"]) == (verdict.run_url, "workflow_dispatch", "success")
    assert run["display_title"] == f"started {dispatch.id}"
    assert server.runs(event="repository_dispatch") == []
    assert f"said <{ODD}> </s/{ODD}> <all> <careful> <workflow_dispatch>" in server.text(run["id"])
    event = json.loads(server.text(run["id"], "event.json"))
    definitions = json.loads((contracts / "github/webhook-schemas.pruned.json").read_text())["definitions"]
    schema = {"$ref": "#/definitions/workflow_dispatch$event", "definitions": definitions}
    event["installation"] = {"id": 1, "node_id": "x"}  # stands only in what GitHub sends to an App
    faults = [f"{list(fault.path)}: {fault.message[:120]}" for fault in Draft7Validator(schema).iter_errors(event)]
    assert faults == []


@pytest.mark.parametrize("is_heard", [True, False])
def test_the_sender_finds_its_run(server: Server, monkeypatch: pytest.MonkeyPatch, *, is_heard: bool) -> None:
    """From a ledger row to the end of its run, over HTTP; by its name where GitHub's answer got lost."""
    dispatch = a_dispatch(id=f"sb-{'b' if is_heard else 'c'}" + "a" * 19, created=datetime.now(UTC))
    clock, chance = SystemClock(), SystemChance()
    store, queue = MemoryStore(clock.now), MemoryQueue(clock.now)
    github = GitHubRest(server.base, PersonalToken(TOKEN))
    sender = Sender(store, queue, github, clock, chance, BudgetKeeper({}, store, clock), {})
    if not is_heard:
        start_workflow = github.start_workflow

        async def lost(*arguments: Any) -> NoAnswer:
            await start_workflow(*arguments)
            return NoAnswer("reset", reached=True)

        monkeypatch.setattr(github, "start_workflow", lost)

    async def send() -> Dispatch | None:
        await store.insert_dispatch(dispatch)
        await sender.send(dispatch.id)
        return await store.read_dispatch(dispatch.id)

    async def look() -> Dispatch | None:
        await sender.watch(dispatch.repository, store.watches[dispatch.repository].token)
        row = await store.read_dispatch(dispatch.id)
        return row if row and row.is_final else None

    sent = asyncio.run(send())
    assert sent is not None
    assert (sent.state, sent.run_id is None) == ((State.CONFIRMED, False) if is_heard else (State.SENDING, True))
    row = server.until(lambda: asyncio.run(look()))
    assert (row.state, row.conclusion, row.attempts) == (State.DONE, "success", 1)
    assert [run["id"] for run in server.runs() if dispatch.id in run["display_title"]] == [row.run_id]


@pytest.mark.parametrize(
    ("workflow", "body", "status", "message"),
    [
        ("absent.yml", {"ref": "main"}, 404, "Not Found"),
        ("listener.yml", {"ref": "main"}, 422, "Workflow does not have 'workflow_dispatch' trigger"),
        ("started.yml", {"ref": "v1"}, 422, "No ref found for: v1"),
        ("started.yml", {"ref": "main", "inputs": {"a": "1", "key": ""}}, 422, 'Unexpected inputs provided: ["a"]'),
        ("choosy.yml", {"ref": "main"}, 422, "Required input 'name' not provided"),
        ("choosy.yml", {"ref": "main", "inputs": {"name": "n", "size": "x"}}, 422, "not in the list of allowed values"),
        ("started.yml", {"ref": "main", "inputs": {"careful": "maybe"}}, 422, "is not a boolean"),
        ("started.yml", {"ref": "main", "inputs": {"key": []}}, 422, "is not a string"),
        ("started.yml", {}, 422, '"ref" wasn\'t supplied'),
        ("started.yml", {"ref": 1}, 422, "is not a string"),
        ("started.yml", {"ref": "main", "inputs": [1]}, 422, "is not an object"),
        ("started.yml", {"ref": "main", "more": 1}, 422, "not a permitted key"),
        ("started.yml", {"ref": "main", "inputs": {str(n): "" for n in range(26)}}, 422, "26 were supplied"),
        ("started.yml", {"ref": "main", "inputs": {"key": "x" * 65_530}}, 422, "too large"),
        ("started.yml", [], 400, "Body should be a JSON object"),
    ],
)
def test_what_github_refuses(server: Server, workflow: str, body: Any, status: int, message: str) -> None:
    """Refused with GitHub's status and words, and nothing starts."""
    before = len(server.runs())
    answer = start(server, workflow, json=body)
    assert (answer.status_code, message in answer.json()["message"]) == (status, True)
    assert answer.json()["documentation_url"].endswith("#create-a-workflow-dispatch-event")
    assert len(server.runs()) == before


def test_details_only_where_they_are_asked_for(server: Server) -> None:
    """204 by default, as older servers always answer; 200 always with the API version that knows nothing else."""
    count = len(server.runs())
    (workflow,) = (
        one
        for one in server.call("GET", "/actions/workflows").json()["workflows"]
        if one["path"].endswith("choosy.yml")
    )
    body = {"ref": "refs/heads/main", "inputs": {"name": "n", "size": "large"}}
    plain = start(server, str(workflow["id"]), json=body)
    assert (plain.status_code, plain.content) == (204, b"")
    later = start(server, "choosy.yml", json=body, headers={"X-GitHub-Api-Version": "2026-03-10"})
    assert later.status_code == 200
    assert later.json()["workflow_run_id"] in {run["id"] for run in server.settled(count + 2)}


def test_inputs_have_defaults_and_types() -> None:
    """What is not given is the default; expressions see booleans and numbers as such, the event sees texts."""
    inputs = {"a": {"type": "boolean"}, "b": {"type": "number", "default": 3}, "c": None, "d": {"default": True}}
    document = {"on": {"workflow_dispatch": {"inputs": inputs}}}
    taken = take_inputs(document, {"c": 5})
    assert taken == {"a": "false", "b": "3", "c": "5", "d": "true"}
    assert typed(document, taken) == {"a": False, "b": 3.0, "c": "5", "d": "true"}
    with pytest.raises(Refused, match="is not a number"):
        take_inputs(document, {"b": "x"})


@pytest.mark.parametrize("on", ["workflow_dispatch", ["push", "workflow_dispatch"], {"workflow_dispatch": None}])
def test_a_trigger_without_inputs(on: Any) -> None:
    """It can be started, and takes nothing."""
    assert take_inputs({"on": on}, {}) == {}
    with pytest.raises(Refused, match="Unexpected inputs"):
        take_inputs({"on": on}, {"a": "1"})


@pytest.mark.parametrize("on", ["push", ["push"], {"push": {}}, None])
def test_no_trigger(on: Any) -> None:
    """It cannot be started so."""
    with pytest.raises(Refused, match="trigger"):
        take_inputs({"on": on}, {})


@pytest.mark.parametrize("name", ["train_model.yml", "deploy_model.yml"])
def test_the_projects_own_workflows(name: str) -> None:
    """A route can go to either of them: they take every input that Signalbox sends, and put the id into their name."""
    workflow = read_workflow(ROOT, ROOT / ".github/workflows" / name)
    body: Any = build_inputs(a_dispatch(workflow=name))
    inputs = typed(workflow.document, take_inputs(workflow.document, body["inputs"]))
    contexts = {"github": {"event": {"inputs": inputs}, "sha": "0" * 40}, "inputs": inputs}
    assert "sb-aaaaaaaaaaaaaaaaaaaa" in str(evaluate_template(workflow.document["run-name"], contexts))
