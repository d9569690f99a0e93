"""Faults that a test asks the storage proxy for.

`POST /_faults` adds a fault and answers 204; `DELETE /_faults` takes all away. The body is a JSON object:

- `match`: the fault is for requests whose `METHOD path?query` holds this text (default: all);
- `count`: how many requests meet it (default: 1);
- `delay`: wait so many seconds first;
- `status`: answer this status with the storage error code `code` (default ServerBusy), without asking storage;
- `drop`: true: let the request take effect, then close the connection without an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Fault:
    """One kind of trouble for the next `count` requests that fit."""

    match: str = ""
    count: int = 1
    delay: float = 0.0
    status: int | None = None
    code: str = "ServerBusy"
    drop: bool = False


_TYPES: Mapping[str, tuple[type, ...]] = {
    "match": (str,),
    "count": (int,),
    "delay": (int, float),
    "status": (int,),
    "code": (str,),
    "drop": (bool,),
}


def parse_fault(declared: Any) -> Fault:
    """Read a fault. Raises `ValueError` with a sentence."""
    if not isinstance(declared, dict):
        raise ValueError("A fault is a JSON object.")
    for key, value in declared.items():
        if key not in _TYPES:
            raise ValueError(f"A fault has no {key!r}; it has {', '.join(_TYPES)}.")
        if not isinstance(value, _TYPES[key]) or isinstance(value, bool) != (key == "drop"):
            raise ValueError(f"A fault's {key!r} cannot be {value!r}.")
    return Fault(**declared)


class Faults:
    """The faults that still wait for their requests."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let the next requests that fit meet this fault."""
        self._waiting.append(fault)

    def clear(self) -> None:
        """Take all faults away."""
        self._waiting.clear()

    def meet(self, request: str) -> Fault | None:
        """Give the fault, the oldest first, that a request (`METHOD path?query`) meets, and count it down."""
        for fault in self._waiting:
            if fault.match in request:
                fault.count -= 1
                if fault.count <= 0:
                    self._waiting.remove(fault)
                return fault
        return None
