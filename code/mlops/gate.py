"""The gate: whether a challenger becomes the champion. Pure code over values; nothing here reads or writes.

The decision is a record that names the model it was made for by digest. Registration and deployment call
`objection` with a digest they computed themselves, so a model without its own passed record goes nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROMOTED = "promoted"
KEPT_CHAMPION = "kept_champion"
REFUSED = "refused"
SCHEMA = 1
RECORD = "decision.json"
"""Name of the record's file: between the steps, and among the artifacts of a run."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a challenger has to show."""

    metric: str
    larger_is_better: bool
    floor: float
    """Value that must be reached; where smaller is better, the value that must not be exceeded."""
    confidence: float
    """Level of the interval, between 0 and 1."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A model and its metric on the held-out rows."""

    sha256: str
    """Digest over the model's files."""
    value: float
    version: str = ""
    """Version in the registry, if it is registered."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """For which job and which data a decision was made."""

    job: str
    origin: str
    snapshot_sha256: str
    held_out_rows: int


def outcome(
    rule: Rule, challenger: float, champion: float | None, interval: tuple[float, float] | None
) -> tuple[str, str]:
    """Return (outcome, reason). `interval` is that of challenger - champion in the metric's own unit.

    Floors bind everyone. The first model needs no more; any other must be better than the champion with the
    rule's confidence. A value that is no number passes nothing.
    """
    if not math.isfinite(challenger):
        return REFUSED, f"The challenger's {rule.metric} is not a number."
    if (challenger < rule.floor) if rule.larger_is_better else (challenger > rule.floor):
        side = "below" if rule.larger_is_better else "above"
        return REFUSED, f"The challenger's {rule.metric} {challenger:.4f} is {side} the floor {rule.floor:g}."
    if champion is None:
        return PROMOTED, f"First model: its {rule.metric} {challenger:.4f} passes the floor {rule.floor:g}."
    if interval is None or not all(map(math.isfinite, (champion, *interval))):
        return KEPT_CHAMPION, "The comparison with the champion gave no number."
    gain = interval if rule.larger_is_better else (-interval[1], -interval[0])
    measured = (
        f"{rule.metric} {challenger:.4f} against the champion's {champion:.4f} on the same held-out rows; "
        f"the {rule.confidence:.0%} interval of the gain is {gain[0]:+.4f} to {gain[1]:+.4f}"
    )
    if gain[0] > 0:
        return PROMOTED, f"The challenger is better: {measured}."
    return KEPT_CHAMPION, f"Kept the champion: {measured}, which does not lie above zero."


def decide(
    rule: Rule,
    circumstances: Circumstances,
    challenger: Measured,
    champion: Measured | None,
    interval: tuple[float, float] | None,
) -> dict[str, Any]:
    """Return the decision record (JSON values only), to be stored with the model."""
    result, reason = outcome(rule, challenger.value, champion.value if champion else None, interval)
    return {
        "schema": SCHEMA,
        "job": circumstances.job,
        "origin": circumstances.origin,
        "model_sha256": challenger.sha256,
        "snapshot_sha256": circumstances.snapshot_sha256,
        "held_out_rows": circumstances.held_out_rows,
        "rule": {
            "metric": rule.metric,
            "larger_is_better": rule.larger_is_better,
            "floor": rule.floor,
            "confidence": rule.confidence,
        },
        "challenger": _number(challenger.value),
        "champion": None
        if champion is None
        else {"version": champion.version, "sha256": champion.sha256, "value": _number(champion.value)},
        "difference_interval": None if interval is None else [_number(bound) for bound in interval],
        "outcome": result,
        "reason": reason,
    }


def objection(record: Mapping[str, Any], job: str, model_sha256: str) -> str | None:
    """Return why `record` does not let this model of this job pass, or None if it does.

    The outcome is derived once more from the record's own numbers: an edited word opens nothing.
    """
    try:
        if record["schema"] != SCHEMA:
            return f"its decision record has the format {record['schema']}, but this code reads {SCHEMA}"
        if record["job"] != job:
            return f"its decision record was made for the job {record['job']}, not for {job}"
        if record["model_sha256"] != model_sha256:
            return f"its files have the digest {model_sha256[:12]}…, but {record['model_sha256'][:12]}… was evaluated"
        if record["outcome"] != PROMOTED:
            return f"its evaluation ended with {record['outcome']!r}: {record['reason']}"
        champion, bounds = record["champion"], record["difference_interval"]
        derived, _ = outcome(
            Rule(**record["rule"]),
            _float(record["challenger"]),
            None if champion is None else _float(champion["value"]),
            None if bounds is None else (_float(bounds[0]), _float(bounds[1])),
        )
    except (KeyError, TypeError, ValueError, IndexError):
        return "its decision record is damaged"
    if derived != PROMOTED:
        return f"its decision record says {PROMOTED!r}, but its own numbers say {derived!r}"
    return None


def stale(record: Mapping[str, Any], champion_sha256: str | None) -> bool:
    """Tell whether the champion that the record was made against is no longer the champion."""
    compared = record["champion"]
    return (compared["sha256"] if compared else None) != champion_sha256


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
