"""Reading events: two schemas, what they are about, identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from functions.core.events import DEEPEST, Event, UnreadableEvent, identity_digest, parse, parse_document

from .strategies import (
    TOPIC,
    WORKSPACE,
    any_event,
    any_text,
    as_cloud_event,
    blob_event,
    json_values,
    near_events,
    run_event,
)

NO_EVENT_SAMPLES = {"subscriptionvalidation.response.json", "storagequeue.message.derived.json"}


def storage(**changes: Any) -> Event:
    """A parsed BlobCreated."""
    return parse(blob_event(**changes))


def nested(levels: int) -> dict[str, Any]:
    """An event whose data nests so deep."""
    data: Any = {}
    for _ in range(levels - 1):
        data = {"a": data}
    return {"id": "1", "eventType": "Custom.Happening", "data": data}


@given(json_values | near_events)
def test_any_json_is_an_event_or_unreadable(value: object) -> None:
    """Whatever was decoded, parse gives an Event whose every property works, or raises UnreadableEvent."""
    try:
        event = parse(value)
    except UnreadableEvent:
        return
    assert event.identity
    assert identity_digest(event)
    assert parse(json.loads(json.dumps(event.to_json()))).identity == event.identity


@given(st.binary(max_size=200) | st.text(max_size=200) | json_values.map(json.dumps))
@example(b"[" * 100_000)
@example('[{"id": ' + "1" * 5_000 + "}]")
@example(b"\xef\xbb\xbf[]")
def test_any_bytes_are_read_or_unreadable(raw: bytes | str) -> None:
    """Whatever lies in the queue, reading it raises UnreadableEvent or nothing."""
    try:
        read = list(parse_document(raw))
    except UnreadableEvent:
        return
    assert all(isinstance(found, Event | UnreadableEvent) for _, found in read)


def test_a_document_may_hold_one_or_many() -> None:
    """An array is read one by one, and one bad event does not hide the others."""
    good = blob_event()
    assert [type(found) for _, found in parse_document(json.dumps(good))] == [Event]
    read = list(parse_document(json.dumps([good, 1, good])))
    assert [type(found) for _, found in read] == [Event, UnreadableEvent, Event]
    assert [value for value, _ in read] == [good, 1, good]
    assert list(parse_document("[]")) == []


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "this is an array"),
        ("x", "this is text"),
        (None, "this is missing or null"),
        (True, "this is true or false"),
        (1.5, "this is a number"),
        ({}, "neither the Event Grid schema"),
        ({"specversion": "0.3"}, "'specversion' is '0.3'"),
        ({"specversion": ["1.0"]}, "'specversion' is an array, it must be text"),
        ({"specversion": None}, "'specversion' is ''"),
        (blob_event(id=""), "'id' is missing or empty"),
        (blob_event(id=7), "'id' is a number, it must be text"),
        (blob_event(eventType=None), "'eventType' is missing or empty"),
        (blob_event(subject={}), "'subject' is an object, it must be text"),
        (blob_event(topic=False), "'topic' is true or false"),
        (blob_event(eventTime="tomorrow"), "'eventTime' is 'tomorrow', which is no RFC 3339 time"),
        (blob_event(eventTime=1), "'eventTime' is a number"),
        ({**as_cloud_event(blob_event()), "time": "x"}, "'time' is 'x'"),
        ({**blob_event(), "data": "text"}, "'data' is text, it must be an object"),
        ({"id": "1", "eventType": "x"}, "'data' is missing or null"),
    ],
)
def test_what_is_wrong_is_named(value: object, says: str) -> None:
    """The reason names the field and what stood there."""
    with pytest.raises(UnreadableEvent) as caught:
        parse(value)
    assert says in str(caught.value)


def test_nesting_has_an_end() -> None:
    """An event that could not be written or read back at some other stack depth is refused at the door."""
    assert parse(nested(DEEPEST)).id == "1"
    for levels in (DEEPEST + 1, 900):
        with pytest.raises(UnreadableEvent, match="nests more than"):
            parse(nested(levels))
    (_, found), *_ = parse_document('{"id":"1","eventType":"x","data":{"a":' + "[" * 500 + "]" * 500 + "}}")
    assert isinstance(found, UnreadableEvent)


def test_samples_of_the_documentation_are_read(contracts: Path) -> None:
    """Every published sample is an event of the type that its file name says."""
    samples = [path for path in (contracts / "events/samples").glob("*.json") if path.name not in NO_EVENT_SAMPLES]
    assert len(samples) > 15
    for path in samples:
        for _, found in parse_document(path.read_bytes()):
            assert isinstance(found, Event), f"{path.name}: {found}"
            kind = path.name.split(".", 1)[0]
            if kind == "subscriptionvalidation":
                continue
            assert found.type.rpartition(".")[2].lower() == kind
            assert (found.blob is not None) == kind.startswith("blob"), path.name
            assert (found.run is not None) == kind.startswith("run"), path.name
            assert found.schema == ("cloudevents" if ".cloudevents." in path.name else "eventgrid")


def test_the_queue_message_of_the_documentation_is_read(contracts: Path) -> None:
    """A queue holds the event base64-encoded; decoded it is one event."""
    import base64

    document = json.loads((contracts / "events/samples/storagequeue.message.derived.json").read_bytes())
    ((_, found),) = parse_document(base64.b64decode(document["MessageText_base64"]))
    assert isinstance(found, Event)
    assert found.blob is not None


@given(json_values, any_text, any_text)
def test_to_json_is_read_back(value: Any, subject: str, event_id: str) -> None:
    """What intake writes into a window is what the closer reads, in both schemas."""
    event = any_event({"x": value}, subject, event_id)
    again = parse(json.loads(json.dumps(event.to_json())))
    assert json.dumps(again.to_json()) == json.dumps(event.to_json())
    cloud = parse(as_cloud_event(blob_event()))
    assert parse(cloud.to_json()) == cloud


def test_a_cloud_event_may_lack_its_time() -> None:
    """CloudEvents leaves time, source and subject optional for us; what is written back lacks the time, too."""
    event = parse({"specversion": "1.0", "id": "1", "type": "x", "data": {}})
    assert event.time is None
    assert "time" not in event.to_json()
    assert parse(event.to_json()) == event


def test_blob_fields() -> None:
    """What a BlobCreated says of its blob."""
    blob = storage(path="digits/2026/part.csv", eTag='W/"0x8D1"', contentLength=5).blob
    assert blob is not None
    assert (blob.account, blob.container, blob.path, blob.folder) == (
        "acme",
        "training-data",
        "digits/2026/part.csv",
        "digits",
    )
    assert (blob.etag, blob.size, blob.sequencer, blob.api) == ("0x8D1", 5, "0001", "PutBlob")
    assert blob.subject == "/blobServices/default/containers/training-data/blobs/digits/2026/part.csv"


def test_a_blob_may_lack_everything() -> None:
    """Every field of data may be missing: text is empty, the size unknown, the account is the topic's."""
    blob = parse({**blob_event("top.csv"), "data": {}}).blob
    assert blob is not None
    assert (blob.url, blob.etag, blob.size, blob.sequencer, blob.api, blob.folder) == ("", "", None, "", "", "")
    assert blob.account == "acme"


@pytest.mark.parametrize("size", ["12", 1.5, True, None, []])
def test_a_size_is_a_whole_number(size: object) -> None:
    """Anything else is an unknown size."""
    blob = parse({**blob_event(), "data": {"contentLength": size}}).blob
    assert blob is not None
    assert blob.size is None


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "/blobServices/default/containers/c",
        "/blobServices/default/containers/c/files/x",
        "/fileServices/default/containers/c/blobs/x",
    ],
)
def test_a_storage_event_may_be_about_no_blob(subject: str) -> None:
    """A subject of another form is about no blob; the event is then known by its source and id."""
    event = storage(subject=subject)
    assert event.blob is None
    assert event.identity[:3] == ("event", TOPIC, "id-1")


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("https://acme.blob.core.windows.net/c/p", "acme"),
        ("https://ACME.dfs.core.windows.net/c/p", "acme"),
        ("https://acme-secondary.blob.core.windows.net/c/p", "acme"),
        ("https://acme.z12.blob.storage.azure.net/c/p", "acme"),
        ("https://acme.blob.core.chinacloudapi.cn/c/p", "acme"),
        ("http://127.0.0.1:10000/devstoreaccount1/c/p", "devstoreaccount1"),
        ("http://localhost:10000/devstoreaccount1/c/p", "devstoreaccount1"),
        ("https://acme.attacker.example/c/p", "acme.attacker.example"),
        ("https://acme.blob.core.windows.net.attacker.example/c", "acme.blob.core.windows.net.attacker.example"),
        ("https://acme.blob.core.windows.net@attacker.example/c", "attacker.example"),
        ("http://6.6.6.6/acme/c/p", "6.6.6.6"),
        ("http://[::1", "http://[::1"),
        ("c/p", "c/p"),
    ],
)
def test_the_account_is_only_what_an_azure_address_says(url: str, account: str) -> None:
    """An address that merely begins with our account's name is not our account: its url is opened with our identity."""
    blob = storage(url=url).blob
    assert blob is not None
    assert blob.account == account


@given(
    quoted=st.booleans(), slash=st.booleans(), cloud=st.booleans(), upper=st.booleans(), sequenced=st.booleans(),
    other_id=st.booleans(),
)  # fmt: skip
def test_identity_outlives_schema_slash_case_and_quotes(
    *, quoted: bool, slash: bool, cloud: bool, upper: bool, sequenced: bool, other_id: bool
) -> None:
    """Two deliveries of one event share their identity, however each was written down."""
    plain = blob_event(sequencer="0001" if sequenced else None)
    other = blob_event(sequencer="0001" if sequenced else None, eTag='"0x8D1"' if quoted else "0x8D1")
    other["subject"] = other["subject"] if slash else other["subject"].removeprefix("/")
    other["id"] = "another" if other_id else other["id"]
    if upper:
        other["data"] = {name.upper(): value for name, value in other["data"].items()}
    assert parse(as_cloud_event(other) if cloud else other).identity == parse(plain).identity


@pytest.mark.parametrize(
    "changes",
    [
        {"sequencer": "0002"},
        {"path": "digits/part-02.csv"},
        {"container": "other"},
        {"eventType": "Microsoft.Storage.BlobDeleted"},
        {"url": "https://other.blob.core.windows.net/training-data/digits/part-01.csv"},
        {"sequencer": None},
        {"sequencer": None, "eTag": "0x8D2"},
        {"sequencer": None, "eTag": None},
    ],
)
def test_another_happening_has_another_identity(changes: dict[str, Any]) -> None:
    """A newer version, another blob, another operation or account is no duplicate."""
    assert storage(**changes).identity != storage().identity


def test_without_sequencer_and_etag_the_id_counts() -> None:
    """BlobDeleted has no eTag; where the sequencer is missing too, redelivery is known by the id."""
    bare = {"sequencer": None, "eTag": None}
    assert storage(**bare, id="1").identity == storage(**bare, id="1").identity
    assert storage(**bare, id="1").identity != storage(**bare, id="2").identity


def test_run_fields() -> None:
    """What RunStatusChanged says of its run, whatever the case of its keys."""
    event = parse(run_event("RunStatusChanged", RunStatus="Failed"))
    assert event.run is not None
    assert (event.run.id, event.run.status, event.run.is_root) == ("train-1", "Failed", True)
    assert event.run.tags == {"signalbox_origin": "sb-1"}
    assert event.blob is None


@pytest.mark.parametrize(
    ("data", "is_root"),
    [
        ({"runType": "azureml.StepRun"}, False),
        ({"runType": "AZUREML.STEPRUN"}, False),
        ({"runType": None, "runProperties": {"azureml.pipelinerunid": "parent"}}, False),
        ({"runType": None, "runProperties": {"azureml.pipelinerunid": ""}}, True),
        ({"runType": None, "runProperties": None, "runTags": "x"}, True),
        ({"runType": "azureml.PipelineRun"}, True),
    ],
)
def test_steps_of_a_pipeline_are_no_roots(data: dict[str, Any], *, is_root: bool) -> None:
    """A step says so in its type or by the pipeline run in its properties."""
    run = parse(run_event(**data)).run
    assert run is not None
    assert run.is_root is is_root


def test_run_identity_is_workspace_run_and_status() -> None:
    """Redelivery with another id or another case of the workspace is the same; another status is not."""
    event = parse(run_event("RunStatusChanged", runStatus="Failed"))
    again = {**run_event("RunStatusChanged", runStatus="FAILED"), "id": "other", "topic": WORKSPACE.upper()}
    assert parse(again).identity == event.identity
    assert parse(run_event("RunStatusChanged", runStatus="Canceled")).identity != event.identity
    assert parse(run_event("RunStatusChanged", runStatus="Failed", runId="train-2")).identity != event.identity


def test_a_run_event_without_its_run_is_known_by_its_id() -> None:
    """RunCompleted without a runId is about no run."""
    event = parse(run_event(runId=None))
    assert event.run is None
    assert event.identity[:3] == ("event", WORKSPACE, "id-2")


@pytest.mark.parametrize("version", [3, "3"])
def test_model_identity_is_name_and_version(version: object) -> None:
    """ModelVersion is a number or text, and both are the same model."""
    event = parse({**run_event("ModelRegistered"), "data": {"ModelName": "digits", "ModelVersion": version}})
    assert event.run is None
    assert event.identity == ("model", event.type, WORKSPACE.lower(), "digits", "3")


def test_types_are_read_without_regard_to_case() -> None:
    """Routes match a type in any case, so what it is about must be read in any case: accounts are checked by it."""
    assert storage(eventType="microsoft.storage.blobcreated").blob is not None
    assert parse({**run_event(), "eventType": "MICROSOFT.MACHINELEARNINGSERVICES.RUNCOMPLETED"}).run is not None
