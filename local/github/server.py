"""The GitHub stand-in: the REST calls that Signalbox makes, a queue of runs under act, and pages for people.

Answers follow GitHub's OpenAPI description. `SIGNALBOX_GITHUB_TOKEN` is the one token that it accepts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from local import part
from local.github.actions_runner import ActionsRun, Assignment, RunnerError, read_machine
from local.github.documents import BRANCH, Documents, number_of
from local.github.expressions import ExpressionError
from local.github.gate import VERSIONS, Gate
from local.github.inputs import take_inputs, typed
from local.github.pages import list_page, missing_page, run_page
from local.github.requests import Refused, read_dispatch, read_page, read_workflow_dispatch, wanted_runs
from local.github.runs import Run, RunQueue, RunStore, read_jobs, run_contexts, second
from local.github.workflows import Workflow, read_workflows
from local.github.workspaces import Workspace, Workspaces

_log = logging.getLogger(__name__)


class GitHub:
    """One repository: its API, its runs and its pages."""

    def __init__(self, folder: Path, base: str, repository: str, project: Path, runner_file: Path) -> None:
        self._folder = folder.resolve()
        self._owner, self._name = repository.split("/")
        self._base = base
        self._runner_file = runner_file.resolve()
        self._documents = Documents(base, self._owner, self._name, second())
        self._workspaces = Workspaces(self._folder / "workspaces", project, repository)
        self._source = asyncio.Lock()
        self._store = RunStore(self._folder / "runs.sqlite")
        self._queue = RunQueue(self._store, self._folder / "runs", self._hire)
        (self._folder / "home").mkdir(parents=True, exist_ok=True)

    def routes(self) -> list[web.RouteDef]:
        """Every address that is served."""
        api, html = "/repos/{owner}/{repo}", "/{owner}/{repo}/actions"
        return [
            web.get(api, self._repository),
            web.post(f"{api}/dispatches", self._dispatch),
            web.get(f"{api}/actions/runs", self._list_runs),
            web.get(api + r"/actions/runs/{id:\d+}", self._get_run),
            web.get(api + r"/actions/runs/{id:\d+}/jobs", self._list_jobs),
            web.post(api + r"/actions/runs/{id:\d+}/cancel", self._cancel_run),
            web.get(f"{api}/actions/workflows", self._list_workflows),
            web.post(f"{api}/actions/workflows/{{workflow}}/dispatches", self._dispatch_workflow),
            web.get(html, self._show_runs),
            web.get(html + r"/runs/{id:\d+}", self._show_run),
        ]

    async def lifetime(self, _: web.Application) -> AsyncIterator[None]:
        """Go on with the queue while the server is up; end the runs under way when it stops."""
        async with self._source:
            await self._current()
        self._queue.recover()
        yield
        await self._queue.stop()
        self._store.close()

    async def _current(self) -> Workspace:
        """The workspace of now; held under `_source` until its runs are kept, or the next caller would remove it."""
        workspace = await asyncio.to_thread(self._workspaces.current)
        needed = {Path(run.workspace) for run in self._store.open()}
        await asyncio.to_thread(self._workspaces.keep_only, {workspace.path, *needed})
        return workspace

    def _hire(self, run: Run) -> ActionsRun:
        assignment = Assignment(
            folder=self._queue.folder(run.id),
            home=self._folder / "home",
            workspace=Workspace(Path(run.workspace), run.head_sha),
            workflow_path=run.workflow_path,
            run_id=run.id,
            run_number=run.run_number,
            actor=self._owner,
            server_url=self._base,
            event_name=run.event_name,
        )
        return ActionsRun(assignment, self._runner_file)

    def _own(self, request: web.Request) -> None:
        asked = f"{request.match_info['owner']}/{request.match_info['repo']}"
        if asked.casefold() != f"{self._owner}/{self._name}".casefold():
            raise Refused(404, "Not Found")

    def _run(self, request: web.Request) -> Run:
        self._own(request)
        run = self._store.get(int(request.match_info["id"][:18]))
        if run is None:
            raise Refused(404, "Not Found")
        return run

    async def _repository(self, request: web.Request) -> web.Response:
        self._own(request)
        return web.json_response(self._documents.repository())

    async def _dispatch(self, request: web.Request) -> web.Response:
        self._own(request)
        dispatch = read_dispatch(await request.read())
        async with self._source:
            workspace = await self._current()
            workflows, faults = await asyncio.to_thread(read_workflows, workspace.path)
            listening = [workflow for workflow in workflows if workflow.listens(dispatch.event_type)]
            for workflow in listening:
                event = self._documents.dispatch_event(dispatch.event_type, dispatch.client_payload)
                self._start(workflow, event, workspace, "repository_dispatch", dispatch.event_type)
        for fault in faults:
            _log.warning("%s; it starts nothing", fault)
        _log.info("dispatch %s starts %d workflow(s)", dispatch.event_type, len(listening))
        return web.Response(status=204)

    async def _dispatch_workflow(self, request: web.Request) -> web.Response:
        self._own(request)
        asked, dispatch = request.match_info["workflow"], read_workflow_dispatch(await request.read())
        async with self._source:
            workspace = await self._current()
            workflows, _ = await asyncio.to_thread(read_workflows, workspace.path)
            workflow = next((one for one in workflows if asked in {one.file, str(number_of(one.path))}), None)
            if workflow is None:
                raise Refused(404, "Not Found")
            if dispatch.ref not in {BRANCH, f"refs/heads/{BRANCH}"}:
                raise Refused(422, f"No ref found for: {dispatch.ref}")
            inputs = take_inputs(workflow.document, dispatch.inputs)
            event = self._documents.workflow_dispatch_event(workflow.path, inputs)
            run = self._start(workflow, event, workspace, "workflow_dispatch", workflow.name)
        _log.info("workflow dispatch of %s starts run %d", workflow.path, run.id)
        if dispatch.wants_details or request.headers.get("X-GitHub-Api-Version", VERSIONS[0]) != VERSIONS[0]:
            return web.json_response(self._documents.started_run(run))
        return web.Response(status=204)

    def _start(self, workflow: Workflow, event: dict[str, Any], workspace: Workspace, trigger: str, title: str) -> Run:
        """Queue a run of the workflow for an event; `title` is its name where the workflow gives it none."""
        now = second()
        run = Run(
            id=self._store.next_id(),
            run_number=self._store.next_number(workflow.path),
            workflow_path=workflow.path,
            workflow_name=workflow.name,
            display_title=title,
            event_name=trigger,
            head_sha=workspace.sha,
            workspace=str(workspace.path),
            concurrency_group=None,
            status="queued",
            conclusion=None,
            created_at=now,
            run_started_at=now,
            updated_at=now,
        )
        server = {
            "repository": f"{self._owner}/{self._name}",
            "repository_owner": self._owner,
            "actor": self._owner,
            "server_url": self._base,
            "api_url": self._base,
        }
        try:
            inputs = typed(workflow.document, event.get("inputs", {}))
            contexts = run_contexts(run, event, read_machine(self._runner_file).vars, server, inputs)
            run = replace(run, display_title=workflow.title(contexts, title))
            concurrency = workflow.concurrency(contexts)
        except (ExpressionError, RunnerError) as fault:
            self._queue.add_broken(run, event, f"{workflow.path}: {fault}")
            return run
        self._queue.add(replace(run, concurrency_group=concurrency.group), event, concurrency)
        return run

    async def _list_runs(self, request: web.Request) -> web.Response:
        self._own(request)
        runs = wanted_runs(request.query, self._store.all(), self._owner)
        page = read_page(request.query)
        links = page.links(lambda number: str(request.url.update_query(page=number)), len(runs))
        body = {"total_count": len(runs), "workflow_runs": [self._documents.run(run) for run in page.cut(runs)]}
        return web.json_response(body, headers={"Link": links} if links else None)

    async def _get_run(self, request: web.Request) -> web.Response:
        return web.json_response(self._documents.run(self._run(request)))

    async def _list_jobs(self, request: web.Request) -> web.Response:
        run, page = self._run(request), read_page(request.query)
        jobs = read_jobs(self._queue.folder(run.id))
        shown = [self._documents.job(run, place, job) for place, job in enumerate(jobs)]
        links = page.links(lambda number: str(request.url.update_query(page=number)), len(jobs))
        body = {"total_count": len(jobs), "jobs": page.cut(shown)}
        return web.json_response(body, headers={"Link": links} if links else None)

    async def _cancel_run(self, request: web.Request) -> web.Response:
        run = self._run(request)
        if run.status == "completed":
            raise Refused(409, "Cannot cancel a workflow run that is completed.")
        self._queue.cancel(run)
        return web.json_response({}, status=202)

    async def _list_workflows(self, request: web.Request) -> web.Response:
        self._own(request)
        async with self._source:
            workflows, _ = await asyncio.to_thread(read_workflows, (await self._current()).path)
        documents = [self._documents.workflow(workflow) for workflow in workflows]
        return web.json_response({"total_count": len(documents), "workflows": read_page(request.query).cut(documents)})

    async def _show_runs(self, request: web.Request) -> web.Response:
        try:
            self._own(request)
        except Refused:
            return _html(missing_page(), 404)
        return _html(list_page(f"{self._owner}/{self._name}", self._store.all()[:200]))

    async def _show_run(self, request: web.Request) -> web.Response:
        try:
            run = self._run(request)
        except Refused:
            return _html(missing_page(), 404)
        return _html(run_page(f"{self._owner}/{self._name}", run, self._queue.folder(run.id)))


def _html(text: str, status: int = 200) -> web.Response:
    # No script may run on these pages, whatever a blob is called.
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"}
    return web.Response(text=text, status=status, content_type="text/html", headers=policy)


def application(github: GitHub, token: str) -> web.Application:
    """The server's application."""
    app = web.Application(middlewares=[Gate(token, time.time).middleware], client_max_size=4 * 1024 * 1024)
    app.add_routes(github.routes())
    app.cleanup_ctx.append(github.lifetime)
    return app


def main() -> None:
    """Serve one repository until told to stop."""
    parser = part.arguments("The GitHub stand-in: REST calls, workflow runs under act, pages for people.")
    parser.add_argument("--repository", required=True, help="OWNER/NAME of the repository")
    parser.add_argument("--project", type=Path, required=True, help="working tree of the repository")
    parser.add_argument("--runner", type=Path, required=True, help="JSON: secrets, vars, env and path of the runner")
    options = parser.parse_args()
    part.log_to_stderr()
    token = os.environ.get("SIGNALBOX_GITHUB_TOKEN", "")
    if not token:
        sys.exit("SIGNALBOX_GITHUB_TOKEN is not set; set it to the token that the stand-in is to accept")
    if options.repository.count("/") != 1 or not all(options.repository.split("/")):
        sys.exit(f"--repository {options.repository} is not OWNER/NAME; write it like octo-org/octo-repo")
    try:
        read_machine(options.runner)
    except RunnerError as fault:
        sys.exit(str(fault))

    async def run() -> None:
        base = f"http://127.0.0.1:{options.port}"
        github = GitHub(options.dir, base, options.repository, options.project, options.runner)
        await part.serve(application(github, token), options.port)

    asyncio.run(run())


if __name__ == "__main__":
    main()
