"""Runs functions with a timer trigger, on NCRONTAB schedules in UTC.

As on Azure (https://learn.microsoft.com/azure/azure-functions/functions-bindings-timer): six fields with seconds
first (five are taken as second 0), one run of a timer at a time, and a schedule monitor: a run that was missed while
the host was away is made up once, as past due. The monitor is a file here, a blob there.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from croniter import CroniterError, croniter  # type: ignore[import-untyped, unused-ignore]

from local.functions_host.bindings import timer_payload
from local.functions_host.index import FunctionAppError, HostedFunction
from local.functions_host.invocation import Invoker

log = logging.getLogger("host.timer")

SIX_FIELDS = 6
LONGEST_SLEEP = 3_600.0
"""Seconds; sleeping in pieces keeps a suspended laptop from being hours late."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """An NCRONTAB expression."""

    expression: str

    def after(self, moment: datetime) -> datetime:
        """The first occurrence later than `moment`. Day and weekday must both match, as in NCRONTAB."""
        occurrence: datetime = croniter(
            self.expression, moment, ret_type=datetime, second_at_beginning=True, day_or=False
        ).get_next(datetime)
        return occurrence


class ScheduleMonitor:
    """Remembers over restarts when a timer last ran and was to run next."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[datetime | None, datetime | None]:
        """Last and next run; nothing for a timer that never ran, or whose file is damaged."""
        try:
            state = json.loads(self._path.read_text(encoding="utf-8"))
            last = datetime.fromisoformat(state["last"]) if state["last"] else None
            return last, datetime.fromisoformat(state["next"])
        except (OSError, ValueError, KeyError, TypeError):
            return None, None

    def write(self, last: datetime | None, next_run: datetime) -> None:
        """Replace the state in one step, so that a kill leaves the old or the new one."""
        state = {"last": last.isoformat() if last else None, "next": next_run.isoformat()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(self._path)


class TimerListener:
    """Runs one function by its schedule until cancelled."""

    def __init__(self, function: HostedFunction, invoker: Invoker, directory: Path) -> None:
        self._function = function
        self._invoker = invoker
        self._schedule = _schedule(function)
        self._monitor = ScheduleMonitor(directory / "timers" / f"{function.name}.json")
        self._monitored = function.trigger.get("useMonitor") is not False
        self._startup = bool(function.trigger.get("runOnStartup"))

    async def run(self) -> None:
        """Make up a missed run, honour run_on_startup, then follow the schedule."""
        last, due = self._monitor.read() if self._monitored else (None, None)
        now = datetime.now(UTC)
        if due is not None and due <= now:
            last = await self.tick(last, past_due=True)
        elif self._startup:
            last = await self.tick(last, past_due=False)
        else:
            self._remember(last, self._schedule.after(now))
        while True:
            await _sleep_until(self._schedule.after(datetime.now(UTC)))
            last = await self.tick(last, past_due=False)

    async def tick(self, last: datetime | None, *, past_due: bool) -> datetime:
        """Run the function once; answers when it started. A failed run waits for its next turn, as on Azure."""
        started = datetime.now(UTC)
        next_run = self._schedule.after(started)
        await self._invoker.invoke(self._function, timer_payload(past_due=past_due, last=last, next_run=next_run))
        self._remember(started, next_run)
        return started

    def _remember(self, last: datetime | None, next_run: datetime) -> None:
        if self._monitored:
            self._monitor.write(last, next_run)


def _schedule(function: HostedFunction) -> Schedule:
    expression = " ".join(str(function.trigger["schedule"]).split())
    fields = len(expression.split(" "))
    if fields == SIX_FIELDS - 1:
        expression = f"0 {expression}"
    try:
        if fields not in (SIX_FIELDS - 1, SIX_FIELDS):
            raise ValueError("it has neither six nor five fields")
        schedule = Schedule(expression)
        schedule.after(datetime.now(UTC))
    except (CroniterError, ValueError) as error:
        raise FunctionAppError(
            f"Function {function.name}: the schedule {expression!r} is no NCRONTAB expression "
            "(second minute hour day month weekday): " + str(error).rstrip(".") + "."
        ) from None
    return schedule


async def _sleep_until(moment: datetime) -> None:
    while (seconds := (moment - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - a clock raises no event
        await asyncio.sleep(min(seconds, LONGEST_SLEEP))
