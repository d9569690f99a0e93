"""What Azure Monitor's answers mean: whole minutes, whose fault a status is, and nothing where there is nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, strategies as st
from mlops.azure import metrics as azure_metrics
from mlops.deployment.endpoints import Observed

NOW = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)
SPAN = re.compile(r"(\S+)/(\S+)")
CODES = st.sampled_from(["200", "400", "404", "408", "424", "429", "500", "502", "504"])
OWN = st.sampled_from(["", "0", "200", "400", "422", "500", "503"])


class Monitor:
    """Answers as Azure Monitor does, from counts by status and the model's own status."""

    def __init__(
        self, counts: dict[tuple[str, str], list[int | None]], latency: list[float | None] | None = None
    ) -> None:
        self.counts = counts
        self.latency = latency or []
        self.asked: list[dict[str, list[str]]] = []

    def __call__(self, path: str) -> Any:
        query = parse_qs(urlsplit(path).query)
        self.asked.append(query)
        if query["metricnames"] == ["RequestLatency_P95"]:
            return {"value": [{"timeseries": [{"data": [self._point(value) for value in self.latency]}]}]}
        series = [
            {
                "metadatavalues": [
                    {"name": {"value": "statuscode"}, "value": status},
                    {"name": {"value": "modelStatusCode"}, "value": own},
                ],
                "data": [self._point(value) for value in values],
            }
            for (status, own), values in self.counts.items()
        ]
        return {"value": [{"timeseries": series}]}

    @staticmethod
    def _point(value: float | None) -> dict[str, Any]:
        return {"timeStamp": "2026-11-21T12:00:00Z"} if value is None else {"timeStamp": "x", "average": value}


@given(
    st.dictionaries(st.tuples(CODES, OWN), st.lists(st.none() | st.integers(0, 500), max_size=4), max_size=6),
    st.lists(st.none() | st.floats(0, 10_000), max_size=4),
)
def test_requests_are_counted_and_failures_are_among_them(
    counts: dict[tuple[str, str], list[int | None]], latency: list[float | None]
) -> None:
    """All requests count; those failed that were owed an answer: never one that the model itself refused."""
    observed = azure_metrics.observe(Monitor(counts, latency), "/e", "model-v1", 300, NOW)
    numbers = {key: sum(value or 0 for value in values) for key, values in counts.items()}
    owed = {"408", "429", "500", "502", "504"}
    failed = sum(
        number
        for (status, own), number in numbers.items()
        if status in owed or (status == "424" and not own.startswith("4"))
    )
    assert observed.requests == sum(numbers.values())
    assert observed.failed == failed <= observed.requests
    known = [value for value in latency if value is not None]
    assert observed.p95_ms == (pytest.approx(sum(known) / len(known)) if known else None)


@given(st.floats(0, 7200), st.integers(0, 3599))
def test_only_whole_minutes_of_the_window_are_asked_for(seconds: float, second: int) -> None:
    """Nothing from before the window is counted, nor a minute that has not ended; a short window asks nothing."""
    now = NOW + timedelta(seconds=second)
    monitor = Monitor({("500", ""): [5]})
    observed = azure_metrics.observe(monitor, "/e", "model-v1", seconds, now)
    if not monitor.asked:
        assert observed == Observed(0, 0, None)
        assert seconds < 120
        return
    found = SPAN.fullmatch(monitor.asked[0]["timespan"][0])
    assert found is not None
    start, end = (datetime.fromisoformat(text) for text in found.groups())
    assert now - timedelta(seconds=seconds) <= start < end <= now
    assert start.second == end.second == 0


def test_a_name_that_is_none_is_not_asked_for() -> None:
    """The deployment's name becomes part of a filter, so it holds nothing that could end it."""
    monitor = Monitor({("500", ""): [5]})
    assert azure_metrics.observe(monitor, "/e", "x' or deployment ne '", 600, NOW) == Observed(0, 0, None)
    assert not monitor.asked


def test_an_endpoint_without_metrics_shows_nothing() -> None:
    """Kubernetes endpoints, and endpoints nobody has asked yet, have no series; the probes decide then."""
    assert azure_metrics.observe(lambda _: {"value": []}, "/e", "model-v1", 600, NOW) == Observed(0, 0, None)
