"""Which rows are held out: decided by a hash of the row's features, and so the same in every upload.

A row keeps its side for ever, whatever other rows come or go, so no champion was ever trained on a row that it is
compared on. The label is not hashed: a row that comes again with another label must not be learned on one
side and asked on the other.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

_SCALE = float(2**64)


def position(values: Sequence[float | str]) -> float:
    """Return the row's place in [0, 1): its first eight hash bytes.

    `1` and `1.0` are the same number, and a text is the same with other blanks, capitals or code points for the same
    characters (NFKC): a row must not be learned in one writing and asked in another.
    """
    text = "\x1f".join(_plain(value) if isinstance(value, str) else repr(float(value) + 0.0) for value in values)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / _SCALE


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def held_out(rows: Iterable[Sequence[float | str]], fraction: float) -> npt.NDArray[np.bool_]:
    """Tell for each row whether it is held out; about `fraction` of many rows are."""
    return np.fromiter((position(row) < fraction for row in rows), dtype=bool)


def parts(table: pd.DataFrame, features: Sequence[str], fraction: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split `table` into (training rows, held-out rows); both keep their order and index."""
    mask = held_out(table[list(features)].to_numpy().tolist(), fraction)
    return table[~mask], table[mask]
