"""Online endpoints on this machine: `python -m local.endpoints.server --port P --dir DIR`.

Stands in for Azure ML's managed online endpoints: each deployment is a real Azure ML inference server in a process of
its own, traffic is split by weight, part of it can be mirrored, and the header `azureml-model-deployment` picks a
deployment (https://learn.microsoft.com/azure/machine-learning/concept-endpoints-online). Statuses are Azure's: 424
with the model's own status in a header where the scoring script answers anything but 200, 408 where it takes too
long, 503 where its server is not there. DIR keeps what is deployed; a restart brings it back.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from local import part
from local.endpoints.deployments import Deployment, DeploymentError, ScoringServer
from local.endpoints.store import Endpoints

DEPLOYMENT_HEADER = "azureml-model-deployment"
MODEL_STATUS = "ms-azureml-model-error-statuscode"
MODEL_REASON = "ms-azureml-model-error-reason"
MAX_BODY = 16 * 1024 * 1024
SCORING_SECONDS = 90.0
MOST_COPIES = 32
"""Copies under way at once; more are dropped, as mirrored traffic must never hold up the users' own."""


class Api:
    """The HTTP side of `Endpoints`."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._session: aiohttp.ClientSession | None = None
        self._copies: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        """The aiohttp application of the endpoints part."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_sentences])
        app.router.add_get("/endpoints", self._list)
        app.router.add_get("/endpoints/{endpoint}", self._show)
        app.router.add_put("/endpoints/{endpoint}/traffic", self._traffic)
        app.router.add_put("/endpoints/{endpoint}/tags", self._tags)
        app.router.add_put("/endpoints/{endpoint}/deployments/{deployment}", self._deploy)
        app.router.add_get("/endpoints/{endpoint}/deployments/{deployment}/observed", self._observed)
        app.router.add_delete("/endpoints/{endpoint}/deployments/{deployment}", self._remove)
        app.router.add_post("/endpoints/{endpoint}/score", self._score)
        app.router.add_get("/endpoints/{endpoint}/swagger.json", self._swagger)
        app.cleanup_ctx.append(self._running)
        return app

    async def _running(self, _: web.Application) -> Any:
        timeout = aiohttp.ClientTimeout(total=SCORING_SECONDS)
        # A connection a request: one kept open could be closed by the server just as it is used again.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as self._session:
            try:
                await self._endpoints.open()
                yield
            finally:
                for copy in self._copies:
                    copy.cancel()
                await self._endpoints.close()

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"endpoints": [self._endpoints.view(name) for name in self._endpoints.names()]})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self._endpoints.view(request.match_info["endpoint"]))

    async def _traffic(self, request: web.Request) -> web.Response:
        return web.json_response(self._endpoints.route(request.match_info["endpoint"], await _json(request)))

    async def _tags(self, request: web.Request) -> web.Response:
        return web.json_response(self._endpoints.tag(request.match_info["endpoint"], await _json(request)))

    async def _deploy(self, request: web.Request) -> web.Response:
        wanted = Deployment.from_request(await _json(request))
        names = request.match_info
        return web.json_response(
            await self._endpoints.deploy(names["endpoint"], names["deployment"], wanted), status=201
        )

    async def _remove(self, request: web.Request) -> web.Response:
        await self._endpoints.remove(request.match_info["endpoint"], request.match_info["deployment"])
        return web.Response(status=204)

    async def _observed(self, request: web.Request) -> web.Response:
        names = request.match_info
        self._endpoints.server(names["endpoint"], names["deployment"])
        try:
            seconds = float(request.query.get("seconds", ""))
        except ValueError:
            raise DeploymentError("Say how far back to look: ?seconds=60.") from None
        return web.json_response(
            self._endpoints.endpoint(names["endpoint"]).tally(names["deployment"]).observed(seconds)
        )

    async def _swagger(self, request: web.Request) -> web.Response:
        server = self._server(request)
        answer, _ = await self._forward(server, "GET", "swagger.json", b"", "application/json")
        return answer

    async def _score(self, request: web.Request) -> web.Response:
        """Answer a user's request by weight, and copy it where it is to be mirrored; or a probe's, by header."""
        body, kind = await request.read(), request.headers.get("Content-Type", "application/json")
        # From here to the request itself nothing is awaited: whoever is picked cannot be drained in between.
        endpoint = self._endpoints.endpoint(request.match_info["endpoint"])
        picked = DEPLOYMENT_HEADER in request.headers
        server = self._server(request)
        copy = None if picked else endpoint.pick_copy()
        if copy in endpoint.servers and len(self._copies) < MOST_COPIES:
            task = asyncio.create_task(self._mirror(copy, endpoint.servers[copy], body, kind, request))
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)
        began = time.monotonic()
        answer, failed = await self._forward(server, "POST", "score", body, kind)
        if not picked:
            endpoint.tally(_deployment(server)).count(failed=failed, milliseconds=(time.monotonic() - began) * 1000)
        return answer

    async def _mirror(self, name: str, server: ScoringServer, body: bytes, kind: str, request: web.Request) -> None:
        began = time.monotonic()
        _, failed = await self._forward(server, "POST", "score", body, kind)
        endpoint = self._endpoints.endpoint(request.match_info["endpoint"])
        endpoint.tally(name).count(failed=failed, milliseconds=(time.monotonic() - began) * 1000)

    def _server(self, request: web.Request) -> ScoringServer:
        name = request.match_info["endpoint"]
        chosen = request.headers.get(DEPLOYMENT_HEADER) or self._endpoints.endpoint(name).pick()
        if chosen is None:
            raise DeploymentError(f"Endpoint {name} sends no traffic to any deployment (PUT …/{name}/traffic).", 404)
        return self._endpoints.server(name, chosen)

    async def _forward(
        self, server: ScoringServer, method: str, path: str, body: bytes, kind: str
    ) -> tuple[web.Response, bool]:
        """Ask a scoring server; return what the user gets, and whether that is the deployment's failure."""
        assert self._session is not None  # noqa: S101 - made before the first request
        address = f"http://127.0.0.1:{server.port}/{path}"
        try:
            with server.request():
                async with self._session.request(method, address, data=body, headers={"Content-Type": kind}) as answer:
                    content, status = await answer.read(), answer.status
                    kind, reason = answer.headers.get("Content-Type", "application/json"), answer.reason or ""
        except TimeoutError:
            return _unanswered(server, 408, f"took longer than {SCORING_SECONDS:.0f} s"), True
        except aiohttp.ClientError as error:
            return _unanswered(server, 503, f"does not answer ({type(error).__name__})"), True
        headers = {"Content-Type": kind, DEPLOYMENT_HEADER: _deployment(server)}
        if status == 200:
            return web.Response(body=content, headers=headers), False
        headers |= {MODEL_STATUS: str(status), MODEL_REASON: reason}
        return web.Response(status=424, body=content, headers=headers), status >= 500


def _deployment(server: ScoringServer) -> str:
    return server.label.split(".", 1)[1]


def _unanswered(server: ScoringServer, status: int, what: str) -> web.Response:
    sentence = f"The scoring server of {server.label} {what}; its log is {server.log}."
    return web.json_response({"error": sentence}, status=status, headers={DEPLOYMENT_HEADER: _deployment(server)})


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise DeploymentError(f"The body is not JSON: {error}.") from None


@web.middleware
async def _sentences(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer a DeploymentError with its sentence and status."""
    try:
        return await handler(request)
    except DeploymentError as error:
        return web.json_response({"error": str(error)}, status=error.status)


async def _serve(directory: Path, port: int) -> None:
    await part.serve(Api(Endpoints(directory, port)).application(), port)


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop."""
    options = part.arguments(__doc__ or "").parse_args(arguments)
    part.log_to_stderr()
    asyncio.run(_serve(options.dir, options.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
