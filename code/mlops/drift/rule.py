"""When data counts as drifted away from what the champion learned: the thresholds of a data set's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlops.report import Fault


@dataclass(frozen=True, slots=True)
class DriftRule:
    """A column has drifted if its difference is both certain (`significance`) and large enough to matter."""

    significance: float = 0.01
    """Chance, between 0 and 1, that a check of unchanged data names any column."""
    numbers: float = 0.2
    """Least Kolmogorov-Smirnov distance of a column of numbers, between 0 and 1."""
    classes: float = 0.2
    """Least share of rows whose label or category would have to be another one, between 0 and 1."""
    text: float = 0.2
    """Least change in the share of the texts that hold one same word, between 0 and 1."""
    columns: int = 1
    """So many columns (the label is one) must have drifted before the data set has."""
    minimum_rows: int = 30
    """With fewer rows there is no verdict."""


def rule(file: str, setting: Mapping[str, Any]) -> DriftRule:
    """Read the setting `drift` of the data set's settings `file`; raises `Fault` with what belongs there."""
    names = [field.name for field in fields(DriftRule)]
    unknown = [key for key in setting if key not in names]
    if unknown:
        raise Fault(f"{file}: drift has no key {unknown[0]!r}; its keys are {', '.join(names)}.")
    for name, value in setting.items():
        if name in ("columns", "minimum_rows"):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise Fault(f"{file}: drift.{name} must be a whole number, at least 1.")
        elif not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1:
            raise Fault(f"{file}: drift.{name} must be a number between 0 and 1.")
    return DriftRule(**setting)
