"""Digests that tie a decision to exactly one model and one set of data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

# MLflow adds this file when it downloads from the registry; it is no part of what was evaluated.
_NOT_THE_MODEL = frozenset({"registered_model_meta"})


def of_folder(folder: Path) -> str:
    """Return the sha256 over the relative path and content of every file below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in _NOT_THE_MODEL:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def of_value(value: Any) -> str:
    """Return the sha256 of a JSON value in its canonical form (sorted keys, no blanks)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
