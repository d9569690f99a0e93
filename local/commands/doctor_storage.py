"""`signalbox doctor`: whether the state account can be reached and hold state, and what waits in it for a person."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from azure.core.exceptions import AzureError, HttpResponseError

from functions.adapters.account import CONTAINERS, QUEUES, TABLES, MissingStorage, StateStorage, may_not_ask
from functions.adapters.dead_letters import DeadLetterBox
from functions.adapters.history import History
from functions.core.dispatch import State
from functions.core.github_app import CLOCK_DRIFT
from functions.flow.ports import StorageUnavailable
from local.commands.doctor_findings import Finding, fault, ok, unknown

CHECK = "storage"
_MOST_SHOWN = 20


def check(storage: StateStorage, now: datetime) -> Iterator[Finding]:
    """Look at the state account; nothing is written. What may not be read is `unknown`, and the rest goes on."""
    name = str(storage.blobs.account_name)
    for look in (_namespace, _parts, _clock, _waiting):
        try:
            yield from look(storage, name, now)
        except MissingStorage as error:
            says, _, mend = str(error).partition(": ")
            yield fault(CHECK, name, says, mend or "take an account with a flat namespace")
        except (StorageUnavailable, AzureError) as error:
            says = (str(error).splitlines() or [type(error).__name__])[0]
            if getattr(error, "status_code", None) in {401, 403}:
                yield unknown(
                    CHECK, name, f"it may not be looked at ({says})",
                    "you need Storage Blob, Table and Queue Data Reader on it, and its firewall has to let you in",
                )  # fmt: skip
            else:
                yield fault(CHECK, name, says, "is it running, and in reach? 'az login' may be needed")
                return


def _namespace(storage: StateStorage, name: str, _now: datetime) -> Iterator[Finding]:
    asyncio.run(storage.check())
    try:
        storage.blobs.get_account_information()
    except HttpResponseError as error:
        if not may_not_ask(error):
            raise
        yield unknown(
            CHECK, name, "no data role may ask whether its namespace is flat",
            "Azure's management API tells: set AZURE_SUBSCRIPTION_ID and RESOURCE_GROUP",
        )  # fmt: skip
        return
    yield ok(CHECK, name, "it answers, and its namespace is flat")


def _parts(storage: StateStorage, name: str, _now: datetime) -> Iterator[Finding]:
    there = {
        "container": {found.name for found in storage.blobs.list_containers()},
        "table": {found.name for found in storage.tables.list_tables()},
        "queue": {found.name for found in storage.queues.list_queues()},
    }
    wanted = {"container": CONTAINERS, "table": TABLES, "queue": QUEUES}
    missing = [f"{kind} {one}" for kind, names in wanted.items() for one in names if one not in there[kind]]
    if missing:
        yield fault(
            CHECK, name, f"it lacks {', '.join(missing)}", "deploy infra/deploy.core-infra.json, which makes it"
        )
    else:
        yield ok(CHECK, name, "it has its containers, tables and queues")


def _clock(storage: StateStorage, _name: str, now: datetime) -> Iterator[Finding]:
    """Windows settle by storage's own clock, so that only a far one matters: it would make rescan's times wrong."""
    told: list[str] = []

    def note(response: Any) -> None:
        told.append(response.http_response.headers.get("Date", ""))

    next(storage.blobs.list_containers(results_per_page=1, raw_response_hook=note).by_page(), None)
    try:
        off = parsedate_to_datetime(told[0]) - now
    except (ValueError, IndexError):
        return
    if abs(off) > CLOCK_DRIFT:
        yield fault(
            "clock", "this machine", f"it is {abs(off).total_seconds():.0f} s off storage's",
            "set it right: 'rescan' and '--since' go by it",
        )  # fmt: skip


def _waiting(storage: StateStorage, name: str, _now: datetime) -> Iterator[Finding]:
    """What waits for a person: parked dispatches with their reasons, and dead letters."""
    parked = list(History(storage).dispatches_in(State.PARKED))
    for dispatch in parked[:_MOST_SHOWN]:
        yield fault("dispatch", dispatch.id, f"parked: {dispatch.reason}", "mend that, then 'signalbox replay --yes'")
    if len(parked) > _MOST_SHOWN:
        more = len(parked) - _MOST_SHOWN
        yield fault("dispatch", name, f"{more} more are parked", "see 'signalbox replay'")
    letters = sum(1 for _ in DeadLetterBox(storage).letters())
    if letters:
        yield fault("dead letters", name, f"{letters} events lie there", "see 'signalbox dead-letters'")
    if not parked and not letters:
        yield ok("dispatch", name, "none is parked, and there are no dead letters")
