"""Step 3: ask challenger and champion the same held-out rows, and let the gate decide. Writes decision.json."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mlflow.sklearn
import pandas as pd
from mlops import digest, environment, report, settings
from mlops.data import lineage, split
from mlops.evaluation import figures, gate, metrics, rules, slices
from mlops.models import admission, tracking
from sklearn.metrics import classification_report  # type: ignore[import-untyped]

PER_CLASS = "per_class.json"
"""Artifact with precision, recall, F1 and held-out rows of each class."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the evaluation found: the record, and what it rests on."""

    record: dict[str, Any]
    challenger: metrics.Answers
    notes: list[str]
    """What was measured but not judged, a sentence each."""


def answers(folder: Path, name: str, rows: pd.DataFrame, data_set: settings.DataSet) -> metrics.Answers:
    """Let the model in `folder` answer `rows`; `name` stands in the sentence if it cannot."""
    try:
        model = mlflow.sklearn.load_model(str(folder))
    except Exception as error:  # whatever the file is, and whichever reader stumbles over it
        raise report.Fault(
            f"The {name} is no model that can be loaded ({tracking.first_line(error)}): train.py must write an MLflow "
            "folder of a scikit-learn estimator. Nothing was registered; the champion stays as it is."
        ) from None
    try:
        return metrics.ask(model, rows[data_set.features], rows[data_set.label])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise report.Fault(
            f"The {name} cannot answer the held-out rows ({tracking.first_line(error)}): if the columns in "
            f"code/data/{data_set.name}.json have changed, give registermodel.json a new model_name and deploy.json a "
            "new name."
        ) from None


def evaluate(data: Path, model: Path, job: environment.JobEnvironment, configuration: settings.Settings) -> Evaluation:
    """Measure both models on the held-out rows of `data`, and decide by today's rule."""
    data_set = settings.load_data_set(job.folder)
    rule = rules.today(configuration, data_set)
    metric, client = metrics.named(rule.metric), tracking.client()
    table = lineage.read_table(data, data_set)
    _, rows = split.parts(table, data_set.features, data_set.held_out_fraction)

    challenger = answers(model, "challenger", rows, data_set)
    measured = gate.Measured(
        digest.of_folder(model), metrics.value(metric, challenger), metrics=metrics.every(challenger)
    )
    champion, asked, interval = None, None, None
    serving = admission.champion(client, configuration.model_name(job.folder))
    if serving is not None:
        folder = tracking.model_folder(serving)
        asked = answers(folder, f"champion (version {serving.version})", rows, data_set)
        champion = gate.Measured(
            digest.of_folder(folder), metrics.value(metric, asked), str(serving.version), metrics.every(asked)
        )
        interval = metrics.difference_interval(
            metric,
            challenger,
            asked,
            confidence=data_set.confidence,
            resamples=data_set.resamples,
            seed=data_set.seed,
        )
    sliced = slices.compare(rule, rows, challenger, asked)
    snapshot = lineage.read(data).snapshot_sha256
    circumstances = gate.Circumstances(job.job, job.origin, snapshot, len(rows), data_set.name)
    record = gate.decide(rule, circumstances, measured, champion, interval, slices=sliced)
    return Evaluation(record, challenger, slices.notes(rule, sliced))


def main() -> None:
    """Measure both models, decide, and store the decision record with the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that check.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--decision", type=Path, required=True, help="folder to write decision.json to")
    arguments = parser.parse_args()
    job, configuration = environment.read(), settings.load()
    found = evaluate(arguments.data, arguments.model, job, configuration)
    arguments.decision.mkdir(parents=True, exist_ok=True)
    (arguments.decision / gate.RECORD).write_text(json.dumps(found.record, indent=1, sort_keys=True), encoding="utf-8")
    _log(found, arguments.model, lineage.read(arguments.data).tags())
    _say(found)


def _log(found: Evaluation, model: Path, lineage_tags: dict[str, str]) -> None:
    """Store the record, and what it rests on, with the step's run; the job's own run gets the outcome as tags too."""
    client, run, record = tracking.client(), tracking.step_run_id(), found.record
    # In Azure every step has a run of its own: the model lies beside its record, so that force.py finds both.
    tracking.log_model(client, run, model)
    tracking.log_json(client, gate.RECORD, record)
    per_class = classification_report(
        found.challenger.truth, found.challenger.predicted, output_dict=True, zero_division=0
    )
    tracking.log_json(client, PER_CLASS, per_class)
    client.log_figure(run, figures.confusion(found.challenger, "challenger"), figures.CONFUSION)
    measured = {f"held_out_{name}": value for name, value in record["metrics"].items() if value is not None}
    tracking.log_numbers(client, run, metrics=measured, params={})
    decided = {
        "decision_outcome": record["outcome"],
        "decision_reason": record["reason"][: tracking.TAG_LENGTH],
        "decision_sha256": digest.of_value(record),
    }
    tracking.tag_job(client, {**lineage_tags, **decided})


def _say(found: Evaluation) -> None:
    """Print the decision and write it into the job's summary."""
    record = found.record
    rule, champion = record["rule"], record["champion"]
    report.say(f"{record['outcome']}: {record['reason']}")
    for note in found.notes:
        report.say(note)
    floors = [(rule["metric"], rule["larger_is_better"], rule["floor"]), *rule["floors"]]
    rows: list[tuple[str, object]] = [
        ("challenger", record["challenger"]),
        ("champion", f"{champion['value']} (version {champion['version']})" if champion else "none yet"),
        ("interval of challenger - champion", record["difference_interval"] or "none"),
        ("metric", f"{rule['metric']}, confidence {rule['confidence']}"),
        ("floors", "; ".join(f"{name} {'≥' if larger else '≤'} {value:g}" for name, larger, value in floors)),
        ("held-out rows", record["held_out_rows"]),
        *(
            (
                f"slice {one['column']} = {one['value']}, {one['rows']} rows"
                + ("" if one["judged"] else ", not judged"),
                f"{one['challenger']} against {one['champion']}" if champion else one["challenger"],
            )
            for one in record["slices"]
        ),
    ]
    report.summarize(
        f"Decision: {str(record['outcome']).replace('_', ' ')}",
        [
            report.cell(record["reason"]),
            "",
            *report.table(rows),
            "",
            *(f"- {report.cell(note)}" for note in found.notes),
        ],
    )


if __name__ == "__main__":
    report.step("Evaluation", main)
