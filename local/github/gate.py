"""What every call of GitHub's REST API meets first: User-Agent, API version, token, rate limit, error documents."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

from local.github.documents import error
from local.github.requests import Refused

VERSIONS = ("2022-11-28", "2026-03-10")
LIMIT = 5000
_HOUR = 3600
_LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_PAGES = {
    "/actions/workflows/": "/actions/workflows#create-a-workflow-dispatch-event",
    "/actions/": "/actions/workflow-runs",
    "/dispatches": "/repos/repos#create-a-repository-dispatch-event",
}


class Gate:
    """Lets in who GitHub would let in, and counts the calls; `clock` gives seconds since 1970."""

    def __init__(self, token: str, clock: Callable[[], float]) -> None:
        self._token = token
        self._clock = clock
        self._reset = 0.0
        self._used = 0

    @web.middleware
    async def middleware(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Stand before every handler."""
        # A page of another site could reach this port under its own name (DNS rebinding).
        if request.headers.get("Host", "").rpartition(":")[0] not in _LOOPBACK:
            return web.json_response(error("This server is for this machine only.", 403), status=403)
        if not request.path.startswith("/repos/"):
            return await handler(request)
        response: web.StreamResponse
        try:
            self._admit(request)
            response = await handler(request)
        except Refused as refused:
            response = _refusal(request, refused.status, refused.message)
        except web.HTTPException as refused:
            messages = {404: "Not Found", 405: "Not Found", 413: "Payload too big"}
            status = 404 if refused.status == 405 else refused.status
            response = _refusal(request, status, messages.get(refused.status, refused.reason))
        response.headers.update(self._headers(request))
        return response

    def _admit(self, request: web.Request) -> None:
        if not request.headers.get("User-Agent", "").strip():
            raise Refused(
                403,
                "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.",
            )
        version = request.headers.get("X-GitHub-Api-Version", VERSIONS[0])
        if version not in VERSIONS:
            raise Refused(400, f"Version {version!r} is not a supported API version; supported: {', '.join(VERSIONS)}.")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if not given:
            raise Refused(401, "Requires authentication")
        right = hmac.compare_digest(given.strip().encode(), self._token.encode())
        if scheme.lower() not in {"bearer", "token"} or not right:
            raise Refused(401, "Bad credentials")
        self._count()

    def _count(self) -> None:
        if self._clock() >= self._reset:
            self._reset, self._used = self._clock() + _HOUR, 0
        if self._used >= LIMIT:
            raise Refused(403, "API rate limit exceeded for this token.")
        self._used += 1

    def _headers(self, request: web.Request) -> dict[str, str]:
        return {
            "Server": "github.com",
            "X-GitHub-Media-Type": "github.v3; format=json",
            "X-GitHub-Api-Version-Selected": request.headers.get("X-GitHub-Api-Version", VERSIONS[0]),
            "X-GitHub-Request-Id": secrets.token_hex(10).upper(),
            "X-RateLimit-Limit": str(LIMIT),
            "X-RateLimit-Remaining": str(LIMIT - self._used),
            "X-RateLimit-Used": str(self._used),
            "X-RateLimit-Reset": str(int(self._reset or self._clock() + _HOUR)),
            "X-RateLimit-Resource": "core",
        }


def _refusal(request: web.Request, status: int, message: str) -> web.Response:
    page = next((page for part, page in _PAGES.items() if part in request.path), "")
    return web.json_response(error(message, status, page), status=status)
