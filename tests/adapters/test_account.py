"""Whether an account can hold state, as the account itself answers over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import loopback
import pytest
from azure.core.exceptions import HttpResponseError

from functions.adapters import account
from functions.adapters.account import MissingStorage, StateStorage, translation
from functions.flow.ports import StorageUnavailable
from functions.settings import StateAccount
from local.azurite import ACCOUNT, connection_string


@contextmanager
def account_that_answers(status: int, headers: dict[str, str]) -> Iterator[StateStorage]:
    """An account that answers each request so, as *Get Account Information* does: in its headers."""

    class Answer(loopback.Handler):
        def head(self) -> None:
            self.reply(status, headers=headers)

        get = head

    with loopback.Server(Answer) as server:
        port = server.server_port
        yield StateStorage(StateAccount(connection_string(port, port, port), ACCOUNT, ""))


FLAT = {"x-ms-sku-name": "Standard_ZRS", "x-ms-account-kind": "StorageV2", "x-ms-is-hns-enabled": "false"}


async def test_a_hierarchical_account_is_refused_by_name() -> None:
    """The sentence names the setting and says why."""
    with (
        account_that_answers(200, {**FLAT, "x-ms-is-hns-enabled": "true"}) as storage,
        pytest.raises(MissingStorage, match=r"AzureWebJobsStorage names 'devstoreaccount1'.*flat"),
    ):
        await storage.check()


@pytest.mark.parametrize(
    "answer",
    [
        (200, FLAT),
        (403, {"x-ms-error-code": "AuthorizationPermissionMismatch"}),
        (404, {"x-ms-error-code": "ResourceNotFound"}),
    ],
)
async def test_a_flat_account_and_one_that_may_not_be_asked_are_taken(answer: tuple[int, dict[str, str]]) -> None:
    """The app's identity holds data roles only, and those may not ask for the account's kind.

    Storage answered 404 to tokens here until late in 2025; Microsoft asks to bear either
    (https://devblogs.microsoft.com/azure-sdk/azure-storage-apis-gain-entra-id-and-rbac-support).
    """
    with account_that_answers(*answer) as storage:
        await storage.check()


@pytest.mark.parametrize("code", ["AuthenticationFailed", "AuthorizationFailure"])
async def test_any_other_refusal_is_raised(code: str) -> None:
    """A wrong key or a closed firewall is no answer to the question; the event comes again."""
    with account_that_answers(403, {"x-ms-error-code": code}) as storage, pytest.raises(HttpResponseError, match=code):
        await storage.check()


def calls(storage: StateStorage) -> list[Callable[[], object]]:
    """One call of each kind of client."""
    return [
        lambda: storage.blobs.get_blob_client("windows", "a").append_block(b"a"),
        lambda: storage.tables.get_table_client("heads").get_entity("a", "b"),
        lambda: storage.queues.get_queue_client("signalbox-work").send_message("a"),
    ]


@pytest.mark.parametrize("kind", range(3), ids=["blobs", "tables", "queues"])
def test_an_account_that_does_not_answer_is_not_waited_for(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing: the call ends by its time-out, and not by the SDK's 5 minutes."""
    monkeypatch.setitem(account._PATIENCE, "read_timeout", 0.2)
    released, ended = Event(), Event()

    class Silent(loopback.Handler):
        def get(self) -> None:
            released.wait()
            self.close_connection = True

        put = post = get

    def call(storage: StateStorage) -> None:
        with pytest.raises(StorageUnavailable), translation("a call"):
            calls(storage)[kind]()
        ended.set()

    with loopback.Server(Silent) as server:
        port = server.server_port
        storage = StateStorage(StateAccount(connection_string(port, port, port), ACCOUNT, ""))
        caller = Thread(target=call, args=[storage])
        caller.start()
        in_time = ended.wait(20)
        released.set()
        caller.join()
    assert in_time
