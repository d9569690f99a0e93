"""The settings files, read once and checked: `.cloud/.azure/*.json` and a data set's own `code/data/<folder>.json`.

Every key that a file may hold is listed here; an unknown one is refused with what was probably meant, so that no
option is silently unread.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops.report import Fault

ROOT = Path(__file__).resolve().parents[2]
CLOUD = Path(".cloud/.azure")

_FILES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "workspace.json": {"name": str, "resource_group": str},
    "compute.json": {
        "name": str,
        "compute_type": str,
        "vm_size": str,
        "vm_priority": str,
        "min_nodes": int,
        "max_nodes": int,
        "idle_seconds_before_scaledown": int,
    },
    "run.json": {"experiment_name": str, "tags": dict, "default_folder": str},
    "registermodel.json": {
        "model_name": str,
        "model_description": str,
        "model_tags": dict,
        "metrics_max": list,
        "metrics_min": list,
    },
    "deploy.json": {
        "name": str,
        "inference_source_directory": str,
        "inference_entry_script": str,
        "tags": dict,
        "scoring_timeout_ms": int,
        "test_enabled": bool,
        "test_file_path": str,
        "test_file_function_name": str,
    },
}
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
}


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """What a feature column must hold: numbers between two bounds, both included, in the column's own unit."""

    name: str
    minimum: float
    maximum: float


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

    @property
    def features(self) -> list[str]:
        """Return the names of the feature columns, in the model's order."""
        return [column.name for column in self.columns]


@dataclass(frozen=True, slots=True)
class Settings:
    """The files under `.cloud/.azure`, by their own key names."""

    workspace: Mapping[str, Any]
    compute: Mapping[str, Any]
    run: Mapping[str, Any]
    model: Mapping[str, Any]
    deploy: Mapping[str, Any]

    def model_name(self, folder: str) -> str:
        """Return the registered model's name for the data set of `folder`."""
        return str(self.model["model_name"]).replace("{dataset}", folder)

    def endpoint_name(self, folder: str) -> str:
        """Return the name of the endpoint that serves the data set of `folder`."""
        return str(self.deploy["name"]).replace("{dataset}", folder)

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
    parts = {name: _checked(root / CLOUD / name, keys) for name, keys in _FILES.items()}
    return Settings(
        workspace=parts["workspace.json"],
        compute=parts["compute.json"],
        run=parts["run.json"],
        model=parts["registermodel.json"],
        deploy=parts["deploy.json"],
    )


def load_data_set(folder: str, root: Path = ROOT) -> DataSet:
    """Read `code/data/<folder>.json` below `root`; without it nobody knows what the folder's rows should be."""
    path = root / "code" / "data" / f"{folder}.json"
    if not path.is_file():
        known = ", ".join(sorted(entry.stem for entry in path.parent.glob("*.json"))) or "none"
        raise Fault(
            f"There are no settings for the data of folder {folder!r}: add code/data/{folder}.json "
            f"(columns, label, ranges, gate; there are settings for: {known})."
        )
    values = _checked(path, _DATA_SET)
    data_set = DataSet(
        name=folder,
        columns=tuple(_column_rules(path, values["columns"])),
        label=str(_part(path, values["label"], "label", {"name", "classes"})["name"]),
        classes=tuple(str(name) for name in values["label"]["classes"]),
        **{key: values[key] for key in _DATA_SET if key not in {"columns", "label", "families"}},
        families=tuple(values["families"]),
    )
    if not 0 < data_set.held_out_fraction < 1 or not 0 < data_set.confidence < 1:
        raise Fault(f"{path.name}: held_out_fraction and confidence must lie between 0 and 1.")
    if min(data_set.folds, data_set.minimum_classes) < 2 or data_set.resamples < 100:
        raise Fault(f"{path.name}: folds and minimum_classes must be at least 2, resamples at least 100.")
    return data_set


def _column_rules(path: Path, groups: Sequence[Any]) -> list[ColumnRule]:
    rules = []
    for group in groups:
        part = _part(path, group, "columns[]", {"names", "minimum", "maximum"})
        rules += [ColumnRule(str(name), float(part["minimum"]), float(part["maximum"])) for name in part["names"]]
    return rules


def _part(path: Path, part: Any, where: str, keys: set[str]) -> Mapping[str, Any]:
    if not isinstance(part, dict) or set(part) != keys:
        raise Fault(f"{path.name}: {where} must be an object with the keys {', '.join(sorted(keys))}.")
    return part


def _checked(path: Path, keys: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Fault(f"{path.name} is missing: the project keeps it in {path.parent.name}/.") from None
    except json.JSONDecodeError as error:
        raise Fault(f"{path.name}, line {error.lineno}: not JSON ({error.msg}).") from None
    if not isinstance(values, dict):
        raise Fault(f"{path.name} must hold one JSON object.")
    for key in values:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            raise Fault(
                f"{path.name}: {key!r} is not a setting"
                + (f"; {near[0]!r} was probably meant." if near else f" (known: {', '.join(keys)}).")
            )
    for key, kind in keys.items():
        if key not in values:
            raise Fault(f"{path.name}: the setting {key!r} is missing.")
        if not isinstance(values[key], kind) or (kind is int and isinstance(values[key], bool)):
            expected = kind.__name__ if isinstance(kind, type) else "number"
            raise Fault(f"{path.name}: {key!r} must be a JSON value of type {expected}.")
    return values
