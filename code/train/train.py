"""Step 2: train. Several model families are compared by cross-validation; the best is fitted on all training rows.

Replace `train` (and `FAMILIES`) with your own; the steps around it need only a scikit-learn estimator. A sweep (see
run.json) hands over each trial's hyperparameters as `--parameter FAMILY__NAME=VALUE` and compares trials by the metric
`cv_<metric>`, that of the best family.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mlflow.sklearn
import numpy as np
import pandas as pd
import skops.io  # type: ignore[import-untyped]
from mlflow.models import infer_signature
from mlops import environment, report, settings
from mlops.data import lineage, split
from mlops.evaluation import figures, metrics, rules
from mlops.models import tracking
from sklearn.base import BaseEstimator  # type: ignore[import-untyped]
from sklearn.compose import ColumnTransformer  # type: ignore[import-untyped]
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # type: ignore[import-untyped]
from sklearn.ensemble import ExtraTreesClassifier  # type: ignore[import-untyped]
from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.model_selection import StratifiedKFold, cross_val_score  # type: ignore[import-untyped]
from sklearn.naive_bayes import GaussianNB, MultinomialNB  # type: ignore[import-untyped]
from sklearn.neighbors import KNeighborsClassifier  # type: ignore[import-untyped]
from sklearn.pipeline import Pipeline, make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import MinMaxScaler  # type: ignore[import-untyped]
from sklearn.svm import SVC, LinearSVC  # type: ignore[import-untyped]
from sklearn.tree import DecisionTreeClassifier  # type: ignore[import-untyped]

FAMILIES: dict[str, Callable[[int], BaseEstimator]] = {
    "logistic_regression": lambda _: LogisticRegression(solver="newton-cg", max_iter=500),
    "discriminant_analysis": lambda _: LinearDiscriminantAnalysis(),
    "support_vectors": lambda seed: SVC(C=5.0, random_state=seed),
    "linear_support_vectors": lambda seed: LinearSVC(random_state=seed),
    "nearest_neighbours": lambda _: KNeighborsClassifier(3),
    "decision_tree": lambda seed: DecisionTreeClassifier(random_state=seed),
    "extra_trees": lambda seed: ExtraTreesClassifier(60, random_state=seed),
    "naive_bayes": lambda _: GaussianNB(),
    "multinomial_naive_bayes": lambda _: MultinomialNB(alpha=0.1),
}
# These cannot take the sparse matrix of word weights that text becomes.
_NUMBERS_ONLY = {"discriminant_analysis", "naive_bayes"}
_WORD = r"(?u)\b\w+\b"
# What a model needs in order to answer; named here, because MLflow takes 10 s to find it out.
REQUIREMENTS = [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "pandas", "scikit-learn", "skops")]
TRUSTED = ("sklearn.",)
"""Packages whose types a model's file may hold. skops asks for them, since a forged file could do harm when it is
loaded; a registered model is loaded only after its files were held against their digest. Add your own library."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model, and how its family compared with the others."""

    model: BaseEstimator
    family: str
    scores: dict[str, list[float]]
    """The cross-validated metric of each family on the training rows, one value a fold."""

    @property
    def means(self) -> dict[str, float]:
        """Return each family's mean over the folds."""
        return {name: float(np.mean(folds)) for name, folds in self.scores.items()}


Parameters = Mapping[str, Mapping[str, Any]]
"""Hyperparameters by family and name."""


def train(
    features: pd.DataFrame,
    labels: pd.Series[str],
    data_set: settings.DataSet,
    metric: metrics.Metric,
    parameters: Parameters | None = None,
) -> Trained:
    """Compare the data set's model families by stratified cross-validation on `metric`, and fit the best on all rows.

    `parameters` replaces hyperparameters of families. Repeatable: the same rows in the same order and
    the same seed give the same model.
    """
    counts = labels.value_counts()
    if len(counts) < 2 or counts.min() < data_set.folds:
        smallest = int(counts.min()) if len(counts) else 0
        raise report.Fault(
            f"The training rows show {len(counts)} classes, the smallest with {smallest} rows: "
            f"at least 2 classes and {data_set.folds} rows of each (folds) are needed; upload more."
        )
    folds = StratifiedKFold(data_set.folds, shuffle=True, random_state=data_set.seed)
    models = {name: _model(name, data_set, metric, (parameters or {}).get(name, {})) for name in data_set.families}
    try:
        scores = {
            name: cross_val_score(
                model, features, labels, cv=folds, scoring=_scorer(metric), error_score="raise"
            ).tolist()
            for name, model in models.items()
        }
        means = {
            name: float(np.mean(values)) * (1 if metric.larger_is_better else -1) for name, values in scores.items()
        }
        best = max(means, key=lambda name: means[name])
        return Trained(models[best].fit(features, labels), best, scores)
    except ValueError as error:
        raise report.Fault(
            f"The training rows cannot be learned from: {tracking.first_line(error).rstrip('.')}."
        ) from None


def _model(name: str, data_set: settings.DataSet, metric: metrics.Metric, parameters: Mapping[str, Any]) -> Pipeline:
    """Return the family's pipeline, unless it cannot do what the settings ask of it."""
    file = f"{data_set.name}.json"
    if name not in FAMILIES:
        raise report.Fault(f"{file} names the family {name!r}; there are: {', '.join(FAMILIES)}.")
    if name in _NUMBERS_ONLY and data_set.texts:
        others = ", ".join(other for other in FAMILIES if other not in _NUMBERS_ONLY)
        raise report.Fault(f"{file} names the family {name!r}, which cannot learn from text; name some of: {others}.")
    model = make_pipeline(preparation(data_set), FAMILIES[name](data_set.seed).set_params(**parameters))
    if metric.name == "log_loss" and not hasattr(model, "predict_proba"):
        raise report.Fault(
            f"{file} names the family {name!r}, which gives no probabilities, but the metric log_loss "
            "(registermodel.json) needs them: leave the family out, or name another metric."
        )
    return model


def preparation(data_set: settings.DataSet) -> ColumnTransformer:
    """Return what turns a row into numbers: numbers scaled to 0 to 1, each text column to weights of its words."""
    words = [(name, TfidfVectorizer(sublinear_tf=True, token_pattern=_WORD), name) for name in data_set.texts]
    scaled = [("numbers", MinMaxScaler(), data_set.numbers)] if data_set.numbers else []
    return ColumnTransformer([*scaled, *words])


def _scorer(metric: metrics.Metric) -> Callable[[BaseEstimator, pd.DataFrame, pd.Series[str]], float]:
    """Measure as the gate does, so that the family is chosen by what will be asked of it."""
    return lambda model, rows, labels: metrics.value(metric, metrics.ask(model, rows, labels))


def parameters_of(written: Sequence[str], data_set: settings.DataSet) -> Parameters:
    """Read `FAMILY__NAME=VALUE`, VALUE as JSON or else as text; raises `Fault` for what no family here has."""
    found: dict[str, dict[str, Any]] = {}
    for one in written:
        name, equals, text = one.partition("=")
        family, _, parameter = name.partition("__")
        if not equals or family not in FAMILIES or family not in data_set.families:
            raise report.Fault(
                f"--parameter {one!r} must be FAMILY__NAME=VALUE with a family of {data_set.name}.json "
                f"({', '.join(data_set.families)}), e.g. {data_set.families[0]}__NAME=1."
            )
        known = FAMILIES[family](data_set.seed).get_params(deep=False)
        if parameter not in known:
            raise report.Fault(
                f"--parameter {one!r}: {family} has no {parameter!r}; it has {', '.join(sorted(known))}."
            )
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found.setdefault(family, {})[parameter] = value
    return found


def main() -> None:
    """Train on the rows that are not held out, log the run, and write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that check.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--parameter", action="append", default=[], help="FAMILY__NAME=VALUE, of a sweep's trial")
    arguments = parser.parse_args()
    job = environment.read()
    data_set = settings.load_data_set(job.folder)
    metric = metrics.named(rules.today(settings.load(), data_set).metric)
    table = lineage.read_table(arguments.data, data_set)
    training, held_out = split.parts(table, data_set.features, data_set.held_out_fraction)
    parameters = parameters_of(arguments.parameter, data_set)
    trained = train(training[data_set.features], training[data_set.label], data_set, metric, parameters)

    example = held_out[data_set.features].head(3).reset_index(drop=True)
    save(trained.model, arguments.model, example)
    rows = {"training_rows": len(training), "held_out_rows": len(held_out)}
    _log(arguments.model, trained, data_set, metric, rows)


def save(model: BaseEstimator, folder: Path, example: pd.DataFrame) -> None:
    """Write the model folder, with a signature and the rows of `example` as its input example."""
    types = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    foreign = [name for name in types if not name.startswith(TRUSTED)]
    if foreign:
        raise report.Fault(
            f"The model holds types that may not be loaded again: {', '.join(foreign)}. If their package is yours to "
            "trust, add it to TRUSTED in code/train/train.py."
        )
    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=infer_signature(example, model.predict(example)),
        input_example=example,
        pip_requirements=REQUIREMENTS,
        skops_trusted_types=types,
    )


def _log(
    folder: Path, trained: Trained, data_set: settings.DataSet, metric: metrics.Metric, rows: dict[str, int]
) -> None:
    """Log parameters, metrics, the plot of the families and the model with the step's run, and say what was found."""
    client, run = tracking.client(), tracking.step_run_id()
    chosen = (trained.model[-1] if isinstance(trained.model, Pipeline) else trained.model).get_params(deep=False)
    tracking.log_numbers(
        client,
        run,
        metrics={
            **rows,
            f"cv_{metric.name}": trained.means[trained.family],
            **{f"cv_{metric.name}_{name}": mean for name, mean in trained.means.items()},
        },
        params={
            "family": trained.family,
            "seed": data_set.seed,
            "folds": data_set.folds,
            "metric": metric.name,
            **{f"{trained.family}.{name}": value for name, value in chosen.items()},
        },
    )
    client.log_figure(run, figures.families(metric, trained.scores), figures.FAMILIES)
    client.log_artifacts(run, str(folder), tracking.MODEL)
    for name, mean in sorted(trained.means.items(), key=lambda item: item[1], reverse=metric.larger_is_better):
        report.say(f"{mean:.4f}  {name}")
    report.summarize(
        "Training",
        report.table(
            [
                ("rows trained on", rows["training_rows"]),
                ("rows held out", rows["held_out_rows"]),
                ("best family", trained.family),
                *((f"cross-validated {metric.name}, {name}", f"{mean:.4f}") for name, mean in trained.means.items()),
            ]
        ),
    )


if __name__ == "__main__":
    report.step("Training", main)
