"""Ports of the parts: found once and kept with the state, because addresses stand in events and manifests."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from local.sockets import free_port, is_free, owner_of

NAMES = ("storage", "queue", "table", "eventgrid", "functions", "github", "endpoints")
_RELEASE_SECONDS = 6.0


class PortTaken(RuntimeError):
    """A port that this run needs belongs to another program; the message says to which, and what to do."""


def choose(folder: Path, wanted: Mapping[str, int]) -> dict[str, int]:
    """A port for each name: as `wanted`, else as kept in `folder`, else a free one. Raises PortTaken."""
    kept_file = folder / "ports.json"
    kept: dict[str, int] = json.loads(kept_file.read_text(encoding="utf-8")) if kept_file.is_file() else {}
    ports = {name: wanted.get(name) or kept.get(name) or free_port() for name in NAMES}
    for name, port in ports.items():
        _expect_free(name, port, folder)
    kept_file.write_text(json.dumps(ports), encoding="utf-8")
    return ports


def _expect_free(name: str, port: int, folder: Path) -> None:
    """Wait a moment: after a crash the parts of the run before need a second or two to notice and end."""
    deadline = time.monotonic() + _RELEASE_SECONDS
    while not is_free(port):
        if time.monotonic() > deadline:
            raise PortTaken(
                f"port {port} ({name}) is taken by {owner_of(port)}; end that program, choose another port with "
                f"--port {name}=NUMBER, or start from another --dir than {folder}"
            )
        time.sleep(0.2)
