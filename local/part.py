"""What every part of a local run has in common: it serves on loopback and stops with its parent."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path

from aiohttp import web

PARENT_CHECK_SECONDS = 1.0


def arguments(description: str) -> argparse.ArgumentParser:
    """Parser with the two options that every part has: its port and the folder that keeps its state."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--dir", type=Path, required=True, help="folder that keeps this part's state")
    return parser


def log_to_stderr() -> None:
    """One line per record, with the time first; the supervisor sends it to the part's log file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)


async def _healthy(_: web.Request) -> web.Response:
    return web.json_response({"status": "ready"})


async def serve(app: web.Application, port: int) -> None:
    """Serve `app` on 127.0.0.1:`port`, with `GET /healthz`, until SIGTERM, SIGINT or the parent's death."""
    app.router.add_get("/healthz", _healthy)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await _until_told_to_stop()
    finally:
        await runner.cleanup()


async def _until_told_to_stop() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    parent = os.getppid()
    while not stop.is_set() and os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PARENT_CHECK_SECONDS)
