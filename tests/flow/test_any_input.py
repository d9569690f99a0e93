"""Any input at either door: never an unhandled error, nothing taken without a trace, and one identity by both doors."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

from core.strategies import as_cloud_event, blob_event, json_objects, json_values, near_events, run_event
from hypothesis import example, given, settings, strategies as st

from functions.core.events import Event, UnreadableEvent, parse, parse_document
from functions.core.routes import Where
from functions.core.windows import Line
from functions.flow.intake import Fate
from functions.triggers import event_value
from local.functions_host.bindings import decode, event_payload

from .scenes import DEPLOY, TRAIN
from .simulation import World

some = settings(max_examples=150, deadline=None, derandomize=True)

ANY = replace(TRAIN, where=Where())
EACH = replace(DEPLOY, on=("Microsoft.Storage.BlobCreated", *DEPLOY.on), where=Where())

documents = json_values | near_events | st.lists(near_events | json_values, max_size=3)

published = st.one_of(
    st.builds(
        lambda path, etag, sequencer: blob_event(path, eTag=etag, sequencer=sequencer),
        st.text(min_size=1, max_size=30),
        st.sampled_from(["0x1", '"0x1"', None]),
        st.sampled_from(["01", None]),
    ),
    st.builds(
        lambda kind, run, status: run_event(kind, runId=run, runStatus=status),
        st.sampled_from(["RunCompleted", "RunStatusChanged"]),
        st.sampled_from(["train-1", None]),
        st.sampled_from(["Failed", None]),
    ),
    st.builds(
        lambda version: {**run_event("ModelRegistered"), "data": {"ModelName": "digits", "ModelVersion": version}},
        st.sampled_from([3, "3"]),
    ),
    st.builds(lambda data: {**run_event("Anything"), "eventType": "Custom.Happening", "data": data}, json_objects),
)
"""Events as publishers send them: about blobs, runs, models and anything else."""


def through_the_trigger(event: object) -> dict[str, Any]:
    """What our code gets of an event that Microsoft's converter has read; raises what the converter raises."""
    return event_value(decode("eventGridTrigger", event_payload(event)))


@some
@given(
    st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | documents.map(lambda x: json.dumps(x).encode())
)
@example(b"[" * 100_000)
@example(b'[[], {}, {"eventType": "x"}, null]')
@example(json.dumps([blob_event(), {"id": 1}, as_cloud_event(blob_event())]).encode())
def test_any_message_of_the_queue_is_answered(raw: bytes) -> None:
    """Each event in it has a fate, and what is a dead letter can be found there, or its bytes as they were."""
    world = World([ANY, EACH])
    fates = asyncio.run(world.start().app.intake.take_message(raw))
    assert fates
    letters = list(world.store.dead_letters.values())
    assert bool(letters) == (Fate.DEAD_LETTER in fates)
    assert all(letter["reason"] for letter in letters)
    try:
        read = [found for _, found in parse_document(raw)]
    except UnreadableEvent:
        read = []
    if not read:
        assert [base64.b64decode(str(letter["raw"])) for letter in letters] == [raw]
    taken = [
        Line.from_bytes(line).event
        for blob in world.store.segments.values()
        for line in b"".join(blob.blocks).splitlines()
    ]
    for event, fate in zip(read, fates, strict=False):
        assert not isinstance(event, UnreadableEvent) or fate is Fate.DEAD_LETTER
        if isinstance(event, Event) and fate is Fate.TAKEN:
            assert event.identity in taken or world.store.ledger


@some
@given(json_values | near_events)
@example({"specversion": [[]], "data": {}})
def test_any_event_at_the_trigger_is_refused_by_the_platform_or_answered(value: object) -> None:
    """Whatever Microsoft's converter lets through has a fate."""
    try:
        seen = through_the_trigger(value)
    except Exception:  # on Azure this is the platform's 500, before our code
        return
    world = World([ANY, EACH])
    fate = asyncio.run(world.start().app.intake.take_value(seen))
    assert (fate is Fate.DEAD_LETTER) == bool(world.store.dead_letters)


@some
@given(published)
def test_identity_is_the_same_by_both_doors_and_in_both_schemas(event: dict[str, Any]) -> None:
    """A subscription can be changed from one to the other, and what comes again by the other way is a duplicate."""
    cloud = as_cloud_event(event)
    raw = [json.dumps(one).encode() for one in (event, cloud)]
    by_queue = [found for one in raw for _, found in parse_document(one)]
    by_trigger = [parse(through_the_trigger(json.loads(one))) for one in raw]
    identities = {found.identity for found in (*by_queue, *by_trigger) if isinstance(found, Event)}
    assert len(identities) == 1
    assert len({found.unsequenced for found in (*by_queue, *by_trigger) if isinstance(found, Event)}) == 1
    assert len({found.time for found in (*by_queue, *by_trigger) if isinstance(found, Event)}) == 1
