"""The run's end as an event, on one machine: what Azure ML publishes by itself in the cloud.

Shapes follow "Azure Machine Learning as an Event Grid source": RunCompleted for a finished run, RunStatusChanged
with `runStatus` for one that failed (a failed run raises no RunCompleted).
"""

from __future__ import annotations

from collections.abc import Mapping

from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import AzureError
from azure.eventgrid import EventGridEvent, EventGridPublisherClient

from mlops.environment import required
from mlops.report import Fault

COMPLETED = "Microsoft.MachineLearningServices.RunCompleted"
STATUS_CHANGED = "Microsoft.MachineLearningServices.RunStatusChanged"


def publish(
    *, job: str, experiment: str, experiment_id: str, tags: Mapping[str, str], properties: Mapping[str, str],
    failed: bool,
) -> None:  # fmt: skip
    """Publish the end of `job`. Raises `Fault` when the event could not be handed over: nothing would follow."""
    endpoint = required("RUN_EVENTS_ENDPOINT", "the address that takes run events")
    workspace = required("WORKSPACE_ID", "the ARM id of the workspace, the topic of its run events")
    data: dict[str, object] = {
        "experimentId": experiment_id,
        "experimentName": experiment,
        "runId": job,
        "runType": "azureml.PipelineRun",
        "runTags": dict(tags),
        "runProperties": dict(properties),
    }
    if failed:
        data["runStatus"] = "Failed"
    event = EventGridEvent(
        subject=f"experiments/{experiment_id}/runs/{job}",
        event_type=STATUS_CHANGED if failed else COMPLETED,
        data=data,
        data_version="2",
        topic=workspace,
    )
    key = AzureKeyCredential(required("RUN_EVENTS_KEY", "the access key of RUN_EVENTS_ENDPOINT"))
    try:
        with EventGridPublisherClient(endpoint, key, retry_total=5, retry_backoff_factor=0.3) as client:
            client.send(event)
    except (AzureError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise Fault(
            f"The end of job {job} could not be published to RUN_EVENTS_ENDPOINT ({endpoint}): {reason}. "
            "Run this workflow run's job again: what is done stays done, and the event is published again."
        ) from None
