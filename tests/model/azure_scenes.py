"""Endpoints over a workspace in memory, for the tests of serving in Azure."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from mlops import settings
from mlops.deployment.endpoints import Candidate

from tests.model.azure_fake import SUBSCRIPTION, Credential, FakeAzure, azure

with warnings.catch_warnings():
    # azure-ai-ml warns of what marshmallow 4 will take away; its own business.
    warnings.simplefilter("ignore")
    from mlops.azure import endpoints as azure_endpoints, workspace as azure_workspace

ENDPOINT, OLD, NEW = "signalbox-digits", "model-v1", "model-v2"
ENDPOINT_PUT, DEPLOYMENT_PUT = f"/onlineEndpoints/{ENDPOINT}$", "/onlineEndpoints/[^/]+/deployments/[^/]+$"
TARGET = {"deployment_compute_target": "k8s", "instance_type": ""}


@dataclass
class Serving:
    """Endpoints over a workspace in memory."""

    fake: FakeAzure
    endpoints: azure_endpoints.AzureEndpoints
    code: Path

    def candidate(self, deployment: str, **options: Any) -> Candidate:
        """Return a candidate with the options of deploy.json and others."""
        known = settings.load().deploy["production"].options
        tags = {"model": f"signalbox-digits:{deployment[-1]}", "signalbox_job": "train-x-1"}
        return Candidate(ENDPOINT, deployment, self.code, self.code, "score.py", tags, {**known, **options})

    def deploy(self, deployment: str, **options: Any) -> dict[str, Any]:
        """Deploy it; return the body that created the deployment."""
        self.endpoints.deploy(self.candidate(deployment, **options))
        body: dict[str, Any] = self.fake.requests("PUT", f"/deployments/{deployment}$")[-1].body
        return body

    def with_options(self, **options: Any) -> azure_endpoints.AzureEndpoints:
        """Return the endpoints of a stage with these options and no others."""
        stage = replace(self.endpoints._stage, options=options)
        return azure_endpoints.AzureEndpoints(self.endpoints._client, Credential(), stage)

    def on_kubernetes(self) -> azure_endpoints.AzureEndpoints:
        """Return endpoints whose stage names an attached cluster."""
        return self.with_options(**{**self.endpoints._stage.options, **TARGET})


@contextmanager
def serving_in(folder: Path) -> Iterator[Serving]:
    """Give the endpoints of an empty workspace, with a scoring script in `folder`."""
    (folder / "score.py").write_text("def run(raw): ...\n")
    with azure() as fake, mock.patch.dict("os.environ", {"AZURE_SUBSCRIPTION_ID": SUBSCRIPTION}):
        loaded = settings.load()
        client = azure_workspace.connect(loaded, Credential())
        made = azure_endpoints.AzureEndpoints(client, Credential(), loaded.deploy["production"])
        yield Serving(fake, made, folder)
