"""A GitHub that misbehaves as it is told, and writes down what it was asked and what took effect."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import loopback

from local.sockets import HOST, free_port


@dataclass(frozen=True, slots=True)
class Answer:
    """How GitHub meets one request.

    Attributes:
        takes: the dispatch takes effect: a run of it starts.
        status: None closes the connection without an answer.
        wait: seconds that the answer asks to wait.
        asks: how it asks, the name of a header: retry-after (seconds), date (a date in retry-after) or
            x-ratelimit-reset.
        message: of the error.
        pause: seconds until the answer goes out, or the connection is closed.
        run_after: seconds until the run stands in the listing.
        clock: seconds by which GitHub's clock differs from ours.
    """

    takes: bool = False
    status: int | None = None
    wait: float = 0.0
    asks: str = ""
    message: str = "made up by the test"
    pause: float = 0.0
    run_after: float = 0.0
    clock: float = 0.0

    def headers(self) -> dict[str, str]:
        """The headers of an answer that goes out now."""
        now = time.time() + self.clock
        headers = {"Date": _http_date(now)}
        match self.asks:
            case "retry-after":
                headers["Retry-After"] = f"{self.wait:.0f}"
            case "date":
                headers["Retry-After"] = _http_date(int(now) + self.wait)
            case "x-ratelimit-reset":
                headers |= {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{int(now) + self.wait:.0f}"}
        return headers

    def not_before(self) -> float:
        """When the next try may come, in seconds of the epoch by our clock, after an answer that goes out now."""
        if not self.asks:
            return 0.0
        now = time.time()
        whole = now if self.asks == "retry-after" else int(now + self.clock) - self.clock
        return whole + self.wait


TAKEN = Answer(takes=True, status=204)
LISTED = Answer(status=200)


@dataclass(slots=True)
class Post:
    """One POST of a dispatch, when it came (seconds of the epoch) and how it was met."""

    came: float
    payload: dict[str, Any]
    answer: Answer
    not_before: float = 0.0

    @property
    def dispatch_id(self) -> str:
        return str(self.payload["dispatch_id"])

    @property
    def key(self) -> str:
        return str(self.payload["key"])


@dataclass(frozen=True, slots=True)
class Look:
    """One listing of runs: when it came, and before when its answer forbade the next (0: not at all)."""

    came: float
    not_before: float


class BadGitHub:
    """GitHub's two calls over HTTP. Unscripted dispatches get `usual()`, listings what `listings` holds, then 200."""

    def __init__(self, usual: Callable[[], Answer] = lambda: TAKEN, *, opened: bool = True) -> None:
        self.posts: list[Post] = []
        self.looks: list[Look] = []
        self.scripts: dict[str, deque[Answer]] = defaultdict(deque)
        """What the next dispatches of a key meet."""
        self.listings: deque[Answer] = deque()
        self.took = threading.Event()
        """Set whenever a dispatch came, answered or not yet."""
        self._usual = usual
        self._began = time.time()
        self._lock = threading.Lock()
        self._port = free_port()
        self._server: loopback.Server | None = None
        if opened:
            self.open()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def open(self) -> None:
        """Listen; before and after `close` connections are refused."""
        self._server = loopback.Server(_handler(self), self._port)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def effective(self) -> list[str]:
        """The dispatch id of every POST that took effect; one that stands twice started two trainings."""
        return [post.dispatch_id for post in self.posts if post.answer.takes]

    def of_key(self, key: str) -> list[Post]:
        return [post for post in self.posts if post.key == key]

    def history(self) -> str:
        """What GitHub saw, a line each."""
        return "\n".join(
            f"  {post.came - self._began:7.2f} s POST {post.dispatch_id} key {post.key}: "
            f"{'took it' if post.answer.takes else 'did not take it'}, answered {post.answer.status or 'nothing'}"
            for post in self.posts
        )

    def meet_post(self, payload: dict[str, Any]) -> Post:
        with self._lock:
            script = self.scripts[str(payload["key"])]
            post = Post(time.time(), payload, script.popleft() if script else self._usual())
            self.posts.append(post)
        self.took.set()
        return post

    def meet_look(self, query: dict[str, list[str]]) -> tuple[Answer, dict[str, Any]]:
        """Like "List workflow runs for a repository", with its filters `event` and `created`, and its pages."""
        now = time.time()
        with self._lock:
            answer = self.listings.popleft() if self.listings else LISTED
            self.looks.append(Look(now, answer.not_before()))
            posts = list(self.posts)
        since = datetime.fromisoformat(query["created"][0].removeprefix(">=")).timestamp()
        runs = [
            {
                "id": number,
                "display_title": f"train {post.key} {post.dispatch_id}",
                "status": "completed",
                "conclusion": "success",
                "html_url": f"{self.url}/runs/{number}",
                "event": "repository_dispatch",
            }
            for number, post in enumerate(posts, start=1)
            if post.answer.takes and post.came >= since and now >= post.came + post.answer.run_after
        ]
        runs.reverse()  # newest first, as GitHub lists them
        size, page = int(query["per_page"][0]), int(query["page"][0])
        return answer, {"total_count": len(runs), "workflow_runs": runs[(page - 1) * size : page * size]}


def _handler(github: BadGitHub) -> type[loopback.Handler]:
    class Handler(loopback.Handler):
        def post(self) -> None:
            body = json.loads(self.body())
            post = github.meet_post(body["client_payload"])
            time.sleep(post.answer.pause)
            post.not_before = post.answer.not_before()
            self._answer(post.answer, None if post.answer.status == 204 else {"message": post.answer.message})

        def get(self) -> None:
            answer, runs = github.meet_look(parse_qs(urlsplit(self.path).query))
            self._answer(answer, runs if answer.status == 200 else {"message": answer.message})

        def _answer(self, answer: Answer, document: dict[str, Any] | None) -> None:
            if answer.status is None:
                return
            try:
                self.reply(answer.status, document, answer.headers())
            except OSError:
                self.close_connection = True  # whoever asked was killed meanwhile

    return Handler


def _http_date(moment: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(moment), UTC), usegmt=True)
