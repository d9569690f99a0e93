"""A running Event Grid, the function app that it delivers to, and events to publish."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from local.arm.template import Template, load
from local.azurite import connection_string
from local.eventgrid.filters import EventFilter
from local.eventgrid.retry import Limits
from local.eventgrid.server import EventGrid
from local.eventgrid.store import DeliveryStore
from local.eventgrid.subscriptions import FunctionDestination, Subscription, subscriptions

PROJECT = Path(__file__).resolve().parents[2]
TEMPLATE = PROJECT / "infra/deploy_event_grid.json"
PARAMETERS = PROJECT / "infra/params.deploy_event_grid.json"
NO_STORAGE = connection_string(1, 1, 1)


def custom(**changes: Any) -> Subscription:
    """A subscription on the custom topic that wants everything."""
    plain = Subscription(
        name="custom",
        topic="signalbox",
        source="/custom",
        filter=EventFilter(),
        destination=FunctionDestination("intake"),
        limits=Limits(),
        dead_letter_container=None,
    )
    return replace(plain, **changes)


def event(number: int = 0, **changes: Any) -> dict[str, Any]:
    """An event of the Event Grid schema."""
    plain = {
        "id": f"id-{number}",
        "subject": f"/s/{number}",
        "eventType": "Test.Event",
        "eventTime": "2026-11-20T12:00:00Z",
        "data": {"number": number, "text": "größe"},
        "dataVersion": "1",
    }
    return {**plain, **changes}


class Function:
    """A function app's webhook: keeps what it is sent and answers as `answers` says, 202 where that is used up."""

    def __init__(self) -> None:
        self.validated: list[str] = []
        self.deliveries: list[tuple[dict[str, str], Any]] = []
        self.answers: list[int] = []
        self.seconds = 0.0
        self.most_at_once = 0
        self._now = 0
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/runtime/webhooks/eventgrid", self._post)
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        """Address of the function app."""
        return str(self.server.make_url("/"))

    @property
    def numbers(self) -> list[int]:
        """The numbers of all events delivered, in order of arrival."""
        bodies = (body if isinstance(body, list) else [body] for _, body in self.deliveries)
        return [one["data"]["number"] for body in bodies for one in body]

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert request.query["functionName"] == "intake"
        if request.headers["aeg-event-type"] == "SubscriptionValidation":
            self.validated.append(request.headers["aeg-subscription-name"])
            return web.json_response({"validationResponse": body[0]["data"]["validationCode"]})
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        self.deliveries.append((dict(request.headers), body))
        await asyncio.sleep(self.seconds)
        self._now -= 1
        return web.Response(status=self.answers.pop(0) if self.answers else 202)


async def eventually(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait for a condition; fail where it does not come true."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if found is True or (not isinstance(found, bool) and await found):
                return
            await asyncio.sleep(0.01)


class Grid:
    """A running engine."""

    def __init__(self, server: TestServer) -> None:
        self._server = server

    def topic(self, name: str = "signalbox") -> str:
        """Address to which a topic's events are published."""
        return str(self._server.make_url(f"/{name}/api/events"))

    async def publish(self, body: Any, topic: str = "signalbox", **headers: str) -> tuple[int, str]:
        """Post a body; gives status and text of the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        address = self.topic(topic)
        async with (
            aiohttp.ClientSession() as session,
            session.post(address, data=io.BytesIO(data), headers=headers) as answer,
        ):
            return answer.status, await answer.text()

    async def report(self) -> dict[str, Any]:
        """What became of the events."""
        async with aiohttp.ClientSession() as session, session.get(self._server.make_url("/deliveries")) as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def settled(self) -> dict[str, Any]:
        """The report, once nothing is pending any more."""

        async def nothing_pending() -> bool:
            return (await self.report())["pending"] == 0

        await eventually(nothing_pending)
        return await self.report()


@asynccontextmanager
async def running(
    folder: Path,
    functions: str,
    *wanted: Subscription,
    storage: str = NO_STORAGE,
    schedule: tuple[float, ...] = (0.05,),
) -> AsyncIterator[Grid]:
    """An engine in this process, with a schedule that does not make tests wait."""
    store = DeliveryStore(folder / "eventgrid.sqlite")
    server = TestServer(EventGrid(wanted, store, functions, storage, schedule).application())
    await server.start_server()
    try:
        yield Grid(server)
    finally:
        await server.close()
        store.close()


@pytest.fixture
async def function() -> AsyncIterator[Function]:
    """A function app that listens."""
    one = Function()
    await one.server.start_server()
    yield one
    await one.server.close()


def from_template(**parameters: Any) -> list[Subscription]:
    """The template's own subscriptions."""
    given = load(PARAMETERS)
    given["parameters"] |= {name: {"value": value} for name, value in parameters.items()}
    return subscriptions(Template(load(TEMPLATE), given))
