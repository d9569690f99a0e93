"""Start a training job: on this machine, or in Azure ML. This is what the workflow train_model.yml calls.

Reads `TRAINING_COMPUTE`: `local` runs the steps here, in the foreground; anything else names the compute
target in Azure ML (empty: that of `.cloud/.azure/compute.json`), and the job is submitted and left to itself.
"""

from __future__ import annotations

import os

from mlops import environment, local_backend, report, settings


def main() -> None:
    """Read the job's environment and hand it to the backend."""
    configuration = settings.load()
    if not os.environ.get("FOLDER"):
        os.environ["FOLDER"] = configuration.run["default_folder"]
    job = environment.read()
    # A data set that is unknown, or that no endpoint could serve, is refused here, before anything is started.
    settings.load_data_set(job.folder)
    for stage in configuration.deploy.values():
        stage.endpoint(job.folder)
    compute = os.environ.get("TRAINING_COMPUTE") or str(configuration.compute["name"])
    if compute == environment.LOCAL:
        local_backend.run(job, configuration)
        return
    from mlops.azure import backend as azure_backend  # noqa: PLC0415 - azure-ai-ml takes a second, and one machine needs none of it

    azure_backend.submit(job, configuration, compute)


if __name__ == "__main__":
    report.step("Training job", main)
