"""Today's rule of the gate, put together from the settings and refused where it would judge nothing.

Training, evaluation and deployment all ask here, so a record made under another rule is found out.
"""

from __future__ import annotations

from mlops.evaluation import gate, metrics
from mlops.report import Fault
from mlops.settings import DataSet, Settings


def today(configuration: Settings, data_set: DataSet) -> gate.Rule:
    """Return the rule for the models of `data_set`; raises `Fault` naming the setting that makes no sense."""
    name, larger = configuration.metric()
    metric = metrics.named(name)
    if metric.larger_is_better != larger:
        written, meant = ("metrics_max", "metrics_min") if larger else ("metrics_min", "metrics_max")
        raise Fault(
            f"registermodel.json names {name!r} in {written}, but a {'smaller' if larger else 'larger'} {name} is "
            f"better: move it to {meant}."
        )
    file = f"{data_set.name}.json"
    if name in data_set.floors:
        raise Fault(f"{file}: floors names {name!r}, whose floor is the setting 'floor'; say it once.")
    return gate.Rule(
        metric=name,
        larger_is_better=larger,
        floor=_floor(file, "floor", metric, data_set.floor).value,
        confidence=data_set.confidence,
        floors=tuple(
            _floor(file, f"floors.{further}", metrics.named(further, file), value)
            for further, value in sorted(data_set.floors.items())
        ),
        slices=data_set.slices,
        slice_tolerance=float(data_set.slice_tolerance),
        minimum_slice_rows=data_set.minimum_slice_rows,
    )


def _floor(file: str, key: str, metric: metrics.Metric, value: object) -> gate.Floor:
    """Return the floor, unless it is no number or one that every model passes."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Fault(f"{file}: {key} must be a number.")
    floor = gate.Floor(metric.name, metric.larger_is_better, float(value))
    if floor.passed_by(metric.worst) or floor.value == metric.worst:
        raise Fault(
            f"{file}: {key} is {value:g}, which every model's {metric.name} passes; name a value that a useless "
            "model misses."
        )
    return floor
