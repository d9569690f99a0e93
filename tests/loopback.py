"""A small HTTP server on loopback for the stand-ins of the tests: they say what is answered, this does the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

from local.sockets import HOST


class Handler(BaseHTTPRequestHandler):
    """Reads requests and answers them in JSON; keeps the test's output clean.

    A stand-in's `get`, `post`, … answer the requests of that method; 501 answers the methods that it does not have.
    """

    def __getattr__(self, name: str) -> Any:
        """The base class looks for `do_GET`, which is no name for a method elsewhere."""
        if not name.startswith("do_"):
            raise AttributeError(name)
        return getattr(self, name.removeprefix("do_").lower())

    def body(self) -> bytes:
        """The request's body, which may be read once."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, body: Any = None, headers: Mapping[str, str] = {}) -> None:
        """Answer with `body` as JSON, None for no content; a Date among `headers` stands instead of our own."""
        content = b"" if body is None else json.dumps(body).encode()
        ours = {"Date": self.date_time_string()}
        if content:
            ours["Content-Type"] = "application/json"
        if status != 204:  # which HTTP allows no length
            ours["Content-Length"] = str(len(content))
        self.send_response_only(status)
        for name, value in {**ours, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """Serves from the moment that it is made until it is closed, on a free port unless one is named."""

    request_queue_size = 64  # the default of 5 has many callers at once refused, now and then

    def __init__(self, handler: type[Handler], port: int = 0) -> None:
        super().__init__((HOST, port), handler)
        self._serving = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._serving.start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"

    def close(self) -> None:
        """Stop serving; connections are refused from now on."""
        self.shutdown()
        self.server_close()
        self._serving.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
