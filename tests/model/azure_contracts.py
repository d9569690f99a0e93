"""Holding what was sent against what is published: recorded requests, and the resource manager's own types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.model.azure_fake import Sent

PROVIDER = "Microsoft.MachineLearningServices"
TYPES = "2024-10-01"
"""Version of the type models that bodies are held against; the SDK's own versions are previews before it."""


def shape(value: Any) -> Any:
    """Return the keys and types of a JSON value."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return type(value).__name__


def recorded(contracts: Path, name: str, method: str, kind: str) -> dict[str, Any]:
    """Return the recorded exchange with this method on a resource of this kind."""
    entries = json.loads((contracts / "ml" / name).read_text())["Entries"]
    found: list[dict[str, Any]] = [
        entry for entry in entries if entry["RequestMethod"] == method and f"/{kind}/" in entry["RequestUri"]
    ]
    return found[0]


def complaints(contracts: Path, sent: Sent, types: str = TYPES) -> str:
    """Return what the published type models say against a body that was sent; nothing where it fits."""
    inside = sent.path.split(f"{PROVIDER}/", 1)[1].split("/")
    resource = {
        "type": f"{PROVIDER}/{'/'.join(inside[::2])}",
        "apiVersion": types,
        "name": "/".join(inside[1::2]),
        **sent.body,
    }
    template = {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": [resource],
    }
    command = [sys.executable, str(contracts / "tools/armcheck.py"), "/dev/stdin"]
    checked = subprocess.run(
        command, input=json.dumps(template), capture_output=True, text=True, timeout=60, check=False
    )
    return "" if checked.returncode == 0 else checked.stdout + checked.stderr
