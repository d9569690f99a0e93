"""Many rows in bounded memory: each once, and of too many always the same sample."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings, strategies as st
from mlops.data import split
from mlops.data.reservoir import Reservoir

ROWS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["a", "b", "c d"])), min_size=1, max_size=60)


def filled(rows: list[tuple[int, str]], most: int, cuts: list[int] | None = None) -> Reservoir:
    """Return a reservoir that took `rows` in pieces that end at `cuts`."""
    reservoir = Reservoir(["x", "label"], most)
    ends = sorted({*(cuts or []), len(rows)})
    for start, end in zip([0, *ends], ends, strict=False):
        if rows[start:end]:
            reservoir.add(pd.DataFrame(rows[start:end], columns=["x", "label"]).astype({"x": float}))
    return reservoir


def kept(reservoir: Reservoir) -> list[tuple[float, str]]:
    """Return the kept rows."""
    return [(float(x), str(label)) for x, label in reservoir.table().itertuples(index=False)]


@settings(deadline=None)
@given(ROWS)
def test_few_rows_are_all_kept_in_their_order(rows: list[tuple[int, str]]) -> None:
    """Below the bound nothing is lost, repeated rows stand once, and their share is exact."""
    reservoir = filled(rows, 1_000)
    different = list(dict.fromkeys((float(x), label) for x, label in rows))
    assert kept(reservoir) == different
    assert not reservoir.sampled
    assert np.isclose(reservoir.repeated_share, 1 - len(different) / len(rows))


@settings(deadline=None)
@given(
    ROWS.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))),
    st.lists(st.integers(1, 60), max_size=5),
    st.integers(1, 12),
)
def test_order_and_pieces_do_not_matter(
    orders: tuple[list[tuple[int, str]], list[tuple[int, str]]], cuts: list[int], most: int
) -> None:
    """The same rows give the same sample and the same share of repeats, however they come."""
    rows, other = orders
    one, two = filled(rows, most), filled(other, most, [cut for cut in cuts if cut < len(rows)])
    assert sorted(kept(one)) == sorted(kept(two))
    assert one.sampled == two.sampled == (len(set(rows)) > most)
    assert len(kept(one)) == min(most, len(set(rows)))
    assert np.isclose(one.repeated_share, two.repeated_share)


def test_a_sample_is_like_the_rows_and_has_both_sides_of_the_split() -> None:
    """The rows of a sample are neither the held-out ones nor the first ones, but some of each."""
    numbers = np.arange(40_000, dtype=float)
    reservoir = Reservoir(["x"], 2_000)
    for piece in np.array_split(np.concatenate([numbers, numbers]), 17):
        reservoir.add(pd.DataFrame({"x": piece}))
    table = reservoir.table()
    assert len(table) == 2_000
    assert 0.4 < (table["x"] < 20_000).mean() < 0.6
    assert 0.2 < split.held_out(table.to_numpy().tolist(), 0.25).mean() < 0.3
    assert np.isclose(reservoir.repeated_share, 0.5)
