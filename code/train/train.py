"""Step 2: train. Several model families are compared by cross-validation; the best is fitted on all training rows.

Replace `train` (and `FAMILIES`) with your own; the steps around it need only a scikit-learn estimator.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mlflow.sklearn
import pandas as pd
from mlflow.models import infer_signature
from mlops import environment, lineage, report, settings, split, tracking
from sklearn.base import BaseEstimator  # type: ignore[import-untyped]
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # type: ignore[import-untyped]
from sklearn.ensemble import ExtraTreesClassifier  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.model_selection import StratifiedKFold, cross_val_score  # type: ignore[import-untyped]
from sklearn.naive_bayes import GaussianNB  # type: ignore[import-untyped]
from sklearn.neighbors import KNeighborsClassifier  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import MinMaxScaler  # type: ignore[import-untyped]
from sklearn.svm import SVC  # type: ignore[import-untyped]
from sklearn.tree import DecisionTreeClassifier  # type: ignore[import-untyped]

FAMILIES: dict[str, Callable[[int], BaseEstimator]] = {
    "logistic_regression": lambda seed: LogisticRegression(max_iter=500, random_state=seed),
    "discriminant_analysis": lambda _: LinearDiscriminantAnalysis(),
    "support_vectors": lambda seed: SVC(C=5.0, random_state=seed),
    "nearest_neighbours": lambda _: KNeighborsClassifier(3),
    "decision_tree": lambda seed: DecisionTreeClassifier(random_state=seed),
    "extra_trees": lambda seed: ExtraTreesClassifier(60, random_state=seed),
    "naive_bayes": lambda _: GaussianNB(),
}
# What a model needs in order to answer; named here, because MLflow takes 10 s to find it out.
REQUIREMENTS = [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "pandas", "scikit-learn", "skops")]


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model, and how its family compared with the others."""

    model: BaseEstimator
    family: str
    scores: dict[str, float]
    """Mean cross-validated accuracy of each family on the training rows."""


def train(features: pd.DataFrame, labels: pd.Series[str], data_set: settings.DataSet) -> Trained:
    """Compare the data set's model families by stratified cross-validation, and fit the best on all rows.

    Repeatable: the same rows in the same order and the same seed give the same model.
    """
    folds = StratifiedKFold(data_set.folds, shuffle=True, random_state=data_set.seed)
    models: dict[str, BaseEstimator] = {}
    for name in data_set.families:
        if name not in FAMILIES:
            raise report.Fault(f"{data_set.name}.json names the family {name!r}; there are: {', '.join(FAMILIES)}.")
        models[name] = make_pipeline(MinMaxScaler(), FAMILIES[name](data_set.seed))
    scores = {name: float(cross_val_score(model, features, labels, cv=folds).mean()) for name, model in models.items()}
    best = max(scores, key=lambda name: scores[name])
    return Trained(models[best].fit(features, labels), best, scores)


def main() -> None:
    """Train on the rows that are not held out, log the run, and write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that check.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="folder to write the model to")
    arguments = parser.parse_args()
    job = environment.read()
    data_set = settings.load_data_set(job.folder)
    client = tracking.client()
    table = lineage.read_table(arguments.data, data_set)
    training, held_out = split.parts(table, data_set.features, data_set.held_out_fraction)
    trained = train(training[data_set.features], training[data_set.label], data_set)

    run = tracking.step_run_id()
    client.log_param(run, "family", trained.family)
    client.log_param(run, "seed", data_set.seed)
    client.log_param(run, "folds", data_set.folds)
    client.log_metric(run, "training_rows", len(training))
    client.log_metric(run, "held_out_rows", len(held_out))
    for name, score in trained.scores.items():
        client.log_metric(run, f"cv_accuracy_{name}", score)
    example = held_out[data_set.features].head(3).reset_index(drop=True)
    mlflow.sklearn.save_model(
        trained.model,
        str(arguments.model),
        signature=infer_signature(example, trained.model.predict(example)),
        input_example=example,
        pip_requirements=REQUIREMENTS,
    )
    client.log_artifacts(run, str(arguments.model), tracking.MODEL)

    for name, score in sorted(trained.scores.items(), key=lambda item: -item[1]):
        report.say(f"{score:.4f}  {name}")
    report.summarize(
        "Training",
        report.table(
            [
                ("rows trained on", len(training)),
                ("rows held out", len(held_out)),
                ("best family", trained.family),
                *((f"cross-validated accuracy, {name}", f"{score:.4f}") for name, score in trained.scores.items()),
            ]
        ),
    )


if __name__ == "__main__":
    report.step("Training", main)
