"""Serves functions with an HTTP trigger under host.json's route prefix.

Route templates as on Azure
(https://learn.microsoft.com/azure/azure-functions/functions-bindings-http-webhook-trigger): `{name}`, `{name?}`,
`{*rest}` and the constraints int, long, alpha, bool and guid. Authorization levels are not enforced, as in Core
Tools: nothing but this machine reaches the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiohttp import web

from local.functions_host.bindings import HttpAnswer, http_answer, http_payload
from local.functions_host.index import FunctionAppError, HostedFunction
from local.functions_host.invocation import Invoker

CONSTRAINTS = {
    "int": r"-?\d+",
    "long": r"-?\d+",
    "alpha": r"[A-Za-z]+",
    "bool": r"(?:true|false)",
    "guid": r"[0-9A-Fa-f-]{32,36}",
}
SEGMENT = re.compile(r"\{(?P<rest>\*{0,2})(?P<name>\w+)(?::(?P<constraint>\w+))?(?P<optional>\??)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """Where one function is reached."""

    function: HostedFunction
    pattern: re.Pattern[str]
    methods: frozenset[str]
    """Upper case; empty means every method."""
    variables: int
    """How many variable segments: fewer wins, as in ASP.NET."""


class HttpRoutes:
    """Finds the function of a request, and runs it."""

    def __init__(self, functions: Iterable[HostedFunction], prefix: str, invoker: Invoker) -> None:
        self._routes = sorted((_route(function, prefix) for function in functions), key=lambda r: r.variables)
        self._invoker = invoker

    async def handle(self, request: web.Request) -> web.Response:
        """Answer with what the function returned; 404 without a route for path and method, 500 when it failed."""
        for route in self._routes:
            match = route.pattern.fullmatch(request.path)
            if match and (not route.methods or request.method in route.methods):
                values = {name: value for name, value in match.groupdict().items() if value is not None}
                return await self._run(route.function, request, values)
        return web.Response(status=404)

    async def _run(self, function: HostedFunction, request: web.Request, variables: Mapping[str, str]) -> web.Response:
        payload = http_payload(
            method=request.method,
            url=str(request.url),
            headers={name.lower(): value for name, value in request.headers.items()},
            query=dict(request.query),
            route=variables,
            body=await request.read(),
        )
        outcome = await self._invoker.invoke(function, payload, finish=http_answer)
        if not outcome.succeeded:
            return web.Response(status=500)
        answer: HttpAnswer = outcome.result
        response = web.Response(status=answer.status, body=answer.body)
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                response.headers.add(name, value)
            elif name.lower() != "content-length":
                response.headers[name] = value
        return response


def _route(function: HostedFunction, prefix: str) -> Route:
    template = str(function.trigger.get("route") or function.name).strip("/")
    parts = [part for part in (prefix, *template.split("/")) if part]
    pattern = "".join(_segment(part, function.name) for part in parts)
    methods = frozenset(str(getattr(m, "value", m)).upper() for m in function.trigger.get("methods") or ())
    return Route(function, re.compile(pattern + "/?", re.IGNORECASE), methods, template.count("{"))


def _segment(part: str, name: str) -> str:
    match = SEGMENT.fullmatch(part)
    if match is None:
        if "{" in part:
            raise FunctionAppError(
                f"Function {name}: the route segment {part} is not served here; use a whole segment such as {{name}}."
            )
        return "/" + re.escape(part)
    constraint = match["constraint"]
    if constraint is not None and constraint not in CONSTRAINTS:
        raise FunctionAppError(
            f"Function {name}: the route constraint {constraint} is not served here; "
            f"use one of {', '.join(CONSTRAINTS)}."
        )
    value = ".*" if match["rest"] else CONSTRAINTS.get(constraint or "", "[^/]+")
    segment = f"/(?P<{match['name']}>{value})"
    return f"(?:{segment})?" if match["optional"] or match["rest"] else segment
