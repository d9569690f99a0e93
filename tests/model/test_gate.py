"""The gate: pure decisions, and a record that opens the door for one model only."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from mlops.evaluation import gate

numbers = st.floats(allow_nan=True, allow_infinity=True)
finite = st.floats(-2, 2)
rules = st.builds(
    gate.Rule, metric=st.just("accuracy"), larger_is_better=st.booleans(), floor=finite, confidence=st.just(0.95)
)
intervals = st.tuples(finite, finite).map(lambda pair: (min(pair), max(pair)))
FIRST = gate.Rule("accuracy", True, 0.8, 0.95)
STRICT = replace(
    FIRST,
    floors=(gate.Floor("error_rate", False, 0.2), gate.Floor("f1_macro", True, 0.7)),
    slices=("form",),
    slice_tolerance=0.05,
    minimum_slice_rows=20,
)
ENOUGH = {"f1_macro": 0.75, "error_rate": 0.1}
WHERE = gate.Circumstances("train-sb-a-1", "sb-a", "5" * 64, 100, "iris")
BETTER = (0.01, 0.2)


def record(rule: gate.Rule = FIRST, value: float = 0.9) -> dict[str, Any]:
    """Return a record of a first model; 0.9 passes."""
    return gate.decide(rule, WHERE, gate.Measured("a" * 64, value), None, None)


def compared(worse: float = 0.0) -> dict[str, Any]:
    """Return a record of a better model under the strict rule, that much worse on the slice form = class."""
    slices = [
        gate.Slice("form", "class", 30, 0.9 - worse, 0.9),
        gate.Slice("form", "function", 60, 0.9, 0.8),
        gate.Slice("form", "module", 10, 0.1, 0.9),
    ]
    return gate.decide(
        STRICT,
        WHERE,
        gate.Measured("a" * 64, 0.9, metrics=ENOUGH),
        gate.Measured("d" * 64, 0.8, "1"),
        BETTER,
        slices=slices,
    )


@given(rules, numbers, numbers, intervals)
def test_promotion_needs_the_floor_and_an_interval_above_zero(
    rule: gate.Rule, challenger: float, champion: float, interval: tuple[float, float]
) -> None:
    """No challenger is promoted below the floor, nor without being better with the rule's confidence."""
    result, _ = gate.outcome(rule, challenger, champion, interval)
    passes = challenger >= rule.floor if rule.larger_is_better else challenger <= rule.floor
    worst_gain = interval[0] if rule.larger_is_better else -interval[1]
    expected = passes and worst_gain > 0 and math.isfinite(challenger) and math.isfinite(champion)
    assert (result == gate.PROMOTED) == expected


@given(rules, numbers)
def test_the_first_model_needs_the_floor_only(rule: gate.Rule, challenger: float) -> None:
    """Without a champion the floor decides, and a value that is no number passes nothing."""
    result, _ = gate.outcome(rule, challenger, None, None)
    passes = challenger >= rule.floor if rule.larger_is_better else challenger <= rule.floor
    assert result == (gate.PROMOTED if passes and math.isfinite(challenger) else gate.REFUSED)


@given(finite, finite, intervals, finite)
def test_smaller_is_better_mirrors_larger_is_better(
    challenger: float, champion: float, interval: tuple[float, float], floor: float
) -> None:
    """Negating every number and the direction leads to the same outcome."""
    larger, _ = gate.outcome(gate.Rule("m", True, floor, 0.9), challenger, champion, interval)
    mirrored = gate.Rule("m", False, -floor, 0.9)
    smaller, _ = gate.outcome(mirrored, -challenger, -champion, (-interval[1], -interval[0]))
    assert larger == smaller


def test_equal_models_keep_the_champion() -> None:
    """A challenger that is no better is not promoted, and the reason says what was compared."""
    result, reason = gate.outcome(FIRST, 0.9, 0.9, (0.0, 0.0))
    assert result == gate.KEPT_CHAMPION
    assert "0.9000" in reason


@pytest.mark.parametrize("interval", [None, (math.nan, 0.2), (0.1, math.inf), (0.2, 0.1)])
def test_a_comparison_without_an_interval_promotes_nothing(interval: tuple[float, float] | None) -> None:
    """No interval, one that is no number, or one upside down shows nothing."""
    assert gate.outcome(FIRST, 0.9, 0.8, interval)[0] == gate.KEPT_CHAMPION


@given(st.dictionaries(st.sampled_from(["error_rate", "f1_macro"]), numbers))
def test_every_floor_binds_the_first_model_and_any_other(metrics: dict[str, float]) -> None:
    """One metric on the wrong side of its floor, or not measured at all, and nothing is promoted."""
    passes = metrics.get("error_rate", math.nan) <= 0.2 and metrics.get("f1_macro", math.nan) >= 0.7
    passes = passes and all(map(math.isfinite, metrics.values()))
    first, _ = gate.outcome(STRICT, 0.9, None, None, metrics=metrics)
    later, _ = gate.outcome(STRICT, 0.9, 0.8, BETTER, metrics=metrics)
    assert first == later == (gate.PROMOTED if passes else gate.REFUSED)


def test_a_missed_floor_is_named() -> None:
    """The reason says which metric, its value and its floor."""
    _, reason = gate.outcome(STRICT, 0.9, None, None, metrics={"f1_macro": 0.65, "error_rate": 0.1})
    assert reason == "The challenger's f1_macro 0.6500 is below the floor 0.7."
    _, reason = gate.outcome(STRICT, 0.9, None, None, metrics={"f1_macro": 0.75, "error_rate": 0.3})
    assert reason == "The challenger's error_rate 0.3000 is above the floor 0.2."


@given(numbers, numbers, st.integers(1, 40), st.booleans())
def test_a_slice_that_got_worse_keeps_the_champion(challenger: float, champion: float, rows: int, larger: bool) -> None:
    """Worse beyond the tolerance, or no number, on a slice with rows enough: better over all does not help."""
    rule = replace(STRICT, larger_is_better=larger, floor=0.0 if larger else 1.0)
    interval = BETTER if larger else (-0.2, -0.01)
    one = gate.Slice("form", "class", rows, challenger, champion)
    result, reason = gate.outcome(rule, 0.9, 0.8, interval, metrics=ENOUGH, slices=[one])
    loss = champion - challenger if larger else challenger - champion
    kept = rows >= 20 and not loss <= 0.05 + 1e-9
    assert result == (gate.KEPT_CHAMPION if kept else gate.PROMOTED)
    assert ("form = 'class'" in reason) == kept


def test_a_slice_without_a_champion_is_not_judged() -> None:
    """A first model has nothing to be worse than."""
    one = gate.Slice("form", "class", 30, 0.1, None)
    assert gate.outcome(STRICT, 0.9, None, None, metrics=ENOUGH, slices=[one])[0] == gate.PROMOTED


def test_a_passed_record_admits_its_own_model() -> None:
    """The record that was made for this job and these files is no obstacle, also after a way through JSON."""
    for passed in (record(), compared()):
        assert passed["outcome"] == gate.PROMOTED
        assert gate.objection(json.loads(json.dumps(passed)), WHERE.job, "a" * 64) is None


@pytest.mark.parametrize(
    ("job", "sha256", "word"), [("train-sb-b-1", "a" * 64, "job"), (WHERE.job, "b" * 64, "digest")]
)
def test_a_record_admits_no_other_job_or_model(job: str, sha256: str, word: str) -> None:
    """Another job's model, or other files under the same job, do not pass, and the objection says which."""
    assert word in (gate.objection(record(), job, sha256) or "")


def test_a_kept_back_model_is_told_why() -> None:
    """The objection repeats the gate's reason, down to the slice."""
    said = gate.objection(compared(worse=0.1), WHERE.job, "a" * 64) or ""
    assert "ended with 'kept_champion'" in said
    assert "form = 'class' (30 rows: 0.8000 against 0.9000)" in said


def test_an_edited_outcome_opens_nothing() -> None:
    """Changing the record's word to "promoted" is found out by its own numbers: value, floors and slices."""
    missed = gate.decide(STRICT, WHERE, gate.Measured("a" * 64, 0.9, metrics={**ENOUGH, "f1_macro": 0.1}), None, None)
    missed["slices"] = [{"column": "form", "value": "x", "rows": 100, "challenger": 0.9, "champion": None}]
    for refused in (record(value=0.1), compared(worse=0.1), missed):
        edited = refused | {"outcome": gate.PROMOTED}
        assert "own numbers" in (gate.objection(edited, WHERE.job, "a" * 64) or "")


def test_a_slice_taken_out_of_the_record_is_missed() -> None:
    """The slices of a column hold all held-out rows, so none can be left out, or made too small to be judged."""
    edited = compared(worse=0.1)
    edited |= {"outcome": gate.PROMOTED, "slices": edited["slices"][1:], "reason": compared()["reason"]}
    assert "every slice of 'form'" in (gate.objection(edited, WHERE.job, "a" * 64) or "")
    shrunk = compared(worse=0.1) | {"outcome": gate.PROMOTED, "reason": compared()["reason"]}
    shrunk["slices"][0]["rows"] = 1
    assert "every slice of 'form'" in (gate.objection(shrunk, WHERE.job, "a" * 64) or "")


def test_another_reason_than_the_numbers_give_is_an_edit() -> None:
    """What is shown to people is derived again too."""
    assert "another reason" in (gate.objection(record() | {"reason": "Trust me."}, WHERE.job, "a" * 64) or "")


@pytest.mark.parametrize(
    "part", [{"larger_is_better": "false"}, {"floor": "0"}, {"floor": True}, {"confidence": "x"}, {"extra": 1}]
)
def test_a_rule_of_wrong_types_is_damaged(part: dict[str, object]) -> None:
    """A text that Python would take for true, or a number in quotes, is not read as if it were right."""
    passed = record()
    passed["rule"] |= part
    assert gate.objection(passed, WHERE.job, "a" * 64) is not None


def test_an_older_record_is_told_by_its_format() -> None:
    """A record of another schema is not guessed at."""
    assert "format 1" in (gate.objection(record() | {"schema": 1}, WHERE.job, "a" * 64) or "")


@given(st.data())
def test_no_damaged_record_passes(data: st.DataObject) -> None:
    """Whatever single value of a refused record is replaced by rubbish, it still does not pass."""
    damaged = copy.deepcopy(data.draw(st.sampled_from([record(value=0.1), compared(worse=0.1)])))
    key = data.draw(st.sampled_from(sorted(damaged)))
    damaged[key] = data.draw(st.none() | st.text() | st.integers() | st.just(gate.PROMOTED) | st.just({}))
    assert gate.objection(damaged, WHERE.job, "a" * 64) is not None


@given(
    st.sampled_from(["metric", "larger_is_better", "floor", "confidence", "floors", "slices", "slice_tolerance"]),
    st.none() | st.booleans() | st.floats(0, 1) | st.text(max_size=3) | st.just([]),
)
def test_any_other_rule_is_outdated(key: str, value: object) -> None:
    """A record whose rule differs in one word from today's was not made by today's."""
    made = compared()
    assert not gate.outdated(made, STRICT)
    changed = {**made, "rule": {**made["rule"], key: value}}
    assert gate.outdated(changed, STRICT) == (made["rule"][key] != value or type(made["rule"][key]) is not type(value))


def test_a_record_is_stale_once_the_champion_has_changed() -> None:
    """A comparison with yesterday's champion says nothing about today's."""
    made = compared()
    assert not gate.stale(made, "d" * 64)
    assert gate.stale(made, "e" * 64)
    assert gate.stale(made, None)
    assert gate.stale(record(), "d" * 64)
