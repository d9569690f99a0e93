"""The gate: whether a challenger becomes the champion. Pure code over values; nothing here reads or writes.

The decision is a record that names the model it was made for by digest (docs/gate.md). Registration and deployment
ask for objections with a digest they computed themselves, so a model without its own passed record goes nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mlops import digest

PROMOTED = "promoted"
KEPT_CHAMPION = "kept_champion"
REFUSED = "refused"
FORCED = "forced"
SCHEMA = 2
RECORD = "decision.json"
"""Name of the record's file: between the steps, and among the artifacts of a run."""
# Two floats that were written as 0.90 and 0.85 differ by a hair more than 0.05.
_HAIR = 1e-9


@dataclass(frozen=True, slots=True)
class Floor:
    """A value that any model must reach; where smaller is better, one that it must not exceed."""

    metric: str
    larger_is_better: bool
    value: float

    def passed_by(self, measured: float) -> bool:
        """Tell whether `measured` is a number on the right side of the floor."""
        return math.isfinite(measured) and (measured >= self.value if self.larger_is_better else measured <= self.value)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a challenger has to show."""

    metric: str
    larger_is_better: bool
    floor: float
    """The deciding metric's own floor."""
    confidence: float
    """Level of the interval, between 0 and 1."""
    floors: tuple[Floor, ...] = ()
    """Floors of further metrics."""
    slices: tuple[str, ...] = ()
    """Columns by whose values both models are also compared apart."""
    slice_tolerance: float = 0.0
    """How much worse than the champion the challenger may be on one slice, in the metric's unit."""
    minimum_slice_rows: int = 1
    """Held-out rows that a slice needs in order to be judged."""

    def record(self) -> dict[str, Any]:
        """Return the rule as it stands in a decision record."""
        return {
            "metric": self.metric,
            "larger_is_better": self.larger_is_better,
            "floor": self.floor,
            "confidence": self.confidence,
            "floors": [[floor.metric, floor.larger_is_better, floor.value] for floor in self.floors],
            "slices": list(self.slices),
            "slice_tolerance": self.slice_tolerance,
            "minimum_slice_rows": self.minimum_slice_rows,
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """A model and what it was measured at on the held-out rows."""

    sha256: str
    """Digest over the model's files."""
    value: float
    """The deciding metric."""
    version: str = ""
    """Version in the registry, if it is registered."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Every metric that could be measured, by name."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The held-out rows that hold one value in one column, and both models' deciding metric on them."""

    column: str
    value: str
    rows: int
    challenger: float
    champion: float | None
    """None for a first model."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """For which job and which data a decision was made."""

    job: str
    origin: str
    snapshot_sha256: str
    held_out_rows: int
    data_set: str = ""


def outcome(
    rule: Rule,
    challenger: float,
    champion: float | None,
    interval: tuple[float, float] | None,
    *,
    metrics: Mapping[str, float] | None = None,
    slices: Sequence[Slice] = (),
) -> tuple[str, str]:
    """Return (outcome, reason). `interval` is that of challenger - champion in the metric's own unit.

    Floors bind everyone. The first model needs no more; any other must be better than the champion with the
    rule's confidence, and no worse on any slice beyond the tolerance. A value that is no number passes nothing.
    """
    if not math.isfinite(challenger):
        return REFUSED, f"The challenger's {rule.metric} is not a number."
    measured = {**(metrics or {}), rule.metric: challenger}
    for floor in (Floor(rule.metric, rule.larger_is_better, rule.floor), *rule.floors):
        found = measured.get(floor.metric, math.nan)
        if not floor.passed_by(found):
            side = "below" if floor.larger_is_better else "above"
            return REFUSED, f"The challenger's {floor.metric} {found:.4f} is {side} the floor {floor.value:g}."
    if champion is None:
        return PROMOTED, f"First model: its {rule.metric} {challenger:.4f} passes the floor {rule.floor:g}."
    if interval is None or not all(map(math.isfinite, (champion, *interval))):
        return KEPT_CHAMPION, "The comparison with the champion gave no number."
    gain = interval if rule.larger_is_better else (-interval[1], -interval[0])
    compared = (
        f"{rule.metric} {challenger:.4f} against the champion's {champion:.4f} on the same held-out rows; "
        f"the {rule.confidence:.0%} interval of the gain is {gain[0]:+.4f} to {gain[1]:+.4f}"
    )
    if not 0 < gain[0] <= gain[1]:
        return KEPT_CHAMPION, f"Kept the champion: {compared}, which does not show that the challenger is better."
    worse = [one for one in slices if judged(rule, one) and _is_worse(rule, one)]
    if worse:
        named = "; ".join(
            f"{one.column} = {one.value!r} ({one.rows} rows: {one.challenger:.4f} against {one.champion:.4f})"
            for one in worse
        )
        return KEPT_CHAMPION, (
            f"Kept the champion: better over all ({compared}), but worse by more than {rule.slice_tolerance:g} on "
            f"the slice {named}."
        )
    return PROMOTED, f"The challenger is better: {compared}."


def judged(rule: Rule, one: Slice) -> bool:
    """Tell whether a slice takes part in the decision: it has rows enough, and a champion to compare with."""
    return one.champion is not None and one.rows >= rule.minimum_slice_rows


def _is_worse(rule: Rule, one: Slice) -> bool:
    champion = math.nan if one.champion is None else one.champion
    loss = champion - one.challenger if rule.larger_is_better else one.challenger - champion
    return not loss <= rule.slice_tolerance + _HAIR  # what is no number counts as worse


def decide(
    rule: Rule,
    circumstances: Circumstances,
    challenger: Measured,
    champion: Measured | None,
    interval: tuple[float, float] | None,
    *,
    slices: Sequence[Slice] = (),
) -> dict[str, Any]:
    """Return the decision record (JSON values only), to be stored with the model."""
    compared = champion.value if champion else None
    result, reason = outcome(rule, challenger.value, compared, interval, metrics=challenger.metrics, slices=slices)
    return {
        "schema": SCHEMA,
        "job": circumstances.job,
        "origin": circumstances.origin,
        "data_set": circumstances.data_set,
        "model_sha256": challenger.sha256,
        "snapshot_sha256": circumstances.snapshot_sha256,
        "held_out_rows": circumstances.held_out_rows,
        "rule": rule.record(),
        "challenger": _number(challenger.value),
        "metrics": {name: _number(value) for name, value in challenger.metrics.items()},
        "champion": None
        if champion is None
        else {
            "version": champion.version,
            "sha256": champion.sha256,
            "value": _number(champion.value),
            "metrics": {name: _number(value) for name, value in champion.metrics.items()},
        },
        "difference_interval": None if interval is None else [_number(bound) for bound in interval],
        "slices": [
            {
                "column": one.column,
                "value": one.value,
                "rows": one.rows,
                "challenger": _number(one.challenger),
                "champion": None if one.champion is None else _number(one.champion),
                "judged": judged(rule, one),
            }
            for one in slices
        ],
        "outcome": result,
        "reason": reason,
    }


def force(record: Mapping[str, Any], by: str, reason: str, at: datetime, champion_sha256: str | None) -> dict[str, Any]:
    """Return the record of a promotion that a person demands although the gate said no.

    It holds the whole of the gate's own `record` and its digest, and names the champion that it replaces. Raises
    ValueError, as the end of a sentence, where that cannot be done.
    """
    by, reason = " ".join(by.split()), " ".join(reason.split())
    if not by or not reason:
        raise ValueError("a forced promotion needs the name of the person and a reason")
    if record.get("outcome") not in {KEPT_CHAMPION, REFUSED}:
        raise ValueError(f"the gate's outcome is {record.get('outcome')!r}, and only a model it kept back is forced")
    forced = {
        "by": by,
        "reason": reason,
        "at": at.isoformat(timespec="seconds"),
        "outcome": record["outcome"],
        "outcome_reason": record["reason"],
        "decision_sha256": digest.of_value(record),
        "champion_sha256": champion_sha256,
    }
    return {**record, "outcome": FORCED, "reason": _forced_sentence(forced), "forced": forced}


def _forced_sentence(forced: Mapping[str, Any]) -> str:
    return f"Forced by {forced['by']}: {forced['reason']} (The gate had said {forced['outcome']!r}.)"


def objection(record: Mapping[str, Any], job: str, model_sha256: str) -> str | None:
    """Return why `record` does not let this model of this job pass, or None if it does.

    The outcome is derived once more from the record's own numbers: an edited word opens nothing. That the rule is
    today's and the champion still the same is asked by `outdated` and `stale`; `admission.admit` asks all of it.
    """
    try:
        if record["schema"] != SCHEMA:
            return f"its decision record has the format {record['schema']}, but this code reads {SCHEMA}"
        if record["job"] != job:
            return f"its decision record was made for the job {record['job']}, not for {job}"
        if record["model_sha256"] != model_sha256:
            return f"its files have the digest {model_sha256[:12]}…, but {record['model_sha256'][:12]}… was evaluated"
        if record["outcome"] not in {PROMOTED, FORCED}:
            return f"its evaluation ended with {record['outcome']!r}: {record['reason']}"
        return _contradiction(_gates_own(record) if record["outcome"] == FORCED else record)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return "its decision record is damaged"


def outdated(record: Mapping[str, Any], rule: Rule) -> bool:
    """Tell whether another rule than today's decided; a person who forced a model overruled whatever rule there was."""
    return record["outcome"] != FORCED and digest.of_value(record["rule"]) != digest.of_value(rule.record())


def stale(record: Mapping[str, Any], champion_sha256: str | None) -> bool:
    """Tell whether the champion that the record was made against is no longer the champion."""
    if record["outcome"] == FORCED:
        return bool(record["forced"]["champion_sha256"] != champion_sha256)
    compared = record["champion"]
    return bool((compared["sha256"] if compared else None) != champion_sha256)


def _gates_own(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the gate's own record out of a forced one; raises ValueError where that is not complete."""
    forced = record["forced"]
    whole = all(isinstance(forced[name], str) and forced[name].strip() for name in ("by", "reason", "at"))
    if not whole or datetime.fromisoformat(forced["at"]).tzinfo is None or forced["outcome"] == PROMOTED:
        raise ValueError
    own = {name: value for name, value in record.items() if name != "forced"}
    own |= {"outcome": forced["outcome"], "reason": forced["outcome_reason"]}
    if digest.of_value(own) != forced["decision_sha256"] or record["reason"] != _forced_sentence(forced):
        raise ValueError
    return own


def _contradiction(record: Mapping[str, Any]) -> str | None:
    """Return what the record says against its own numbers, or None. Raises where a value is not of its kind."""
    rule, champion, bounds = _rule(record["rule"]), record["champion"], record["difference_interval"]
    slices = [_slice(part, first_model=champion is None) for part in record["slices"]]
    for column in rule.slices:
        if sum(one.rows for one in slices if one.column == column) != record["held_out_rows"]:
            return f"its decision record does not show every slice of {column!r}"
    derived, reason = outcome(
        rule,
        _float(record["challenger"]),
        None if champion is None else _float(champion["value"]),
        None if bounds is None else (_float(bounds[0]), _float(bounds[1])),
        metrics={name: _float(value) for name, value in record["metrics"].items()},
        slices=slices,
    )
    if derived != record["outcome"]:
        return f"its decision record says {record['outcome']!r}, but its own numbers say {derived!r}"
    return None if reason == record["reason"] else "its decision record gives another reason than its own numbers"


def _rule(part: Mapping[str, Any]) -> Rule:
    floors = tuple(Floor(str(name), _flag(larger), _float(value)) for name, larger, value in part["floors"])
    numbers = {name: _float(part[name]) for name in ("floor", "confidence", "slice_tolerance", "minimum_slice_rows")}
    flags = {"larger_is_better": _flag(part["larger_is_better"])}
    return Rule(**{**part, **numbers, **flags, "floors": floors, "slices": tuple(part["slices"])})


def _slice(part: Mapping[str, Any], *, first_model: bool) -> Slice:
    champion = None if first_model else _float(part["champion"])
    return Slice(str(part["column"]), str(part["value"]), int(part["rows"]), _float(part["challenger"]), champion)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _float(value: Any) -> float:
    if isinstance(value, bool | str):
        raise TypeError
    return math.nan if value is None else float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value
