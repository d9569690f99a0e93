"""Online endpoints on this machine: `python -m local.endpoints.server --port P --dir DIR`.

Stands in for Azure ML's managed online endpoints: each deployment is a real Azure ML inference server in a process of
its own, traffic is split by weight, and the header `azureml-model-deployment` picks a deployment
(https://learn.microsoft.com/azure/machine-learning/concept-endpoints-online). DIR keeps what is deployed; a restart
brings it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from local import part
from local.endpoints.deployments import NAME, Deployment, DeploymentError, ScoringServer

log = logging.getLogger("endpoints")

DEPLOYMENT_HEADER = "azureml-model-deployment"
MAX_BODY = 16 * 1024 * 1024
SCORING_SECONDS = 90.0
RESTART_SECONDS = 1.0
WHOLE = 100


@dataclass(slots=True)
class Endpoint:
    """One endpoint: its servers by deployment name, and the share of each in percent."""

    servers: dict[str, ScoringServer] = field(default_factory=dict)
    traffic: dict[str, int] = field(default_factory=dict)
    credit: dict[str, int] = field(default_factory=dict)

    def pick(self) -> str | None:
        """The next deployment by weight: evenly spread, so that ten percent is one request in ten."""
        shares = {name: share for name, share in self.traffic.items() if share > 0}
        if not shares:
            return None
        for name, share in shares.items():
            self.credit[name] = self.credit.get(name, 0) + share
        chosen = max(shares, key=lambda name: self.credit[name])
        self.credit[chosen] -= sum(shares.values())
        return chosen


class Endpoints:
    """All endpoints of this machine, kept in `directory`."""

    def __init__(self, directory: Path, port: int) -> None:
        self._file = directory / "endpoints.json"
        self._logs = directory / "logs"
        self._copies = directory / "deployments"
        self._address = f"http://127.0.0.1:{port}/endpoints"
        self._endpoints: dict[str, Endpoint] = {}
        self._keepers: dict[ScoringServer, asyncio.Task[None]] = {}
        self._change = asyncio.Lock()

    async def open(self) -> None:
        """Start what an earlier run had deployed; a server that cannot start stays listed as Failed."""
        if not self._file.exists():
            return
        saved = json.loads(self._file.read_text(encoding="utf-8"))
        for name, document in saved.items():
            endpoint = self._endpoints[name] = Endpoint(traffic=document["traffic"])
            for deployment, values in document["deployments"].items():
                endpoint.servers[deployment] = self._server(name, deployment, Deployment(**values))
        servers = [server for endpoint in self._endpoints.values() for server in endpoint.servers.values()]
        for error in await asyncio.gather(*(server.start() for server in servers), return_exceptions=True):
            if error is not None:
                log.error("%s", error)
        for server in servers:
            self._keep(server)

    async def close(self) -> None:
        """Stop every server; they stay deployed."""
        for endpoint in self._endpoints.values():
            await asyncio.gather(*(self._stop(server) for server in endpoint.servers.values()))

    async def deploy(self, name: str, deployment: str, wanted: Deployment) -> dict[str, Any]:
        """Start a deployment, in place of one with the same name once the new one is healthy."""
        for text in (name, deployment):
            if not NAME.fullmatch(text):
                raise DeploymentError(
                    f"{text!r} is no name for Azure ML: 3 to 32 letters, digits and dashes, starting with a letter."
                )
        async with self._change:
            copy = await asyncio.to_thread(
                wanted.copied_to, self._copies / f"{name}.{deployment}.{uuid.uuid4().hex[:8]}"
            )
            server = self._server(name, deployment, copy)
            try:
                await server.start()
            except DeploymentError:
                await asyncio.to_thread(copy.discard)
                raise
            endpoint = self._endpoints.setdefault(name, Endpoint())
            old = endpoint.servers.get(deployment)
            endpoint.servers[deployment] = server
            self._keep(server)
            self._save()
            if old is not None:
                await self._stop(old)
                await asyncio.to_thread(old.deployment.discard)
        return {**self._addresses(name), "deployment": deployment, "state": server.state, "tags": dict(wanted.tags)}

    async def route(self, name: str, shares: Any) -> dict[str, Any]:
        """Set the traffic; deployments that are not named get none."""
        endpoint = self.endpoint(name)
        if not _is_split(shares):
            raise DeploymentError("Traffic must be whole percents by deployment name that add up to 100, or to 0.")
        for deployment in shares:
            self.server(name, deployment)
        async with self._change:
            endpoint.traffic, endpoint.credit = dict(shares), {}
            self._save()
        return self.view(name)

    async def remove(self, name: str, deployment: str) -> None:
        """Stop and forget a deployment; refused while it has traffic."""
        endpoint, server = self.endpoint(name), self.server(name, deployment)
        if endpoint.traffic.get(deployment):
            raise DeploymentError(
                f"Deployment {deployment} has {endpoint.traffic[deployment]} % of the traffic of {name}; "
                f"give its traffic to another one first (PUT {self._address}/{name}/traffic).",
                409,
            )
        async with self._change:
            endpoint.servers.pop(deployment, None)
            endpoint.traffic.pop(deployment, None)
            self._save()
            await self._stop(server)
            await asyncio.to_thread(server.deployment.discard)

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint of that name; raises DeploymentError (404) for an unknown one."""
        if name not in self._endpoints:
            raise DeploymentError(f"There is no endpoint {name}.", 404)
        return self._endpoints[name]

    def server(self, name: str, deployment: str | None) -> ScoringServer:
        """The server of a deployment; None picks one by weight."""
        endpoint = self.endpoint(name)
        chosen = deployment or endpoint.pick()
        if chosen is None:
            raise DeploymentError(f"Endpoint {name} sends no traffic to any deployment (PUT …/{name}/traffic).", 404)
        if chosen not in endpoint.servers:
            raise DeploymentError(f"Endpoint {name} has no deployment {chosen}.", 404)
        return endpoint.servers[chosen]

    def view(self, name: str) -> dict[str, Any]:
        """An endpoint as the API shows it."""
        endpoint = self.endpoint(name)
        deployments = {
            key: {"state": server.state, "pid": server.pid, "log": str(server.log), **asdict(server.deployment)}
            for key, server in endpoint.servers.items()
        }
        return {**self._addresses(name), "traffic": endpoint.traffic, "deployments": deployments}

    def names(self) -> list[str]:
        """All endpoints."""
        return sorted(self._endpoints)

    def _addresses(self, name: str) -> dict[str, Any]:
        base = f"{self._address}/{name}"
        return {"endpoint": name, "scoring_uri": f"{base}/score", "swagger_uri": f"{base}/swagger.json"}

    def _server(self, name: str, deployment: str, wanted: Deployment) -> ScoringServer:
        return ScoringServer(f"{name}.{deployment}", wanted, self._logs)

    def _keep(self, server: ScoringServer) -> None:
        self._keepers[server] = asyncio.create_task(_restart_when_it_ends(server))

    async def _stop(self, server: ScoringServer) -> None:
        keeper = self._keepers.pop(server, None)
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await server.stop()

    def _save(self) -> None:
        document = {
            name: {
                "traffic": endpoint.traffic,
                "deployments": {key: asdict(server.deployment) for key, server in endpoint.servers.items()},
            }
            for name, endpoint in self._endpoints.items()
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
        temporary.replace(self._file)


def _is_split(shares: Any) -> bool:
    if not isinstance(shares, dict) or any(type(share) is not int for share in shares.values()):
        return False
    return all(0 <= share <= WHOLE for share in shares.values()) and sum(shares.values()) in (0, WHOLE)


async def _restart_when_it_ends(server: ScoringServer) -> None:
    pause = RESTART_SECONDS
    while True:
        await server.wait()
        await server.stop()
        log.error("the scoring server of %s ended, starting it again; its log is %s", server.label, server.log)
        await asyncio.sleep(pause)
        pause *= 2
        with contextlib.suppress(DeploymentError):
            await server.start()
            pause = RESTART_SECONDS


class Api:
    """The HTTP side of `Endpoints`."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._session: aiohttp.ClientSession | None = None

    def application(self) -> web.Application:
        """The aiohttp application of the endpoints part."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_sentences])
        app.router.add_get("/endpoints", self._list)
        app.router.add_get("/endpoints/{endpoint}", self._show)
        app.router.add_put("/endpoints/{endpoint}/traffic", self._traffic)
        app.router.add_put("/endpoints/{endpoint}/deployments/{deployment}", self._deploy)
        app.router.add_delete("/endpoints/{endpoint}/deployments/{deployment}", self._remove)
        app.router.add_post("/endpoints/{endpoint}/score", self._score)
        app.router.add_get("/endpoints/{endpoint}/swagger.json", self._score)
        app.cleanup_ctx.append(self._running)
        return app

    async def _running(self, _: web.Application) -> Any:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SCORING_SECONDS)) as self._session:
            try:
                await self._endpoints.open()
                yield
            finally:
                await self._endpoints.close()

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"endpoints": [self._endpoints.view(name) for name in self._endpoints.names()]})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self._endpoints.view(request.match_info["endpoint"]))

    async def _traffic(self, request: web.Request) -> web.Response:
        return web.json_response(await self._endpoints.route(request.match_info["endpoint"], await _json(request)))

    async def _deploy(self, request: web.Request) -> web.Response:
        wanted = Deployment.from_request(await _json(request))
        names = request.match_info
        return web.json_response(
            await self._endpoints.deploy(names["endpoint"], names["deployment"], wanted), status=201
        )

    async def _remove(self, request: web.Request) -> web.Response:
        await self._endpoints.remove(request.match_info["endpoint"], request.match_info["deployment"])
        return web.Response(status=204)

    async def _score(self, request: web.Request) -> web.Response:
        """Hand a request to a scoring server as it stands; POST /score or GET /swagger.json."""
        name = request.match_info["endpoint"]
        server = self._endpoints.server(name, request.headers.get(DEPLOYMENT_HEADER))
        address = f"http://127.0.0.1:{server.port}/{request.path.rsplit('/', 1)[1]}"
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        assert self._session is not None  # noqa: S101 - made before the first request
        try:
            async with self._session.request(
                request.method, address, data=await request.read(), headers=headers
            ) as answer:
                body, kind = await answer.read(), answer.headers.get("Content-Type", "application/json")
                response = web.Response(status=answer.status, body=body, headers={"Content-Type": kind})
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = f"does not answer ({type(error).__name__}); its log is {server.log}"
            raise DeploymentError(f"The scoring server of {server.label} {reason}.", 503) from None
        response.headers[DEPLOYMENT_HEADER] = server.label.split(".", 1)[1]
        return response


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
