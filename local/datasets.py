"""The example data, made from what installed packages ship: digits, irises and short scientific texts as CSV files.

Everything is seeded and deterministic. Three uploads of the handwritten digits tell the story of the gate: a small
one makes the first model, a large one a better one, and a mislabelled one a model that is not better.
"""

from __future__ import annotations

import ast
import csv
import importlib.util
import io
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

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
_TOPICS = {
    "linear_algebra": ("numpy/linalg", "scipy/linalg", "scipy/sparse/linalg"),
    "statistics": ("scipy/stats",),
    "signals": ("numpy/fft", "scipy/fft", "scipy/signal", "scipy/ndimage"),
    "optimization": ("scipy/optimize",),
    "geometry": ("scipy/spatial",),
}
# What comes before the first underlined title of a docstring says in prose what the thing is about.
_FIRST_TITLE = re.compile(r"\n[A-Z][A-Za-z ]+\n-{3,}")
_PROSE_LENGTH = range(80, 1500)


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


def abstracts(files: int = 4) -> list[CsvFile]:
    """Return about 900 short scientific texts with their topic: what NumPy's and SciPy's docstrings say in prose."""
    once = _once()
    texts = sorted(once)
    order = np.random.default_rng(_SEED).permutation(len(texts)).tolist()
    rows = [(once[texts[number]][0], texts[number]) for number in order]
    topics = [once[texts[number]][1] for number in order]
    return _write("abstracts", ("form", "abstract"), "topic", rows, topics, files=files)


@cache
def _once() -> dict[str, tuple[str, str]]:
    """Return each text once, with its form and topic; reading the packages takes seconds."""
    return {text: (form, topic) for topic, folders in _TOPICS.items() for form, text in _prose(folders)}


def _prose(folders: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (`class` or `function`, prose of its docstring) of the public names in installed packages' folders."""
    found = importlib.util.find_spec("numpy")
    packages = Path(str(found.origin if found else "")).parents[1]
    for path in sorted(path for folder in folders for path in (packages / folder).rglob("*.py")):
        if "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                text = " ".join(_FIRST_TITLE.split(ast.get_docstring(node) or "")[0].split())
                if len(text) in _PROSE_LENGTH:
                    yield "class" if isinstance(node, ast.ClassDef) else "function", text


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
    rows: Sequence[Sequence[float | str]],
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
