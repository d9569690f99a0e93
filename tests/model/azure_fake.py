"""A workspace in memory, put under the real SDK in place of azure-core's transport: every request is kept as sent."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

import jwt
import requests
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import RequestsTransport, RequestsTransportResponse
from azure.core.rest._requests_basic import RestRequestsTransportResponse
from urllib3 import HTTPResponse

SUBSCRIPTION = "00000000-0000-0000-0000-00000000000a"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/signalbox"
WORKSPACE = f"{GROUP}/providers/Microsoft.MachineLearningServices/workspaces/signalbox"
ARM = "https://management.azure.com"
_PROVIDER = "/providers/Microsoft.MachineLearningServices"


class Credential:
    """Gives tokens for whatever is asked, as a logged-in identity does."""

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        audience = scopes[0].removesuffix("/.default")
        token = jwt.encode({"aud": audience, "tid": "tenant"}, "made-up-key-that-is-long-enough-for-hs256")
        return AccessToken(token, 4_102_444_800)


@dataclass
class Sent:
    """One request as it went out."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def version(self) -> str:
        """Return the API version that the SDK asked for."""
        return self.query["api-version"]


Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@dataclass
class FakeAzure:
    """Resources by path, with what Azure Resource Manager does to them; `answers` come before that."""

    resources: dict[str, Any] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    answers: list[tuple[str, str, Callable[[Sent], Answer]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.resources[WORKSPACE.lower()] = {
            "id": WORKSPACE,
            "name": "signalbox",
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": "westeurope",
            "properties": {
                "provisioningState": "Succeeded",
                "discoveryUrl": "https://westeurope.api.azureml.ms/discovery",
                "mlFlowTrackingUri": f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{WORKSPACE}",
            },
            "kind": "Default",
            "sku": {"name": "Basic", "tier": "Basic"},
            "identity": {"type": "SystemAssigned"},
        }

    def on(self, method: str, path: str, answer: Callable[[Sent], Answer] | Answer) -> None:
        """Answer requests whose path matches the pattern `path` in a way of its own."""
        self.answers.insert(0, (method, path, answer if callable(answer) else lambda _: answer))

    def refuse(self, method: str, path: str, status: int, code: str, message: str) -> None:
        """Refuse such requests as Azure does."""
        self.on(method, path, (status, {"error": {"code": code, "message": message}}))

    def requests(self, method: str, path: str) -> list[Sent]:
        """Return the requests with this method whose path matches the pattern."""
        return [sent for sent in self.sent if sent.method == method and re.search(path, sent.path)]

    def one(self, method: str, path: str) -> Sent:
        """Return the only such request."""
        found = self.requests(method, path)
        assert len(found) == 1, [(sent.method, sent.path) for sent in self.sent]
        return found[0]

    def answer(self, sent: Sent) -> Answer:
        """Answer as planned, or as the resource manager does with resources."""
        for method, pattern, answer in self.answers:
            if method == sent.method and re.search(pattern, sent.path):
                return answer(sent)
        if sent.host.endswith(".blob.core.windows.net"):
            return self._blob(sent)
        return self._resource(sent)

    def _blob(self, sent: Sent) -> Answer:
        """Take uploads; nothing is there before."""
        if sent.method == "PUT":
            done = 200 if sent.query.get("comp") == "metadata" else 201
            return done, None, {"ETag": '"0x1"', "Last-Modified": "Sat, 21 Nov 2026 00:00:00 GMT"}
        if "comp" in sent.query:
            listing = '<?xml version="1.0"?><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>'
            return 200, listing, {"Content-Type": "application/xml"}
        return 404, None, {"x-ms-error-code": "BlobNotFound"}

    def _resource(self, sent: Sent) -> Answer:
        path = sent.path.lower()
        if sent.method == "POST" and path.endswith("startpendingupload"):
            uri = "https://signalbox.blob.core.windows.net/code-upload"
            credential = {"credentialType": "SAS", "sasUri": f"{uri}?sv=2024-11-04&sr=c&sig=x"}
            return 200, {
                "pendingUploadId": "1",
                "pendingUploadType": "TemporaryBlobReference",
                "blobReferenceForConsumption": {"blobUri": uri, "credential": credential},
            }
        if sent.method == "GET" and "hash" in sent.query:
            known = [v for v in self.resources.values() if sent.query["hash"] in json.dumps(v)]
            return 200, {"value": [v for v in known if "/codes/" in v["id"]]}
        inside = path.split(_PROVIDER.lower(), 1)[-1].strip("/").split("/")
        if sent.method == "PUT":
            known = path in self.resources
            self.resources[path] = self._stored(sent)
            return (200 if known else 201), self.resources[path]
        if sent.method == "DELETE":
            return (200 if self.resources.pop(path, None) else 204), None
        if sent.method == "GET" and len(inside) % 2:
            below = [v for k, v in self.resources.items() if re.fullmatch(re.escape(path) + "/[^/]+", k)]
            return 200, {"value": below}
        if path in self.resources:
            return 200, self.resources[path]
        name = sent.path.rsplit("/", 1)[-1]
        return 404, {"error": {"code": "ResourceNotFound", "message": f"The resource {name} was not found."}}

    @staticmethod
    def _stored(sent: Sent) -> dict[str, Any]:
        properties = {**sent.body.get("properties", {}), "provisioningState": "Succeeded"}
        if "/jobs/" in sent.path:
            studio = {
                "jobServiceType": "Studio",
                "endpoint": f"https://ml.azure.com/runs/{sent.path.rsplit('/', 1)[-1]}",
            }
            properties |= {"status": "Running", "services": {"Studio": studio}}
        if re.search(r"/onlineEndpoints/[^/]+$", sent.path):
            name = sent.path.rsplit("/", 1)[-1]
            address = f"https://{name}.westeurope.inference.ml.azure.com"
            properties |= {"scoringUri": f"{address}/score", "swaggerUri": f"{address}/swagger.json"}
        if properties.get("endpointComputeType") == "Kubernetes":
            # "Kubernetes online deployment YAML schema": what a replica gets where nothing is asked for.
            size = {"cpu": "0.1", "memory": "500Mi"}
            usual = {"containerResourceRequests": size, "containerResourceLimits": size}
            properties.setdefault("containerResourceRequirements", usual)
        return {**sent.body, "id": sent.path, "name": sent.path.rsplit("/", 1)[-1], "properties": properties}

    def send(self, transport: RequestsTransport, request: Any, *, stream: bool = False, **_: Any) -> Any:
        """Stand in for `RequestsTransport.send`."""
        address = urlsplit(request.url)
        content = getattr(request, "content", None) or getattr(request, "body", None)
        sent = Sent(
            request.method,
            address.netloc,
            unquote(address.path),
            {key: values[0] for key, values in parse_qs(address.query).items()},
            dict(request.headers),
            _decoded(content),
        )
        self.sent.append(sent)
        status, body, *more = self.answer(sent)
        answered = requests.Response()
        answered.status_code = status
        answered.reason = str(status)
        answered.headers["Content-Type"] = "application/json"
        answered.headers.update(more[0] if more else {})
        text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
        answered.raw = HTTPResponse(
            io.BytesIO(text.encode()), headers=answered.headers, status=status, preload_content=False
        )
        answered.url = request.url
        if hasattr(request, "content"):
            made = RestRequestsTransportResponse(
                request=request, internal_response=answered, connection_data_block_size=4096
            )
            if not stream:
                made.read()
            return made
        return RequestsTransportResponse(request, answered)


def _decoded(content: Any) -> Any:
    if isinstance(content, bytes | str):
        try:
            return json.loads(content)
        except ValueError:
            return content
    return content


@contextmanager
def azure() -> Iterator[FakeAzure]:
    """Put a fake Azure under every client of azure-core; nothing waits between two polls."""
    fake = FakeAzure()

    def send(transport: RequestsTransport, request: Any, **options: Any) -> Any:
        return fake.send(transport, request, **options)

    with (
        mock.patch.object(RequestsTransport, "send", send),
        mock.patch.object(RequestsTransport, "sleep", return_value=None),
        mock.patch.dict("os.environ"),
    ):
        yield fake
