"""Microsoft's own runtime library and our host run the same apps, and the functions cannot tell the difference."""

from __future__ import annotations

import base64
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import microsoft_runtime as microsoft
import pytest
import requests
from azure.storage.queue import QueueClient
from functions_app import PRELUDE, PROJECT, RunningHost, eventually, running_host
from microsoft_runtime import event_call, http_call, queue_call, timer_call

from local import azurite
from local.functions_host.index import load_function_app
from local.provision import provision
from local.sockets import free_port

pytestmark = pytest.mark.skipif(not microsoft.LIBRARY.is_dir(), reason=microsoft.ABSENT)

APP = """
@app.event_grid_trigger(arg_name="event")
async def intake(event: func.EventGridEvent):
    names = ("id", "subject", "event_type", "topic", "event_time", "data_version", "type", "source", "time")
    record("intake", cls=type(event).__name__, data=event.get_json(), **{n: getattr(event, n, None) for n in names})
    if event.subject == "raise":
        raise RuntimeError("no")
    return "surprise" if event.subject == "return" else None

@app.queue_trigger(arg_name="message", queue_name="%WORK%", connection="AzureWebJobsStorage")
def work(message: func.QueueMessage, context: func.Context):
    names = ("id", "dequeue_count", "expiration_time", "insertion_time", "time_next_visible", "pop_receipt")
    record("work", cls=type(message).__name__, body=message.get_body().decode(), function=context.function_name,
           **{n: getattr(message, n) for n in names})

@app.timer_trigger(arg_name="timer", schedule="0 0 3 1 1 *")
async def reconcile(timer: func.TimerRequest):
    record("reconcile", cls=type(timer).__name__, past_due=timer.past_due, schedule=timer.schedule,
           status=sorted(timer.schedule_status))

@app.route(route="status/{part?}", methods=["GET", "POST"])
def status(req: func.HttpRequest) -> func.HttpResponse:
    record("status", cls=type(req).__name__, method=req.method, url=req.url, params=dict(req.params),
           route=dict(req.route_params), body=req.get_body().decode(), one=req.headers.get("x-one"))
    if req.params.get("q") == "raise":
        raise RuntimeError("no")
    return func.HttpResponse("ü", status_code=202, headers={"X-Answer": "42", "Set-Cookie": "a=b"})
"""


def blob_created(name: str, **changes: Any) -> dict[str, Any]:
    """A BlobCreated as Azure sends it."""
    account = "devstoreaccount1"
    path = f"/blobServices/default/containers/training-data/blobs/{name}"
    data = {
        "api": "PutBlob",
        "eTag": "0x8D4BCC2E4835CD0",
        "contentLength": 524288,
        "blobType": "BlockBlob",
        "url": f"http://127.0.0.1/{account}/training-data/{name}",
        "sequencer": "00000000000004420000000000028963",
    }
    topic = f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/{account}"
    event = {"topic": topic, "subject": path, "eventType": "Microsoft.Storage.BlobCreated", "id": uuid.uuid4().hex}
    event |= {"data": data, "dataVersion": "", "metadataVersion": "1", "eventTime": "2026-11-20T10:00:00.1234567Z"}
    return event | changes


CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "c",
    "source": "/s",
    "type": "Some.Type",
    "subject": "s",
    "time": "2026-11-20T10:00:00Z",
    "data": {"k": [1, 2.5, None, "ö"]},
    "extension": "x",
}
EVENTS = [
    blob_created("digits/part-01.csv", id="1"),
    CLOUD_EVENT,
    {"id": "few", "subject": "s"},
    blob_created("x", eventTime="2026-11-20T10:00:00+05:30"),
    blob_created("x", eventTime="garbage"),
    blob_created("x", subject="raise"),
    blob_created("x", subject="return"),
    "no object",
    ["an array"],
]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A state account of its own, as the platform would have made it."""
    storage = azurite.start(tmp_path_factory.mktemp("azurite"), *(free_port() for _ in range(3)))
    try:
        provision(storage.connection_string)
        yield storage.connection_string
    finally:
        storage.stop()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, connection: str) -> Iterator[RunningHost]:
    """The sample app under our host."""
    settings = {"AzureWebJobsStorage": connection, "WORK": f"work-{uuid.uuid4().hex[:8]}"}
    with running_host(tmp_path_factory.mktemp("ours"), APP, settings) as host:
        yield host


def under_microsoft(folder: Path, *calls: microsoft.Call) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make the calls of the sample app under Microsoft's runtime; answers its answer and what was recorded."""
    (folder / "function_app.py").write_text(PRELUDE + APP)
    record = folder / "record.jsonl"
    record.touch()
    answer = microsoft.run(folder, calls, {"RECORD": str(record), "WORK": "work"})
    return answer, [json.loads(line) for line in record.read_text().splitlines()]


def test_events_arrive_the_same(tmp_path: Path, ours: RunningHost) -> None:
    """Event for event: the same object reaches the function, and the same ones fail before or in it."""
    answer, theirs = under_microsoft(tmp_path, *(event_call("intake", event) for event in EVENTS))
    succeeded = [ours.post_event([event], "intake").status_code == 202 for event in EVENTS]
    assert succeeded == [result["succeeded"] for result in answer["results"]]
    assert succeeded == [True, True, True, False, False, False, False, False, False]
    assert ours.records("intake") == theirs


def test_queue_messages_arrive_the_same(tmp_path: Path, ours: RunningHost, connection: str) -> None:
    """A message's body and properties are of the same form."""
    body = json.dumps({"kind": "window", "key": "ö"})
    queue = QueueClient.from_connection_string(connection, ours.settings["WORK"])
    with queue:
        queue.send_message(base64.b64encode(body.encode()).decode())
        mine = eventually(lambda: ours.records("work"))[0]
    time = "2026-11-20T10:00:00+00:00"
    times = {"ExpirationTime": time, "InsertionTime": time, "NextVisibleTime": time}
    call = queue_call("work", body, Id="i", DequeueCount=1, PopReceipt="p", **times)
    answer, theirs = under_microsoft(tmp_path, call)
    assert answer["results"][0]["succeeded"], answer
    same = ("cls", "body", "dequeue_count", "function")
    assert {name: mine[name] for name in same} == {name: theirs[0][name] for name in same}
    for name in set(mine) - set(same):
        assert type(mine[name]) is type(theirs[0][name]), name
        assert len(mine[name]) == len(theirs[0][name]) or "time" not in name


def test_timers_arrive_the_same(tmp_path: Path, ours: RunningHost) -> None:
    """A tick tells the same things."""
    requests.post(f"{ours.url}/admin/functions/reconcile", json={}, timeout=10).raise_for_status()
    _, theirs = under_microsoft(tmp_path, timer_call("reconcile"))
    assert ours.records("reconcile") == theirs


def test_http_requests_and_responses_are_the_same(tmp_path: Path, ours: RunningHost) -> None:
    """Request and response are converted the same way, and a failure is a failure."""
    url = f"{ours.url}/api/status/p?q=1"
    mine = requests.post(url, data="höhe".encode(), headers={"X-One": "1"}, timeout=10)
    failed = requests.get(f"{ours.url}/api/status?q=raise", timeout=10)
    answer, theirs = under_microsoft(
        tmp_path,
        http_call("status", "POST", url, headers={"x-one": "1"}, query={"q": "1"}, params={"part": "p"}, body="höhe"),
        http_call("status", "GET", f"{ours.url}/api/status?q=raise", query={"q": "raise"}),
    )
    assert ours.records("status") == theirs
    http = answer["results"][0]["http"]
    assert (mine.status_code, mine.text) == (http["status"], http["body"])
    assert list(mine.cookies.keys()) == http["cookies"]
    assert {name: mine.headers[name] for name in http["headers"]} == http["headers"]
    assert (failed.status_code, answer["results"][1]["succeeded"]) == (500, False)


SIGNALBOX = ["intake", "intake_queue", "reconcile", "status", "work"]


@pytest.fixture(scope="module")
def settings(connection: str) -> dict[str, str]:
    """Signalbox's own settings; its GitHub cannot be reached, and need not be."""
    return {
        "AzureWebJobsStorage": connection,
        "GITHUB_API_URL": f"http://127.0.0.1:{free_port()}",
        "GITHUB_REPOSITORY": "owner/name",
        "PAT_TOKEN": "made-up",
        "SIGNALBOX_DATA_ACCOUNTS": "devstoreaccount1",
    }


def test_signalbox_is_indexed_the_same(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Microsoft's runtime finds the same functions with the same triggers in the real app as our host does."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", list(sys.path))
    theirs = microsoft.run(PROJECT, [], settings)["functions"]
    ours = {function.name: function.trigger for function in load_function_app(PROJECT)}
    del sys.modules["function_app"]  # its functions can be listed only once
    assert sorted(theirs) == sorted(ours) == SIGNALBOX
    for name, trigger in ours.items():
        theirs_trigger = next(b for b in theirs[name]["bindings"] if b["type"] == trigger["type"])
        for key in ("type", "name", "queueName", "connection", "schedule", "route"):
            assert theirs_trigger.get(key) == trigger.get(key)


def test_signalbox_runs_the_same(tmp_path: Path, settings: dict[str, str]) -> None:
    """Intake, work queue, timer and status of the real app do the same under both, on real storage."""
    folder = uuid.uuid4().hex
    first, second = blob_created(f"{folder}/a.csv"), blob_created(f"{folder}/b.csv")
    bad = blob_created("x", eventTime="2026-11-20T10:00:00+05:30")
    answer = microsoft.run(
        PROJECT,
        [
            event_call("intake", first),
            event_call("intake", bad),
            queue_call(
                "work",
                json.dumps({"kind": "window", "route": "train-on-new-data", "key": folder, "alarm": "old"}),
                Id="1",
            ),
            queue_call("work", json.dumps({"kind": "none"}), Id="2"),
            timer_call("reconcile"),
            http_call("status", "GET", "http://127.0.0.1/api/status"),
        ],
        settings,
    )
    assert [result["succeeded"] for result in answer["results"]] == [True, False, True, False, True, True], answer
    status = answer["results"][-1]["http"]
    assert json.loads(status["body"])["open_windows"] == 1
    with running_host(tmp_path, None, settings) as host:
        before = requests.get(f"{host.url}/api/status", timeout=20)
        assert (before.status_code, before.text) == (status["status"], status["body"])
        assert before.headers["Content-Type"] == status["headers"]["content-type"]
        assert host.post_event([second], "intake").status_code == 202
        assert host.post_event([bad], "intake").status_code == 500
        for message, expected in (
            ({"kind": "none"}, 500),
            ({"kind": "window", "route": "r", "key": folder, "alarm": "old"}, 202),
        ):
            hand = requests.post(f"{host.url}/admin/functions/work", json={"input": json.dumps(message)}, timeout=20)
            assert hand.status_code == expected
        assert requests.post(f"{host.url}/admin/functions/reconcile", json={}, timeout=20).status_code == 202
        assert requests.get(f"{host.url}/api/status", timeout=20).text == before.text
