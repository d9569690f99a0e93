"""Where everything is: the outputs of the core deployment under the names that workflows and scripts use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES: Mapping[str, str] = {
    "function_app": "FunctionName",
    "mlflow_tracking_uri": "mlflowTrackingUri",
    "state_account": "stateAccountName",
    "storage_account": "dataAccountName",
    "topic_endpoint": "topicEndpoint",
    "training_compute": "computeName",
    "workspace_id": "workspaceId",
}
"""Step output: output of infra/deploy.core-infra.json. Beside them: `subscription_id`, out of the workspace's id."""


def of_outputs(made: Mapping[str, Any]) -> dict[str, str]:
    """The step outputs; ARM compares names without regard to case."""
    by_name = {name.lower(): value for name, value in made.items()}
    found = {ours: str(by_name[theirs.lower()]) for ours, theirs in NAMES.items() if theirs.lower() in by_name}
    if "workspace_id" in found:
        found["subscription_id"] = subscription_and_group(found["workspace_id"])[0]
    return found


def subscription_and_group(resource_id: str) -> tuple[str, str]:
    """Where a resource is, out of its id: `/subscriptions/…/resourceGroups/…/providers/…`."""
    _, _, subscription, _, group, *_ = resource_id.split("/")
    return subscription, group
