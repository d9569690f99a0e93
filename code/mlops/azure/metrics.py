"""What users' requests got from a deployment, as Azure Monitor counts it.

Follows "Supported metrics for Microsoft.MachineLearningServices/workspaces/onlineEndpoints": RequestsPerMinute by
deployment, status code and the model's own status code; RequestLatency_P95 by deployment. Both come in whole minutes,
and some minutes late. Probes that pick a deployment by header are counted too: Azure cannot tell them apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from mlops.deployment.endpoints import Observed

API_VERSION = "2023-10-01"
_NAMESPACE = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints"
_NAME = re.compile(r"[A-Za-z0-9-]+")
_FAILED_DEPENDENCY = 424
_NO_ANSWER = frozenset({408, 429})
"""No answer in time, and more waiting requests than the deployment takes."""

Get = Callable[[str], Any]
"""Fetches an address below Azure Resource Manager and returns the decoded answer."""


def observe(get: Get, resource: str, deployment: str, seconds: float, now: datetime | None = None) -> Observed:
    """Return what the deployment's users got in the whole minutes of the last `seconds`.

    `resource` is the endpoint's ARM id.
    """
    span = _whole_minutes(now or datetime.now(UTC), seconds)
    if span is None or not _NAME.fullmatch(deployment):
        return Observed(0, 0, None)
    mine = f"deployment eq '{deployment}'"
    counted = get(
        _query(resource, "RequestsPerMinute", span, f"{mine} and statusCode eq '*' and modelStatusCode eq '*'")
    )
    requests = failed = 0.0
    for series in _series(counted):
        number = sum(_averages(series))
        requests += number
        failed += number if _is_failure(series) else 0
    slow = [
        value
        for series in _series(get(_query(resource, "RequestLatency_P95", span, mine)))
        for value in _averages(series)
    ]
    return Observed(round(requests), math.ceil(failed), sum(slow) / len(slow) if slow else None)


def _whole_minutes(now: datetime, seconds: float) -> str | None:
    """Return the time span of the whole minutes that have begun and ended within, or None."""
    end = now.replace(second=0, microsecond=0)
    began = now - timedelta(seconds=seconds)
    start = began.replace(second=0, microsecond=0)
    if start < began:
        start += timedelta(minutes=1)
    return f"{start:%Y-%m-%dT%H:%M:%SZ}/{end:%Y-%m-%dT%H:%M:%SZ}" if start < end else None


def _query(resource: str, metric: str, span: str, condition: str) -> str:
    query = {
        "api-version": API_VERSION,
        "metricnamespace": _NAMESPACE,
        "metricnames": metric,
        "timespan": span,
        "interval": "PT1M",
        "aggregation": "Average",
        "$filter": condition,
    }
    return f"{resource}/providers/Microsoft.Insights/metrics?{urlencode(query)}"


def _series(answer: Any) -> Iterable[dict[str, Any]]:
    return [series for metric in answer.get("value", []) for series in metric.get("timeseries", [])]


def _averages(series: dict[str, Any]) -> list[float]:
    """Return the minutes' values; a minute without a request has none."""
    return [float(point["average"]) for point in series.get("data", []) if point.get("average") is not None]


def _is_failure(series: dict[str, Any]) -> bool:
    """Tell whether these requests were owed an answer; a request that the model itself refused (4xx) was not."""
    labels = {entry["name"]["value"].lower(): entry.get("value", "") for entry in series.get("metadatavalues", [])}
    status, own = _code(labels.get("statuscode", "")), _code(labels.get("modelstatuscode", ""))
    if status == _FAILED_DEPENDENCY:
        return not 400 <= own < 500
    return status >= 500 or status in _NO_ANSWER


def _code(text: str) -> int:
    return int(text) if text.isdecimal() else 0
