"""Today's rule of the gate: put together from settings, and refused where it would judge nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from mlops import settings
from mlops.evaluation import gate, metrics, rules
from mlops.report import Fault

LOADED = settings.load()
IRIS = settings.load_data_set("iris")


def today(larger: list[str], smaller: list[str], **changes: Any) -> gate.Rule:
    """Return the rule under these metrics and changed settings of the irises."""
    model = {**LOADED.model, "metrics_max": larger, "metrics_min": smaller}
    return rules.today(replace(LOADED, model=model), replace(IRIS, **changes))


@pytest.mark.parametrize("folder", ["digits", "iris", "abstracts"])
def test_the_projects_own_rules_stand(folder: str) -> None:
    """Each example has a rule that can refuse."""
    rule = rules.today(LOADED, settings.load_data_set(folder))
    assert not gate.Floor(rule.metric, rule.larger_is_better, rule.floor).passed_by(metrics.METRICS[rule.metric].worst)


def test_further_floors_and_slices_are_part_of_the_rule() -> None:
    """Each floor knows from its metric which way is better."""
    rule = today(["accuracy"], [], floors={"f1_macro": 0.5, "error_rate": 0.4}, slices=("species",))
    assert rule.floors == (gate.Floor("error_rate", False, 0.4), gate.Floor("f1_macro", True, 0.5))
    assert rule.slices == ("species",)


@pytest.mark.parametrize(
    ("larger", "smaller", "words"),
    [
        (["error_rate"], [], "'error_rate' in metrics_max, but a smaller error_rate is better: move it to metrics_min"),
        ([], ["accuracy"], "'accuracy' in metrics_min, but a larger accuracy is better: move it to metrics_max"),
        (["auc"], [], "names the metric 'auc'; there are: accuracy"),
        ([], [], "name exactly one"),
        (["accuracy"], ["error_rate"], "name exactly one"),
    ],
)
def test_a_metric_on_the_wrong_side_is_refused(larger: list[str], smaller: list[str], words: str) -> None:
    """A direction belongs to the metric; a setting that turns it round would promote the worst model."""
    with pytest.raises(Fault, match=words):
        today(larger, smaller)


@pytest.mark.parametrize(
    ("larger", "smaller", "changes", "words"),
    [
        (["accuracy"], [], {"floor": 0}, "floor is 0, which every model's accuracy passes"),
        (["accuracy"], [], {"floor": -1.0}, "every model's accuracy passes"),
        ([], ["error_rate"], {"floor": 1.0}, "floor is 1, which every model's error_rate passes"),
        ([], ["log_loss"], {"floor": math.inf}, "every model's log_loss passes"),
        (["accuracy"], [], {"floors": {"f1_macro": 0.0}}, r"floors\.f1_macro is 0, which every"),
        (["accuracy"], [], {"floors": {"error_rate": 1}}, r"floors\.error_rate is 1, which every"),
        (["accuracy"], [], {"floors": {"auc": 0.5}}, r"iris\.json names the metric 'auc'"),
        (["accuracy"], [], {"floors": {"f1_macro": "0.5"}}, r"floors\.f1_macro must be a number"),
        (["accuracy"], [], {"floors": {"f1_macro": True}}, r"floors\.f1_macro must be a number"),
        (["accuracy"], [], {"floors": {"accuracy": 0.5}}, "say it once"),
    ],
)
def test_a_floor_that_every_model_passes_is_refused(
    larger: list[str], smaller: list[str], changes: dict[str, Any], words: str
) -> None:
    """A constant zero to beat is no gate."""
    with pytest.raises(Fault, match=words):
        today(larger, smaller, **changes)


def test_a_floor_where_smaller_is_better_is_a_ceiling() -> None:
    """With log_loss the floor is what must not be exceeded."""
    rule = today([], ["log_loss"], floor=0.7)
    assert gate.outcome(rule, 0.6, None, None)[0] == gate.PROMOTED
    assert gate.outcome(rule, 0.8, None, None)[0] == gate.REFUSED
