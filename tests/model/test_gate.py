"""The gate: pure decisions, and a record that opens the door for one model only."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlops import gate

numbers = st.floats(allow_nan=True, allow_infinity=True)
finite = st.floats(-2, 2)
rules = st.builds(
    gate.Rule, metric=st.just("accuracy"), larger_is_better=st.booleans(), floor=finite, confidence=st.just(0.95)
)
intervals = st.tuples(finite, finite).map(lambda pair: (min(pair), max(pair)))
FIRST = gate.Rule("accuracy", True, 0.8, 0.95)
WHERE = gate.Circumstances("train-sb-a-1", "sb-a", "5" * 64, 100)


def record(rule: gate.Rule = FIRST, value: float = 0.9) -> dict[str, Any]:
    """Return a passed record of a first model."""
    return gate.decide(rule, WHERE, gate.Measured("a" * 64, value), None, None)


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


def test_a_passed_record_admits_its_own_model() -> None:
    """The record that was made for this job and these files is no obstacle."""
    assert gate.objection(record(), WHERE.job, "a" * 64) is None


@pytest.mark.parametrize(
    ("job", "sha256", "word"), [("train-sb-b-1", "a" * 64, "job"), (WHERE.job, "b" * 64, "digest")]
)
def test_a_record_admits_no_other_job_or_model(job: str, sha256: str, word: str) -> None:
    """Another job's model, or other files under the same job, do not pass, and the objection says which."""
    assert word in (gate.objection(record(), job, sha256) or "")


def test_an_edited_outcome_opens_nothing() -> None:
    """Changing the record's word to "promoted" is found out by its own numbers."""
    edited = record(value=0.1) | {"outcome": gate.PROMOTED}
    assert "own numbers" in (gate.objection(edited, WHERE.job, "a" * 64) or "")


@given(st.data())
def test_no_damaged_record_passes(data: st.DataObject) -> None:
    """Whatever single value of a refused record is replaced by rubbish, it still does not pass."""
    damaged = copy.deepcopy(record(value=0.1))
    key = data.draw(st.sampled_from(sorted(damaged)))
    damaged[key] = data.draw(st.none() | st.text() | st.integers() | st.just(gate.PROMOTED) | st.just({}))
    assert gate.objection(damaged, WHERE.job, "a" * 64) is not None


def test_a_record_is_stale_once_the_champion_has_changed() -> None:
    """A comparison with yesterday's champion says nothing about today's."""
    champion = gate.Measured("d" * 64, 0.8, "1")
    compared = gate.decide(FIRST, WHERE, gate.Measured("a" * 64, 0.9), champion, (0.05, 0.2))
    assert not gate.stale(compared, "d" * 64)
    assert gate.stale(compared, "e" * 64)
    assert gate.stale(compared, None)
    assert gate.stale(record(), "d" * 64)
