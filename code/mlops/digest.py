"""Digests that tie a decision to exactly one model and one set of data."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

# MLflow puts this file beside MLmodel when somebody loads a model from the registry; it is no part of what was
# evaluated. Anywhere else, and with anything else in it, a file of this name is a file like any other.
_ADDED = "registered_model_meta"
_ADDED_CONTENT = re.compile(rb"model_name: [^\n]*\nmodel_version: [^\n]*\n?")


def of_folder(folder: Path) -> str:
    """Return the sha256 over the relative path and content of every file below `folder`, behind links too."""
    digest = hashlib.sha256()
    for path in sorted(Path(where) / name for where, _, names in os.walk(folder, followlinks=True) for name in names):
        relative, content = path.relative_to(folder).as_posix(), path.read_bytes()
        if relative != _ADDED or not _ADDED_CONTENT.fullmatch(content):
            digest.update(f"{relative}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def of_value(value: Any) -> str:
    """Return the sha256 of a JSON value in its canonical form (sorted keys, no blanks)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
