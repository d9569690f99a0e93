"""The command `signalbox`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path

from functions.core.routes import Route
from functions.core.routes_file import RoutesError, load_routes
from functions.settings import ROUTES, SettingsError
from local import ports, run_config
from local.commands import dead_letters, doctor, replay, rescan, rollback, trace
from local.commands.moments import moment
from local.commands.surroundings import DEFAULT_FOLDER, CommandError, add_folder
from local.explain import as_text, explain
from local.folder_lock import AlreadyRunning, locked
from local.run_config import PROJECT, ConfigError, RunConfig
from local.supervisor import PartFailed, Supervisor
from local.upload import EXAMPLES, UploadError, from_example, from_files, upload


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives its exit status. Foreseeable faults end in one sentence on stderr and status 1."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of blobs hold what a pipe's encoding may lack
    status = _run(options)
    try:
        print(end="", flush=True)
    except OSError as error:  # a reader such as `head` went away, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        status = status or _fail(error)
    return status


def _run(options: argparse.Namespace) -> int:
    try:
        return int(options.run(options))
    except (RoutesError, SettingsError, ConfigError, UploadError, CommandError) as error:
        return _fail(error)
    except (ports.PortTaken, PartFailed, AlreadyRunning) as error:
        return _fail(error)
    except OSError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return 130


def _fail(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE  # as of any command whose reader has seen enough
    print(f"signalbox: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="signalbox", description="One burst of events, one confirmed dispatch.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="run the whole loop on this machine, from an upload to a prediction")
    demo.add_argument("--dir", type=Path, default=DEFAULT_FOLDER / "demo", help="folder for its state, emptied first")
    demo.set_defaults(run=_demo)

    up = commands.add_parser("up", help="start the parts and stay until Ctrl-C")
    up.add_argument("--dir", type=Path, default=DEFAULT_FOLDER / "up", help="folder that keeps all state")
    up.add_argument("--only", metavar="PARTS", help=f"start just these, by comma: {', '.join(run_config.PARTS)}")
    up.add_argument("--json", action="store_true", help="print one line of JSON once all is ready")
    up.add_argument(
        "--port",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help=f"use this port; names: {', '.join(ports.NAMES)}",
    )
    up.set_defaults(run=_up)

    upload_files = commands.add_parser("upload", help="put files into the local container 'training-data'")
    given = upload_files.add_mutually_exclusive_group(required=True)
    given.add_argument("files", nargs="*", default=[], type=Path, metavar="FILE")
    given.add_argument("--example", choices=EXAMPLES, help="a data set that an installed package brings along")
    upload_files.add_argument("--folder", default="", help="folder inside of the container")
    upload_files.add_argument("--dir", type=Path, default=DEFAULT_FOLDER / "up", help="as given to 'signalbox up'")
    upload_files.set_defaults(run=_upload)

    explain_events = commands.add_parser("explain", help="say what would become of each event in a file, and why")
    explain_events.add_argument("event", type=Path, metavar="EVENT.json")
    explain_events.add_argument("--json", action="store_true", help="print the reports as a JSON array")
    explain_events.set_defaults(run=_explain)

    letters = commands.add_parser("dead-letters", help="list what could not be used, ours and Event Grid's, and why")
    letters.add_argument("--json", action="store_true", help="print them as a JSON array")
    add_folder(letters)
    letters.set_defaults(run=dead_letters.run)

    again = commands.add_parser("replay", help="take dead letters in again and send parked dispatches again")
    again.add_argument(
        "--id", nargs="+", action="extend", default=[], metavar="ID", help="just these letters, events or dispatches"
    )
    again.add_argument("--route", metavar="NAME", help="just what this route takes, or has parked")
    again.add_argument(
        "--since", type=moment, metavar="T", help="not older; 2026-11-20T10:00:00Z, or a span such as 2h"
    )
    again.add_argument("--until", type=moment, metavar="T", help="not newer")
    again.add_argument("--yes", action="store_true", help="do it; without, it only says what it would do")
    add_folder(again)
    again.set_defaults(run=replay.run)

    fates = commands.add_parser("trace", help="tell what became of an id, and what it belongs to")
    fates.add_argument(
        "id",
        metavar="ID",
        help="of an event, dispatch or workflow run; a blob's url, a job's name, NAME/VERSION of a model",
    )
    fates.add_argument("--since", type=moment, metavar="T", help="how far back to look for events and runs (7d)")
    fates.add_argument("--json", action="store_true", help="print the trace as a JSON object")
    add_folder(fates)
    fates.set_defaults(run=trace.run)

    missing = commands.add_parser("rescan", help="find blobs that no event has told of, and take them in")
    missing.add_argument("--container", metavar="NAME", help="just this one; else those that the routes name")
    missing.add_argument("--prefix", metavar="P", help="just blobs whose path starts so")
    missing.add_argument("--since", type=moment, metavar="T", help="changed no earlier (7d)")
    missing.add_argument(
        "--until", type=moment, metavar="T", help="changed no later (5m: younger events may still come)"
    )
    missing.add_argument("--yes", action="store_true", help="do it; without, it only says what it would do")
    add_folder(missing)
    missing.set_defaults(run=rescan.run)

    doctor.add(commands)
    rollback.add(commands)
    return parser


def _explain(options: argparse.Namespace) -> int:
    reports = explain(options.event.read_bytes(), _routes())
    if options.json:
        print(json.dumps(reports, indent=2))
    else:
        print("\n".join(as_text(report) for report in reports) or "the file holds no event")
    return 0 if all(report["readable"] for report in reports) else 1


def _routes() -> tuple[Route, ...]:
    path = PROJECT / (os.environ.get(ROUTES) or "routes.yml")
    return load_routes(path.read_bytes(), str(path))


def _upload(options: argparse.Namespace) -> int:
    prefix = options.folder.strip("/")
    contents = from_example(options.example, prefix) if options.example else from_files(options.files, prefix)
    for name in upload(options.dir.resolve(), contents):
        print(f"uploaded {name}")
    return 0


def _up(options: argparse.Namespace) -> int:
    folder = options.dir.resolve()
    _routes()  # a mistake in the routes file is told here rather than in the log of a part
    parts = run_config.choose_parts(options.only, os.environ)
    wanted = _wanted_ports(options.port)
    with locked(folder):
        config = RunConfig(folder, ports.choose(folder, wanted), parts, dict(os.environ), run_config.new_token())
        run_config.check(config)
        return asyncio.run(_stay_up(config, as_json=options.json))


def _wanted_ports(given: list[str]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for one in given:
        name, _, number = one.partition("=")
        if name not in ports.NAMES or not number.isascii() or not number.isdigit() or not 0 < int(number) < 65536:
            raise ConfigError(f"--port {one}: write NAME=NUMBER, where NAME is one of {', '.join(ports.NAMES)}")
        wanted[name] = int(number)
    return wanted


async def _stay_up(config: RunConfig, *, as_json: bool) -> int:
    def tell(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    working = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, working.cancel if working else lambda: None)
    with contextlib.suppress(asyncio.CancelledError):
        async with Supervisor(config, tell) as supervisor:
            if as_json:
                print(json.dumps(supervisor.ready()), flush=True)
            else:
                print(_addresses(supervisor), flush=True)
            await supervisor.watch(restart=True)
    return 0


def _addresses(supervisor: Supervisor) -> str:
    config = supervisor.config
    lines = ["", "Signalbox is up. Stop it with Ctrl-C; its state stays in " + str(config.folder), ""]
    if "functions" in config.parts:
        lines += [
            f"  events      POST {config.url('functions')}/runtime/webhooks/eventgrid?functionName=intake",
            f"  status      {config.url('functions')}/api/status",
        ]
    if "github" in config.parts:
        lines.append(f"  workflows   {config.url('github')}/{config.repository}/actions")
    lines += [
        f"  models      mlflow ui --backend-store-uri {config.mlflow_uri}",
        f"  logs        {config.folder / 'logs'}",
        "",
        "Put data in with: signalbox upload FILE… --folder NAME   (or, to begin with: signalbox upload --example iris)",
    ]
    return "\n".join(lines)


def _demo(options: argparse.Namespace) -> int:
    from local.demo import run_demo  # noqa: PLC0415 - brings what only the demo needs

    return run_demo(options.dir.resolve(), dict(os.environ))
