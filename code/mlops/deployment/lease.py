"""One rollout at a time: whoever changes an endpoint's traffic holds the lease that stands in the endpoint's tags.

The lease is a tag that is compared and set. It runs out by itself, and a holder that is known to have ended (an
earlier attempt of the same workflow run, or a process of this machine that is gone) is not waited for.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlops import report
from mlops.deployment.endpoints import Endpoints

TAG = "rollout_lease"
SECONDS = 3600.0
"""As long as a deployment may take to start; each step of a rollout renews it."""
_LONGEST_PAUSE = 15.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_VALUE = re.compile(
    r"(?P<what>\S+) run=(?P<run>\d*)\.(?P<attempt>\d+) at=(?P<machine>\S+)\.(?P<pid>\d+) id=\S+ until=(?P<until>\d+)"
)


class LeaseLost(report.Fault):
    """Somebody else took the lease; nothing may be changed any more, not even back."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks for a lease."""

    run: str
    """Id of the workflow run; empty outside of one."""
    attempt: int
    machine: str
    """Names this start of this machine."""
    pid: int

    @classmethod
    def this_process(cls) -> Holder:
        """Return this process as a holder."""
        machine = _BOOT.read_text(encoding="ascii").strip() if _BOOT.is_file() else socket.gethostname()
        run, attempt = os.environ.get("GITHUB_RUN_ID", ""), os.environ.get("GITHUB_RUN_ATTEMPT", "")
        return cls(run if run.isdecimal() else "", int(attempt) if attempt.isdecimal() else 1, machine, os.getpid())


class Lease:
    """The lease of one endpoint, held for one deployment."""

    def __init__(
        self, endpoints: Endpoints, endpoint: str, holder: Holder, clock: Callable[[], float] = time.time
    ) -> None:
        self._endpoints = endpoints
        self._endpoint = endpoint
        self._holder = holder
        self._clock = clock
        self._value = ""

    @contextlib.contextmanager
    def held(self, what: str, *, by_force: bool = False) -> Iterator[None]:
        """Hold the lease inside of the block; waits for a holder that lives, unless `by_force`.

        Raises `Fault` where another one has held it for longer than a lease lasts.
        """
        self._take(what, by_force)
        try:
            yield
        finally:
            with contextlib.suppress(report.Fault):  # it runs out by itself
                self._endpoints.tag(self._endpoint, {TAG: ""}, {TAG: self._value})

    def renew(self, seconds: float = SECONDS) -> None:
        """Hold on for `seconds` more; raises `LeaseLost` where somebody else holds it now."""
        value = self._text(self._value.split()[0], seconds)
        if not self._endpoints.tag(self._endpoint, {TAG: value}, {TAG: self._value}):
            now = self._endpoints.state(self._endpoint).tags.get(TAG, "")
            raise LeaseLost(
                f"Another rollout or rollback has taken endpoint {self._endpoint} over ({now or 'it has ended'}); "
                "this one stops here and leaves the traffic to it."
            )
        self._value = value

    def _take(self, what: str, by_force: bool) -> None:
        began, pause, said = self._clock(), 0.2, ""
        while True:
            current = self._endpoints.state(self._endpoint).tags.get(TAG, "")
            if by_force or self._is_over(current):
                value = self._text(what, SECONDS)
                if self._endpoints.tag(self._endpoint, {TAG: value}, {TAG: current}):
                    self._value = value
                    return
                time.sleep(pause)  # somebody was faster; look again
                continue
            if self._clock() - began > SECONDS:
                raise report.Fault(
                    f"Endpoint {self._endpoint} is held by another rollout ({current}): cancel that one."
                )
            if current != said:
                said = current
                report.say(f"Endpoint {self._endpoint} is held by another rollout ({current}); waiting for its end.")
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _is_over(self, value: str) -> bool:
        """Tell whether nobody holds it, or nobody who is alive."""
        found = _VALUE.fullmatch(value)
        if found is None or int(found["until"]) <= self._clock():
            return True
        if self._holder.run and found["run"] == self._holder.run and int(found["attempt"]) < self._holder.attempt:
            return True
        return found["machine"] == self._holder.machine and not _is_alive(int(found["pid"]))

    def _text(self, what: str, seconds: float) -> str:
        holder, until = self._holder, int(self._clock() + seconds)
        who = f"run={holder.run}.{holder.attempt} at={holder.machine}.{holder.pid}"
        return f"{what} {who} id={uuid.uuid4().hex[:8]} until={until}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
