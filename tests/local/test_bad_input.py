"""Every kind of bad input at both doors of the app as it runs: where each ends, and what Event Grid is answered."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient, TextBase64EncodePolicy
from functions_app import RunningHost, eventually, running_host
from test_up import FakeGitHub

from local import azurite as emulator
from local.azurite import ACCOUNT
from local.cli import main
from local.provision import DATA_CONTAINER, EVENT_GRID_DEAD_LETTERS, provision
from local.sockets import free_port

PROJECT = Path(__file__).resolve().parents[2]
ROUTES = """
routes:
  - name: train
    on: Microsoft.Storage.BlobCreated
    where: {container: training-data, suffix: .csv}
    key: folder
    settle: {quiet: 1s, max_wait: 3s}
    dispatch: storage-blobcreated
"""
DOORS = ("trigger", "queue")
ACCEPTED, REFUSED, NEVER_RETRIED = 202, 500, 400

MANIFEST, LETTER, NOWHERE = "manifest", "dead letter", "nowhere"


def event(tag: str, path: str = "", **changes: Any) -> dict[str, Any]:
    """A BlobCreated whose blob's name ends in `tag`; None takes a field away."""
    path = f"{path or 'digits/'}{tag}.csv"
    plain = {
        "id": f"id-{tag}",
        "eventType": "Microsoft.Storage.BlobCreated",
        "topic": f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}",
        "subject": f"/blobServices/default/containers/{DATA_CONTAINER}/blobs/{path}",
        "eventTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "data": {"api": "PutBlob", "url": f"http://127.0.0.1:1/{ACCOUNT}/{DATA_CONTAINER}/x", "eTag": f"0x{tag}"},
        "dataVersion": "",
        "metadataVersion": "1",
        **changes,
    }
    return {name: value for name, value in plain.items() if value is not None}


def cloud_event(tag: str, **changes: Any) -> dict[str, Any]:
    """The same as a CloudEvent."""
    plain = event(tag)
    names = {"id": "id", "type": "eventType", "source": "topic", "subject": "subject", "time": "eventTime"}
    return {"specversion": "1.0", **{new: plain[old] for new, old in names.items()}, "data": plain["data"], **changes}


@dataclass(frozen=True)
class Bad:
    """One bad input.

    Attributes:
        body: makes the delivered bytes, or what is to be written as JSON, for a tag that tells this delivery apart.
        answer: of the trigger. 500 makes Event Grid try again, and keep the event as its own dead letter in the end.
        trigger, queue: where it ends after each door.
        reason: words of the dead letter's reason; of the trigger's where `trigger_reason` is given.
        listed: how many lines of manifests hold the tag.
    """

    body: Callable[[str], Any]
    answer: int
    trigger: str
    queue: str
    reason: str = ""
    trigger_reason: str = ""
    listed: int = 1

    def raw(self, tag: str) -> bytes:
        """The bytes that are delivered."""
        made = self.body(tag)
        return made if isinstance(made, bytes) else json.dumps(made).encode()


def _twice(tag: str) -> list[dict[str, Any]]:
    return [event(tag, "digits/one-"), event(tag, "digits/other-")]


def taken(body: Callable[[str], Any], listed: int = 1) -> Bad:
    """An input that is odd, but no reason to refuse it."""
    return Bad(body, ACCEPTED, MANIFEST, MANIFEST, listed=listed)


def kept(body: Callable[[str], Any], reason: str, trigger_reason: str = "") -> Bad:
    """An input that our own code cannot use, by whichever door it comes."""
    return Bad(body, ACCEPTED, LETTER, LETTER, reason, trigger_reason)


def converted(body: Callable[[str], Any], queue: str, reason: str = "") -> Bad:
    """An input that Microsoft's converter refuses before our code sees it; through the queue our code does."""
    return Bad(body, REFUSED, NOWHERE, queue, reason)


INPUTS = {
    "malformed JSON": Bad(lambda tag: f'{{"id": "{tag}'.encode(), NEVER_RETRIED, NOWHERE, LETTER, "not JSON"),
    "no UTF-8": Bad(lambda tag: tag.encode() + b"\xff\xfe", NEVER_RETRIED, NOWHERE, LETTER, "not JSON"),
    "a number": Bad(lambda tag: b"7", NEVER_RETRIED, NOWHERE, LETTER, "this is a number"),
    "an empty batch": Bad(lambda tag: b"[]", ACCEPTED, NOWHERE, LETTER, "an array without an event"),
    "a batch of text": converted(lambda tag: [tag], LETTER, "an event is a JSON object, this is text"),
    "a batch of arrays": converted(lambda tag: [[tag]], LETTER, "an event is a JSON object, this is an array"),
    "an unknown schema": kept(
        lambda tag: {"hello": tag, "id": f"id-{tag}"}, "neither the Event Grid schema", "'data' is missing or null"
    ),
    "CloudEvents 0.3": kept(lambda tag: cloud_event(tag, specversion="0.3"), "only CloudEvents 1.0 is read"),
    "an id that is a number": kept(lambda tag: event(tag, id=7), "'id' is a number, it must be text"),
    "no id": kept(lambda tag: event(tag, id=None), "'id' is missing or empty"),
    "no type": kept(
        lambda tag: event(tag, eventType=None), "neither the Event Grid schema", "'eventType' is missing or empty"
    ),
    "a subject that is an object": kept(lambda tag: event(tag, subject={"x": tag}), "'subject' is an object"),
    "data that is text": kept(lambda tag: event(tag, data=tag), "'data' is text, it must be an object"),
    "no data": kept(lambda tag: event(tag, data=None), "'data' is missing or null"),
    "data of great depth": kept(lambda tag: event(tag, data=json.loads('{"a":' * 150 + "1" + "}" * 150)), "nests more"),
    "a foreign account": kept(
        lambda tag: event(tag, data={"api": "PutBlob", "url": f"https://stranger.blob.core.windows.net/{tag}"}),
        "'stranger' is not among SIGNALBOX_DATA_ACCOUNTS",
    ),
    "a bad event among good ones": Bad(
        lambda tag: [event(tag), event(tag, id=7), event(tag, "digits/third-")], ACCEPTED, LETTER, LETTER, "'id' is a",
        listed=2,
    ),
    "control characters in a blob's name": taken(lambda tag: event(tag, "digits/\x00\n\r\x1b[2J\u2028\ud800-")),
    "shell metacharacters in a blob's name": taken(lambda tag: event(tag, "digits/$(rm -rf ~);`id`|&>'\"*?-")),
    "both in a folder's name": taken(lambda tag: event(tag, "\n$(touch x);`id` ${{ secrets.PATTOKEN }}\\/")),
    "a subject of 10,000 characters": taken(lambda tag: event(tag, "é/" + "x" * 10_000)),
    "a folder of 10,000 characters": taken(lambda tag: event(tag, "\N{STEAM LOCOMOTIVE}" * 2_000 + "x" * 8_000 + "/")),
    "a time in 1601": taken(lambda tag: event(tag, eventTime="1601-01-01T00:00:00Z")),
    "a time in 9999": taken(lambda tag: event(tag, eventTime="9999-12-31T23:59:59.9999999Z")),
    "no time": taken(lambda tag: event(tag, eventTime=None)),
    "a time with an offset": converted(lambda tag: event(tag, eventTime="2026-11-20T12:00:00+05:30"), MANIFEST),
    "a CloudEvent's time with an offset": converted(
        lambda tag: cloud_event(tag, time="2026-11-20T12:00:00-08:00"), MANIFEST
    ),
    "a time before the year 1": converted(
        lambda tag: event(tag, eventTime="0001-01-01T00:00:00+05:30"), LETTER, "no RFC 3339 time"
    ),
    "a time that is none": converted(lambda tag: event(tag, eventTime="tomorrow"), LETTER, "'eventTime' is 'tomorrow'"),
    "a time that is a number": converted(lambda tag: event(tag, eventTime=1795), LETTER, "'eventTime' is a number"),
    "an id that repeats with other content": taken(_twice, listed=2),
}  # fmt: skip


@dataclass
class App:
    """The app over an account of its own, and what it left there.

    `answers` of the trigger by tag, and the `lines` and `dead` letters that were there when all inputs were worked off.
    """

    host: RunningHost
    storage: str
    github: FakeGitHub
    answers: dict[str, int] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    dead: list[dict[str, Any]] = field(default_factory=list)

    def queue(self, name: str) -> QueueClient:
        return QueueClient.from_connection_string(self.storage, name, message_encode_policy=TextBase64EncodePolicy())

    def blobs(self, container: str) -> list[bytes]:
        """All blobs of a container."""
        client = BlobServiceClient.from_connection_string(self.storage).get_container_client(container)
        return [client.download_blob(name).readall() for name in client.list_blob_names()]

    def listed(self) -> list[dict[str, Any]]:
        """All lines of all manifests."""
        return [json.loads(line) for body in self.blobs("manifests") for line in body.splitlines()]

    def letters(self) -> list[dict[str, Any]]:
        """Our own dead letters, each with what it holds as `text`."""
        found = [json.loads(body) for body in self.blobs("dead-letters")]
        for letter in found:
            raw = base64.b64decode(letter.get("raw", "")).decode("utf-8", "replace")
            kept = letter.get("event")
            letter["text"] = raw or (kept if isinstance(kept, str) else json.dumps(kept))
        return found

    def deliver(self, door: str, raw: bytes) -> int:
        """Hand bytes over as Event Grid does; gives the trigger's answer, 0 for the queue."""
        if door == "trigger":
            return self.host.post_event(raw, "intake").status_code
        client = QueueClient.from_connection_string(self.storage, "signalbox-events")
        client.send_message(base64.b64encode(raw).decode(), time_to_live=-1)
        return 0

    def settle(self) -> None:
        """Wait until every event was taken in, and no window and no dispatch is under way."""
        events = self.queue("signalbox-events")
        eventually(lambda: not events.get_queue_properties().approximate_message_count and self.is_quiet(), 60)

    def is_quiet(self) -> bool:
        """The status page knows of nothing that is under way."""
        said = requests.get(f"{self.host.url}/api/status", timeout=30).json()
        return not (said["open_windows"] or said["unfinished_windows"] or said["dispatches"])


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The project's own app in the local Functions host, over an Azurite that no other test uses."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "routes.yml").write_text(ROUTES)
    github = FakeGitHub()
    running = emulator.start(folder / "azurite", *(free_port() for _ in range(3)))
    try:
        provision(running.connection_string)
        settings = {
            "AzureWebJobsStorage": running.connection_string,
            "GITHUB_REPOSITORY": "octo/models",
            "GITHUB_API_URL": github.url,
            "PAT_TOKEN": "made-up",
            "SIGNALBOX_DATA_ACCOUNTS": ACCOUNT,
            "SIGNALBOX_ROUTES": str(folder / "routes.yml"),
        }
        with running_host(folder, None, settings) as host:
            yield App(host, running.connection_string, github)
    finally:
        running.stop()
        github.close()


def tag_of(name: str, door: str) -> str:
    """What tells one delivery apart from the others; letters only, so that it looks the same in any encoding."""
    number = list(INPUTS).index(name)
    return f"{door}{chr(ord('a') + number // 26)}{chr(ord('a') + number % 26)}"


@pytest.fixture(scope="module")
def delivered(app: App) -> App:
    """The app after every input came in by both doors, and all of it was worked off."""
    for name, bad in INPUTS.items():
        for door in DOORS:
            app.answers[tag_of(name, door)] = app.deliver(door, bad.raw(tag_of(name, door)))
    app.settle()
    app.lines, app.dead = app.listed(), app.letters()
    return app


@pytest.mark.parametrize("name", INPUTS)
def test_answer_makes_event_grid_do_the_right_thing(delivered: App, name: str) -> None:
    """What can never succeed is taken and kept, so that it does not come again; 500 lets Event Grid keep the rest."""
    assert delivered.answers[tag_of(name, "trigger")] == INPUTS[name].answer


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", INPUTS)
def test_each_ends_in_a_manifest_or_in_the_dead_letters(delivered: App, name: str, door: str) -> None:
    """Once, and in the dead letters with its reason; what the platform refused left nothing, and can come again."""
    bad, tag = INPUTS[name], tag_of(name, door)
    place = bad.trigger if door == "trigger" else bad.queue
    listed = [line for line in delivered.lines if line["subject"].endswith(f"{tag}.csv")]
    letters = [
        letter for letter in delivered.dead
        if tag in letter["text"] or (door == "queue" and letter["text"] == bad.raw(tag).decode("utf-8", "replace"))
    ]  # fmt: skip
    reason = bad.trigger_reason if door == "trigger" and bad.trigger_reason else bad.reason
    assert len(letters) == (place == LETTER)
    assert all(reason in letter["reason"] and letter["received"] for letter in letters)
    assert len(listed) == (bad.listed if place == MANIFEST or bad.listed > 1 else 0)


def test_nothing_is_left_and_nothing_failed_on_its_way(delivered: App) -> None:
    """No message was given up, GitHub took each dispatch once, and every refusal was Microsoft's converter's."""
    for name in ("signalbox-events-poison", "signalbox-work-poison"):
        with pytest.raises(ResourceNotFoundError):
            delivered.queue(name).peek_messages()
    payloads = [sent["client_payload"] for sent in delivered.github.dispatches]
    assert set(Counter(payload["dispatch_id"] for payload in payloads).values()) == {1}
    assert sum(payload["manifest"]["count"] for payload in payloads) == len(delivered.lines)
    log = delivered.host.log()
    assert log.count("Executed intake (Failed") == sum(bad.answer == REFUSED for bad in INPUTS.values())
    assert "Executed intake_queue (Failed" not in log
    assert "Executed work (Failed" not in log


def test_names_are_data_wherever_they_go(delivered: App) -> None:
    """The manifest has each name as it was; GitHub gets what it takes, and no line of a log is forged."""
    shell = tag_of("shell metacharacters in a blob's name", "trigger")
    control = tag_of("control characters in a blob's name", "queue")
    names = {line["subject"].split("/blobs/", 1)[1] for line in delivered.lines}
    assert f"digits/$(rm -rf ~);`id`|&>'\"*?-{shell}.csv" in names
    assert f"digits/\x00\n\r\x1b[2J\u2028\ud800-{control}.csv" in names
    keys = {sent["client_payload"]["key"] for sent in delivered.github.dispatches}
    assert "\n$(touch x);`id` ${{ secrets.PATTOKEN }}\\" in keys
    assert all(len(key) <= 221 for key in keys)
    assert all(len(json.dumps(sent)) < 64 * 1024 for sent in delivered.github.dispatches)
    assert "\x1b" not in delivered.host.log()


def test_largest_events(app: App) -> None:
    """2 MB go through the trigger into a manifest; more than a window takes is a dead letter; a queue takes neither."""
    assert (
        app.deliver("trigger", json.dumps(event("large", data={**event("")["data"], "x": "x" * 2**21})).encode()) == 202
    )
    assert (
        app.deliver("trigger", json.dumps(event("huge", data={**event("")["data"], "x": "x" * 2**22})).encode()) == 202
    )
    with pytest.raises(HttpResponseError):
        app.deliver("queue", json.dumps(event("queued", data={**event("")["data"], "x": "x" * 2**21})).encode())
    app.settle()
    assert [line["event_id"] for line in app.listed() if line["subject"].endswith("large.csv")] == ["id-large"]
    (letter,) = [letter for letter in app.letters() if "huge.csv" in letter["text"]]
    assert "more than the 3145728 that a window takes" in letter["reason"]


@pytest.fixture
def event_grid(app: App, tmp_path: Path) -> Iterator[str]:
    """Event Grid with the project's own template, giving up after the first attempt; its topic of storage events."""
    parameters = json.loads((PROJECT / "infra/params.deploy_event_grid.json").read_text())
    parameters["parameters"] |= {"maxDeliveryAttempts": {"value": 1}, "dataAccountName": {"value": ACCOUNT}}
    (tmp_path / "parameters.json").write_text(json.dumps(parameters))
    port = free_port()
    command = [sys.executable, "-m", "local.eventgrid.server", "--port", str(port), "--dir", str(tmp_path / "state")]
    command += ["--template", str(PROJECT / "infra/deploy_event_grid.json")]
    command += ["--parameters", str(tmp_path / "parameters.json")]
    command += ["--functions", app.host.url, "--storage", app.storage]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, cwd=PROJECT, stderr=log) as process:
        try:
            eventually(lambda: _validated(port), 30)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _report(port: int) -> dict[str, Any]:
    try:
        found: dict[str, Any] = requests.get(f"http://127.0.0.1:{port}/deliveries", timeout=5).json()
    except requests.ConnectionError:
        return {"subscriptions": {"": {"validated": False}}}
    return found


def _validated(port: int) -> bool:
    return all(one["validated"] for one in _report(port)["subscriptions"].values())


def test_what_the_converter_refuses_comes_back_by_replay(
    app: App, event_grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From Event Grid through its dead letters and `signalbox replay` into a manifest and a dispatch, once."""
    offsets = [event("late-offset", eventTime="2026-11-20T12:00:00+05:30"), event("good-offset")]
    offsets.append(cloud_event("cloud-offset", time="2026-11-20T12:00:00-08:00"))
    for one in offsets:
        kind = "application/cloudevents+json" if "specversion" in one else "application/json"
        body = json.dumps(one if "specversion" in one else [one]).encode()
        answer = requests.post(
            f"{event_grid}/storage/api/events", data=body, headers={"Content-Type": kind}, timeout=10
        )
        assert answer.status_code == 200
    eventually(lambda: len(app.blobs(EVENT_GRID_DEAD_LETTERS)) > 0 and "good-offset" in str(app.listed()), 30)
    eventually(lambda: sum(body.count(b"MaxDeliveryAttempts") for body in app.blobs(EVENT_GRID_DEAD_LETTERS)) == 2, 30)
    assert "late-offset" not in str(app.listed())
    for name, value in app.host.settings.items():
        monkeypatch.setenv(name, value)
    assert main(["replay", "--yes", "--dir", str(tmp_path / "none")]) == 0
    assert "replayed 2 dead letters" in capsys.readouterr().out
    assert main(["replay", "--yes", "--dir", str(tmp_path / "none")]) == 0
    assert "nothing to replay" in capsys.readouterr().out
    app.settle()
    found = {line["subject"].rsplit("/", 1)[1]: line["event_time"] for line in app.listed() if "offset" in str(line)}
    assert found["late-offset.csv"] == "2026-11-20T06:30:00.000000Z"
    assert found["cloud-offset.csv"] == "2026-11-20T20:00:00.000000Z"
    assert len([line for line in app.listed() if line["subject"].endswith("-offset.csv")]) == 3
