"""The uploads of the demo, made from data sets that scikit-learn ships: real digits and irises as CSV files.

Everything is seeded and deterministic. Three uploads of the handwritten digits tell the story of the gate: a small
one makes the first model, a large one a better one, and a mislabelled one a model that is not better.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CsvFile = tuple[str, bytes]
"""(file name without a folder, content in UTF-8)."""

_SEED = 20261120
# Positions in the shuffled 1,797 digits; 10 rows a file make 24 files of the first upload.
_FIRST = slice(0, 240)
_SECOND = slice(240, 1500)
_THIRD = slice(1500, 1797)
_DIGIT_COLUMNS = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
_IRIS_COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def first_digits() -> list[CsvFile]:
    """Return 24 files with 240 handwritten digits: enough for a first model, not for a good one."""
    features, labels = _digits(_FIRST)
    return _files("part", features, labels, files=24)


def second_digits() -> list[CsvFile]:
    """Return 20 files with 1,260 more digits; a model trained on all of them is clearly better."""
    features, labels = _digits(_SECOND)
    return _files("more", features, labels, files=20)


def third_digits() -> list[CsvFile]:
    """Return 20 files with the last 297 digits under wrong labels; a model that learns from them is worse."""
    features, labels = _digits(_THIRD)
    wrong = np.random.default_rng(_SEED).integers(1, 10, size=len(labels))
    return _files("mislabelled", features, (labels + wrong) % 10, files=20)


def iris() -> list[CsvFile]:
    """Return 3 files with the 150 irises, shuffled."""
    from sklearn.datasets import load_iris  # type: ignore[import-untyped]  # noqa: PLC0415

    loaded = load_iris()
    order = np.random.default_rng(_SEED).permutation(len(loaded.target))
    labels = [str(loaded.target_names[number]) for number in loaded.target[order]]
    return _write("iris", _IRIS_COLUMNS, "species", loaded.data[order].tolist(), labels, files=3)


def _digits(part: slice) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the shuffled digits of `part`: features (rows, 64) from 0 to 16, labels (rows,) from 0 to 9."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    loaded = load_digits()
    order = np.random.default_rng(_SEED).permutation(len(loaded.target))[part]
    return loaded.data[order], loaded.target[order]


def _files(stem: str, features: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], files: int) -> list[CsvFile]:
    return _write(stem, _DIGIT_COLUMNS, "label", features.astype(int).tolist(), labels.tolist(), files=files)


def _write(
    stem: str,
    columns: Sequence[str],
    label: str,
    rows: Sequence[Sequence[float]],
    labels: Sequence[object],
    *,
    files: int,
) -> list[CsvFile]:
    """Deal the rows to `files` files as evenly as possible, each with a header row."""
    written = []
    for number, positions in enumerate(np.array_split(np.arange(len(rows)), files), start=1):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*columns, label])
        writer.writerows([*rows[position], labels[position]] for position in positions)
        written.append((f"{stem}-{number:02}.csv", text.getvalue().encode()))
    return written


def one_digit() -> tuple[int, list[float]]:
    """Return (label, 64 pixels from 0 to 16) of a handwritten digit, for a request to an endpoint."""
    features, labels = _digits(_FIRST)
    return int(labels[0]), [float(value) for value in features[0]]
