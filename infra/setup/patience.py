"""How long the set-up waits for what takes its time in Azure: new roles, published code, a probe on its way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, and the pause between two looks, in seconds."""

    longest: float
    pace: float
