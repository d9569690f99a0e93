"""An endpoint's traffic: who gets the next request, who gets a copy of it, and what came of the last ones."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.endpoints.deployments import DeploymentError, ScoringServer

WHOLE = 100
MOST_MIRRORED = 50
"""Azure ML copies at most half of the traffic."""
KEPT_SECONDS = 3600
_BINS_PER_DOUBLING = 8


@dataclass(slots=True)
class Second:
    """What one second brought: requests, failed ones, and how many took about how long."""

    number: int
    requests: int = 0
    failed: int = 0
    bins: Counter[int] = field(default_factory=Counter)


class Tally:
    """What users' requests got from one deployment, second by second, for an hour; its memory is bounded.

    A time is kept to within a tenth: a bin is an eighth of a doubling wide.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never run backwards."""
        self._clock = clock
        self._seconds: deque[Second] = deque(maxlen=KEPT_SECONDS)

    def count(self, *, failed: bool, milliseconds: float) -> None:
        """Count one answered request."""
        now = int(self._clock())
        if not self._seconds or self._seconds[-1].number != now:
            self._seconds.append(Second(now))
        second = self._seconds[-1]
        second.requests += 1
        second.failed += failed
        second.bins[math.ceil(_BINS_PER_DOUBLING * math.log2(max(milliseconds, 1.0)))] += 1

    def observed(self, seconds: float) -> dict[str, Any]:
        """Sum up the last `seconds`, as the API shows it: `requests`, `failed`, `p95_ms` (null without any)."""
        since = self._clock() - seconds
        bins: Counter[int] = Counter()
        requests = failed = 0
        for second in reversed(self._seconds):
            if second.number + 1 <= since:
                break
            requests, failed = requests + second.requests, failed + second.failed
            bins += second.bins
        return {"requests": requests, "failed": failed, "p95_ms": _slowest_but_5_percent(bins, requests)}


def _slowest_but_5_percent(bins: Counter[int], requests: int) -> float | None:
    left = requests - math.ceil(requests * 0.95)
    for number in sorted(bins, reverse=True):
        left -= bins[number]
        if left < 0:
            return round(2 ** (number / _BINS_PER_DOUBLING), 1)
    return None


@dataclass(slots=True)
class Endpoint:
    """One endpoint: its servers by deployment name, the share of each in percent, and its tags."""

    clock: Callable[[], float]
    servers: dict[str, ScoringServer] = field(default_factory=dict)
    traffic: dict[str, int] = field(default_factory=dict)
    mirror: dict[str, int] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    _credit: Counter[str] = field(default_factory=Counter)
    _copies: int = 0

    def pick(self) -> str | None:
        """The next deployment by weight: evenly spread, so that ten percent is one request in ten."""
        shares = {name: share for name, share in self.traffic.items() if share > 0}
        if not shares:
            return None
        self._credit.update(shares)
        chosen = max(shares, key=lambda name: self._credit[name])
        self._credit[chosen] -= sum(shares.values())
        return chosen

    def pick_copy(self) -> str | None:
        """The deployment that gets a copy of this request, or None for most of them."""
        for name, share in self.mirror.items():
            self._copies += share
            if self._copies >= WHOLE:
                self._copies -= WHOLE
                return name
        return None

    def tally(self, deployment: str) -> Tally:
        """The deployment's counters; they outlive its restarts."""
        return self.tallies.setdefault(deployment, Tally(self.clock))

    def split(self, traffic: Mapping[str, int], mirror: Mapping[str, int]) -> None:
        """Set both shares anew."""
        self.traffic, self.mirror, self._copies = dict(traffic), dict(mirror), 0
        self._credit.clear()

    def forget(self, deployment: str) -> None:
        """Take a deployment out of everything."""
        for known in (self.servers, self.traffic, self.mirror, self.tallies):
            known.pop(deployment, None)

    def retag(self, tags: Mapping[str, str], only_if: Mapping[str, str]) -> bool:
        """Set tags ("" takes one away), unless one named in `only_if` has another value; tell whether it was done."""
        if any(self.tags.get(name, "") != value for name, value in only_if.items()):
            return False
        merged = {**self.tags, **tags}
        self.tags = {name: value for name, value in merged.items() if value}
        return True


def check_split(traffic: Any, mirror: Any) -> None:
    """Raise DeploymentError where the shares break one of Azure ML's rules."""
    if not _are_percents(traffic) or sum(traffic.values()) not in (0, WHOLE):
        raise DeploymentError("Traffic must be whole percents by deployment name that add up to 100, or to 0.")
    if not _are_percents(mirror) or len(mirror) > 1 or any(share > MOST_MIRRORED for share in mirror.values()):
        raise DeploymentError(f"Mirror must name at most one deployment, with at most {MOST_MIRRORED} percent.")
    for name in mirror:
        if traffic.get(name):
            raise DeploymentError(f"Deployment {name} has traffic of its own, so nothing can be mirrored to it.")


def _are_percents(shares: Any) -> bool:
    return isinstance(shares, dict) and all(type(share) is int and 0 <= share <= WHOLE for share in shares.values())
