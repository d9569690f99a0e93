"""Step 4: register the challenger, if and only if the gate promoted exactly this model for exactly this job."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlops import digest, environment, gate, lineage, report, settings, tracking

# Azure ML and MLflow refuse longer tag values on a model version.
_TAG_LENGTH = 500


def main() -> None:
    """Hold the model against its decision record and register it with the whole lineage as tags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that check.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--decision", type=Path, required=True, help="folder that evaluate.py wrote")
    arguments = parser.parse_args()
    job, configuration, client = environment.read(), settings.load(), tracking.client()
    name = configuration.model_name(job.folder)
    record = json.loads((arguments.decision / gate.RECORD).read_text(encoding="utf-8"))
    if record["outcome"] != gate.PROMOTED:
        report.say(f"Nothing to register: {record['reason']}")
        report.summarize("Registry", [f"Nothing was registered; the champion of `{name}` stays."])
        return
    model_sha256 = digest.of_folder(arguments.model)
    objection = gate.objection(record, job.job, model_sha256)
    if objection:
        raise report.Fault(f"The model of job {job.job} is not registered: {objection}.")

    run = tracking.step_run_id()
    # In Azure every step has a run of its own; the version's run must hold what deployment reads again.
    if not client.list_artifacts(run, tracking.MODEL):
        client.log_artifacts(run, str(arguments.model), tracking.MODEL)
    tracking.log_json(client, gate.RECORD, record)
    tags = {
        **{str(key): str(value) for key, value in configuration.model["model_tags"].items()},
        **lineage.read(arguments.data).tags(),
        tracking.JOB_TAG: job.job,
        "model_sha256": model_sha256,
        "decision_sha256": digest.of_value(record),
        "decision_outcome": record["outcome"],
        "decision_reason": record["reason"][:_TAG_LENGTH],
        "metric": record["rule"]["metric"],
        "metric_challenger": str(record["challenger"]),
        "metric_champion": str(record["champion"]["value"]) if record["champion"] else "",
    }
    version = tracking.register(client, name, configuration.model["model_description"], run, tags)
    report.say(f"Registered {name} version {version.version}")
    report.summarize(
        "Registry",
        [
            f"Registered `{name}` version {version.version}. It becomes the champion when it serves in production.",
            "",
            *report.table(sorted(tags.items())),
        ],
    )


if __name__ == "__main__":
    report.step("Registration", main)
