"""Storage on one machine: Azurite, with a reverse proxy before its blob endpoint that raises the storage events.

    python -m local.storage.server --port P --queue-port P --table-port P --dir DIR [--eventgrid URL]

Azurite raises no events. The proxy streams every request to it unchanged (path, query, headers and Host, so that
signatures stay right) and, for those that `blob_events.py` names, writes an event to disk before it passes the
answer on; `local/storage/outbox.py` brings it to Event Grid's topic `storage`. Events of one blob have the order in
which Azurite made the changes. Queues and tables are Azurite's own ports; `local/storage/faults.py` describes
`POST /_faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import uuid
import weakref
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import aiohttp
from aiohttp import web
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from local import azurite
from local.part import arguments, log_to_stderr, serve
from local.sockets import free_port
from local.storage.blob_events import (
    Operation,
    Properties,
    blob_event,
    operation,
    properties_of_answer,
    properties_of_upload,
    took_effect,
)
from local.storage.faults import Faults, parse_fault
from local.storage.outbox import Outbox, Sender

HOP_BY_HOP = frozenset(
    ("connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Headers that concern one connection only (RFC 9110, 7.6.1)."""
OWN_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What aiohttp would add to a request that lacks it."""
CHUNK_BYTES = 256 * 1024
CONNECTIONS = 128
WATCH_SECONDS = 0.5

log = logging.getLogger("storage")


class BlobProxy:
    """Passes blob requests to Azurite and keeps the events that they raise."""

    def __init__(self, azurite_port: int, endpoint: str, outbox: Outbox | None, sender: Sender | None) -> None:
        """`endpoint` is the proxy's own address, as events name it. Without an outbox no events are raised."""
        self._upstream = f"http://127.0.0.1:{azurite_port}"
        self._endpoint = endpoint
        self._outbox = outbox
        self._sender = sender
        self._faults = Faults()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._session: aiohttp.ClientSession

    def application(self) -> web.Application:
        """Build the aiohttp application; events are sent as long as it runs."""
        app = web.Application()
        app.router.add_post("/_faults", self._add_fault)
        app.router.add_delete("/_faults", self._clear_faults)
        # Every path of the account, whatever characters a blob's name brings.
        app.router.add_route("*", rf"/{azurite.ACCOUNT}{{rest:[\s\S]*}}", self._handle)
        app.on_response_prepare.append(_keep_untyped)
        app.cleanup_ctx.append(self._run)
        return app

    async def _run(self, _: web.Application) -> AsyncIterator[None]:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=4),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=OWN_HEADERS,
            read_bufsize=CHUNK_BYTES,
        )
        sending = asyncio.create_task(self._sender.run()) if self._sender else None
        yield
        if sending:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = self._faults.meet(f"{request.method} {request.raw_path}")
        if fault:
            await asyncio.sleep(fault.delay)
            if fault.status is not None:
                async for _ in request.content.iter_chunked(CHUNK_BYTES):
                    pass  # a client that still sends would miss the answer
                return _storage_error(fault.status, fault.code)
        change = operation(request.method, request.raw_path, request.headers) if self._outbox else None
        if change is None:
            return await self._forward(request, None, drop=bool(fault and fault.drop))
        lock = self._locks.setdefault(change.path, asyncio.Lock())
        return await self._forward(request, change, lock, drop=bool(fault and fault.drop))

    async def _forward(
        self, request: web.Request, change: Operation | None, lock: asyncio.Lock | None = None, *, drop: bool
    ) -> web.StreamResponse:
        """Stream a request to Azurite and its answer back; raise the change's event in between."""
        gate = _Gate(lock)
        try:
            body = await _body(request, gate)
            before = await self._properties(change) if change and change.api == "DeleteBlob" else None
            async with self._session.request(
                request.method,
                URL(self._upstream + request.raw_path, encoded=True),
                headers=_passed_on(request.headers),
                data=body,
                allow_redirects=False,
            ) as answer:
                if change and took_effect(answer.status, answer.headers):
                    await self._raise_event(change, before, request.headers, answer.headers)
                gate.open()
                if drop:
                    return _hang_up(request)
                return await _pass_back(request, answer)
        except aiohttp.ClientError as error:
            log.warning("%s %s broke off (%s).", request.method, request.path, type(error).__name__)
            return _hang_up(request)
        finally:
            gate.open()

    async def _raise_event(
        self,
        change: Operation,
        before: Properties | None,
        request_headers: CIMultiDictProxy[str],
        answer_headers: CIMultiDictProxy[str],
    ) -> None:
        if self._outbox is None or self._sender is None:
            return
        if change.api == "PutBlob":
            properties = properties_of_upload(request_headers)
        else:
            properties = before or await self._properties(change)

        def build(number: int) -> dict[str, object]:
            return blob_event(
                change,
                properties,
                endpoint=self._endpoint,
                number=number,
                now=datetime.now(UTC),
                batch_id=str(uuid.uuid4()),
                request_headers=request_headers,
                answer_headers=answer_headers,
            )

        self._outbox.add(build)
        self._sender.wake()

    async def _properties(self, change: Operation) -> Properties:
        """Ask Azurite about a blob, with a signature of our own."""
        address = URL(f"{self._upstream}{change.path}?{_read_signature()}", encoded=True)
        async with self._session.head(address) as answer:
            return properties_of_answer(answer.headers) if answer.status == 200 else Properties()

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            self._faults.add(parse_fault(await request.json()))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.Response(status=204)

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self._faults.clear()
        return web.Response(status=204)


class _Gate:
    """Holds a blob's lock from just before a change can take effect until its event has its number.

    A change can only take effect once Azurite has the whole request, so the lock is taken before the last piece of the
    body: slow uploads to one blob do not wait for each other, and yet their events have the right order.
    """

    def __init__(self, lock: asyncio.Lock | None) -> None:
        self._lock = lock
        self._held = False
        self._spent = False

    async def close(self) -> None:
        if self._lock is None or self._held:
            return
        await self._lock.acquire()
        self._held = True
        if self._spent:  # storage answered without waiting for the whole body
            self._release()

    def open(self) -> None:
        self._spent = True
        self._release()

    def _release(self) -> None:
        if self._lock is not None and self._held:
            self._held = False
            self._lock.release()


async def _body(request: web.Request, gate: _Gate) -> AsyncIterator[bytes] | None:
    """Give the request's body, piece by piece as it comes in."""
    if request.body_exists:
        return _held_back(request, gate)
    await gate.close()
    return None


async def _held_back(request: web.Request, gate: _Gate) -> AsyncIterator[bytes]:
    last = b""
    async for piece in request.content.iter_chunked(CHUNK_BYTES):
        if last:
            yield last
        last = piece
    await gate.close()
    if last:
        yield last


def _read_signature() -> str:
    """Query of an account signature that may read any blob for a minute."""
    return generate_account_sas(
        azurite.ACCOUNT,
        azurite.KEY,
        resource_types=ResourceTypes(object=True),
        permission=AccountSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(minutes=1),
    )


def _passed_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Every header but those of the connection; a chunked body stays chunked, because it has no length."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)


async def _pass_back(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_passed_on(answer.headers))
    response["untyped"] = "Content-Type" not in answer.headers
    await response.prepare(request)
    async for piece in answer.content.iter_chunked(CHUNK_BYTES):
        await response.write(piece)
    await response.write_eof()
    return response


async def _keep_untyped(_: web.Request, response: web.StreamResponse) -> None:
    """Take back the content type that aiohttp gives to an answer that has none."""
    if response.get("untyped"):
        response.headers.pop("Content-Type", None)


def _hang_up(request: web.Request) -> web.Response:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _storage_error(status: int, code: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>Injected fault.</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml", headers={"x-ms-error-code": code})


async def _run(proxy: BlobProxy, child: azurite.Azurite, port: int) -> bool:
    """Serve until told to stop, or until Azurite ends; gives whether Azurite was alive to the end."""

    async def watch() -> None:
        while child.process.poll() is None:  # noqa: ASYNC110 - a child's end raises no event in every Python
            await asyncio.sleep(WATCH_SECONDS)
        log.error("Azurite ended with status %s; its log is in the part's folder.", child.process.returncode)
        os.kill(os.getpid(), signal.SIGTERM)

    watching = asyncio.create_task(watch())
    await serve(proxy.application(), port)
    alive = not watching.done()
    watching.cancel()
    return alive


def main() -> None:
    """Run the part until it is told to stop."""
    parser = arguments("Azure Storage on one machine, with the events that Azurite lacks")
    parser.add_argument("--queue-port", type=int, required=True, help="port of the queue endpoint")
    parser.add_argument("--table-port", type=int, required=True, help="port of the table endpoint")
    parser.add_argument("--eventgrid", help="address of Event Grid; without it no events are raised")
    options = parser.parse_args()
    log_to_stderr()
    try:
        child = azurite.start(options.dir / "azurite", free_port(), options.queue_port, options.table_port)
    except azurite.AzuriteError as error:
        sys.exit(str(error))
    with contextlib.ExitStack() as stack:
        stack.callback(child.stop)
        outbox = sender = None
        if options.eventgrid:
            outbox = stack.enter_context(contextlib.closing(Outbox(options.dir / "events.sqlite")))
            sender = Sender(outbox, f"{options.eventgrid.rstrip('/')}/storage/api/events?api-version=2018-01-01")
        proxy = BlobProxy(child.blob_port, f"http://127.0.0.1:{options.port}", outbox, sender)
        alive = asyncio.run(_run(proxy, child, options.port))
    sys.exit(0 if alive else 1)


if __name__ == "__main__":
    main()
