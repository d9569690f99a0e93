"""`make demo`: the whole loop on this machine, from uploaded files to a served prediction, three times over."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
from azure.storage.blob import BlobServiceClient
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from functions import settings
from functions.adapters.account import StateStorage
from functions.adapters.storage import AzureStore
from functions.core.dispatch import State
from functions.settings import StateAccount
from local import datasets, ports, run_config
from local.folder_lock import locked
from local.lineage import GitHubReader, Lineage, ModelReader, endpoint_of
from local.provision import DATA_CONTAINER
from local.run_config import PROJECT, RunConfig
from local.step_list import Step, StepList
from local.supervisor import Supervisor

T = TypeVar("T")

FOLDER = "digits"
DEMO_QUIET = "2s"
PATIENCE_SECONDS = 90.0
_DISPATCH_ID = re.compile(r"sb-[a-z2-7]{20}")
_PACE = 0.25
_GROUP = "     group: "


class DemoFailed(RuntimeError):
    """A step of the demo did not come about; the message says which, and where to look."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One of the demo's uploads, and what the gate must make of it."""

    title: str
    files: Callable[[], list[tuple[str, bytes]]]
    outcome: str


UPLOADS = (
    Upload("First upload: a small data set makes the first model", datasets.first_digits, "promoted"),
    Upload("Second upload: more data makes a better model", datasets.second_digits, "promoted"),
    Upload("Third upload: mislabelled data makes a worse one", datasets.third_digits, "kept_champion"),
)


def run_demo(folder: Path, environment: Mapping[str, str]) -> int:
    """Run the demo with its state in `folder`, which is emptied first. Status 0 only if every step came about."""
    console = Console()
    try:
        with locked(folder):
            _empty(folder)
            ways, seconds = _run_with(_config(folder, environment), console)
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("\nStopped; every part has ended.", highlight=False)
        return 130
    except DemoFailed as failure:
        console.print(
            f"\n[red bold]The demo failed.[/red bold] {escape(str(failure))}", highlight=False, soft_wrap=True
        )
        return 1
    _show_lineage(console, ways)
    console.print(
        f"\nAll of it took {seconds:.0f} s. Its state is in {folder}.\n\n"
        "Next:\n"
        "  .venv/bin/signalbox up        the same parts, to try your own data and code on\n"
        "  .venv/bin/signalbox --help    all commands\n"
        "  docs/guide.md                 from zero to a first run in Azure\n",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _config(folder: Path, environment: Mapping[str, str]) -> RunConfig:
    """The demo brings its own GitHub and routes, whatever the environment names."""
    own = {name: value for name, value in environment.items() if name not in settings.NAMES}
    own[settings.ROUTES] = str(_hurried_routes(folder))
    return RunConfig(folder, ports.choose(folder, {}), run_config.PARTS, own, run_config.new_token())


def _run_with(config: RunConfig, console: Console) -> tuple[list[Lineage], float]:
    console.print(
        "[bold]Signalbox demo[/bold]: real storage protocol, real workflows, real training, real scoring server; "
        "no account, nothing beyond this machine.\n"
        f"It uses routes.yml with a quiet time of {DEMO_QUIET} instead of 60s, so that nobody has to wait.",
        highlight=False,
        soft_wrap=True,
    )
    with StepList(console) as steps:
        ways = asyncio.run(_run(config, steps))
        return ways, time.monotonic() - steps.began


def _empty(folder: Path) -> None:
    """Only what a demo made is removed: a folder that holds anything else is left alone."""
    inside = [path for path in folder.iterdir() if path.name != "lock"]
    if inside and not (folder / "ports.json").is_file():
        raise DemoFailed(f"{folder} is not empty and no demo made it; name another folder with --dir")
    for path in inside:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _hurried_routes(folder: Path) -> Path:
    """The project's routes with a shorter quiet time."""
    written = (PROJECT / "routes.yml").read_text(encoding="utf-8")
    hurried = folder / "routes.yml"
    hurried.write_text(re.sub(r"quiet: \w+", f"quiet: {DEMO_QUIET}", written), encoding="utf-8")
    return hurried


async def _run(config: RunConfig, steps: StepList) -> list[Lineage]:
    """Tell the story while the parts run; whichever ends first, the story or a part, ends the demo."""
    working = asyncio.current_task()
    if working is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    steps.heading("This machine becomes Azure and GitHub")
    with steps.step("Start the parts") as step:
        supervisor = Supervisor(config, step.say)
        await supervisor.__aenter__()
        step.say(", ".join(config.parts) + ", all on 127.0.0.1")
    try:
        watch = asyncio.create_task(supervisor.watch(restart=False))
        story = asyncio.create_task(_Story(config, steps).tell())
        await asyncio.wait({watch, story}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            story.cancel()
            await asyncio.wait({story})
            watch.result()
        watch.cancel()
        return await story
    finally:
        await supervisor.stop()


class _Story:
    def __init__(self, config: RunConfig, steps: StepList) -> None:
        self._config, self._steps = config, steps
        self._store = AzureStore(StateStorage(StateAccount(connection_string=config.storage)))
        self._github = GitHubReader(config.github_url, config.repository, config.token)
        self._models = ModelReader(config.mlflow_uri)
        self._serving = ("", "")

    async def tell(self) -> list[Lineage]:
        return [await self._chapter(upload) for upload in UPLOADS]

    async def _chapter(self, upload: Upload) -> Lineage:
        self._steps.heading(upload.title)
        files = await asyncio.to_thread(upload.files)
        way = Lineage(upload.title, len(files))
        trained, deployed = await self._newest("train_model.yml"), await self._newest("deploy_model.yml")
        with self._steps.step(f"Upload {len(files)} CSV files") as step:
            await asyncio.to_thread(self._upload, files)
            step.say(f"into {DATA_CONTAINER}/{FOLDER}, {sum(len(content) for _, content in files):,} bytes")
        await self._dispatch(way, trained)
        await self._train(way, upload.outcome)
        await self._deploy(way, deployed)
        await self._predict(way)
        return way

    def _upload(self, files: list[datasets.CsvFile]) -> None:
        service = BlobServiceClient.from_connection_string(self._config.storage)
        container = service.get_container_client(DATA_CONTAINER)
        for name, content in files:
            container.upload_blob(f"{FOLDER}/{name}", content)

    async def _dispatch(self, way: Lineage, after: int) -> None:
        with self._steps.step("Events → one window → one dispatch") as step:
            way.train_run = await self._new_run("train_model.yml", after, step)
            found = _DISPATCH_ID.search(way.train_run["display_title"])
            way.dispatch = await self._store.read_dispatch(found[0]) if found else None
            if way.dispatch is None or way.dispatch.manifest is None:
                raise DemoFailed(f"the run '{way.train_run['display_title']}' names no dispatch of the ledger")
            count = way.dispatch.manifest.count
            if count != way.files:
                raise DemoFailed(
                    f"{way.files} files were uploaded, but the manifest of {way.dispatch.id} lists {count}"
                )
            step.say(f"{way.dispatch.event_type} {way.dispatch.id}, manifest of {count} files")

    async def _train(self, way: Lineage, expected: str) -> None:
        with self._steps.step("train_model.yml, run by act") as step:
            way.train_run = await self._ended(way.train_run, step)
            origin = way.dispatch.id if way.dispatch else ""
            way.job, way.decision = await asyncio.to_thread(self._models.job_of, origin)
            outcome = way.decision.get("outcome")
            if outcome != expected:
                raise DemoFailed(f"the gate said '{outcome}' for job {way.job}, expected was '{expected}'")
            step.say(str(way.decision["reason"]))

    async def _deploy(self, way: Lineage, after: int) -> None:
        with self._steps.step("RunCompleted → deploy_model.yml") as step:
            run = await self._new_run("deploy_model.yml", after, step)
            way.deploy_run = await self._ended(run, step)
            version = await asyncio.to_thread(self._models.version_of, way.job)
            if version is None:
                step.say("kept the champion, nothing to deploy")
                return
            way.model, way.version = version.name, str(version.version)
            way.endpoint, way.deployment = await asyncio.to_thread(endpoint_of, self._config.url("endpoints"), version)
            if not way.deployment:
                raise DemoFailed(f"model {way.model} version {way.version} has no traffic at any endpoint")
            self._serving = (way.endpoint, way.deployment)
            jobs = await asyncio.to_thread(self._github.jobs, run["id"])
            stages = " → ".join(job["name"] for job in jobs if job["conclusion"] == "success")
            step.say(f"{stages}: {way.model} version {way.version} serves as {way.endpoint}/{way.deployment}")

    async def _predict(self, way: Lineage) -> None:
        with self._steps.step("Ask the endpoint") as step:
            label, pixels = await asyncio.to_thread(datasets.one_digit)
            answer = await asyncio.to_thread(self._score, self._serving[0], pixels)
            if answer.headers.get("azureml-model-deployment") != self._serving[1]:
                raise DemoFailed(f"endpoint {self._serving[0]} is not served by {self._serving[1]} any more")
            predicted = answer.json()["predictions"][0]
            way.prediction = f"{predicted} (a handwritten {label})"
            step.say(f"{self._serving[1]} says {predicted} to a handwritten {label}")

    def _score(self, endpoint: str, pixels: list[float]) -> requests.Response:
        url = f"{self._config.url('endpoints')}/endpoints/{endpoint}/score"
        answer = requests.post(url, json={"data": [pixels]}, timeout=10)
        answer.raise_for_status()
        return answer

    async def _newest(self, workflow: str) -> int:
        runs = await asyncio.to_thread(self._github.runs, workflow)
        return max((int(run["id"]) for run in runs), default=0)

    async def _new_run(self, workflow: str, after: int, step: Step) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            for dispatch in await self._store.unfinished_dispatches():
                step.say(f"{dispatch.event_type}: {dispatch.state} {dispatch.reason}")
                if dispatch.state in {State.PARKED, State.DEAD}:
                    raise DemoFailed(f"dispatch {dispatch.id} is {dispatch.state}: {dispatch.reason}")
            runs = await asyncio.to_thread(self._github.runs, workflow)
            new = [run for run in runs if int(run["id"]) > after]
            if len(new) > 1:
                raise DemoFailed(f"{len(new)} runs of {workflow} came from one upload")
            return new[0] if new else None

        return await self._wait(look, f"no run of {workflow} was started")

    async def _ended(self, run: dict[str, Any], step: Step) -> dict[str, Any]:
        """Wait for the run's end, showing the step it is at. Raises DemoFailed where it is not green."""

        async def look() -> dict[str, Any] | None:
            current = await asyncio.to_thread(self._github.run, int(run["id"]))
            step.say(f"{current['status']}: {await asyncio.to_thread(self._at, run)}")
            return current if current["status"] == "completed" else None

        ended = await self._wait(look, f"run {run['id']} did not end")
        if ended["conclusion"] != "success":
            raise DemoFailed(
                f"run {ended['id']} ended with '{ended['conclusion']}'; its log: {self._run_folder(ended)}"
            )
        return ended

    def _at(self, run: dict[str, Any]) -> str:
        """What the run is at: the last group that its log has begun, else the step that GitHub names."""
        log = self._run_folder(run) / "log.txt"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        groups = [line.rpartition(_GROUP)[2] for line in lines if _GROUP in line]
        under_way = [one["name"] for one in self._github.steps(int(run["id"])) if one["status"] == "in_progress"]
        return (groups or under_way or ["…"])[-1]

    def _run_folder(self, run: dict[str, Any]) -> Path:
        return self._config.state("github") / "runs" / str(run["id"])

    async def _wait(self, look: Callable[[], Awaitable[T | None]], failure: str) -> T:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (found := await look()) is None:  # noqa: ASYNC110 - it looks at other processes
                    await asyncio.sleep(_PACE)
                return found
        except TimeoutError:
            raise DemoFailed(
                f"{failure} within {PATIENCE_SECONDS:.0f} s; the logs: {self._config.folder / 'logs'}"
            ) from None


def _show_lineage(console: Console, ways: list[Lineage]) -> None:
    table = Table(title="Lineage: from the files to the prediction", title_justify="left", title_style="bold")
    table.add_column("")
    for number, _ in enumerate(ways, start=1):
        table.add_column(f"upload {number}", overflow="fold")
    for row in zip(*(way.rows() for way in ways), strict=True):
        table.add_row(row[0][0], *(value for _, value in row))
    console.print()
    console.print(table)
