"""What becomes of each way in which the state account answers, or does not: it passes, it is mended, or it is told."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import loopback
import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContainerClient

from functions.adapters.account import MissingStorage, StateStorage
from functions.adapters.dead_letters import DeadLetterBox
from functions.adapters.queues import AzureQueue
from functions.adapters.storage import AzureStore
from functions.core.budget import Spending
from functions.core.dead_letters import DeadLetter, read_letters
from functions.core.dispatch import Dispatch
from functions.core.manifest import Header
from functions.core.windows import Head, Segment
from functions.flow.ports import Append, PoisonMessage, StorageUnavailable, Watch
from functions.settings import StateAccount
from local.azurite import ACCOUNT, connection_string
from local.provision import provision

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HEAD = Head("train", "digits", "epoch")
SEGMENT = Segment("train", "digest", 1, 0)
HEADER = Header("sb-1", "0" * 64, 1, 9, None, NOW, NOW, 1, 0, 0)
POISON = PoisonMessage("work", "id", "receipt", "text", 1)
DISPATCH = Dispatch("sb-1", "train", "digits", "type", "octo/models", "source", "", {}, 1, None, NOW, version='W/"1"')


@dataclass
class Answers:
    """How an account answers: each request alike, or by its method. A status of 0 breaks the connection off."""

    status: int = 200
    code: str = ""
    delay: float = 0.0
    breaks_off: bool = False
    """In the middle of its body."""
    by_method: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    """Method, path and headers of each."""


@contextmanager
def account(answers: Answers) -> Iterator[StateStorage]:
    """An account whose blobs, tables and queues answer so."""

    class Answer(loopback.Handler):
        protocol_version = "HTTP/1.1"

        def any(self) -> None:
            self.body()
            answers.requests.append((self.command, self.path, dict(self.headers)))
            status, code, body = answers.by_method.get(self.command, (answers.status, answers.code, b""))
            time.sleep(answers.delay)
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            if code:
                self.send_header("x-ms-error-code", code)
                body = b'{"odata.error": {"code": "%s", "message": {"value": "no"}}}' % code.encode()
                self.send_header("Content-Type", "application/json")
            elif body.startswith(b"--"):
                self.send_header("Content-Type", "multipart/mixed; boundary=batch")
            elif self.command == "GET" and body:
                self.send_header("Content-Type", "application/xml" if body.startswith(b"<") else "text/plain")
                self.send_header("Content-Range", f"bytes 0-{len(body) - 1}/{len(body)}")
                self.send_header("ETag", '"7"')
                self.send_header("Last-Modified", "Fri, 20 Nov 2026 12:00:00 GMT")
            self.send_header("Content-Length", str(len(body) + answers.breaks_off))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.close_connection = answers.breaks_off

        get = put = post = delete = head = merge = any

    with loopback.Server(Answer) as server:
        port = server.server_port
        yield StateStorage(StateAccount(connection_string(port, port, port), ACCOUNT, ""))


async def taken(lines: AsyncIterator[bytes]) -> list[bytes]:
    """All lines."""
    return [line async for line in lines]


Call = Callable[[StateStorage], Awaitable[object]]

BLOBS: dict[str, Call] = {
    "append": lambda state: AzureStore(state).append(SEGMENT, b"a\n"),
    "create_segment": lambda state: AzureStore(state).create_segment(SEGMENT, "{}"),
    "seal_segment": lambda state: AzureStore(state).seal_segment(SEGMENT),
    "segment_state": lambda state: AzureStore(state).segment_state(SEGMENT),
    "segments_unchanged_since": lambda state: AzureStore(state).segments_unchanged_since(NOW),
    "delete_segment": lambda state: AzureStore(state).delete_segment(SEGMENT),
    "read_segment": lambda state: taken(AzureStore(state).read_segment(SEGMENT)),
    "write_manifest": lambda state: AzureStore(state).write_manifest(HEADER, b"a\n"),
    "manifest_header": lambda state: AzureStore(state).manifest_header("sb-1"),
    "read_manifest": lambda state: taken(AzureStore(state).read_manifest("sb-1")),
    "write_dead_letter": lambda state: AzureStore(state).write_dead_letter("a.json", {}),
}
TABLES: dict[str, Call] = {
    "read_head": lambda state: AzureStore(state).read_head("train", "digest"),
    "insert_head": lambda state: AzureStore(state).write_head(HEAD),
    "replace_head": lambda state: AzureStore(state).write_head(replace(HEAD, version='W/"1"')),
    "heads_to_look_at": lambda state: AzureStore(state).heads_to_look_at(),
    "count_open": lambda state: AzureStore(state).count_open("train", 9),
    "insert_dispatch": lambda state: AzureStore(state).insert_dispatch(DISPATCH),
    "read_dispatch": lambda state: AzureStore(state).read_dispatch("sb-1"),
    "replace_dispatch": lambda state: AzureStore(state).replace_dispatch(DISPATCH),
    "unfinished_dispatches": lambda state: AzureStore(state).unfinished_dispatches(),
    "lead_watch": lambda state: AzureStore(state).lead_watch("octo/models", Watch("one")),
    "watch_leader": lambda state: AzureStore(state).watch_leader("octo/models"),
    "limited_until": lambda state: AzureStore(state).limited_until(),
    "limit_until": lambda state: AzureStore(state).limit_until(NOW),
    "read_spending": lambda state: AzureStore(state).read_spending("train"),
    "write_spending": lambda state: AzureStore(state).write_spending(Spending("train")),
}
QUEUES: dict[str, Call] = {
    "send": lambda state: AzureQueue(state).send({"kind": "send"}),
    "take_poison": lambda state: AzureQueue(state).take_poison("work"),
    "drop_poison": lambda state: AzureQueue(state).drop_poison(POISON),
}
CALLS = BLOBS | TABLES | QUEUES


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("status", "code"), [(408, ""), (429, ""), (500, "InternalError"), (503, "ServerBusy")])
async def test_what_passes_is_storage_that_is_unavailable(name: str, status: int, code: str) -> None:
    """The flow has its own patience: the SDK asks once, or its waits would outlast Event Grid's 30 seconds."""
    answers = Answers(status, code)
    with account(answers) as state, pytest.raises(StorageUnavailable, match=str(status)):
        await CALLS[name](state)
    assert len(answers.requests) == 1


@pytest.mark.parametrize("name", CALLS)
async def test_an_answer_that_breaks_off_passes(name: str) -> None:
    """The connection breaks under the request: nobody knows whether it took effect."""
    answers = Answers(0)
    with account(answers) as state, pytest.raises(StorageUnavailable):
        await CALLS[name](state)
    assert len(answers.requests) == 1


_WITHOUT_BODY = {"segment_state", "manifest_header"}


@pytest.mark.parametrize("name", sorted(CALLS.keys() - _WITHOUT_BODY))
async def test_a_body_that_breaks_off_passes(name: str) -> None:
    """The connection breaks in the middle of the answer's body, whose status says that all went well."""
    content = {"GET": (206 if name.startswith("read_") else 200, "", b'{"value": [')}
    with account(Answers(breaks_off=True, by_method=content)) as state, pytest.raises(StorageUnavailable):
        await CALLS[name](state)


@pytest.mark.parametrize("name", ["append", "read_head", "send"])
async def test_a_refused_connection_passes(name: str, free_port: Callable[[], int]) -> None:
    """Nobody listens."""
    state = StateStorage(StateAccount(connection_string(free_port(), free_port(), free_port()), ACCOUNT, ""))
    with pytest.raises(StorageUnavailable):
        await CALLS[name](state)


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        *((name, 404, "ContainerNotFound") for name in BLOBS),
        ("append", 409, "ContainerBeingDeleted"),
        *((name, 404, "TableNotFound") for name in TABLES),
        ("send", 404, "QueueNotFound"),
    ],
)
async def test_what_was_never_created_is_named(name: str, status: int, code: str) -> None:
    """It is no missing blob or row: that would be read as "nothing stands there yet", and written over."""
    with account(Answers(status, code)) as state, pytest.raises(MissingStorage, match=f"{code}.*core-infra"):
        await CALLS[name](state)


@pytest.mark.parametrize("name", CALLS)
async def test_any_other_refusal_is_told(name: str) -> None:
    """A key that was rotated, a closed firewall: no answer to what was asked, so nothing is taken for done."""
    with account(Answers(403, "AuthorizationFailure")) as state, pytest.raises(HttpResponseError):
        await CALLS[name](state)


@pytest.mark.parametrize("name", ["insert_dispatch", "replace_dispatch"])
async def test_a_row_that_is_refused_inside_of_its_transaction_is_told(name: str) -> None:
    """The transaction itself is answered 202: the row is neither a duplicate nor changed by somebody else."""
    inner = b"""--batch
Content-Type: multipart/mixed; boundary=changeset

--changeset
Content-Type: application/http
Content-Transfer-Encoding: binary

HTTP/1.1 400 Bad Request
Content-Type: application/json

{"odata.error":{"code":"EntityTooLarge","message":{"lang":"en-US","value":"0:The entity is too large."}}}
--changeset--
--batch--
""".replace(b"\n", b"\r\n")
    with (
        account(Answers(by_method={"POST": (202, "", inner)})) as state,
        pytest.raises(HttpResponseError, match="EntityTooLarge"),
    ):
        await CALLS[name](state)


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (404, "BlobNotFound", Append.MISSING),
        (409, "BlobIsSealed", Append.SEALED),
        (409, "BlockCountExceedsLimit", Append.FULL),
    ],
)
async def test_an_append_that_is_refused(status: int, code: str, outcome: Append) -> None:
    """By the error code: three answers have the status 409."""
    with account(Answers(status, code)) as state:
        assert await AzureStore(state).append(SEGMENT, b"a\n") is outcome


@pytest.mark.parametrize("code", ["BlobImmutableDueToPolicy", "InvalidBlobType"])
async def test_any_other_conflict_of_an_append_is_told(code: str) -> None:
    """It is neither sealed nor full, and no other window would help."""
    with account(Answers(409, code)) as state, pytest.raises(HttpResponseError, match=code):
        await AzureStore(state).append(SEGMENT, b"a\n")


@pytest.mark.parametrize("status", [409, 412])
async def test_a_segment_that_stands_already(status: int) -> None:
    """Storage answers If-None-Match with either status; the blob is left as it is."""
    code = {409: "BlobAlreadyExists", 412: "ConditionNotMet"}[status]
    with account(Answers(status, code)) as state:
        await AzureStore(state).create_segment(SEGMENT, "{}")


async def asked(call: Call) -> tuple[dict[str, list[str]], Mapping[str, str]]:
    """Query and headers of the request that a call makes."""
    answers = Answers(403, "AuthorizationFailure")
    with account(answers) as state, pytest.raises(HttpResponseError):
        await call(state)
    ((_, target, headers),) = answers.requests
    return parse_qs(urlsplit(target).query), headers


@pytest.mark.parametrize("name", ["read_segment", "read_manifest"])
async def test_blobs_are_read_in_ranges(name: str) -> None:
    """A window of gigabytes must not stand in memory as a whole; the first range is as small as the others."""
    answers = Answers(403, "AuthorizationFailure", by_method={"HEAD": (200, "", b"x" * 2_000_000)})
    with account(answers) as state, pytest.raises(HttpResponseError):
        await CALLS[name](state)
    (_, (_, _, headers)) = answers.requests
    assert headers["x-ms-range"] == "bytes=0-1048575"


@pytest.mark.parametrize(
    ("seconds", "hidden"), [(0.0, None), (-5.0, None), (0.2, {1}), (1.4, {2}), (2.0, {2, 3}), (1e7, {7 * 86_400})]
)
async def test_a_message_is_never_early_and_never_expires(seconds: float, hidden: set[int] | None) -> None:
    """Azure's delays are whole seconds, of at most seven days; a message lives for seven days unless it is told."""
    delay = timedelta(seconds=seconds)
    query, _ = await asked(lambda state: AzureQueue(state).send({"kind": "send"}, delay))
    assert query["messagettl"] == ["-1"]
    assert "visibilitytimeout" not in query if hidden is None else int(query["visibilitytimeout"][0]) in hidden


async def test_poison_is_taken_for_less_than_the_timers_pause() -> None:
    """Thirty-two at once, and what could not be taken in is there again when the timer comes again."""
    query, _ = await asked(CALLS["take_poison"])
    assert query["numofmessages"] == ["32"]
    assert 180 <= int(query["visibilitytimeout"][0]) < 300


LETTERS = b'[{"reason":"r","event":{"id":"1"}},{"reason":"r","event":{"id":"2"}}]'


def letter(content: bytes) -> DeadLetter:
    """The first letter of a blob."""
    return read_letters("dead-letters", "a.json", content, NOW)[0]


class TestPuttingAway:
    """Somebody else replays, or Event Grid writes, at the same time."""

    @pytest.mark.parametrize("content", [LETTERS, b'{"reason":"r","event":{"id":"1"}}'])
    @pytest.mark.parametrize(("status", "code"), [(412, "ConditionNotMet"), (404, "BlobNotFound")])
    def test_a_blob_that_changed_meanwhile_keeps_what_it_holds(self, content: bytes, status: int, code: str) -> None:
        """What is left of it is written, or it is deleted, only as it was read; else it stays, and that is no fault."""
        answers = Answers(201, by_method={"GET": (206, "", content), "DELETE": (status, code, b"")})
        with account(answers) as state:
            DeadLetterBox(state).put_away([letter(content)])
        copied, read, *changed = answers.requests
        assert "/replayed/" in copied[1]
        assert read[0] == "GET"
        assert [headers["If-Match"] for _, _, headers in changed] == ['"7"']


def test_a_letter_that_was_just_replayed_does_not_end_the_list(azurite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It vanishes between the listing and its reading; those after it are still told."""
    provision(azurite)
    state = StateStorage(StateAccount(connection_string=azurite))
    container = state.blobs.get_container_client("dead-letters")
    for name in ("2026/a.json", "2026/b.json"):
        container.upload_blob(name, LETTERS, overwrite=True)
    download = ContainerClient.download_blob

    def vanish(self: ContainerClient, blob: str, *arguments: Any, **options: Any) -> Any:
        if blob == "2026/a.json":
            self.delete_blob(blob)
        return download(self, blob, *arguments, **options)

    monkeypatch.setattr(ContainerClient, "download_blob", vanish)
    assert [letter.blob for letter in DeadLetterBox(state).letters()] == ["2026/b.json"] * 2
    container.delete_blob("2026/b.json")
