"""The scoring script that Azure ML's inference server runs: `init` once, `run` for every request.

Follows "Author a scoring script" of Azure ML's documentation. A request is `{"data": [[…], …]}` or
`{"input_data": [[…], …]}` or `{"input_data": {"columns": […], "data": [[…], …]}}`, one inner list a row; the answer
is `{"predictions": […]}`, one a row. It stands alone: nothing else of the project is deployed with it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow.sklearn
import pandas as pd
from azureml_inference_server_http.api.aml_response import AMLResponse  # type: ignore[import-untyped]
from mlflow.models import Model
from mlflow.types import DataType

_LARGEST = sys.float_info.max  # beyond it lie Infinity and NaN, which Python's JSON takes and no model does

_model: Any = None
_columns: list[str] = []
_texts: set[str] = set()


class _BadRequestError(Exception):
    """The request cannot be answered; the text says why and what it should be."""


def init() -> None:
    """Load the model below `AZUREML_MODEL_DIR` (an MLflow folder there, or one level down)."""
    global _model, _columns, _texts  # noqa: PLW0603 - the inference server's contract is two plain functions
    root = Path(os.environ["AZUREML_MODEL_DIR"])
    found = sorted([*root.glob("MLmodel"), *root.glob("*/MLmodel")])
    if not found:
        raise FileNotFoundError(f"AZUREML_MODEL_DIR {root} holds no MLflow model (no file MLmodel).")
    signature = Model.load(str(found[0])).signature
    if signature is None:
        raise ValueError(f"The model in {found[0].parent} has no signature: log it with one.")
    _columns = [str(name) for name in signature.inputs.input_names()]
    _texts = {
        name for name, kind in zip(_columns, signature.inputs.input_types(), strict=True) if kind == DataType.string
    }
    _model = mlflow.sklearn.load_model(str(found[0].parent))


def run(raw_data: str) -> Any:
    """Answer one request; a request that cannot be answered gets status 400 and a sentence."""
    try:
        table = _table(raw_data)
    except _BadRequestError as error:
        return AMLResponse({"error": str(error)}, 400, json_str=True)
    return {"predictions": _model.predict(table).tolist()}


def _table(raw_data: str) -> pd.DataFrame:
    """Return the request's rows with the model's columns."""
    try:
        body = json.loads(raw_data)
    except (ValueError, RecursionError) as error:
        raise _BadRequestError(f"The request is not JSON: {error}.") from None
    rows = body.get("data", body.get("input_data")) if isinstance(body, dict) else None
    columns = _columns
    if isinstance(rows, dict):
        named = rows.get("columns", _columns)
        columns = [str(name) for name in named] if isinstance(named, list) else []
        rows = rows.get("data")
    if sorted(columns) != sorted(_columns):
        raise _BadRequestError(f"The columns must be: {', '.join(_columns)}.")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        raise _BadRequestError('The request must be {"data": [[…], …]}: a list with one list of values a row.')
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise _BadRequestError(f"Row {number} has {len(row)} values, but the model takes {len(columns)}.")
        for name, value in zip(columns, row, strict=True):
            _require_kind(number, name, value)
    kinds = {name: object if name in _texts else float for name in _columns}
    return pd.DataFrame(rows, columns=pd.Index(columns)).astype(kinds)[_columns]


def _require_kind(number: int, name: str, value: Any) -> None:
    """Refuse a value that the column does not hold: text where the model takes numbers, or the other way round."""
    if name in _texts:
        if not isinstance(value, str):
            raise _BadRequestError(f"Row {number}, column {name!r}: {str(value)[:40]} is not text.")
    elif isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise _BadRequestError(f"Row {number}, column {name!r}: {str(value)[:40]!r} is not a number.")
