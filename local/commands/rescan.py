"""`signalbox rescan`: find blobs that no event has told of, and take them in. Dry run unless --yes."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from azure.core.exceptions import ResourceNotFoundError

from functions.adapters.account import StateStorage, translation
from functions.adapters.dead_letters import DeadLetterBox
from functions.adapters.history import History
from functions.adapters.storage import AzureStore
from functions.core import rescan
from functions.core.events import Event, bare_etag
from functions.core.rescan import Known, StoredBlob
from functions.core.routes import Route, key_of, matching
from functions.core.values import earlier
from functions.flow.intake import Intake
from local.commands import places, surroundings
from local.commands.moments import shown
from local.commands.plain import plain
from local.commands.replay import intake
from local.commands.surroundings import CommandError, Surroundings

DEFAULT_SPAN = timedelta(days=7)
SETTLED = timedelta(minutes=5)
"""Younger blobs are left alone: their events may still be under way."""

_SKEW = timedelta(hours=1)
_AT_ONCE = 200


@dataclass(slots=True)
class Findings:
    """What a listing came to: events to take in, and how many blobs need none."""

    missing: list[Event] = field(default_factory=list)
    dead_lettered: int = 0
    known: int = 0
    unwanted: int = 0

    def summary(self) -> str:
        """All in one sentence."""
        listed = len(self.missing) + self.dead_lettered + self.known + self.unwanted
        return (
            f"{listed} blob{'' if listed == 1 else 's'}: {self.known} known, {self.unwanted} wanted by no route, "
            f"{self.dead_lettered} in the dead letters ('signalbox replay' takes them in), {len(self.missing)} missing"
        )


def run(options: argparse.Namespace) -> int:
    """Say what is missing; with --yes take it in."""
    found = surroundings.of(options)
    wanted, routes, now = found.settings(), found.routes(), datetime.now(UTC)
    since, until = options.since or now - DEFAULT_SPAN, options.until or now - SETTLED
    names = [options.container] if options.container else rescan.containers(routes)
    if not names:
        raise CommandError("no route names a container: say which one to look through with --container")
    with surroundings.asking(found):
        storage = found.storage()
        blobs = [
            blob
            for name in names
            for blob in _blobs_of(found, sorted(wanted.data_accounts), name, options.prefix)
            if since <= blob.modified <= until
        ]
        findings = _compare(blobs, routes, storage, earlier(since, _SKEW))
        print(f"in {found.place}, {', '.join(names)}, changed from {shown(since)} to {shown(until)}:")
        for event in findings.missing:
            print(plain(rescan.title(event)))
            print(
                plain("".join(f"  to {route.name}, key '{key_of(route, event)}'" for route in matching(routes, event)))
            )
        print(findings.summary())
        if findings.missing and options.yes:
            asyncio.run(_take(findings.missing, intake(found, wanted, storage)))
            print(f"took {len(findings.missing)} in")
        elif findings.missing:
            print("nothing was changed; add --yes to take them in")
    return 0


class _NoContainer(Exception):
    """The account has no container of this name."""


def _blobs_of(found: Surroundings, accounts: list[str], container: str, prefix: str | None) -> Iterator[StoredBlob]:
    """A route's container need not be in each of the accounts; it has to be in one of them."""
    lacking = []
    for account in accounts:
        try:
            yield from _blobs(found, account, container, prefix)
        except _NoContainer:
            lacking.append(account)
    if lacking == accounts:
        who = f"account {accounts[0]} has" if len(accounts) == 1 else f"accounts {', '.join(accounts)} have"
        raise CommandError(f"{who} no container '{container}': name another with --container")


def _blobs(found: Surroundings, account: str, container: str, prefix: str | None) -> Iterator[StoredBlob]:
    client = found.data(account).get_container_client(container)
    with translation(f"list {container}"):
        try:
            for blob in client.list_blobs(name_starts_with=prefix, include=["metadata"]):
                if (blob.metadata or {}).get("hdi_isfolder"):
                    continue  # a folder of a hierarchical namespace
                yield StoredBlob(
                    account=account,
                    container=container,
                    path=str(blob.name),
                    url=str(client.get_blob_client(blob.name).url),
                    etag=bare_etag(str(blob.etag)),
                    size=int(blob.size),
                    modified=blob.last_modified,
                )
        except ResourceNotFoundError as error:
            raise _NoContainer from error


def _compare(
    blobs: list[StoredBlob], routes: tuple[Route, ...], storage: StateStorage, known_since: datetime
) -> Findings:
    history, told, given_up = History(storage), Known(), Known()
    # Windows first: one that closes meanwhile is then found in its manifest.
    heads = asyncio.run(AzureStore(storage).heads_to_look_at())
    for found in places.in_windows(history, heads, known_since):
        told.add(found.entry)
    for found in places.in_manifests(history, known_since):
        told.add(found.entry)
    for found in places.in_ledger(history, known_since):
        told.add(found.entry)
    for found in places.in_dead_letters(DeadLetterBox(storage)):
        given_up.add(found.entry)
    findings = Findings()
    for blob in blobs:
        event = rescan.wanted(blob, routes)
        if event is None:
            findings.unwanted += 1
        elif told.has(event):
            findings.known += 1
        elif given_up.has(event):
            findings.dead_lettered += 1
        else:
            findings.missing.append(event)
    return findings


async def _take(events: list[Event], door: Intake) -> None:
    """In turns, so that events share appends; taking one in twice is a duplicate like any."""
    for start in range(0, len(events), _AT_ONCE):
        await asyncio.gather(*(door.take_value(event.to_json()) for event in events[start : start + _AT_ONCE]))
