"""Whether data still look like those that the champion was trained on: one test a column, and one verdict.

Numbers: two-sample Kolmogorov-Smirnov. Label and words: chi-square. A column has drifted if its difference is certain
(p-value, corrected for the number of columns) and large enough to matter: with enough rows any difference is certain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from mlops.drift.profile import Profile, Words
from mlops.drift.rule import DriftRule

_LEAST_EXPECTED = 5.0
"""Expected count that the chi-square test needs in each cell (the usual rule)."""

Kind = Literal["numbers", "classes", "text"]


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """How one column differs."""

    name: str
    kind: Kind
    effect: float
    """0 (alike) to 1 (nothing in common); see `DriftRule` for what it is of each kind."""
    needed: float
    """The effect from which on the difference matters."""
    p_value: float
    """Corrected for the number of columns that were tested."""
    drifted: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """The verdict on a table."""

    before: Profile
    """Of the champion's training data."""
    now: Profile
    columns: tuple[ColumnDrift, ...]
    """Of the columns that both have, the most different one first."""
    drifted: bool
    notes: tuple[str, ...]
    """Why there is no verdict, or none on a column."""

    @property
    def coefficient(self) -> float:
        """Return the largest effect of any column, between 0 and 1."""
        return max((column.effect for column in self.columns), default=0.0)

    @property
    def names(self) -> list[str]:
        """Return the columns that have drifted."""
        return [column.name for column in self.columns if column.drifted]


def compare(before: Profile, now: Profile, rule: DriftRule) -> Drift:
    """Compare two tables by their profiles; a column that only one of them has is noted, not judged."""
    if min(before.rows, now.rows) < rule.minimum_rows:
        note = f"{now.rows} rows against {before.rows} of the champion: too few to tell (drift.minimum_rows)."
        return Drift(before, now, (), False, (note,))
    found: list[tuple[str, Kind, float, float]] = []
    for name in sorted(before.numbers.keys() & now.numbers.keys()):
        found.append((name, "numbers", *_numbers(before.numbers[name], now.numbers[name])))
    for name in sorted(before.texts.keys() & now.texts.keys()):
        found.append((name, "text", *_text(before.texts[name], now.texts[name], rule.significance)))
    if before.label == now.label:
        found.append((now.label, "classes", *_shares(before.classes, now.classes)))
    # Benjamini-Yekutieli holds however the columns hang together, as neighbouring pixels do.
    corrected = stats.false_discovery_control([p_value for *_, p_value in found], method="by") if found else []
    columns = []
    for (name, kind, effect, _), p_value in zip(found, corrected, strict=True):
        needed = getattr(rule, kind)
        drifted = bool(p_value < rule.significance and effect >= needed)
        columns.append(ColumnDrift(name, kind, effect, needed, float(p_value), drifted))
    columns.sort(key=lambda column: (not column.drifted, -column.effect, column.name))
    enough = sum(column.drifted for column in columns) >= rule.columns
    return Drift(before, now, tuple(columns), enough, tuple(_one_sided(before, now)))


def _one_sided(before: Profile, now: Profile) -> list[str]:
    names = [{*profile.numbers, *profile.texts, profile.label} for profile in (before, now)]
    return [
        f"Column {name!r} cannot be compared: the champion was trained {'with' if name in names[0] else 'without'} it."
        for name in sorted(names[0] ^ names[1])
    ]


def _numbers(before: tuple[float, ...], now: tuple[float, ...]) -> tuple[float, float]:
    """Return the largest distance between the two distribution functions, and its p-value.

    Of many rows a profile holds 2,000 quantiles, so the p-value is that of 2,000 rows: too large rather than too small.
    """
    result = stats.ks_2samp(before, now, method="asymp")
    return float(result.statistic), float(result.pvalue)


def _text(before: Words, now: Words, significance: float) -> tuple[float, float]:
    """Return the largest change in the share of the texts that hold a word, and the smallest p-value of any word.

    Only words that are frequent enough for the chi-square test count; p-values are corrected for their number. Where
    some changes are sure, the largest of these is returned: a large one that is chance must not lend itself to them.
    """
    names = sorted({*before.counts, *now.counts})
    held = np.array([[words.counts.get(name, 0) for name in names] for words in (before, now)], dtype=float)
    texts = np.array([[before.texts], [now.texts]], dtype=float)
    pooled = held.sum(axis=0) / texts.sum()
    testable = np.minimum(pooled, 1 - pooled) * texts.min() >= _LEAST_EXPECTED
    if not testable.any():
        return 0.0, 1.0
    pooled, changes = pooled[testable], (held[0] / texts[0] - held[1] / texts[1])[testable]
    statistics = changes**2 / (pooled * (1 - pooled) * (1 / texts).sum())
    p_values = stats.false_discovery_control(stats.chi2.sf(statistics, 1), method="by")
    sure = changes[p_values < significance]
    return float(np.abs(sure if sure.size else changes).max()), float(p_values.min())


def _shares(before: Mapping[str, int], now: Mapping[str, int]) -> tuple[float, float]:
    """Return the share that would have to be of another class (total variation distance), and its chi-square p-value.

    Classes too rare for the test are counted together.
    """
    names = sorted({*before, *now})
    counts = np.array([[part.get(name, 0) for name in names] for part in (before, now)], dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    rare = counts.sum(axis=0) * totals.min() / totals.sum() < _LEAST_EXPECTED
    table = np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    effect = float(np.abs(table[0] / totals[0] - table[1] / totals[1]).sum() / 2)
    if table.shape[1] < 2:
        return effect, 1.0
    return effect, float(stats.chi2_contingency(table, correction=False).pvalue)
