"""Tokens against a real HTTP server that checks the App's signature and gives tokens out as GitHub describes it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import jwt
import loopback
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from openapi_core import OpenAPI
from openapi_core.contrib.requests import RequestsOpenAPIRequest
from openapi_core.testing import MockResponse

from functions.adapters import github, github_tokens
from functions.adapters.github import GitHubRest
from functions.adapters.github_tokens import InstallationToken, PersonalToken
from functions.core.dispatch import LATEST_START, RUN_SETTLES, SENDING_TIMEOUT, WORKFLOW_SENDING_TIMEOUT
from functions.core.github import Answer, NoAnswer, Park, Retry, Sent, Verdict, read_dispatch_answer
from functions.settings import ROOT, GitHubApp

APP_ID, INSTALLATION = "1234", "42"
KEY, STRANGERS_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
ACCESS_TOKENS = f"/app/installations/{INSTALLATION}/access_tokens"
DISPATCHES = "/repos/octo/models/dispatches"
DISPATCH = {"event_type": "storage-blobcreated", "client_payload": {"dispatch_id": "sb-1"}}
CALLERS = 32


class HandClock:
    """A clock that stands still until it is set; it counts how often somebody looked."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
        self.looks = 0

    def now(self) -> datetime:
        self.looks += 1
        return self.moment

    async def sleep(self, delay: timedelta) -> None:
        self.moment += delay


def everybody_waits(clock: HandClock) -> None:
    """Return once all 32 callers have looked at the clock, which each does when it joins; or after some seconds."""
    for _ in range(1_000):
        if clock.looks >= CALLERS:
            return
        time.sleep(0.005)


@dataclass
class Exchange:
    """A request and its answer."""

    request: requests.Request
    status: int
    body: bytes


@dataclass
class AppGitHub:
    """GitHub, as far as an App's token goes; `clock` is its own time.

    Attributes:
        valid: tokens that are accepted for a dispatch.
        refusals: statuses with which the next requests for a token are answered instead.
        hold: called before a request for a token is answered.
    """

    clock: HandClock
    url: str = ""
    valid: set[str] = field(default_factory=set)
    given: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    hold: Callable[[], None] = lambda: None
    deaf: bool = False

    def asked(self, path: str) -> list[Exchange]:
        """All exchanges at `path`."""
        return [exchange for exchange in self.exchanges if exchange.request.url == self.url + path]

    def answer(self, path: str, bearer: str) -> tuple[int, dict[str, Any] | None]:
        """Status and body, by GitHub's rules."""
        if path == DISPATCHES:
            if bearer not in self.valid:
                return 401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest"}
            self.accepted.append(bearer)
            return 204, None
        self.hold()
        if self.refusals:
            return self.refusals.pop(0), {"message": "Trouble"}
        if not self._is_signed(bearer):
            return 401, {"message": "A JSON web token could not be decoded"}
        if path != ACCESS_TOKENS:
            return 404, {"message": "Not Found"}
        token = f"ghs_{APP_ID}_{len(self.given)}_" + "e" * 600
        self.given.append(token)
        if not self.deaf:
            self.valid.add(token)
        return 201, {"token": token, "expires_at": f"{self.clock.moment + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"}

    def _is_signed(self, bearer: str) -> bool:
        """RS256 by the App's own key, begun, not over, and for no longer than ten minutes."""
        try:
            claims = jwt.decode(
                bearer,
                KEY.public_key(),
                algorithms=["RS256"],
                issuer=APP_ID,
                options={"verify_exp": False, "verify_iat": False, "require": ["iat", "exp", "iss"]},
            )
        except jwt.InvalidTokenError:
            return False
        now = self.clock.moment.timestamp()
        return bool(claims["iat"] <= now < claims["exp"] <= now + 600)


@pytest.fixture
def clock() -> HandClock:
    """Our own clock, and GitHub's."""
    return HandClock()


@pytest.fixture
def server(clock: HandClock) -> Iterator[AppGitHub]:
    """The server on a free port of 127.0.0.1."""
    served = AppGitHub(clock)

    class Handler(loopback.Handler):
        protocol_version = "HTTP/1.1"

        def post(self) -> None:
            kind, _, bearer = self.headers["Authorization"].partition(" ")
            assert kind == "Bearer"
            status, answer = served.answer(self.path, bearer)
            told = b"" if answer is None else json.dumps(answer).encode()
            asked = requests.Request("POST", served.url + self.path, dict(self.headers), data=self.body())
            served.exchanges.append(Exchange(asked, status, told))
            self.reply(status, answer)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(served.clock.moment, usegmt=True)

    with loopback.Server(Handler) as listener:
        served.url = listener.url
        yield served


def an_app(key: rsa.RSAPrivateKey = KEY, app_id: str = APP_ID, installation: str = INSTALLATION) -> GitHubApp:
    """The App as settings hold it."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    return GitHubApp(app_id, installation, pem)


@pytest.fixture
def token(server: AppGitHub, clock: HandClock) -> InstallationToken:
    """What is tested."""
    return InstallationToken(server.url, an_app(), clock)


@pytest.fixture
def rest(server: AppGitHub, token: InstallationToken) -> GitHubRest:
    """The port of the flow, with the App's token."""
    return GitHubRest(server.url, token)


def verdict(answer: Answer | NoAnswer, clock: HandClock) -> Verdict:
    """What the ledger makes of it."""
    return read_dispatch_answer(answer, repository="octo/models", attempt=1, now=clock.moment)


def all_at_once(call: Callable[[], object]) -> list[object]:
    """What `call` gives to each of 32 threads."""
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(call()), daemon=True) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return results


async def test_requests_and_answers_follow_githubs_description(
    rest: GitHubRest, server: AppGitHub, contracts: Path
) -> None:
    """A token is asked for, and used, as GitHub describes it; and what this server answers is what GitHub would."""
    document = json.loads((contracts / "github/openapi.pruned.json").read_text(encoding="utf-8"))
    described = OpenAPI.from_dict({**document, "servers": [{"url": "/"}]})
    await rest.create_dispatch("octo/models", DISPATCH)
    server.valid.clear()
    await rest.create_dispatch("octo/models", DISPATCH)
    assert [exchange.status for exchange in server.exchanges] == [201, 204, 401, 201, 204]
    for exchange in server.exchanges:
        asked = RequestsOpenAPIRequest(exchange.request)
        described.validate_request(asked)
        if exchange.status != 401 or exchange.request.url.endswith(
            "access_tokens"
        ):  # a dispatch's 401 is not described
            described.validate_response(asked, MockResponse(exchange.body, status_code=exchange.status))


def test_the_request_for_a_token(token: InstallationToken, server: AppGitHub) -> None:
    """With GitHub's media type, API version and User-Agent, and a JWT that its public key verifies."""
    assert token.get() == server.given[0]
    (exchange,) = server.asked(ACCESS_TOKENS)
    sent = exchange.request.headers
    assert sent["Accept"] == "application/vnd.github+json"
    assert sent["X-GitHub-Api-Version"] == "2022-11-28"
    assert sent["User-Agent"] == "signalbox"
    assert jwt.get_unverified_header(sent["Authorization"].removeprefix("Bearer "))["alg"] == "RS256"


def test_a_token_is_kept_and_renewed_before_it_expires(
    token: InstallationToken, server: AppGitHub, clock: HandClock
) -> None:
    """One request in 55 minutes, the next before the hour is over."""
    first = token.get()
    clock.moment += timedelta(minutes=54, seconds=59)
    assert token.get() == first
    assert len(server.given) == 1
    clock.moment += timedelta(seconds=1)
    assert token.get() == server.given[1] != first
    assert token.get() == server.given[1]
    assert len(server.given) == 2


def test_one_renewal_for_many_callers(token: InstallationToken, server: AppGitHub, clock: HandClock) -> None:
    """32 threads at once get the same token out of one request; and again when it is renewed."""
    server.hold = lambda: everybody_waits(clock)
    for renewal in range(2):
        clock.looks = 0
        assert all_at_once(token.get) == [server.given[renewal]] * CALLERS
        assert len(server.asked(ACCESS_TOKENS)) == renewal + 1
        clock.moment += timedelta(minutes=55)


def test_one_refusal_for_many_callers(token: InstallationToken, server: AppGitHub, clock: HandClock) -> None:
    """A failure is shared too: GitHub in trouble is not asked 32 times. The next caller asks again."""
    server.hold, server.refusals = lambda: everybody_waits(clock), [503]
    answers = all_at_once(token.get)
    assert len(server.asked(ACCESS_TOKENS)) == 1
    assert [answer.status for answer in answers if isinstance(answer, Answer)] == [503] * CALLERS
    assert token.get() == server.given[0]


def test_an_error_of_our_own_holds_nobody_up(
    token: InstallationToken, server: AppGitHub, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a request cannot even be made, every caller is told, none waits for ever, and the next one tries again."""

    def encode(*_: object, **__: object) -> str:
        everybody_waits(clock)
        raise MemoryError

    def failing() -> object:
        with pytest.raises(MemoryError):
            token.get()
        return "told"

    with monkeypatch.context() as broken:
        broken.setattr(jwt, "encode", encode)
        assert all_at_once(failing) == ["told"] * CALLERS
    assert token.get() == server.given[0]


def test_a_token_that_still_serves_outlives_a_failure(
    token: InstallationToken, server: AppGitHub, clock: HandClock
) -> None:
    """GitHub cannot give a new one for a while: the old one is used until it expires, and not a moment longer."""
    first = token.get()
    server.refusals = [503, 503]
    clock.moment += timedelta(minutes=59, seconds=59)
    assert token.get() == first
    clock.moment += timedelta(seconds=1)
    answer = token.get()
    assert isinstance(answer, Answer)
    assert answer.status == 503
    assert token.get() == server.given[1]


async def test_a_token_that_was_taken_back_is_replaced(rest: GitHubRest, server: AppGitHub, clock: HandClock) -> None:
    """A 401 drops it: one new token, the dispatch once more with that, and GitHub has taken it once."""
    assert verdict(await rest.create_dispatch("octo/models", DISPATCH), clock) == Sent()
    server.valid.clear()
    assert verdict(await rest.create_dispatch("octo/models", DISPATCH), clock) == Sent()
    assert server.accepted == server.given
    assert len(server.given) == 2
    assert [exchange.status for exchange in server.asked(DISPATCHES)] == [204, 401, 204]


async def test_many_callers_with_a_token_that_was_taken_back(
    rest: GitHubRest, server: AppGitHub, clock: HandClock
) -> None:
    """All of them are refused with the old one; whoever comes late does not drop the new one."""
    await rest.create_dispatch("octo/models", DISPATCH)
    server.valid.clear()
    answers = await asyncio.gather(*(rest.create_dispatch("octo/models", DISPATCH) for _ in range(CALLERS)))
    assert [verdict(answer, clock) for answer in answers] == [Sent()] * CALLERS
    assert len(server.given) == 2
    assert len(server.accepted) == CALLERS + 1


def test_a_late_refusal_does_not_drop_the_new_token(token: InstallationToken, server: AppGitHub) -> None:
    """Two callers are refused with the old token; the second hears of it after the first has got another."""
    old = token.get()
    assert isinstance(old, str)
    assert token.drop(old)
    new = token.get()
    assert token.drop(old)
    assert token.get() == new == server.given[1]
    assert len(server.given) == 2


async def test_a_new_token_that_is_refused(rest: GitHubRest, server: AppGitHub, clock: HandClock) -> None:
    """GitHub's servers do not know it yet: sent again later with the same token, not asked for tokens in a circle."""
    server.deaf = True
    told = verdict(await rest.create_dispatch("octo/models", DISPATCH), clock)
    assert told == Retry(
        timedelta(minutes=1), "GitHub answered 401 (Bad credentials) to a token that it had just given"
    )
    assert len(server.given) == 2
    server.valid.add(server.given[1])
    assert verdict(await rest.create_dispatch("octo/models", DISPATCH), clock) == Sent()
    assert len(server.given) == 2


@pytest.mark.parametrize(
    ("app", "says"),
    [
        (an_app(STRANGERS_KEY), "401 (A JSON web token could not be decoded): GITHUB_APP_PRIVATE_KEY is no key of the"),
        (an_app(app_id="999"), "401 (A JSON web token could not be decoded): GITHUB_APP_PRIVATE_KEY is no key of the"),
        (an_app(installation="7"), "404 (Not Found): the App that GITHUB_APP_ID names has no installation GITHUB_APP_"),
    ],
)
async def test_what_a_person_can_mend(app: GitHubApp, says: str, server: AppGitHub, clock: HandClock) -> None:
    """Another App's key, another id, an installation that is not there: parked, with the settings; nothing was sent."""
    rest = GitHubRest(server.url, InstallationToken(server.url, app, clock))
    told = verdict(await rest.create_dispatch("octo/models", DISPATCH), clock)
    assert isinstance(told, Park)
    assert told.reason.startswith(f"asked for the GitHub App's token, GitHub answered {says}")
    assert not server.asked(DISPATCHES)


async def test_our_clock_is_wrong(server: AppGitHub) -> None:
    """GitHub refuses the JWT; its own Date says why."""
    ours = HandClock()
    ours.moment += timedelta(minutes=10)
    rest = GitHubRest(server.url, InstallationToken(server.url, an_app(), ours))
    told = verdict(await rest.create_dispatch("octo/models", DISPATCH), ours)
    assert isinstance(told, Park)
    assert told.reason.endswith("this machine's clock is more than a minute off GitHub's; set it right")


async def test_our_clock_is_a_little_wrong(server: AppGitHub) -> None:
    """A minute either way is borne."""
    for drift in (-60, 60):
        ours = HandClock()
        ours.moment += timedelta(seconds=drift)
        rest = GitHubRest(server.url, InstallationToken(server.url, an_app(), ours))
        assert verdict(await rest.create_dispatch("octo/models", DISPATCH), ours) == Sent()


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_trouble_that_passes(status: int, rest: GitHubRest, server: AppGitHub, clock: HandClock) -> None:
    """The dispatch waits, and goes out at the next attempt."""
    server.refusals = [status]
    told = verdict(await rest.create_dispatch("octo/models", DISPATCH), clock)
    said = f"asked for the GitHub App's token, GitHub answered {status} (Trouble)"
    assert told == Retry(timedelta(minutes=1), said)
    assert not server.asked(DISPATCHES)
    assert verdict(await rest.create_dispatch("octo/models", DISPATCH), clock) == Sent()


async def test_no_renewal_after_a_401(rest: GitHubRest, server: AppGitHub, clock: HandClock) -> None:
    """The token was taken back and no other is to be had: what GitHub said to that decides."""
    await rest.create_dispatch("octo/models", DISPATCH)
    server.valid.clear()
    server.refusals = [404]
    told = verdict(await rest.create_dispatch("octo/models", DISPATCH), clock)
    assert isinstance(told, Park)
    assert "GITHUB_APP_INSTALLATION_ID" in told.reason


async def test_nobody_listens(free_port: Callable[[], int], clock: HandClock) -> None:
    """GitHub is not there: surely not sent, so it is sent again without looking for a run."""
    url = f"http://127.0.0.1:{free_port()}"
    answer = await GitHubRest(url, InstallationToken(url, an_app(), clock)).create_dispatch("octo/models", DISPATCH)
    assert isinstance(answer, NoAnswer)
    assert not answer.reached
    assert answer.reason.startswith("no token for the GitHub App: ")


async def test_a_personal_token_that_is_refused(server: AppGitHub, clock: HandClock) -> None:
    """There is no other: sent once, and parked with the setting's name."""
    rest = GitHubRest(server.url, PersonalToken("ghp_old"))
    told = verdict(await rest.create_dispatch("octo/models", DISPATCH), clock)
    assert isinstance(told, Park)
    assert "renew PAT_TOKEN" in told.reason
    assert len(server.exchanges) == 1


def test_the_longest_sending_is_not_taken_for_a_crash() -> None:
    """A token, a dispatch, a 401, both again, until the run appears: all of it inside of what `sending` may take.

    And all of that twice, where the server refuses to name the run of a workflow dispatch.
    """
    longest = timedelta(seconds=2 * (sum(github_tokens.TIMEOUT) + sum(github._TIMEOUT)))
    assert LATEST_START + longest + RUN_SETTLES < SENDING_TIMEOUT
    assert LATEST_START + 2 * longest + RUN_SETTLES < WORKFLOW_SENDING_TIMEOUT


def test_only_an_app_pays_for_signing() -> None:
    """With a personal token, neither the app's import nor a token loads the signing library."""
    program = (
        "import sys; import functions.triggers; from functions.adapters.github_tokens import PersonalToken; "
        "PersonalToken('x').get(); print('jwt' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
