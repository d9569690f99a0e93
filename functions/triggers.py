"""The triggers: what Azure calls. Each hands over to the orchestrator and says nothing else.

Event Grid trigger and events queue are two doors into the same intake. See docs/adr/0002-thin-functions-host.md for how
the same app runs on one machine.
"""

from __future__ import annotations

import json
import logging

import azure.functions as func

from functions.adapters.account import EVENTS_QUEUE, WORK_QUEUE
from functions.application import Application

RECONCILE_SCHEDULE = "0 */5 * * * *"
STORAGE_SETTING = "AzureWebJobsStorage"

_log = logging.getLogger("signalbox")


def blueprint(application: Application) -> func.Blueprint:
    """All functions of the app, bound to `application`."""
    functions = func.Blueprint()

    @functions.function_name("intake")
    @functions.event_grid_trigger(arg_name="event")
    async def intake(event: func.EventGridEvent) -> None:
        """One event from Event Grid; an exception makes Event Grid deliver it again."""
        orchestrator = await application.orchestrator()
        await orchestrator.intake.take_value(event_value(event))

    @functions.function_name("intake_queue")
    @functions.queue_trigger(arg_name="message", queue_name=EVENTS_QUEUE, connection=STORAGE_SETTING)
    async def intake_queue(message: func.QueueMessage) -> None:
        """One message of the storage queue to which Event Grid delivers instead."""
        orchestrator = await application.orchestrator()
        await orchestrator.intake.take_message(message.get_body())

    @functions.function_name("work")
    @functions.queue_trigger(arg_name="message", queue_name=WORK_QUEUE, connection=STORAGE_SETTING)
    async def work(message: func.QueueMessage) -> None:
        """Look at a window, send a dispatch, or look for its run."""
        orchestrator = await application.orchestrator()
        await orchestrator.work(json.loads(message.get_body()))

    @functions.function_name("reconcile")
    @functions.timer_trigger(arg_name="timer", schedule=RECONCILE_SCHEDULE)
    async def reconcile(timer: func.TimerRequest) -> None:
        """Every five minutes: find what a crash left unfinished."""
        if timer.past_due:
            _log.info("the reconcile timer is late")
        orchestrator = await application.orchestrator()
        await orchestrator.reconcile()

    @functions.function_name("status")
    @functions.route("status", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
    async def status(req: func.HttpRequest) -> func.HttpResponse:
        """What is under way, as JSON."""
        orchestrator = await application.orchestrator()
        body = json.dumps(await orchestrator.status(), indent=2)
        return func.HttpResponse(body, mimetype="application/json")

    return functions


def event_value(event: func.EventGridEvent | func.CloudEvent) -> dict[str, object]:
    """The event as Event Grid sent it, from what Microsoft's converter made of it.

    A parameter that is annotated `EventGridEvent` receives a `CloudEvent` where the subscription delivers those.
    """
    if isinstance(event, func.CloudEvent):
        return {
            "specversion": event.specversion,
            "id": event.id,
            "type": event.type,
            "source": event.source,
            "subject": event.subject,
            "time": None if event.time is None else event.time.isoformat(),
            "data": event.get_json(),
        }
    return {
        "id": event.id,
        "eventType": event.event_type,
        "topic": event.topic,
        "subject": event.subject,
        "eventTime": None if event.event_time is None else event.event_time.isoformat(),
        "data": event.get_json(),
    }
