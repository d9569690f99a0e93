"""A drift event travels as any other: over the custom topic's subscription into an event that routes can use."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from mlops.drift import event as drift_event

from functions.core import events
from functions.core.routes import matching
from functions.core.routes_file import load_routes
from local.arm.template import Template
from local.azurite import connection_string
from local.eventgrid.server import EventGrid
from local.eventgrid.store import DeliveryStore
from local.eventgrid.subscriptions import subscriptions

FOUND = drift_event.Detected(
    folder="iris",
    model="signalbox-iris",
    version="3",
    base_sha256="a" * 64,
    target_sha256="b" * 64,
    coefficient=0.4375,
    start=datetime(2026, 11, 20, 10, tzinfo=UTC),
    end=datetime(2026, 11, 21, 9, 30, tzinfo=UTC),
)
TEMPLATE = {
    "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
    "contentVersion": "1.0.0.0",
    "resources": [
        {
            "type": "Microsoft.EventGrid/topics/eventSubscriptions",
            "apiVersion": "2022-06-15",
            "name": "signalbox/custom",
            "properties": {
                "destination": {
                    "endpointType": "AzureFunction",
                    "properties": {
                        "resourceId": "[resourceId('Microsoft.Web/sites/functions', 'app', 'intake')]",
                        "maxEventsPerBatch": 1,
                    },
                },
                "filter": {"includedEventTypes": [drift_event.DRIFT_DETECTED]},
            },
        }
    ],
}
ROUTES = """
routes:
  - name: retrain-on-drift
    on: Microsoft.MachineLearningServices.DatasetDriftDetected
    settle: none
"""


async def delivered(folder: Path, monkeypatch: pytest.MonkeyPatch, *found: drift_event.Detected) -> list[Any]:
    """Publish to a local Event Grid; return what its function is given."""
    taken: asyncio.Queue[Any] = asyncio.Queue()

    async def intake(request: web.Request) -> web.Response:
        (event,) = await request.json()
        if request.headers["aeg-event-type"] == "SubscriptionValidation":
            return web.json_response({"validationResponse": event["data"]["validationCode"]})
        await taken.put(event)
        return web.Response(status=202)

    app = web.Application()
    app.router.add_post("/runtime/webhooks/eventgrid", intake)
    wanted = subscriptions(Template(TEMPLATE, None))
    async with TestServer(app) as function:
        with contextlib.closing(DeliveryStore(folder / "eventgrid.sqlite")) as store:
            engine = EventGrid(wanted, store, str(function.make_url("/")), connection_string(1, 1, 1))
            async with TestServer(engine.application()) as grid:
                monkeypatch.setenv("DRIFT_EVENTS_ENDPOINT", str(grid.make_url("/signalbox/api/events")))
                monkeypatch.setenv("DRIFT_EVENTS_KEY", "made-up-key")
                for one in found:
                    await asyncio.to_thread(drift_event.publish, one)
                async with asyncio.timeout(30):
                    return [await taken.get() for _ in found]


async def test_the_event_reaches_the_function_and_a_repeat_is_the_same_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Event Grid names the topic; the same drift has the same identity, that of other data or another champion not."""
    others = [replace(FOUND, target_sha256="c" * 64), replace(FOUND, version="4"), replace(FOUND, folder="digits")]
    arrived = await delivered(tmp_path, monkeypatch, FOUND, FOUND, *others)
    read = [events.parse(event) for event in arrived]
    assert all(event.source.endswith("/Microsoft.EventGrid/topics/signalbox") for event in read)
    assert len({event.identity for event in read}) == 4
    (route,) = load_routes(ROUTES)
    assert route.dispatch == "machinelearningservices-datasetdriftdetected"
    assert all(matching((route,), event) == (route,) for event in read)
    assert all(event.time == FOUND.end for event in read)


def test_the_data_are_the_published_ones(contracts: Path) -> None:
    """The fields are those of the documented event, and by any case those of the published schema."""
    (sample,) = json.loads((contracts / "events/samples/datasetdriftdetected.eventgrid.json").read_text())
    made = drift_event.event(FOUND)
    assert made.data.keys() == sample["data"].keys()
    schema = json.loads((contracts / "events/systemevents.schema.json").read_text())
    shape = schema["definitions"]["MachineLearningServicesDatasetDriftDetectedEventData"]
    jsonschema.validate({name[0].lower() + name[1:]: value for name, value in made.data.items()}, shape)
    assert made.data["DataDriftName"] == "iris"
    assert datetime.fromisoformat(made.data["EndTime"]) == FOUND.end
    assert made.data["RunId"] == f"{made.data['DataDriftId']}_{int(FOUND.end.timestamp() * 1000)}"
