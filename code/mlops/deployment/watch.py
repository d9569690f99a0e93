"""Whether a deployment keeps to its limits: what users' own requests got from it, and what our probes got."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mlops.deployment.deploy_settings import Limits
from mlops.deployment.endpoints import Observed
from mlops.report import Fault

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 15.0


class Unfit(Fault):
    """A deployment broke one of its limits; the sentence says which, by how much, and who noticed."""


@dataclass(slots=True)
class Probes:
    """Our own requests with the sample."""

    asked: int = 0
    failed: int = 0
    milliseconds: list[float] = field(default_factory=list)
    reason: str = ""
    """Why the last failed one failed."""

    def ask(self, question: Callable[[], object]) -> None:
        """Ask once and note what came of it."""
        began = time.perf_counter()
        self.asked += 1
        try:
            question()
        except Fault as fault:
            self.failed += 1
            self.reason = str(fault)
        else:
            self.milliseconds.append((time.perf_counter() - began) * 1000)

    @property
    def p95_ms(self) -> float | None:
        """The time that 95 of 100 answered probes did not exceed."""
        ordered = sorted(self.milliseconds)
        return ordered[math.ceil(len(ordered) * 0.95) - 1] if ordered else None


@dataclass(frozen=True, slots=True)
class Watched:
    """What one step of a rollout showed."""

    observed: Observed
    probes: Probes
    limits: Limits

    def __str__(self) -> str:
        requests, failed = self.observed.requests, self.observed.failed
        users = f"{requests} users' requests, {failed} failed{_ms(self.observed.p95_ms)}"
        if requests < self.limits.requests:
            users = f"{users} (too few to judge by)" if requests else "no user asked"
        return f"{users}; {self.probes.asked} probes, {self.probes.failed} failed{_ms(self.probes.p95_ms)}"


def objection(observed: Observed, probes: Probes, limits: Limits) -> str | None:
    """Return which limit is broken, or None.

    Of too few users' requests only failures count, where there are too many of them whatever the missing requests would
    get; for the rest the probes decide alone.
    """
    enough = max(observed.requests, limits.requests)
    if observed.failed / enough > limits.error_share:  # a product would be a hair off: 0.29 * 100 < 29
        return (
            f"{observed.failed} of {observed.requests} users' requests failed, "
            f"and maximum_error_share is {limits.error_share:g}"
            + (f" of at least {enough} (minimum_requests)" if enough > observed.requests else "")
        )
    if observed.requests == enough and observed.p95_ms is not None and observed.p95_ms > limits.p95_ms:
        return (
            f"users' requests took {observed.p95_ms:.0f} ms (95 of 100 are faster), "
            f"and maximum_p95_ms is {limits.p95_ms:g}"
        )
    if probes.failed / max(probes.asked, 1) > limits.error_share:
        return f"{probes.failed} of {probes.asked} probes failed: {probes.reason}"
    if probes.p95_ms is not None and probes.p95_ms > limits.p95_ms:
        return f"probes took {probes.p95_ms:.0f} ms, and maximum_p95_ms is {limits.p95_ms:g}"
    return None


def watch(
    probe: Callable[[], object],
    observe: Callable[[float], Observed],
    soak_seconds: float,
    limits: Limits,
) -> Watched:
    """Probe and look again and again for `soak_seconds`; raises `Unfit` at the first broken limit."""
    began, probes = time.monotonic(), Probes()
    pause = min(max(soak_seconds / 20, _SHORTEST_PAUSE), _LONGEST_PAUSE)
    while True:
        probes.ask(probe)
        passed = time.monotonic() - began
        observed = observe(passed)
        broken = objection(observed, probes, limits)
        if broken:
            raise Unfit(broken)
        if passed >= soak_seconds:
            return Watched(observed, probes, limits)
        time.sleep(min(pause, max(soak_seconds - passed, 0)))


def _ms(value: float | None) -> str:
    return "" if value is None else f", p95 {value:.0f} ms"
