"""Step 4: register the challenger, if and only if the gate promoted exactly this model for exactly this job."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlops import environment, report, settings
from mlops.data import lineage
from mlops.evaluation import gate
from mlops.models import registry, tracking


def main() -> None:
    """Hold the model against its decision record and register it with the whole lineage as tags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that check.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--decision", type=Path, required=True, help="folder that evaluate.py wrote")
    arguments = parser.parse_args()
    job, configuration, client = environment.read(), settings.load(), tracking.client()
    record = json.loads((arguments.decision / gate.RECORD).read_text(encoding="utf-8"))
    if record["outcome"] != gate.PROMOTED:
        name = configuration.model_name(job.folder)
        report.say(f"Nothing to register: {record['reason']}")
        report.summarize("Registry", [f"Nothing was registered; the champion of `{name}` stays."])
        return
    if (record["job"], record["data_set"]) != (job.job, job.folder):
        raise report.Fault(
            f"The decision in {arguments.decision} was made for the job {record['job']} and the data set "
            f"{record['data_set']!r}, not for {job.job} and {job.folder!r}: nothing is registered."
        )
    version = registry.promote(
        client,
        configuration,
        record,
        model=arguments.model,
        run_id=tracking.step_run_id(),
        lineage=lineage.read(arguments.data).tags(),
    )
    report.say(f"Registered {version.name} version {version.version}")
    report.summarize(
        "Registry",
        [
            f"Registered `{version.name}` version {version.version}. It becomes the champion when it serves in "
            "production.",
            "",
            *report.table(sorted(version.tags.items())),
        ],
    )


if __name__ == "__main__":
    report.step("Registration", main)
