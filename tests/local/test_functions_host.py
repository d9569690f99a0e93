"""The Functions host, as a process, with small apps: Event Grid, HTTP and timers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from functions_app import PROJECT, RunningHost, eventually, running_host

from local.sockets import free_port

APP = """
@app.event_grid_trigger(arg_name="event")
async def on_event(event: func.EventGridEvent):
    value = event.get_json()
    logging.warning("seen %s", event.id)
    if value == "fail":
        raise RuntimeError("the function's own words")
    if value == "slow":
        await asyncio.sleep(1.5)
    record("event", id=event.id, cls=type(event).__name__, subject=event.subject, data=value)

@app.event_grid_trigger(arg_name="event")
def on_event_in_thread(event: func.EventGridEvent, context: func.Context):
    time.sleep(0.05)
    record("thread", id=event.id, invocation=context.invocation_id, function=context.function_name)

@app.route(route="things/{name:alpha}/{number:int?}", methods=["GET", "POST"])
def things(req: func.HttpRequest) -> func.HttpResponse:
    document = {"route": dict(req.route_params), "query": dict(req.params), "body": req.get_body().decode(),
                "method": req.method, "header": req.headers.get("X-One")}
    headers = {"X-Answer": "42", "Set-Cookie": "a=b; Path=/"}
    return func.HttpResponse(json.dumps(document), status_code=201, mimetype="application/json", headers=headers)

@app.route(route="text")
async def text(req: func.HttpRequest) -> str:
    return "grüß"

@app.route(route="broken", methods=["GET"])
def broken(req: func.HttpRequest) -> func.HttpResponse:
    raise RuntimeError("secret detail")

@app.timer_trigger(arg_name="timer", schedule="0 0 3 1 1 *", run_on_startup=True)
async def yearly(timer: func.TimerRequest):
    record("timer", past_due=timer.past_due, status=timer.schedule_status)

@app.timer_trigger(arg_name="timer", schedule="%EVERY%")
def often(timer: func.TimerRequest):
    record("often")
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """One host for the tests that do not stop it."""
    with running_host(tmp_path_factory.mktemp("host"), APP, {"EVERY": "* * * * * *"}) as running:
        yield running


def event(number: str, data: Any = None) -> dict[str, Any]:
    """An event in Event Grid's own schema."""
    return {
        "id": number,
        "topic": "/t",
        "subject": f"s/{number}",
        "eventType": "Some.Type",
        "eventTime": "2026-11-20T10:00:00.1234567Z",
        "data": data,
        "dataVersion": "1",
        "metadataVersion": "1",
    }


def cloud_event(number: str) -> dict[str, Any]:
    """The same as a CloudEvent."""
    return {
        "specversion": "1.0",
        "id": number,
        "source": "/t",
        "type": "Some.Type",
        "subject": f"s/{number}",
        "data": {},
    }


@pytest.mark.parametrize("shape", ["array", "object", "cloudevents batch"])
def test_subscription_validation_is_answered_with_its_code(host: RunningHost, shape: str) -> None:
    """The handshake of both schemas gets 200 and the code back."""
    one: dict[str, Any] = {"id": "1", "data": {"validationCode": "512d38b6"}}
    if shape == "cloudevents batch":
        one["data"] = json.dumps(one["data"])
    answer = host.post_event([one] if shape == "array" else one, aeg_event_type="SubscriptionValidation")
    assert (answer.status_code, answer.json()) == (200, {"validationResponse": "512d38b6"})


def test_cloudevents_handshake_allows_the_origin(host: RunningHost) -> None:
    """OPTIONS with WebHook-Request-Origin gets WebHook-Allowed-Origin."""
    address = f"{host.url}/runtime/webhooks/eventgrid?functionName=on_event"
    answer = requests.options(address, headers={"WebHook-Request-Origin": "eventgrid.azure.net"}, timeout=10)
    assert (answer.status_code, answer.headers["WebHook-Allowed-Origin"]) == (200, "eventgrid.azure.net")


def test_one_invocation_an_event(host: RunningHost) -> None:
    """A notification of an array runs the function once for each element and is answered 202."""
    assert host.post_event([event("a1", {"k": "ö"}), event("a2")]).status_code == 202
    assert host.records("event", id="a1")[0] == {
        "kind": "event",
        "id": "a1",
        "cls": "EventGridEvent",
        "subject": "s/a1",
        "data": {"k": "ö"},
    }
    assert len(host.records("event", id="a2")) == 1


def test_single_object_and_missing_header_are_taken(host: RunningHost) -> None:
    """Anything that can post an event can test the app: one object, no aeg-event-type."""
    address = f"{host.url}/runtime/webhooks/eventgrid?functionName=on_event&code=any"
    assert requests.post(address, json=event("single"), timeout=10).status_code == 202
    assert len(host.records("event", id="single")) == 1


@pytest.mark.parametrize("batch", [False, True])
def test_cloud_events_arrive_as_cloud_events(host: RunningHost, batch: bool) -> None:
    """CloudEvents, structured or as a batch, reach the function as CloudEvent objects."""
    one = cloud_event(f"ce-{batch}")
    kind = "application/cloudevents-batch+json" if batch else "application/cloudevents+json"
    assert host.post_event([one] if batch else one, Content_Type=kind).status_code == 202
    assert host.records("event", id=one["id"])[0]["cls"] == "CloudEvent"


def test_one_failure_fails_the_delivery_and_stays_in_the_log(host: RunningHost) -> None:
    """A raised exception answers 500 without its text; the log has function, invocation and traceback."""
    answer = host.post_event([event("f1"), event("f2", "fail")])
    assert answer.status_code == 500
    assert "own words" not in answer.text
    assert len(host.records("event", id="f1")) == 1
    log = host.log()
    assert "RuntimeError: the function's own words" in log
    assert "Traceback" in log
    line = next(line for line in log.splitlines() if "seen f2" in line)
    assert "[on_event " in line


@pytest.mark.parametrize("bad", [{**event("bad"), "eventTime": "2026-11-20T10:00:00+05:30"}, "no object", 5])
def test_what_microsofts_converter_cannot_read_fails_the_delivery(host: RunningHost, bad: Any) -> None:
    """Conversion errors answer 500 before the function runs, as on Azure."""
    assert host.post_event([bad]).status_code == 500
    assert not host.records("event", id="bad")


@pytest.mark.parametrize(
    ("function", "kind", "body", "status"),
    [
        ("absent", "Notification", [], 404),
        ("yearly", "Notification", [], 404),
        ("on_event", "Surprise", [], 400),
        ("on_event", "SubscriptionDeletion", [], 200),
        ("on_event", "Notification", b"{not json", 400),
        ("on_event", "Notification", b"NaN", 400),
        ("on_event", "Notification", b"7", 400),
        ("on_event", "SubscriptionValidation", [], 400),
        ("on_event", "Notification", [], 202),
    ],
)
def test_other_deliveries(host: RunningHost, function: str, kind: str, body: Any, status: int) -> None:
    """Unknown functions, header values and bodies get the status that the endpoint's contract names."""
    assert host.post_event(body, function, aeg_event_type=kind).status_code == status


def test_the_largest_batch(host: RunningHost) -> None:
    """5,000 events and more than 1 MB in one delivery: each runs once."""
    events = [event(f"many-{number}", "x" * 100) for number in range(5000)]
    assert len(json.dumps(events)) > 1024 * 1024
    assert host.post_event(events).status_code == 202
    assert len({x["id"] for x in host.records("event") if x["id"].startswith("many-")}) == 5000


def test_def_functions_run_in_threads_beside_each_other(host: RunningHost) -> None:
    """Blocking functions run in parallel, each with its own context, and leave the loop free."""
    events = [event(f"t{number}") for number in range(12)]
    assert host.post_event(events, "on_event_in_thread").status_code == 202
    seen = host.records("thread")
    assert {x["function"] for x in seen} == {"on_event_in_thread"}
    assert len({x["invocation"] for x in seen}) == 12


def test_http_request_and_response_are_converted(host: RunningHost) -> None:
    """Route parameters, query, headers and body come in; status, headers, cookies and body go out."""
    address = f"{host.url}/api/Things/abc/7?q=1"
    answer = requests.post(address, data="hello", headers={"X-One": "1"}, timeout=10)
    assert answer.status_code == 201
    assert answer.json() == {
        "route": {"name": "abc", "number": "7"},
        "query": {"q": "1"},
        "body": "hello",
        "method": "POST",
        "header": "1",
    }
    assert answer.headers["X-Answer"] == "42"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.cookies["a"] == "b"


def test_http_details(host: RunningHost) -> None:
    """Optional segments, wrong methods and constraints, texts, failures and unknown paths."""
    assert requests.get(f"{host.url}/api/things/abc", timeout=10).json()["route"] == {"name": "abc"}
    assert requests.delete(f"{host.url}/api/things/abc", timeout=10).status_code == 404
    assert requests.get(f"{host.url}/api/things/12", timeout=10).status_code == 404
    text = requests.get(f"{host.url}/api/text", timeout=10)
    assert (text.text, text.headers["Content-Type"]) == ("grüß", "text/plain; charset=utf-8")
    broken = requests.get(f"{host.url}/api/broken", timeout=10)
    assert (broken.status_code, broken.text) == (500, "")
    assert requests.get(f"{host.url}/elsewhere", timeout=10).status_code == 404


def test_timers_run_by_schedule_and_at_startup(host: RunningHost) -> None:
    """run_on_startup runs once at the start; a six-field schedule from an app setting runs again and again."""
    assert eventually(lambda: host.records("timer"))[0]["past_due"] is False
    eventually(lambda: len(host.records("often")) >= 2)


def test_functions_can_be_run_by_hand(host: RunningHost) -> None:
    """POST /admin/functions/NAME runs a timer or an event function now."""
    before = len(host.records("timer"))
    assert requests.post(f"{host.url}/admin/functions/yearly", json={}, timeout=10).status_code == 202
    assert len(host.records("timer")) == before + 1
    given = {"input": json.dumps(event("by-hand"))}
    assert requests.post(f"{host.url}/admin/functions/on_event", json=given, timeout=10).status_code == 202
    assert len(host.records("event", id="by-hand")) == 1


def test_restart_makes_up_a_missed_timer_and_finishes_what_runs(tmp_path: Path) -> None:
    """SIGTERM lets a running invocation end; a run missed while the host was away comes once, past due."""
    source = APP.replace("run_on_startup=True", "run_on_startup=False")
    with running_host(tmp_path, source, {"EVERY": "0 0 3 1 1 *"}) as host:
        with ThreadPoolExecutor(1) as pool:
            delivery = pool.submit(host.post_event, [event("last", "slow")])
            eventually(lambda: "seen last" in host.log())
            assert host.stop(signal.SIGTERM) == 0
            assert delivery.result().status_code == 202
        assert len(host.records("event", id="last")) == 1
        monitor = host.directory / "timers" / "yearly.json"
        monitor.write_text(json.dumps({**json.loads(monitor.read_text()), "next": "2020-01-01T00:00:00+00:00"}))
        host.start()
        assert [x["past_due"] for x in eventually(lambda: host.records("timer"))] == [True]
        assert host.stop(signal.SIGKILL) == -signal.SIGKILL
        host.start()
        assert len(host.records("timer")) == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import azure.functions as func\n\nraise NameError('who')\n", ["NameError: who", "function_app.py, line 3"]),
        ("def broken(:\n", ["invalid syntax", "function_app.py, line 1"]),
        ("app = 5\n", ["exactly one func.FunctionApp"]),
        (
            "import azure.functions as func\napp = func.FunctionApp()\n"
            "@app.timer_trigger(arg_name='t', schedule='61 * * * * *')\ndef tick(t: func.TimerRequest): ...\n",
            ["Function tick", "61 * * * * *"],
        ),
        (
            "import azure.functions as func\napp = func.FunctionApp()\n"
            "@app.timer_trigger(arg_name='t', schedule='%NO_SUCH%')\ndef tick(t: func.TimerRequest): ...\n",
            ["Function tick", "NO_SUCH"],
        ),
        (
            "import azure.functions as func\napp = func.FunctionApp()\n"
            "@app.timer_trigger(arg_name='t', schedule='0 0 * * * *')\ndef tick(other: func.TimerRequest): ...\n",
            ["Function tick", "(t)"],
        ),
        (
            "import azure.functions as func\napp = func.FunctionApp()\n"
            "@app.queue_trigger(arg_name='m', queue_name='q', connection='NoSuchSetting')\n"
            "def work(m: func.QueueMessage): ...\n",
            ["Function work", "NoSuchSetting"],
        ),
    ],
)
def test_an_app_that_cannot_be_served_ends_with_one_sentence(tmp_path: Path, source: str, words: list[str]) -> None:
    """Exit status 1, and a sentence with the place of the mistake instead of a traceback."""
    (tmp_path / "function_app.py").write_text(source)
    command = [sys.executable, "-m", "local.functions_host.server", "--port", str(free_port())]
    command += ["--dir", str(tmp_path / "state"), "--app", str(tmp_path)]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in ended.stderr.splitlines()[-1]
