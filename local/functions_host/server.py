"""A thin Azure Functions host: `python -m local.functions_host.server --port P --dir DIR [--app ROOT]`.

It serves what ROOT/function_app.py declares (Event Grid, HTTP, queue and timer triggers of the Python v2 model) and
leaves all conversion to azure-functions. App settings come from the environment, queue and route settings from
ROOT/host.json. A contract test holds it against Microsoft's own runtime library.

`POST /admin/functions/NAME` with `{"input": …}` runs a function by hand, as on Azure; the input is an event, a queue
message's text, or nothing for a timer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from local import part
from local.functions_host.bindings import Payload, event_payload, queue_payload, timer_payload
from local.functions_host.eventgrid_trigger import PATH as EVENTGRID_PATH, EventGridWebhook
from local.functions_host.http_trigger import HttpRoutes
from local.functions_host.index import FunctionAppError, HostedFunction, load_function_app
from local.functions_host.invocation import LOG_FORMAT, InvocationFilter, Invoker
from local.functions_host.queue_trigger import QueueListener
from local.functions_host.settings import HostSettings, HostSettingsError, read_host_settings
from local.functions_host.timer_trigger import TimerListener

log = logging.getLogger("host")

PROJECT_ROOT = Path(__file__).resolve().parents[2]
MAX_BODY = 100 * 1024 * 1024
"""Bytes; the platform's own limit of an HTTP request."""
GRACE_SECONDS = 5.0


class FunctionsHost:
    """The triggers of one function app, started and stopped with an aiohttp application."""

    def __init__(self, functions: list[HostedFunction], settings: HostSettings, directory: Path) -> None:
        self._functions = {function.name: function for function in functions}
        self._invoker = Invoker()
        self._webhook = EventGridWebhook(
            {name: f for name, f in self._functions.items() if f.trigger_type == "eventGridTrigger"}, self._invoker
        )
        self._routes = HttpRoutes(self._of_type("httpTrigger"), settings.route_prefix, self._invoker)
        self._timers = [TimerListener(f, self._invoker, directory) for f in self._of_type("timerTrigger")]
        self._queues = [
            QueueListener(f, settings.queues, self._invoker, directory) for f in self._of_type("queueTrigger")
        ]
        self._tasks: list[asyncio.Task[None]] = []

    def application(self) -> web.Application:
        """The aiohttp application that serves the app and runs its listeners."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_options(EVENTGRID_PATH, self._webhook.options)
        app.router.add_post(EVENTGRID_PATH, self._webhook.post)
        app.router.add_post("/admin/functions/{name}", self._run_by_hand)
        app.router.add_route("*", "/{path:(?!healthz$).*}", self._routes.handle)
        app.on_startup.append(self._start)
        app.on_shutdown.append(self._stop)
        return app

    async def _start(self, _: web.Application) -> None:
        runs = [timer.run() for timer in self._timers] + [queue.run() for queue in self._queues]
        self._tasks = [asyncio.create_task(run) for run in runs]
        for task in self._tasks:
            task.add_done_callback(_listener_ended)

    async def _stop(self, _: web.Application) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        unfinished = await self._invoker.drain(GRACE_SECONDS)
        if unfinished:
            log.warning("stopping with %d invocations that did not end within %d s", unfinished, GRACE_SECONDS)
        await asyncio.gather(*(queue.close(1.0) for queue in self._queues))

    def _of_type(self, trigger_type: str) -> list[HostedFunction]:
        return [function for function in self._functions.values() if function.trigger_type == trigger_type]

    async def _run_by_hand(self, request: web.Request) -> web.Response:
        function = self._functions.get(request.match_info["name"])
        if function is None or function.trigger_type == "httpTrigger":
            return web.Response(status=404, text="No such function; an HTTP function is called by its route.")
        try:
            document = json.loads(await request.read() or b"{}")
        except ValueError as error:
            return web.Response(status=400, text=f"The body is not JSON: {error}")
        payload = _hand_payload(function, document.get("input") if isinstance(document, dict) else None)
        outcome = await self._invoker.invoke(function, payload)
        return web.Response(status=202 if outcome.succeeded else 500)


def _hand_payload(function: HostedFunction, given: Any) -> Payload:
    if function.trigger_type == "timerTrigger":
        return timer_payload(past_due=False, last=None, next_run=None)
    if function.trigger_type == "queueTrigger":
        text = given if isinstance(given, str) else json.dumps(given)
        return queue_payload(text.encode("utf-8"), {"Id": "by-hand", "DequeueCount": 1})
    return event_payload(json.loads(given) if isinstance(given, str) else given)


def _listener_ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("a listener ended, so the host stops: %s", error, exc_info=error)
        signal.raise_signal(signal.SIGTERM)


def _log_with_invocations() -> None:
    part.log_to_stderr()
    for handler in logging.getLogger().handlers:
        handler.addFilter(InvocationFilter())
        handler.setFormatter(logging.Formatter(LOG_FORMAT))


async def _serve(functions: list[HostedFunction], settings: HostSettings, directory: Path, port: int) -> None:
    host = FunctionsHost(functions, settings, directory)
    for function in functions:
        log.info("serving %s (%s)", function.name, function.trigger_type)
    await part.serve(host.application(), port)


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop. Exit status 1, with one sentence, for an app that cannot be served."""
    parser = part.arguments(__doc__ or "")
    parser.add_argument("--app", type=Path, default=PROJECT_ROOT, help="folder that holds function_app.py")
    options = parser.parse_args(arguments)
    _log_with_invocations()
    root = options.app.resolve()
    try:
        functions = load_function_app(root)
        settings = read_host_settings(root / "host.json")
        asyncio.run(_serve(functions, settings, options.dir, options.port))
    except (FunctionAppError, HostSettingsError) as error:
        print(f"functions: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    # A thread that still runs a function would hold up the interpreter's own exit for as long as it likes.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
