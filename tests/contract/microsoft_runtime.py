"""Runs a function app under Microsoft's own runtime library, in a process of its own.

The library (PyPI azure-functions-runtime) is what Azure's Python worker runs from Python 3.13 on: it indexes the app,
converts what triggers a function, and calls it. It lies in build/runtime, beside the project's environment and not in
it. This file is both sides: `run` starts it as a script, the script answers with JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
LIBRARY = PROJECT / "build" / "runtime"
ABSENT = "Microsoft's Functions runtime is not in build/runtime; `make setup-test` puts it there."


@dataclass(frozen=True)
class Call:
    """One invocation as the platform's host sends it: data of one kind, and metadata as JSON texts by name."""

    function: str
    kind: str
    """`json`, `string`, `bytes` (as text) or `http`."""
    value: Any
    """The text; for `http` an object of method, url, headers, query, params and body."""
    metadata: Mapping[str, str] = field(default_factory=dict)


def event_call(function: str, event: Any) -> Call:
    """An event, as the Event Grid extension hands it over."""
    return Call(function, "json", json.dumps(event))


def queue_call(function: str, body: str, **metadata: Any) -> Call:
    """A queue message, with the metadata that the storage extension adds."""
    return Call(function, "string", body, {name: json.dumps(value) for name, value in metadata.items()})


def timer_call(function: str, *, past_due: bool = False) -> Call:
    """A tick, as the timer extension describes it."""
    status = {"Last": "2026-11-20T10:00:00+00:00", "LastUpdated": None, "Next": "2026-11-20T10:05:00+00:00"}
    document = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": status, "IsPastDue": past_due}
    return Call(function, "json", json.dumps(document))


def http_call(function: str, method: str, url: str, **parts: Any) -> Call:
    """An HTTP request; `parts` are headers, query, params and body."""
    return Call(function, "http", {"method": method, "url": url, **parts})


def run(app: Path, calls: Sequence[Call], settings: Mapping[str, str]) -> dict[str, Any]:
    """Index `app` and make `calls` one after another.

    Answers {"functions": {name: {"bindings": […]}}, "results": [{"succeeded", "error", "http"}]}.
    Raises RuntimeError when the library cannot index the app.
    """
    environment = {**os.environ, **settings, "PYTHONPATH": str(LIBRARY)}
    ended = subprocess.run(
        [sys.executable, "-P", __file__, str(app)],
        input=json.dumps([asdict(call) for call in calls]),
        env=environment,
        cwd=app,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr)
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


class _Worker:
    """The requests that the platform's worker process would pass on, in the protocol's own messages."""

    def __init__(self) -> None:
        # The protocol's generated classes come with a gRPC stub that nobody here calls.
        sys.modules["grpc"] = types.ModuleType("grpc")
        self.protos: Any = importlib.import_module("tests.protos")
        self.runtime: Any = importlib.import_module("azure_functions_runtime")
        self.runtime.start_threadpool_executor()

    def request(self, name: str, message: Any) -> Any:
        """A request of the worker to the library."""
        streaming = self.protos.StreamingMessage(**{name: message})
        return types.SimpleNamespace(
            name=name, request=streaming, properties={"host": "127.0.0.1", "protos": self.protos}
        )

    async def index(self, app: str) -> dict[str, Any]:
        """Start the library on `app`; answers the functions' metadata by name."""
        init = self.protos.WorkerInitRequest(function_app_directory=app)
        response = await self.runtime.worker_init_request(self.request("worker_init_request", init))
        self._succeeded(response)
        listed = self.protos.FunctionsMetadataRequest(function_app_directory=app)
        response = await self.runtime.functions_metadata_request(self.request("functions_metadata_request", listed))
        found = {metadata.name: metadata for metadata in response.function_metadata_results}
        for metadata in found.values():
            load = self.protos.FunctionLoadRequest(function_id=metadata.function_id, metadata=metadata)
            self._succeeded(await self.runtime.function_load_request(self.request("function_load_request", load)))
        return found

    async def invoke(self, metadata: Any, call: Mapping[str, Any]) -> dict[str, Any]:
        """One invocation."""
        trigger = next(name for name, binding in metadata.bindings.items() if binding.type.endswith("Trigger"))
        message = self.protos.InvocationRequest(
            invocation_id=f"call-{id(call)}",
            function_id=metadata.function_id,
            input_data=[self.protos.ParameterBinding(name=trigger, data=self._data(call["kind"], call["value"]))],
            trigger_metadata={name: self.protos.TypedData(json=value) for name, value in call["metadata"].items()},
        )
        response = await self.runtime.invocation_request(self.request("invocation_request", message))
        succeeded = response.result.status == self.protos.StatusResult.Success
        answer = {"succeeded": succeeded, "error": response.result.exception.message, "http": None}
        if response.return_value.WhichOneof("data") == "http":
            http = response.return_value.http
            answer["http"] = {
                "status": int(http.status_code),
                "headers": dict(http.headers),
                "cookies": [cookie.name for cookie in http.cookies],
                "body": http.body.bytes.decode(),
            }
        return answer

    def _data(self, kind: str, value: Any) -> Any:
        if kind != "http":
            return self.protos.TypedData(**{kind: value})
        body = self.protos.TypedData(bytes=str(value.get("body", "")).encode())
        fields = {name: value.get(name, {}) for name in ("headers", "query", "params")}
        http = self.protos.RpcHttp(method=value["method"], url=value["url"], body=body, **fields)
        return self.protos.TypedData(http=http)

    def _succeeded(self, response: Any) -> None:
        if response.result.status != self.protos.StatusResult.Success:
            raise RuntimeError(f"{response.result.exception.message}\n{response.result.exception.stack_trace}")


async def _main(app: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    worker = _Worker()
    functions = await worker.index(app)
    results = [await worker.invoke(functions[call["function"]], call) for call in calls]
    listed = {
        name: {"bindings": [json.loads(binding) for binding in metadata.raw_bindings]}
        for name, metadata in functions.items()
    }
    return {"functions": listed, "results": results}


if __name__ == "__main__":
    root = sys.argv[1]
    # The app comes last: its own folder `tests` must not hide the protocol's package of that name.
    sys.path.append(root)
    print(json.dumps(asyncio.run(_main(root, json.load(sys.stdin)))), flush=True)
    os._exit(0)
