"""Who gets a request, who gets a copy, and what is counted: the rules of an endpoint's traffic, without servers."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from local.endpoints.deployments import Deployment, DeploymentError, ScoringServer
from local.endpoints.nursery import Nursery
from local.endpoints.traffic import KEPT_SECONDS, Endpoint, Tally, check_split


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(0, 100), st.integers(1, 300))
def test_shares_are_kept_at_every_moment(share: int, asked: int) -> None:
    """After any number of requests, each deployment has had its share, to within one request."""
    endpoint = Endpoint(Clock())
    endpoint.split({"new": share, "old": 100 - share}, {})
    counted = Counter(endpoint.pick() for _ in range(asked))
    assert abs(counted["new"] - asked * share / 100) <= 1
    assert sum(counted.values()) == asked


@given(st.integers(0, 50), st.integers(1, 300))
def test_copies_are_a_share_of_the_requests(share: int, asked: int) -> None:
    """The mirrored deployment gets its percents of the requests and not one more."""
    endpoint = Endpoint(Clock())
    endpoint.split({"old": 100}, {"new": share})
    assert sum(endpoint.pick_copy() == "new" for _ in range(asked)) == asked * share // 100


@given(st.lists(st.tuples(st.floats(0, 2), st.booleans(), st.floats(0, 60_000)), max_size=60), st.floats(1, 100))
def test_a_tally_sums_up_the_last_seconds(answers: list[tuple[float, bool, float]], seconds: float) -> None:
    """Requests and failures of the time asked for, to within the second at its edge; p95 to within a tenth."""
    clock = Clock()
    tally, when = Tally(clock), []
    for pause, failed, milliseconds in answers:
        clock.now += pause
        when.append((clock.now, failed, milliseconds))
        tally.count(failed=failed, milliseconds=milliseconds)
    since = clock.now - seconds
    surely = [one for one in when if one[0] >= since]
    perhaps = [one for one in when if one[0] > since - 1]
    found = tally.observed(seconds)
    assert len(surely) <= found["requests"] <= len(perhaps)
    assert sum(one[1] for one in surely) <= found["failed"] <= sum(one[1] for one in perhaps)
    if surely == perhaps and surely:
        ordered = sorted(max(one[2], 1.0) for one in surely)
        exact = ordered[math.ceil(len(ordered) * 0.95) - 1]
        assert exact * 0.999 - 0.1 <= found["p95_ms"] <= exact * 1.1 + 0.1
    if not found["requests"]:
        assert found["p95_ms"] is None


def test_a_tally_forgets_after_an_hour() -> None:
    """Its memory is bounded by seconds, whatever the number of requests."""
    clock = Clock()
    tally = Tally(clock)
    for _ in range(KEPT_SECONDS + 10):
        clock.now += 1
        tally.count(failed=False, milliseconds=5)
    assert tally.observed(10 * KEPT_SECONDS)["requests"] == KEPT_SECONDS


def test_tags_are_compared_and_set() -> None:
    """Nothing changes where a compared tag has another value; an empty text is no tag."""
    endpoint = Endpoint(Clock())
    assert endpoint.retag({"lease": "a", "champion": "model-v1"}, {"lease": ""})
    assert not endpoint.retag({"lease": "b", "champion": "model-v2"}, {"lease": ""})
    assert endpoint.tags == {"lease": "a", "champion": "model-v1"}
    assert endpoint.retag({"lease": ""}, {"lease": "a", "champion": "model-v1"})
    assert endpoint.tags == {"champion": "model-v1"}


@pytest.mark.parametrize(
    ("traffic", "mirror", "words"),
    [
        ({"a": 50}, {}, "add up to 100"),
        ({"a": 100}, {"b": 51}, "at most 50 percent"),
        ({"a": 100}, {"b": 5, "c": 5}, "at most one deployment"),
        ({"a": 100}, {"a": 5}, "traffic of its own"),
        ([], {}, "Traffic must be"),
        ({"a": 100}, {"b": 0.5}, "Mirror must"),
    ],
)
def test_shares_that_azure_would_refuse(traffic: Any, mirror: Any, words: str) -> None:
    """The sentence says which rule was broken."""
    with pytest.raises(DeploymentError, match=words):
        check_split(traffic, mirror)


def test_a_server_is_drained_before_it_stops(tmp_path: Path) -> None:
    """Whoever still waits for an answer is waited for; a server that nobody waits for is stopped at once."""

    async def story() -> None:
        server = ScoringServer("digits.model-v1", Deployment("model", "code"), tmp_path, Nursery())
        await server.drain()
        with server.request():
            draining = asyncio.create_task(server.drain())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not draining.done()
        await draining

    asyncio.run(story())
