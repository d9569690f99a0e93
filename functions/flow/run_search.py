"""Looking for the runs of dispatches in GitHub's listings, which end after a thousand runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from functions.core.dispatch import LOOK_BEFORE, Dispatch, are_found, runs_of
from functions.core.github import (
    PAGE,
    Answer,
    NoAnswer,
    Run,
    Span,
    following_span,
    message_of,
    read_runs,
    refused_listing,
    wait_for,
)
from functions.flow.ports import Clock, GitHub

_log = logging.getLogger("signalbox.dispatch")

MOST_PAGES = 50
"""Requests of one search; a search that they do not end proves nothing about the runs that it did not find."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search listed, in so many requests; `whole` where no older run was left out."""

    runs: tuple[Run, ...]
    pages: int
    whole: bool


@dataclass(frozen=True, slots=True)
class NoListing:
    """GitHub does not list the runs: how long to leave it alone, and what to mend where a person must."""

    wait: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class RunSearch:
    """Lists a repository's runs back to the oldest dispatch that is looked for."""

    github: GitHub
    clock: Clock

    async def search(self, repository: str, trigger: str, waiting: Iterable[Dispatch]) -> Found | NoListing:
        """The runs that `trigger` started since shortly before the oldest of `waiting` was sent, newest first.

        Ends as soon as all runs of each are found that it is known to have, and at least one.
        """
        missing = list(waiting)
        span = Span(min(item.sent or item.sending_since or item.created for item in missing) - LOOK_BEFORE)
        found: dict[int, Run] = {}
        its: dict[str, list[Run]] = {item.id: [] for item in missing}
        page = 0
        for asked in range(1, MOST_PAGES + 1):
            page += 1
            answer = await self.github.list_runs(repository, trigger, span, page)
            runs = read_runs(answer) if isinstance(answer, Answer) else None
            if runs is None:
                return self._no_listing(repository, answer)
            found.update((run.id, run) for run in runs)
            for item in missing:
                its[item.id] += runs_of(item, runs)
            missing = [item for item in missing if not are_found(item, its[item.id])]
            whole = len(runs) < PAGE
            if whole or not missing:
                return Found(tuple(found.values()), asked, whole)
            following = following_span(span, page, runs)
            if following is None:
                break
            if following is not span:
                span, page = following, 0
        _log.warning("too many runs of %s since %s to look at all of them", repository, span.since)
        return Found(tuple(found.values()), asked, whole=False)

    def _no_listing(self, repository: str, answer: Answer | NoAnswer) -> NoListing:
        said = answer.reason if isinstance(answer, NoAnswer) else f"{answer.status}{message_of(answer)}"
        _log.warning("cannot list the runs of %s: %a", repository, said)
        wait = wait_for(answer, 1, self.clock.now()) if isinstance(answer, Answer) else timedelta(seconds=30)
        return NoListing(wait, refused_listing(answer, repository))
