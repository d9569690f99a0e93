"""The state account: its clients, the names of what stands in it, and its errors in the ports' terms.

The infrastructure creates the containers, tables and queues that are named here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from http import HTTPStatus
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient, ContainerClient
from azure.storage.queue import QueueServiceClient
from requests import RequestException, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, ConnectionError

from functions.adapters.threads import THREADS, in_thread
from functions.flow.ports import StorageUnavailable
from functions.settings import StateAccount

WINDOWS, MANIFESTS, DEAD_LETTERS = "windows", "manifests", "dead-letters"
HEADS, LEDGER = "heads", "ledger"
WORK_QUEUE, EVENTS_QUEUE = "signalbox-work", "signalbox-events"

CONTAINERS = (WINDOWS, MANIFESTS, DEAD_LETTERS)
TABLES = (HEADS, LEDGER)
QUEUES = (WORK_QUEUE, EVENTS_QUEUE)

_RANGE = 1024 * 1024

# Event Grid waits 30 s for an answer: the SDKs' own waits and retries would outlast it.
_PATIENCE: dict[str, Any] = {"connection_timeout": 2, "read_timeout": 5}
_NO_RETRIES: dict[str, Any] = {"retry_total": 0}

QUERY: dict[str, Any] = {"read_timeout": 10}
"""Of table queries: Azure runs each for up to five seconds before it answers, with a token to go on from there."""

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class MissingStorage(RuntimeError):
    """The state account lacks a container, table or queue, or is of a kind that cannot hold state."""


def translated(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Turn the SDK's errors into the ports': what passes becomes StorageUnavailable."""

    @wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        with translation(method.__name__):
            return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[S, P], T]", call)


@contextmanager
def translation(doing: str) -> Iterator[None]:
    """Errors of the SDK inside of this block come out as StorageUnavailable (they pass) or MissingStorage."""
    try:
        yield
    except (ServiceRequestError, ServiceResponseError, RequestException) as error:
        # The SDK reads a table transaction's answer itself, and lets the HTTP library's own errors through.
        raise StorageUnavailable(f"{doing}: {error}") from error
    except HttpResponseError as error:
        if error.response is None:  # an answer that broke off, or no token for the request
            raise StorageUnavailable(f"{doing}: {error}") from error
        code = error_code(error)
        if code in {"ContainerNotFound", "TableNotFound", "QueueNotFound", "ContainerBeingDeleted"}:
            raise MissingStorage(
                f"{code} in {doing}: deploy infra/deploy.core-infra.json, which creates what is missing"
            ) from error
        status = error.status_code or 0
        if status < 300 or status in {408, 429} or status >= 500:  # below 300: the answer's body broke off
            raise StorageUnavailable(f"{doing}: {status} {code}") from error
        raise


def error_code(error: AzureError) -> str:
    """The service's error code; tables and blobs keep it in different places."""
    code = getattr(error, "error_code", None) or getattr(getattr(error, "model", None), "code", None)
    return str(getattr(code, "value", code) or "")


def pieces(container: ContainerClient, name: str) -> Iterator[bytes]:
    """The content of a blob as it stands now, 1 MiB at most at once.

    Each piece is a download of its own: where the SDK itself goes on to a second request, it demands that nobody has
    appended to the blob since the first.
    """
    blob = container.get_blob_client(name)
    size = blob.get_blob_properties().size
    for start in range(0, size, _RANGE):
        piece: bytes = blob.download_blob(offset=start, length=min(_RANGE, size - start), max_concurrency=1).readall()
        yield piece


def may_not_ask(error: HttpResponseError) -> bool:
    """True where an identity was refused *Get Account Information*.

    Storage answers 403, and 404 where it does not take tokens for that yet; Microsoft asks for both to be borne.
    """
    return error.status_code == HTTPStatus.NOT_FOUND or error_code(error) == "AuthorizationPermissionMismatch"


class _Session(Session):
    """An answer that breaks off is none: the table SDK would look for its error code, and fail at that."""

    def request(self, *args: Any, **kwargs: Any) -> Response:
        try:
            return super().request(*args, **kwargs)
        except ChunkedEncodingError as error:
            raise ConnectionError(error) from error


class StateStorage:
    """Blob, table and queue clients of the state account. Opens no connection before its first call."""

    def __init__(self, account: StateAccount, credential: TokenCredential | None = None) -> None:
        """Raises ValueError where a connection string cannot be read.

        An account that is only named is opened with `credential`, or else with the app's own identity.
        """
        # The SDK tells of each request and answer at INFO, and Microsoft's worker sends all of that to Azure Monitor.
        logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)
        session = _Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=THREADS, pool_maxsize=THREADS))
        # A transport that is handed over keeps its own time-outs: those of the clients never reach it.
        options = {"transport": RequestsTransport(session=session, session_owner=False, **_PATIENCE), **_NO_RETRIES}
        ranges: dict[str, Any] = {"max_single_get_size": _RANGE, "max_chunk_get_size": _RANGE}
        if account.connection_string:
            text = account.connection_string
            blobs = BlobServiceClient.from_connection_string(text, **options, **ranges)
            self.tables = TableServiceClient.from_connection_string(text, **options)
            queues = QueueServiceClient.from_connection_string(text, **options)
        else:
            credential = credential or _identity(account.client_id)
            urls = {kind: f"https://{account.name}.{kind}.core.windows.net" for kind in ("blob", "table", "queue")}
            blobs = BlobServiceClient(urls["blob"], credential, **options, **ranges)
            self.tables = TableServiceClient(urls["table"], credential=credential, **options)
            queues = QueueServiceClient(urls["queue"], credential, **options)
        self.blobs = blobs
        self.queues = queues

    @in_thread
    @translated
    def check(self) -> None:
        """Raises MissingStorage where the account has a hierarchical namespace: append blobs there cannot be sealed.

        No data role may ask for that (*Get Account Information* needs `blobServices/getInfo/action`), so an identity is
        refused as a rule. The templates' account is flat and stays so; `signalbox doctor` looks at any other.
        """
        try:
            information = self.blobs.get_account_information()
        except HttpResponseError as error:
            if not may_not_ask(error):
                raise
            return
        if information.get("is_hns_enabled"):
            raise MissingStorage(
                f"AzureWebJobsStorage names '{self.blobs.account_name}' with a hierarchical namespace; state needs "
                "a storage account with a flat one, because Append Blob Seal does not exist in the other"
            )


def _identity(client_id: str) -> TokenCredential:
    from azure.identity import ManagedIdentityCredential  # noqa: PLC0415 - costs 150 ms where nobody needs it

    return ManagedIdentityCredential(client_id=client_id or None, **_PATIENCE, **_NO_RETRIES)
