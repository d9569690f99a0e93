"""Made-up input: JSON of any shape, events in both schemas, and what GitHub might answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from functions.core.dispatch import Dispatch, ManifestRef, State
from functions.core.events import Event, parse

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
TOPIC = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/acme"
WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/lab"

any_text = st.text(max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=15,
)
json_objects = st.dictionaries(any_text, json_values, max_size=6)
times = st.timedeltas(timedelta(days=-700_000), timedelta(days=2_900_000)).map(lambda since: NOW + since)
durations = st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=7))

_event_keys = ["id", "eventType", "type", "topic", "source", "subject", "eventTime", "time", "data", "specversion"]
_data_keys = ["url", "eTag", "contentLength", "sequencer", "api", "runId", "runTags", "runProperties", "runStatus"]
_event_texts = st.sampled_from(
    [
        "",
        "1.0",
        "Microsoft.Storage.BlobCreated",
        "Microsoft.MachineLearningServices.RunCompleted",
        "/blobServices/default/containers/c/blobs/a/b.csv",
        "2026-11-20T12:00:00Z",
        "https://acme.blob.core.windows.net/c/a/b.csv",
        "http://[::1",
    ]
)
near_events = st.dictionaries(
    st.sampled_from(_event_keys),
    _event_texts | json_values | st.dictionaries(st.sampled_from(_data_keys), _event_texts | json_values, max_size=6),
    max_size=10,
)
"""Objects that look like events and are mostly wrong somewhere."""


def blob_event(path: str = "digits/part-01.csv", **changes: Any) -> dict[str, Any]:
    """A BlobCreated in the Event Grid schema; `changes` replace or add fields of `data`, None takes one away."""
    container = changes.pop("container", "training-data")
    head = {name: changes.pop(name) for name in ("id", "eventType", "topic", "subject", "eventTime") if name in changes}
    data = {
        "api": "PutBlob",
        "eTag": "0x8D1",
        "contentLength": 12,
        "url": f"https://acme.blob.core.windows.net/{container}/{path}",
        "sequencer": "0001",
        **changes,
    }
    return {
        "id": "id-1",
        "eventType": "Microsoft.Storage.BlobCreated",
        "topic": TOPIC,
        "subject": f"/blobServices/default/containers/{container}/blobs/{path}",
        "eventTime": "2026-11-20T11:59:00Z",
        "data": {name: value for name, value in data.items() if value is not None},
        **head,
    }


def run_event(kind: str = "RunCompleted", **data: Any) -> dict[str, Any]:
    """An Azure ML run event in the Event Grid schema; `data` replaces or adds fields of its data."""
    return {
        "id": "id-2",
        "eventType": f"Microsoft.MachineLearningServices.{kind}",
        "topic": WORKSPACE,
        "subject": "experiments/e/runs/train-1",
        "eventTime": "2026-11-20T11:59:00Z",
        "data": {
            "experimentName": "digits",
            "runId": "train-1",
            "runType": "azureml.PipelineRun",
            "runTags": {"signalbox_origin": "sb-1"},
            "runProperties": {},
            **data,
        },
    }


def as_cloud_event(event: dict[str, Any]) -> dict[str, Any]:
    """The same event as a subscription with the CloudEvents schema delivers it."""
    return {
        "specversion": "1.0",
        "id": event["id"],
        "type": event["eventType"],
        "source": event["topic"],
        "subject": event["subject"],
        "time": event["eventTime"],
        "data": event["data"],
    }


blob_events = st.builds(
    lambda path, sequencer, event_id, kind, size, moment: parse(
        blob_event(
            path,
            id=event_id,
            eventType=f"Microsoft.Storage.{kind}",
            sequencer=sequencer,
            contentLength=size,
            eventTime=moment,
        )
    ),
    st.sampled_from(["d/a.csv", "d/b.csv"]),
    st.sampled_from(["01", "02", "03", ""]),
    st.sampled_from(["i", "j", "k"]),
    st.sampled_from(["BlobCreated", "BlobDeleted"]),
    st.sampled_from([1, 2]),
    st.sampled_from(["2026-11-20T11:00:00Z", "2026-11-20T11:30:00Z"]),
)
"""Few blobs and few versions, so that duplicates and older versions are common."""


def any_event(data: Any, subject: str, event_id: str) -> Event:
    """A readable event of a type of our own, with the given data."""
    return parse({"id": event_id or "x", "eventType": "Custom.Happening", "subject": subject, "data": data})


def a_dispatch(**changes: Any) -> Dispatch:
    """A dispatch that is ready."""
    values: dict[str, Any] = {
        "id": "sb-aaaaaaaaaaaaaaaaaaaa",
        "route": "train",
        "key": "digits",
        "event_type": "storage-blobcreated",
        "repository": "octo/models",
        "source": "Microsoft.Storage.BlobCreated",
        "subject": "/blobServices/default/containers/c/blobs/p",
        "data": {"url": "u"},
        "event_count": 1,
        "manifest": None,
        "created": NOW,
    }
    return Dispatch(**{**values, **changes})


dispatches = st.builds(
    Dispatch,
    id=st.just("sb-aaaaaaaaaaaaaaaaaaaa"),
    route=any_text,
    key=any_text,
    event_type=any_text,
    repository=any_text,
    source=any_text,
    subject=any_text,
    data=st.dictionaries(any_text, st.none() | st.booleans() | st.integers() | any_text, max_size=4),
    event_count=st.integers(0, 10**6),
    manifest=st.none() | st.builds(ManifestRef, any_text, any_text, st.integers(0), st.integers(0)),
    created=times,
    workflow=st.sampled_from(["", "train_model.yml"]),
    ref=any_text,
    state=st.sampled_from(State),
    reason=any_text,
    attempts=st.integers(0, 100),
    not_before=st.none() | times,
    sending_since=st.none() | times,
    sent=st.none() | times,
    looked=st.none() | times,
    parked=st.none() | times,
    probes=st.integers(0, 100),
    unheard=st.integers(0, 100),
    replays=st.integers(0, 100),
    unstarted=st.lists(st.integers(1), max_size=3).map(tuple),
    restarts=st.integers(0, 3),
    run_id=st.none() | st.integers(1),
    run_url=any_text,
    other_runs=st.lists(st.integers(1), max_size=2).map(tuple),
    conclusion=any_text,
)
"""A ledger row of any content."""
