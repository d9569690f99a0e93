"""Drift as an event on the custom topic, in the shape that Azure ML published: users' routes for it keep working.

Follows "Azure Machine Learning as an Event Grid source", Microsoft.MachineLearningServices.DatasetDriftDetected.
Azure ML's own drift monitors of v1 are gone, so that Signalbox is its publisher.

Everything in the event follows from what was compared: the same data held against the same champion make the same
event, which Signalbox knows to be a duplicate. A check that runs every hour starts one training, not one every hour.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from azure.core.credentials import AzureKeyCredential, TokenCredential
from azure.core.exceptions import AzureError
from azure.eventgrid import EventGridEvent, EventGridPublisherClient

from mlops.environment import required
from mlops.report import Fault

DRIFT_DETECTED = "Microsoft.MachineLearningServices.DatasetDriftDetected"
_NAMES = uuid.uuid5(uuid.NAMESPACE_OID, "signalbox drift")


@dataclass(frozen=True, slots=True)
class Detected:
    """What was found to have drifted, away from what."""

    folder: str
    """Folder of container `training-data`; the monitor's name, from which a route takes its key."""
    model: str
    """Registered model, and version, that is the champion."""
    version: str
    base_sha256: str
    """Snapshot of the champion's training data."""
    target_sha256: str
    """Snapshot of the files that were compared with it."""
    coefficient: float
    """Largest effect of any column, 0 to 1."""
    start: datetime
    """When the champion's snapshot was taken."""
    end: datetime
    """When the newest file that was compared was written."""


def topic() -> str:
    """Return the address of the custom topic, or say that it is missing."""
    return required("DRIFT_EVENTS_ENDPOINT", "the address of the Event Grid custom topic that takes drift events")


def event(found: Detected) -> EventGridEvent:
    """Build the event; its `topic` is left to Event Grid, which refuses another than its own."""
    monitor = str(uuid.uuid5(_NAMES, f"{found.folder}\n{found.model}\n{found.version}\n{found.base_sha256}"))
    run = f"{monitor}_{int(found.end.timestamp() * 1000)}"
    return EventGridEvent(
        id=str(uuid.uuid5(_NAMES, f"{monitor}\n{found.target_sha256}")),
        subject=f"datadrifts/{monitor}/runs/{run}",
        event_type=DRIFT_DETECTED,
        event_time=found.end.astimezone(UTC),
        data={
            "DataDriftId": monitor,
            "DataDriftName": found.folder,
            "RunId": run,
            "BaseDatasetId": found.base_sha256,
            "TargetDatasetId": found.target_sha256,
            "DriftCoefficient": round(found.coefficient, 6),
            "StartTime": _text(found.start),
            "EndTime": _text(found.end),
        },
        data_version="1",
    )


def publish(found: Detected) -> None:
    """Publish to the topic: with its key where `DRIFT_EVENTS_KEY` is set, else with the job's identity.

    Raises `Fault` when the event could not be handed over: nothing would follow.
    """
    endpoint = topic()
    try:
        with EventGridPublisherClient(endpoint, _credential(), retry_total=5, retry_backoff_factor=0.3) as client:
            client.send(event(found))
    except (AzureError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise Fault(
            f"The drift of folder {found.folder} could not be published to DRIFT_EVENTS_ENDPOINT ({endpoint}): "
            f"{reason}. Run the check again: it publishes the same event."
        ) from None


def _credential() -> AzureKeyCredential | TokenCredential:
    if key := os.environ.get("DRIFT_EVENTS_KEY"):
        return AzureKeyCredential(key)
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - only Azure needs it, 150 ms

    return DefaultAzureCredential()


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
