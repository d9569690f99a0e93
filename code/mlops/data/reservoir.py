"""Rows of any number in bounded memory: each row once, and of too many a sample that is always the same.

A row is kept if its hash is among the smallest. That depends on nothing but the row, so neither the order of the
rows nor the cut into files changes the sample, and a row that was kept keeps its place while few rows are added.
(The hash is not the one that holds rows out: the sample has its share of both sides.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

_COPIES = "__copies__"
_HASH = "__hash__"


class Reservoir:
    """Takes rows piece by piece; about twice `most` different rows are in memory at once."""

    def __init__(self, columns: Sequence[str], most: int) -> None:
        """Keep at most `most` different rows of these `columns`: float64, or text as objects."""
        self._columns = list(columns)
        self._most = most
        self._parts: list[pd.DataFrame] = []
        self._settled: pd.DataFrame | None = pd.DataFrame(columns=pd.Index([*self._columns, _HASH, _COPIES]))
        self._waiting = 0
        self._limit: int | None = None
        self.rows = 0
        """Rows taken so far, repeated ones included."""

    def add(self, piece: pd.DataFrame) -> None:
        """Take some rows."""
        self.rows += len(piece)
        hashes = pd.util.hash_pandas_object(piece[self._columns], index=False).to_numpy()
        part = piece[self._columns].copy()
        part[_HASH], part[_COPIES] = hashes, 1
        if self._limit is not None:
            part = part[hashes <= np.uint64(self._limit)]
        self._parts.append(part)
        self._settled = None
        self._waiting += len(part)
        if self._waiting > 2 * self._most:
            self._settle()

    def table(self) -> pd.DataFrame:
        """Return the kept rows in the order in which they came."""
        return self._settle()[self._columns].reset_index(drop=True)

    @property
    def sampled(self) -> bool:
        """Whether rows were left out."""
        self._settle()
        return self._limit is not None

    @property
    def repeated_share(self) -> float:
        """Share of the rows that repeat another one; of a sample, an estimate from all copies of its own rows."""
        copies = int(self._settle()[_COPIES].sum())
        return 1 - self._waiting / copies if copies else 0.0

    def _settle(self) -> pd.DataFrame:
        """Merge what waits into one table: each row once with its number of copies, and no more than `most`."""
        if self._settled is not None:
            return self._settled
        merged = pd.concat(self._parts, ignore_index=True)
        merged[_COPIES] = merged.groupby(_HASH)[_COPIES].transform("sum")
        merged = merged.drop_duplicates(self._columns, ignore_index=True)
        if len(merged) > self._most:
            smallest = np.sort(np.argsort(merged[_HASH].to_numpy(), kind="stable")[: self._most])
            merged = merged.iloc[smallest].reset_index(drop=True)
            self._limit = int(merged[_HASH].max())
        self._parts, self._waiting, self._settled = [merged], len(merged), merged
        return merged
