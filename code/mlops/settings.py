"""The settings files, read once and checked: `.cloud/.azure/*.json` and a data set's own `code/data/<folder>.json`.

Every key that a file may hold is listed here; an unknown one is refused with what was probably meant, so that no
option is silently unread.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops.azure import settings as azure_settings
from mlops.deployment import deploy_settings
from mlops.drift import rule as drift_rule
from mlops.drift.rule import DriftRule
from mlops.report import Fault

ROOT = Path(__file__).resolve().parents[2]
CLOUD = Path(".cloud/.azure")

TRAIN_ON = ("dataset", "burst")
ON_MISSING = ("skip", "fail")
_DATA_SET: dict[str, type | tuple[type, ...]] = {
    "columns": list,
    "label": dict,
    "minimum_rows": int,
    "minimum_rows_per_class": int,
    "minimum_classes": int,
    "held_out_fraction": float,
    "folds": int,
    "seed": int,
    "families": list,
    "floor": (int, float),
    "confidence": float,
    "resamples": int,
    "floors": dict,
    "slices": list,
    "slice_tolerance": (int, float),
    "minimum_slice_rows": int,
    "train_on": str,
    "on_missing": str,
    "maximum_rows": int,
    "maximum_duplicates": (int, float),
    "maximum_imbalance": (int, float),
    "drift": dict,
}
_DATA_SET_DEFAULTS: dict[str, Any] = {
    "floors": {},
    "slices": [],
    "slice_tolerance": 0.05,
    "minimum_slice_rows": 20,
    "train_on": "dataset",
    "on_missing": "fail",
    "maximum_rows": 200_000,
    "maximum_duplicates": 0.9,
    "maximum_imbalance": 20,
    "drift": {},
}
NUMBER, TEXT = "number", "text"
_COLUMN_KEYS = {NUMBER: {"minimum", "maximum"}, TEXT: {"max_length"}}


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """What a feature column must hold: numbers between two bounds, or text up to a length."""

    name: str
    minimum: float = -math.inf
    """Smallest number allowed, in the column's own unit."""
    maximum: float = math.inf
    """Largest number allowed."""
    kind: str = NUMBER
    """`number` or `text`."""
    max_length: int = 0
    """Characters that a text may have at most; 0 where the column holds numbers."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set: the shape of its rows, and how it is split, trained on and judged."""

    name: str
    """Name of the folder in container `training-data`, and of the settings file."""
    columns: tuple[ColumnRule, ...]
    """Feature columns, in the order in which the model takes them."""
    label: str
    """Name of the column to predict."""
    classes: tuple[str, ...]
    """Every label that may occur, as text."""
    minimum_rows: int
    minimum_rows_per_class: int
    minimum_classes: int
    held_out_fraction: float
    """Share of the rows (by hash) that no model is ever trained on, between 0 and 1."""
    folds: int
    """Folds of the cross-validation that chooses between model families."""
    seed: int
    families: tuple[str, ...]
    """Names of the model families to compare; `train.py` knows them."""
    floor: float
    """The metric's value that any model must reach (or stay below, where smaller is better)."""
    confidence: float
    """Level of the interval for the difference between challenger and champion, e.g. 0.95."""
    resamples: int
    """Bootstrap resamples behind that interval."""
    floors: Mapping[str, float]
    """Values that further metrics must reach (or stay below), by the metric's name."""
    slices: tuple[str, ...]
    """Columns by whose values the comparison with the champion is also made apart."""
    slice_tolerance: float
    """How much worse than the champion a challenger may be on one slice, in the deciding metric's unit."""
    minimum_slice_rows: int
    """Held-out rows that a slice needs in order to be judged."""
    train_on: str
    """`dataset`: the folder as it stands; `burst`: the files of the dispatch's manifest. `DATA` overrides it."""
    on_missing: str
    """`skip` or `fail`: what follows if a file is gone or was changed before it could be read."""
    maximum_rows: int
    """Of more different rows than these, so many are trained on, chosen by hash; that bounds a step's memory."""
    maximum_duplicates: float
    """Share of the rows that may repeat another one, from 0 to 1."""
    maximum_imbalance: float
    """So many rows of the most frequent class may come on one row of the rarest."""
    drift: DriftRule
    """When the data counts as drifted away from what the champion learned."""

    @property
    def features(self) -> list[str]:
        """Return the names of the feature columns, in the model's order."""
        return [column.name for column in self.columns]

    @property
    def numbers(self) -> list[str]:
        """Return the names of the feature columns that hold numbers."""
        return [column.name for column in self.columns if column.kind == NUMBER]

    @property
    def texts(self) -> list[str]:
        """Return the names of the feature columns that hold text."""
        return [column.name for column in self.columns if column.kind == TEXT]


@dataclass(frozen=True, slots=True)
class Settings:
    """The files under `.cloud/.azure`, by their own key names."""

    workspace: Mapping[str, Any]
    compute: Mapping[str, Any]
    run: Mapping[str, Any]
    model: Mapping[str, Any]
    deploy: Mapping[str, deploy_settings.Stage]
    """The stages dev, test and production."""

    def model_name(self, folder: str) -> str:
        """Return the registered model's name for the data set of `folder`."""
        return str(self.model["model_name"]).replace("{dataset}", folder)

    def endpoint_name(self, folder: str) -> str:
        """Return the name of the endpoint that serves the data set of `folder` in production."""
        return self.deploy[deploy_settings.PRODUCTION].endpoint(folder)

    def metric(self) -> tuple[str, bool]:
        """Return the metric that decides, and whether larger is better."""
        larger, smaller = self.model["metrics_max"], self.model["metrics_min"]
        if len(larger) + len(smaller) != 1:
            raise Fault(
                f"{CLOUD}/registermodel.json names {len(larger) + len(smaller)} metrics in metrics_max and "
                "metrics_min together: name exactly one, so that the gate has one question to answer."
            )
        return (str(larger[0]), True) if larger else (str(smaller[0]), False)


def load(root: Path = ROOT) -> Settings:
    """Read `.cloud/.azure/*.json` below `root`."""
    parts = {}
    for name, file in azure_settings.FILES.items():
        parts[name] = _checked(root / CLOUD / name, file.kinds, file.defaults, file.replaced)
        file.check(parts[name])
    return Settings(
        workspace=parts["workspace.json"],
        compute=parts["compute.json"],
        run=parts["run.json"],
        model=parts["registermodel.json"],
        deploy=_stages(root),
    )


def _stages(root: Path) -> dict[str, deploy_settings.Stage]:
    """Read deploy.json with the files of its stages, and on one machine (`ENDPOINTS_URL`) deploy.local.json."""

    def read(name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
        path = root / CLOUD / name
        if name != deploy_settings.FILE and not path.is_file():
            return dict(defaults)
        return _checked(path, deploy_settings.KINDS, defaults, deploy_settings.REPLACED)

    return deploy_settings.stages(read, one_machine=bool(os.environ.get("ENDPOINTS_URL")))


def data_sets(root: Path = ROOT) -> list[str]:
    """Return the names of the folders that have settings, in order."""
    return sorted(path.stem for path in (root / "code" / "data").glob("*.json"))


def load_data_set(folder: str, root: Path = ROOT) -> DataSet:
    """Read `code/data/<folder>.json` below `root`; without it nobody knows what the folder's rows should be."""
    path = root / "code" / "data" / f"{folder}.json"
    if not path.is_file():
        known = ", ".join(data_sets(root)) or "none"
        raise Fault(
            f"There are no settings for the data of folder {folder!r}: add code/data/{folder}.json "
            f"(columns, label, ranges, gate; there are settings for: {known})."
        )
    values = _checked(path, _DATA_SET, _DATA_SET_DEFAULTS)
    data_set = DataSet(
        name=folder,
        columns=tuple(_column_rules(path, values["columns"])),
        label=str(_part(path, values["label"], "label", {"name", "classes"})["name"]),
        classes=tuple(str(name) for name in values["label"]["classes"]),
        **{key: values[key] for key in _DATA_SET if key not in {"columns", "label", "families", "slices", "drift"}},
        families=tuple(str(name) for name in values["families"]),
        slices=tuple(str(name) for name in values["slices"]),
        drift=drift_rule.rule(path.name, values["drift"]),
    )
    _require_sense(path, data_set)
    return data_set


def _require_sense(path: Path, data_set: DataSet) -> None:
    """Refuse values of the right type that cannot work, or that would judge nothing."""
    if not 0 < data_set.held_out_fraction < 1 or not 0 < data_set.confidence < 1:
        raise Fault(f"{path.name}: held_out_fraction and confidence must lie between 0 and 1.")
    if min(data_set.folds, data_set.minimum_classes) < 2 or data_set.resamples < 100:
        raise Fault(f"{path.name}: folds and minimum_classes must be at least 2, resamples at least 100.")
    if data_set.minimum_rows_per_class < data_set.folds:
        raise Fault(f"{path.name}: minimum_rows_per_class must be at least folds: every fold must show every class.")
    names = [*data_set.features, data_set.label]
    if len(set(names)) != len(names):
        raise Fault(f"{path.name}: columns and label name a column twice; name each column once.")
    if not data_set.features or not data_set.families:
        raise Fault(f"{path.name}: columns and families must each name at least one.")
    for name in data_set.slices:
        if name not in names:
            raise Fault(f"{path.name}: slices names {name!r}, which is no column of this data set.")
    if data_set.slice_tolerance < 0 or data_set.minimum_slice_rows < 1:
        raise Fault(f"{path.name}: slice_tolerance must be at least 0, minimum_slice_rows at least 1.")
    for key, value, choices in (
        ("train_on", data_set.train_on, TRAIN_ON),
        ("on_missing", data_set.on_missing, ON_MISSING),
    ):
        if value not in choices:
            raise Fault(f"{path.name}: {key} is {value!r}; it must be one of: {', '.join(choices)}.")
    if data_set.maximum_rows < data_set.minimum_rows:
        raise Fault(f"{path.name}: maximum_rows is smaller than minimum_rows, so no data could ever train.")
    if not 0 <= data_set.maximum_duplicates <= 1 or data_set.maximum_imbalance < 1:
        raise Fault(f"{path.name}: maximum_duplicates must lie between 0 and 1, maximum_imbalance be at least 1.")


def _column_rules(path: Path, groups: Sequence[Any]) -> list[ColumnRule]:
    rules = []
    for group in groups:
        kind = group.get("kind", NUMBER) if isinstance(group, dict) else NUMBER
        if kind not in _COLUMN_KEYS:
            raise Fault(f"{path.name}: a column's kind is {kind!r}; it must be {NUMBER!r} or {TEXT!r}.")
        written = {"kind": kind, **group} if isinstance(group, dict) else group
        part = _part(path, written, f"columns[] of kind {kind}", {"kind", "names", *_COLUMN_KEYS[kind]})
        bounds = {key: part[key] for key in _COLUMN_KEYS[kind]}
        wrong = [key for key, bound in bounds.items() if isinstance(bound, bool) or not isinstance(bound, int | float)]
        if wrong:
            raise Fault(f"{path.name}: {wrong[0]} of a column must be a number.")
        if kind == TEXT and (not isinstance(bounds["max_length"], int) or bounds["max_length"] < 1):
            raise Fault(f"{path.name}: max_length of a column must be a whole number of characters, at least 1.")
        rules += [ColumnRule(str(name), kind=kind, **bounds) for name in part["names"]]
    return rules


def _part(path: Path, part: Any, where: str, keys: set[str]) -> Mapping[str, Any]:
    if not isinstance(part, dict) or set(part) != keys:
        raise Fault(f"{path.name}: {where} must be an object with the keys {', '.join(sorted(keys))}.")
    return part


def _checked(
    path: Path,
    keys: Mapping[str, type | tuple[type, ...]],
    defaults: Mapping[str, Any] | None = None,
    replaced: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Read a settings file and check its keys and types; a key of `defaults` may be left out.

    `replaced` holds keys of older projects, each with what to do instead.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Fault(f"{path.name} is missing: the project keeps it in {path.parent.name}/.") from None
    except json.JSONDecodeError as error:
        raise Fault(f"{path.name}, line {error.lineno}: not JSON ({error.msg}).") from None
    if not isinstance(values, dict):
        raise Fault(f"{path.name} must hold one JSON object.")
    for key in values:
        if replaced and key in replaced:
            raise Fault(f"{path.name}: {key!r} is not a setting any more: {replaced[key]}.")
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            raise Fault(
                f"{path.name}: {key!r} is not a setting"
                + (f"; {near[0]!r} was probably meant." if near else f" (known: {', '.join(keys)}).")
            )
    values = {**(defaults or {}), **values}
    for key, kind in keys.items():
        if key not in values:
            raise Fault(f"{path.name}: the setting {key!r} is missing.")
        if not isinstance(values[key], kind) or (kind is int and isinstance(values[key], bool)):
            expected = kind.__name__ if isinstance(kind, type) else "number"
            raise Fault(f"{path.name}: {key!r} must be a JSON value of type {expected}.")
    return values
