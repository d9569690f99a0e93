"""Step 3: ask challenger and champion the same held-out rows, and let the gate decide. Writes decision.json."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlops import digest, environment, gate, lineage, metrics, report, settings, split, tracking


def answers(folder: Path, name: str, rows: pd.DataFrame, data_set: settings.DataSet) -> metrics.Answers:
    """Let the model in `folder` answer `rows`; `name` stands in the sentence if it cannot."""
    try:
        model = mlflow.sklearn.load_model(str(folder))
        predicted = model.predict(rows[data_set.features])
    except (MlflowException, OSError, ValueError, TypeError, KeyError) as error:
        raise report.Fault(
            f"The {name} cannot answer the held-out rows ({tracking.first_line(error)}): if the columns in "
            f"code/data/{data_set.name}.json have changed, give registermodel.json a new model_name."
        ) from None
    return metrics.Answers(rows[data_set.label].to_numpy(dtype=str), np.asarray(predicted, dtype=str))


def main() -> None:
    """Measure both models, decide, and store the decision record with the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that check.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--decision", type=Path, required=True, help="folder to write decision.json to")
    arguments = parser.parse_args()
    job = environment.read()
    configuration, data_set = settings.load(), settings.load_data_set(job.folder)
    metric_name, larger_is_better = configuration.metric()
    metric = metrics.named(metric_name)
    client = tracking.client()
    table = lineage.read_table(arguments.data, data_set)
    _, rows = split.parts(table, data_set.features, data_set.held_out_fraction)

    challenger = answers(arguments.model, "challenger", rows, data_set)
    measured = gate.Measured(digest.of_folder(arguments.model), metrics.value(metric, challenger))
    champion, interval = None, None
    serving = tracking.champion(client, configuration.model_name(job.folder))
    if serving is not None:
        folder = tracking.model_folder(serving)
        asked = answers(folder, f"champion (version {serving.version})", rows, data_set)
        champion = gate.Measured(digest.of_folder(folder), metrics.value(metric, asked), version=str(serving.version))
        interval = metrics.difference_interval(
            metric,
            challenger,
            asked,
            confidence=data_set.confidence,
            resamples=data_set.resamples,
            seed=data_set.seed,
        )
    record = gate.decide(
        gate.Rule(metric_name, larger_is_better, data_set.floor, data_set.confidence),
        gate.Circumstances(job.job, job.origin, lineage.read(arguments.data).snapshot_sha256, len(rows)),
        measured,
        champion,
        interval,
    )
    _store(client, arguments.decision, record)


def _store(client: MlflowClient, folder: Path, record: dict[str, object]) -> None:
    """Write the record for the next step, log it with the run, and say what was decided."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / gate.RECORD).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    run = tracking.step_run_id()
    tracking.log_json(client, gate.RECORD, record)
    client.set_tag(run, "decision_outcome", str(record["outcome"]))
    client.set_tag(run, "decision_reason", str(record["reason"]))
    rule, champion = record["rule"], record["champion"]
    assert isinstance(rule, dict)  # noqa: S101 - the record is ours; this is for the type checker
    if isinstance(record["challenger"], float):
        client.log_metric(run, f"held_out_{rule['metric']}", record["challenger"])
    report.say(f"{record['outcome']}: {record['reason']}")
    report.summarize(
        f"Decision: {str(record['outcome']).replace('_', ' ')}",
        [
            report.cell(record["reason"]),
            "",
            *report.table(
                [
                    ("challenger", record["challenger"]),
                    (
                        "champion",
                        f"{champion['value']} (version {champion['version']})"
                        if isinstance(champion, dict)
                        else "none yet",
                    ),
                    ("interval of challenger - champion", record["difference_interval"] or "none"),
                    ("metric", f"{rule['metric']}, floor {rule['floor']}, confidence {rule['confidence']}"),
                    ("held-out rows", record["held_out_rows"]),
                ]
            ),
        ],
    )


if __name__ == "__main__":
    report.step("Evaluation", main)
