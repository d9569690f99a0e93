"""All endpoints of this machine: what is deployed, kept in a folder, so that a restart brings it back."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from local.endpoints.deployments import NAME, Deployment, DeploymentError, ScoringServer
from local.endpoints.nursery import Nursery
from local.endpoints.traffic import Endpoint, check_split

log = logging.getLogger("endpoints")


class Endpoints:
    """The endpoints in `directory`, served at `port`. Changes of one endpoint happen one after the other."""

    def __init__(self, directory: Path, port: int) -> None:
        self._file = directory / "endpoints.json"
        self._logs = directory / "logs"
        self._copies = directory / "deployments"
        self._address = f"http://127.0.0.1:{port}/endpoints"
        self._endpoints: dict[str, Endpoint] = {}
        self._keepers: dict[ScoringServer, asyncio.Task[None]] = {}
        self._changes: dict[tuple[str, str], asyncio.Lock] = {}
        self._nursery = Nursery()

    async def open(self) -> None:
        """Start what an earlier run had deployed; a server that cannot start stays listed as Failed."""
        await self._nursery.open()
        if not self._file.exists():
            return
        saved = json.loads(self._file.read_text(encoding="utf-8"))
        for name, document in saved.items():
            endpoint = self._create(name)
            endpoint.split(document["traffic"], document.get("mirror", {}))
            endpoint.tags = document.get("tags", {})
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
        servers = [server for endpoint in self._endpoints.values() for server in endpoint.servers.values()]
        await asyncio.gather(*(self._stop(server) for server in servers))
        await self._nursery.close()

    async def deploy(self, name: str, deployment: str, wanted: Deployment) -> dict[str, Any]:
        """Start a deployment, in place of one with the same name once the new one is healthy."""
        _check_names(name, deployment)
        async with self._changing(name, deployment):
            copy = await asyncio.to_thread(
                wanted.copied_to, self._copies / f"{name}.{deployment}.{uuid.uuid4().hex[:8]}"
            )
            server = self._server(name, deployment, copy)
            try:
                await server.start()
            except BaseException:
                await asyncio.to_thread(copy.discard)
                raise
            endpoint = self._create(name)
            old = endpoint.servers.get(deployment)
            endpoint.servers[deployment] = server
            self._keep(server)
            self._save()
            if old is not None:
                await self._discard(old)
        return {**self._addresses(name), "deployment": deployment, "state": server.state, "tags": dict(wanted.tags)}

    def route(self, name: str, wanted: Any) -> dict[str, Any]:
        """Set `traffic` and `mirror`; deployments that are not named get nothing of either."""
        endpoint = self.endpoint(name)
        if not isinstance(wanted, dict) or "traffic" not in wanted or set(wanted) - {"traffic", "mirror"}:
            raise DeploymentError('The body must be {"traffic": {…}, "mirror": {…}}, percents by deployment name.')
        traffic, mirror = wanted["traffic"], wanted.get("mirror", {})
        check_split(traffic, mirror)
        for deployment in (*traffic, *mirror):
            self.server(name, deployment)
        endpoint.split(traffic, mirror)
        self._save()
        return self.view(name)

    def tag(self, name: str, wanted: Any) -> dict[str, Any]:
        """Set `tags` if those named in `only_if` have these values; raises DeploymentError (412) if they have not."""
        _check_names(name)
        known = ("tags", "only_if")
        if not isinstance(wanted, dict) or set(wanted) - set(known):
            raise DeploymentError(f"The body must be a JSON object with the keys {', '.join(known)}.")
        tags, only_if = _texts(wanted.get("tags", {})), _texts(wanted.get("only_if", {}))
        if not self._create(name).retag(tags, only_if):
            raise DeploymentError(f"Endpoint {name} has other tags than {only_if}.", 412)
        self._save()
        return self.view(name)

    async def remove(self, name: str, deployment: str) -> None:
        """Stop and forget a deployment, after its last answer; refused while it has traffic."""
        endpoint = self.endpoint(name)
        async with self._changing(name, deployment):
            server = self.server(name, deployment)
            if endpoint.traffic.get(deployment):
                raise DeploymentError(
                    f"Deployment {deployment} has {endpoint.traffic[deployment]} % of the traffic of {name}; "
                    f"give its traffic to another one first (PUT {self._address}/{name}/traffic).",
                    409,
                )
            endpoint.forget(deployment)
            self._save()
            await self._discard(server)

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint of that name; raises DeploymentError (404) for an unknown one."""
        if name not in self._endpoints:
            raise DeploymentError(f"There is no endpoint {name}.", 404)
        return self._endpoints[name]

    def server(self, name: str, deployment: str) -> ScoringServer:
        """The server of a deployment; raises DeploymentError (404) for an unknown one."""
        endpoint = self.endpoint(name)
        if deployment not in endpoint.servers:
            raise DeploymentError(f"Endpoint {name} has no deployment {deployment}.", 404)
        return endpoint.servers[deployment]

    def view(self, name: str) -> dict[str, Any]:
        """An endpoint as the API shows it."""
        endpoint = self.endpoint(name)
        deployments = {
            key: {"state": server.state, "pid": server.pid, "log": str(server.log), **asdict(server.deployment)}
            for key, server in endpoint.servers.items()
        }
        shares = {"traffic": endpoint.traffic, "mirror": endpoint.mirror}
        return {**self._addresses(name), **shares, "tags": endpoint.tags, "deployments": deployments}

    def names(self) -> list[str]:
        """All endpoints."""
        return sorted(self._endpoints)

    def _addresses(self, name: str) -> dict[str, Any]:
        base = f"{self._address}/{name}"
        return {"endpoint": name, "scoring_uri": f"{base}/score", "swagger_uri": f"{base}/swagger.json"}

    def _create(self, name: str) -> Endpoint:
        return self._endpoints.setdefault(name, Endpoint(time.monotonic))

    def _changing(self, name: str, deployment: str) -> asyncio.Lock:
        return self._changes.setdefault((name, deployment), asyncio.Lock())

    def _server(self, name: str, deployment: str, wanted: Deployment) -> ScoringServer:
        return ScoringServer(f"{name}.{deployment}", wanted, self._logs, self._nursery)

    def _keep(self, server: ScoringServer) -> None:
        self._keepers[server] = asyncio.create_task(server.keep())

    async def _discard(self, server: ScoringServer) -> None:
        """Stop a server that gets no new requests, once those under way are answered; delete its files."""
        await server.drain()
        await self._stop(server)
        await asyncio.to_thread(server.deployment.discard)

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
                "mirror": endpoint.mirror,
                "tags": endpoint.tags,
                "deployments": {key: asdict(server.deployment) for key, server in endpoint.servers.items()},
            }
            for name, endpoint in self._endpoints.items()
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
        temporary.replace(self._file)


def _check_names(*names: str) -> None:
    for text in names:
        if not NAME.fullmatch(text):
            raise DeploymentError(
                f"{text!r} is no name for Azure ML: 3 to 32 letters, digits and dashes, starting with a letter."
            )


def _texts(values: Any) -> Mapping[str, str]:
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise DeploymentError("Tags must be texts by name.")
    return values
