"""What follows a delivery: done, again later, or a dead letter. Plain functions, with the clock handed in.

Follows https://learn.microsoft.com/azure/event-grid/delivery-and-retry. The schedule is the documented one, so a
function that was away gets an event again after 10 s, then 30 s, 1 min, 5 min …: nobody waits long after a short
outage, and after a long one no longer than in Azure. What is not imitated: Azure holds back *new* events of an endpoint
that keeps failing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

SCHEDULE_SECONDS: tuple[float, ...] = (10, 30, 60, 300, 600, 1800, 3600, 10800, 21600, 43200)
"""Wait after the first failure, the second, …; the last one repeats."""

SUCCESS = range(200, 205)
NEVER_RETRIED = frozenset((400, 401, 403, 413))

ATTEMPTS_EXCEEDED = "MaxDeliveryAttemptsExceeded"
TIME_EXCEEDED = "TimeToLiveExceeded"
UNDELIVERABLE = "UndeliverableDueToHttpStatus"
"""Our own name: the documentation gives none for an answer that is never retried."""

_OUTCOMES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    408: "TimedOut",
    413: "PayloadTooLarge",
    429: "Busy",
    503: "Busy",
}


class Verdict(Enum):
    """What a delivery came to."""

    DELIVERED = "delivered"
    RETRY = "retry"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Limits:
    """The `retryPolicy` of a subscription."""

    max_attempts: int = 30
    time_to_live_minutes: int = 1440

    def expires(self, published: float) -> float:
        """Seconds since 1970 from which on an event published then is not delivered any more."""
        return published + self.time_to_live_minutes * 60


@dataclass(frozen=True, slots=True)
class Answer:
    """How a destination answered a delivery."""

    status: int | None
    """HTTP status; None where no answer came."""
    outcome: str
    """`lastDeliveryOutcome` of a dead letter."""

    @classmethod
    def of(cls, status: int) -> Answer:
        """Give the answer that an HTTP status stands for."""
        return cls(status, "Delivered" if status in SUCCESS else _OUTCOMES.get(status, "GenericError"))


TIMED_OUT = Answer(None, "TimedOut")
NOT_REACHED = Answer(None, "SocketError")


@dataclass(frozen=True, slots=True)
class Next:
    """What to do with an event after a delivery."""

    verdict: Verdict
    due: float = 0.0
    """Seconds since 1970 of the next attempt, for `RETRY`."""
    reason: str = ""
    """`deadLetterReason`, for `DEAD`."""


def after_delivery(
    answer: Answer,
    limits: Limits,
    *,
    attempts: int,
    published: float,
    now: float,
    jitter: float,
    schedule: tuple[float, ...] = SCHEDULE_SECONDS,
) -> Next:
    """Decide on an event after its delivery number `attempts` (from 1). `jitter`, 0 to 1, only adds to the wait."""
    if answer.status in SUCCESS:
        return Next(Verdict.DELIVERED)
    if answer.status in NEVER_RETRIED:
        return Next(Verdict.DEAD, reason=UNDELIVERABLE)
    if attempts >= limits.max_attempts:
        return Next(Verdict.DEAD, reason=ATTEMPTS_EXCEEDED)
    wait = schedule[min(attempts, len(schedule)) - 1] * (1 + 0.1 * jitter)
    return Next(Verdict.RETRY, due=min(now + wait, limits.expires(published)))
