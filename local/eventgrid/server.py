"""Event Grid on one machine: takes published events, keeps them, and delivers them as the ARM template says.

    python -m local.eventgrid.server --port P --dir DIR --template FILE [--parameters FILE] \
        --functions URL --storage CONN

`POST /{topic}/api/events` publishes (topics `storage`, `workspace`, and each custom topic by its name) and answers 200
once the events are on disk. `GET /deliveries` tells what became of them. Filters, batching, retry, time to live and
dead letters follow the template's subscriptions; `local/eventgrid/retry.py` says how long a failed delivery waits. A
dead letter is in its container about a second after the last attempt, where Azure takes five minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from local.arm.expressions import ArmError
from local.arm.template import Template, load
from local.eventgrid.delivery import Deliverer
from local.eventgrid.destinations import ANSWER_SECONDS, DeadLetters, Destination, FunctionWebhook, StorageQueue
from local.eventgrid.publish import MAX_BYTES, Published, PublishError, parse_events
from local.eventgrid.retry import SCHEDULE_SECONDS
from local.eventgrid.store import DEAD_LETTERED, DELIVERED, DROPPED, UNMATCHED, DeliveryStore
from local.eventgrid.subscriptions import FunctionDestination, Subscription, subscriptions
from local.part import arguments, log_to_stderr, serve

log = logging.getLogger("eventgrid")


class EventGrid:
    """The engine: topics in, subscriptions out."""

    def __init__(
        self,
        wanted: Sequence[Subscription],
        store: DeliveryStore,
        functions: str,
        storage: str,
        schedule: tuple[float, ...] = SCHEDULE_SECONDS,
    ) -> None:
        """`functions` is the address of the function app, `storage` the connection string of the state account."""
        self._subscriptions = wanted
        self._store = store
        self._functions = functions
        self._storage = storage
        self._schedule = schedule
        self._deliverers: list[Deliverer] = []

    def application(self) -> web.Application:
        """Build the aiohttp application; deliveries run as long as it does."""
        app = web.Application(client_max_size=MAX_BYTES + 1)
        app.router.add_post("/{topic}/api/events", self._publish)
        app.router.add_get("/deliveries", self._report)
        app.cleanup_ctx.append(self._run)
        return app

    async def _run(self, _: web.Application) -> AsyncIterator[None]:
        names = [subscription.name for subscription in self._subscriptions]
        if gone := self._store.forget_all_but(names):
            log.warning("%s event(s) of subscriptions that are not in the template any more are dropped.", gone)
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            self._deliverers = [self._deliverer(subscription, session) for subscription in self._subscriptions]
            tasks = [asyncio.create_task(deliverer.run()) for deliverer in self._deliverers]
            for task in tasks:
                task.add_done_callback(_report_death)
            yield
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _deliverer(self, subscription: Subscription, session: aiohttp.ClientSession) -> Deliverer:
        target = subscription.destination
        destination: Destination
        if isinstance(target, FunctionDestination):
            destination = FunctionWebhook(session, self._functions, target.function, subscription.name)
        else:
            destination = StorageQueue(self._storage, target.queue, target.time_to_live_seconds)
        container = subscription.dead_letter_container
        dead_letters = DeadLetters(self._storage, container) if container else None
        return Deliverer(subscription, self._store, destination, dead_letters, self._schedule)

    async def _publish(self, request: web.Request) -> web.Response:
        topic = request.match_info["topic"]
        readers = [deliverer for deliverer in self._deliverers if deliverer.subscription.topic == topic]
        if not readers:
            topics = ", ".join(sorted({subscription.topic for subscription in self._subscriptions}))
            return _refusal(404, f"There is no topic {topic!r}; the template's subscriptions read: {topics}.")
        try:
            body = await request.read()
            events = parse_events(body, request.content_type, readers[0].subscription.source)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(413, f"The events of one request may have {MAX_BYTES} bytes in all.")
        except PublishError as error:
            return _refusal(400, str(error))
        self._accept(events, readers)
        return web.Response(status=200)

    def _accept(self, events: Sequence[Published], readers: Sequence[Deliverer]) -> None:
        rows: list[tuple[str, str, bool]] = []
        unmatched = 0
        for published in events:
            wanting = [reader.subscription for reader in readers if reader.subscription.filter.wants(published.event)]
            rows += [(subscription.name, published.body(), published.cloud) for subscription in wanting]
            unmatched += not wanting
        self._store.add(rows, unmatched, time.time())
        for reader in readers:
            reader.wake()

    async def _report(self, _: web.Request) -> web.Response:
        pending, totals = self._store.pending(), self._store.totals()
        each: dict[str, dict[str, Any]] = {}
        for deliverer in self._deliverers:
            name = deliverer.subscription.name
            each[name] = {
                "topic": deliverer.subscription.topic,
                "validated": deliverer.validated,
                "pending": pending.get(name, 0),
                **{fate: totals.get((name, fate), 0) for fate in (DELIVERED, DEAD_LETTERED, DROPPED)},
            }
        summed = ("pending", DELIVERED, DEAD_LETTERED, DROPPED)
        report: dict[str, Any] = {fate: sum(one[fate] for one in each.values()) for fate in summed}
        report[UNMATCHED] = totals.get(("", UNMATCHED), 0)
        report["subscriptions"] = each
        return web.json_response(report)


def _report_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("A subscription's deliveries ended; restart this part.", exc_info=error)


def _refusal(status: int, message: str) -> web.Response:
    code = {400: "BadRequest", 404: "NotFound", 413: "PayloadTooLarge"}[status]
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


def main() -> None:
    """Run the part until it is told to stop."""
    parser = arguments("Event Grid on one machine")
    parser.add_argument("--template", type=Path, required=True, help="ARM template with the event subscriptions")
    parser.add_argument("--parameters", type=Path, help="parameter file of the template")
    parser.add_argument("--functions", required=True, help="address of the function app")
    parser.add_argument("--storage", required=True, help="connection string of the account for dead letters and queues")
    options = parser.parse_args()
    log_to_stderr()
    try:
        given = load(options.parameters) if options.parameters else None
        wanted = subscriptions(Template(load(options.template), given))
    except ArmError as error:
        sys.exit(f"{options.template}: {error}")
    options.dir.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(DeliveryStore(options.dir / "eventgrid.sqlite")) as store:
        engine = EventGrid(wanted, store, options.functions, options.storage)
        asyncio.run(serve(engine.application(), options.port))


if __name__ == "__main__":
    main()
