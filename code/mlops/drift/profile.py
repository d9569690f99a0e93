"""A profile of the data that a model was trained on: enough to tell later whether new data still look like it.

It holds no rows (docs/adr/0008-drift.md): for numbers the sorted values, or evenly spaced quantiles of many; for the
label how often each class occurs; for text how many of the texts hold each of the most frequent words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops.report import Fault
from mlops.settings import DataSet

ARTIFACT = "profile.json"
_SCHEMA = 1
_QUANTILES = 2_000
_WORDS = 2_000
_TEXTS = 20_000
_WORD = re.compile(r"\w{1,40}")


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text column, in lower case; a word counts once in each text that holds it."""

    texts: int
    counts: Mapping[str, int]
    """Word to the number of texts that hold it, the most frequent words only."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What the columns of a table look like, each for itself."""

    rows: int
    numbers: Mapping[str, tuple[float, ...]]
    """Column to its sorted values; of more than 2,000 rows the middles of 2,000 equal parts."""
    label: str
    classes: Mapping[str, int]
    """Class to its number of rows."""
    texts: Mapping[str, Words]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value; `from_json` reads it back. Equal numbers stand there once, with how many there are."""
        numbers = {name: [list(pair) for pair in Counter(values).items()] for name, values in self.numbers.items()}
        return {"schema": _SCHEMA, **asdict(self), "numbers": numbers}


def of_table(table: pd.DataFrame, data_set: DataSet) -> Profile:
    """Return the profile of checked rows; it does not depend on their order."""
    return Profile(
        rows=len(table),
        numbers={name: tuple(_quantiles(table[name].to_numpy(dtype="float64"))) for name in data_set.numbers},
        label=data_set.label,
        classes={str(name): int(count) for name, count in sorted(table[data_set.label].value_counts().items())},
        texts={name: _words(table[name]) for name in data_set.texts},
    )


def from_json(value: Any) -> Profile:
    """Read what `to_json` wrote; raises `Fault` on anything else."""
    try:
        if value["schema"] != _SCHEMA:
            raise ValueError(f"its schema is {value['schema']!r}")
        return Profile(
            rows=int(value["rows"]),
            numbers={name: tuple(_spread(pairs)) for name, pairs in value["numbers"].items()},
            label=str(value["label"]),
            classes={name: int(count) for name, count in value["classes"].items()},
            texts={name: Words(int(words["texts"]), dict(words["counts"])) for name, words in value["texts"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Fault(f"The champion's {ARTIFACT} is no profile of this version ({error!r}): train once more.") from None


def _spread(pairs: Iterable[tuple[float, int]]) -> Iterator[float]:
    for number, count in pairs:
        yield from repeat(float(number), count)


def _quantiles(values: npt.NDArray[np.float64]) -> list[float]:
    if len(values) > _QUANTILES:
        middles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        values = np.quantile(values, middles, method="inverted_cdf")
    return [float(value) for value in np.sort(values)]


def _words(texts: pd.Series[Any]) -> Words:
    """Count words; of very many texts, those of every so-maniest in the order of their content."""
    chosen = texts.astype(str).to_numpy()
    if len(chosen) > _TEXTS:
        chosen = np.sort(chosen)[np.linspace(0, len(chosen) - 1, _TEXTS).astype(int)]
    counts: Counter[str] = Counter()
    for text in chosen:
        counts.update(set(_WORD.findall(text.lower())))
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_WORDS]
    return Words(len(chosen), dict(most))
