"""The address to which Event Grid delivers: `POST /runtime/webhooks/eventgrid?functionName=NAME[&code=KEY]`.

Behaves as Azure's Event Grid extension for Functions
(https://learn.microsoft.com/azure/azure-functions/event-grid-how-tos), with three differences that make it easier to
post by hand: a delivery without `aeg-event-type` counts as a notification (Azure: 400), a body that is not JSON is
answered 400 (Azure: 500), and keys (`code`) are not asked for.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from local.functions_host.bindings import event_payload
from local.functions_host.index import HostedFunction
from local.functions_host.invocation import Invoker

log = logging.getLogger("host.eventgrid")

PATH = "/runtime/webhooks/eventgrid"
MAX_PARALLEL = 512
"""Invocations of one delivery at once: enough for functions that share appends, few enough for 5,000 events."""


class EventGridWebhook:
    """Serves the functions with an Event Grid trigger, by name."""

    def __init__(self, functions: Mapping[str, HostedFunction], invoker: Invoker) -> None:
        self._functions = functions
        self._invoker = invoker

    async def options(self, request: web.Request) -> web.Response:
        """Answer the abuse-protection handshake of the CloudEvents webhook specification."""
        if self._function(request) is None:
            return _unknown(request)
        origin = request.headers.get("WebHook-Request-Origin")
        if not origin:
            return web.Response(status=400, text="WebHook-Request-Origin is missing.")
        return web.Response(
            headers={"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*", "Allow": "POST, OPTIONS"}
        )

    async def post(self, request: web.Request) -> web.Response:
        """Validate a subscription, or hand each event of a delivery to the function."""
        function = self._function(request)
        if function is None:
            return _unknown(request)
        kind = request.headers.get("aeg-event-type", "Notification").lower()
        if kind in ("subscriptiondeletion", "unsubscribe"):
            return web.Response(status=200 if kind == "subscriptiondeletion" else 202)
        if kind not in ("notification", "subscriptionvalidation"):
            return web.Response(status=400, text=f"aeg-event-type {kind} is not known.")
        try:
            body = json.loads(await request.read(), parse_constant=_refuse_constant)
        except ValueError as error:
            return web.Response(status=400, text=f"The body is not JSON: {error}")
        if not isinstance(body, list | dict):
            return web.Response(status=400, text="The body must be an event or an array of events.")
        if kind == "subscriptionvalidation":
            return _validation(body, function)
        return await self._deliver(function, body if isinstance(body, list) else [body])

    def _function(self, request: web.Request) -> HostedFunction | None:
        return self._functions.get(request.query.get("functionName", ""))

    async def _deliver(self, function: HostedFunction, events: list[Any]) -> web.Response:
        """One invocation an event, in parallel; a single failure fails the delivery, which then comes again whole."""
        places = asyncio.Semaphore(MAX_PARALLEL)

        async def one(event: Any) -> bool:
            async with places:
                return (await self._invoker.invoke(function, event_payload(event))).succeeded

        succeeded = await asyncio.gather(*(one(event) for event in events))
        failed = succeeded.count(False)
        if failed:
            text = f"{failed} of {len(events)} events failed in {function.name}; its log says why."
            return web.Response(status=500, text=text)
        return web.Response(status=202)


def _unknown(request: web.Request) -> web.Response:
    return web.Response(status=404, text=f"cannot find function: '{request.query.get('functionName', '')}'")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _validation(body: Any, function: HostedFunction) -> web.Response:
    """Prove to Event Grid that this endpoint wants its events."""
    event = (body or [None])[0] if isinstance(body, list) else body
    data = event.get("data") if isinstance(event, dict) else None
    if isinstance(data, str):  # CloudEvents subscriptions encode the data twice
        try:
            data = json.loads(data)
        except ValueError:
            data = None
    code = data.get("validationCode") if isinstance(data, dict) else None
    if not isinstance(code, str):
        return web.Response(status=400, text="The validation event has no data.validationCode.")
    log.info("handshake with Event Grid for %s", function.name)
    return web.json_response({"validationResponse": code})
