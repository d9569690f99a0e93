"""The generator: one integer seed becomes a script, which says all that will happen to a history from outside."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from functions.core.routes import MOST_BYTES, Budget, Hold, Route, Settle, Where

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ACCOUNT = "acme"
BLOB_CREATED = "Microsoft.Storage.BlobCreated"
RUN_COMPLETED = "Microsoft.MachineLearningServices.RunCompleted"

_DAY = 24 * 3600
_MALFORMED = (b"", b"{", b"[1, null]", b'{"id": "1", "eventType": 7}', b"\xff\xfe", b'{"specversion": "0.3"}')


@dataclass(frozen=True)
class Sent:
    """One event as the publisher made it: what is known of it without any code of the app."""

    value: dict[str, Any]
    kind: str
    """"blob", "run", or "foreign" (a blob of an account that is not ours)."""
    name: str
    """The blob's path, or the run's id."""
    version: str = ""
    """The blob's sequencer."""


@dataclass(frozen=True)
class Delivery:
    """One attempt to hand over events, which is made again until it was answered 2xx."""

    moment: float
    events: tuple[Sent, ...] = ()
    raw: bytes | None = None
    """Of the queue's door; None means the Event Grid trigger, which takes one event."""
    given_up: bool = False
    """The host gave it up already: it stands in the events queue's poison."""


@dataclass(frozen=True)
class Script:
    """What happens from outside, and how often what goes wrong.

    Attributes:
        seed: where it comes from, and what every later choice hangs on.
        routes: of the version of the app that runs at first.
        later_routes: of the version that comes meanwhile, and runs alone in the end; None for one version only.
        later_from: share of `calm` after which that version comes.
        later_format: the later version writes lines and ledger rows that the first one cannot read.
        deliveries: in no order.
        faults: share of port calls that fail or kill their instance, until `calm`.
        stalls: share of port calls that take seconds, until `calm`.
        latency: seconds that other calls take at most.
        calm: seconds after which no fault happens any more.
        timer: seconds between two reconciles.
        skew: seconds by which the instances' clocks differ at most.
        most_blocks: appends that a segment takes.
        takes: seconds that a workflow run goes on.
        unheard: share of accepted dispatches whose run comes minutes later, or never.
        names_runs: GitHub answers a workflow dispatch with the run's id; else with 204, as older servers do.
        gateway: 5xx answers may come although GitHub accepted the dispatch.
    """

    seed: int
    routes: tuple[Route, ...]
    deliveries: Sequence[Delivery]
    later_routes: tuple[Route, ...] | None = None
    later_from: float = 0.4
    later_format: bool = False
    faults: float = 0.0
    stalls: float = 0.0
    latency: float = 0.02
    calm: float = 0.0
    timer: float = 300.0
    skew: float = 0.0
    most_blocks: int = 50_000
    takes: float = 4.0
    unheard: float = 0.0
    names_runs: bool = True
    gateway: bool = False
    instances: int = 2


def seconds(count: float) -> timedelta:
    """So many seconds."""
    return timedelta(seconds=count)


def blob(path: str, sequencer: str, moment: float, time: str | None = None, account: str = ACCOUNT) -> Sent:
    """The event that says that a blob of container `training-data` was written at that moment."""
    value = {
        "id": f"{path}-{sequencer}",
        "eventType": BLOB_CREATED,
        "topic": f"/s/storageAccounts/{account}",
        "subject": f"/blobServices/default/containers/training-data/blobs/{path}",
        "eventTime": (START + seconds(moment)).isoformat() if time is None else time,
        "data": {
            "api": "PutBlob",
            "eTag": f"0x{sequencer}",
            "contentLength": 9,
            "url": f"https://{account}.blob.core.windows.net/training-data/{path}",
            "sequencer": sequencer,
        },
    }
    return Sent(value, "blob" if account == ACCOUNT else "foreign", path, sequencer)


def run_completed(run: str, moment: float) -> Sent:
    """The event that says that an Azure ML run ended at that moment."""
    value = {
        "id": f"id-{run}",
        "eventType": RUN_COMPLETED,
        "topic": "/s/workspaces/lab",
        "subject": f"experiments/e/runs/{run}",
        "eventTime": (START + seconds(moment)).isoformat(),
        "data": {"runId": run, "runTags": {"signalbox_origin": "sb-1"}, "experimentName": "digits"},
    }
    return Sent(value, "run", run)


def again(event: Sent) -> Sent:
    """The same event in another form: CloudEvents 1.0, a new id, the subject without its first slash."""
    old = event.value
    value = {
        "specversion": "1.0",
        "id": f"again-{old['id']}" if event.kind == "blob" else old["id"],
        "type": old["eventType"],
        "source": old["topic"],
        "subject": old["subject"].removeprefix("/"),
        "time": old["eventTime"],
        "data": old["data"],
    }
    if not old["eventTime"]:
        del value["time"]
    return replace(event, value=value)


def train(chance: random.Random) -> Route:
    """A route that settles by folder."""
    quiet = chance.choice((3, 6, 12))
    return Route(
        "train",
        (BLOB_CREATED,),
        "storage-blobcreated",
        Where(container=("training-data",), suffix=(".csv",)),
        key="folder",
        settle=Settle(
            seconds(quiet),
            seconds(quiet * chance.choice((1, 2, 6))),
            max_bytes=chance.choice((MOST_BYTES, MOST_BYTES, 900)),
            marker="_SUCCESS",
        ),
        hold=Hold(seconds(chance.choice((30, 120, 600)))) if chance.random() < 0.3 else None,
        budget=Budget(chance.choice((1, 2)), seconds(60)) if chance.random() < 0.15 else None,
        **_door(chance),
    )


def _door(chance: random.Random) -> dict[str, str]:
    """Most routes dispatch to the repository, some to one workflow."""
    return {"workflow": chance.choice(("train.yml", "other.yml")), "ref": "main"} if chance.random() < 0.3 else {}


def audit(chance: random.Random) -> Route:
    """A route that settles whatever comes under one key."""
    settle = Settle(seconds(chance.choice((3, 20))), seconds(40))
    return Route("audit", (BLOB_CREATED,), "audit", Where(container=("training-data",)), settle=settle)


EACH = Route("each", (BLOB_CREATED,), "each", Where(container=("training-data",), suffix=(".csv",)))
DEPLOY = Route("deploy", (RUN_COMPLETED,), "machinelearningservices-runcompleted", Where(root_run=True))


def _routes(chance: random.Random) -> tuple[Route, ...]:
    routes = [train(chance)]
    if chance.random() < 0.4:
        routes.append(audit(chance))
    if chance.random() < 0.15:
        routes.append(replace(EACH, **_door(chance)))
    routes.append(replace(DEPLOY, **_door(chance)))
    return tuple(routes)


def _later(routes: tuple[Route, ...], chance: random.Random) -> tuple[Route, ...]:
    """Other waits and doors, one route gone or one new. Names, keys and whether it settles stay."""
    others = {route.name: route for route in routes}
    others["train"] = train(chance)
    if chance.random() < 0.4:
        others.pop("audit", None)
    elif chance.random() < 0.3:
        others["audit"] = audit(chance)
    if chance.random() < 0.1:
        others.pop("deploy")
    return tuple(others.values())


def _time(moment: float, chance: random.Random) -> str | None:
    """What the event's own time says: mostly the truth, else a clock that is ahead or behind, or nonsense."""
    odd = chance.random()
    if odd < 0.8:
        return None
    if odd < 0.86:
        return (START + seconds(moment + chance.random() * chance.choice((290, 7200, 2 * _DAY)))).isoformat()
    if odd < 0.92:
        return (START + seconds(moment - chance.random() * 2 * _DAY)).isoformat()
    return chance.choice(("", "9999-12-31T23:59:59Z", "1601-01-01T00:00:00Z", "2031-01-01T00:00:00+05:30"))


def _events(chance: random.Random, span: float) -> list[tuple[float, Sent]]:
    """Uploads with a few versions of a blob, markers, runs, and a stranger's blob."""
    events: list[tuple[float, Sent]] = []
    folders = ("a", "b", "c")[: chance.choice((1, 1, 2, 3))]
    written: dict[str, int] = {}
    for _ in range(chance.choice((1, 2, 3, 4, 6))):
        moment = chance.random() * span
        path = f"{chance.choice(folders)}/{chance.randrange(6)}.csv"
        written[path] = written.get(path, 0) + 1
        events.append((moment, blob(path, f"{written[path]:02}", moment, _time(moment, chance))))
    if chance.random() < 0.25:
        moment = chance.random() * span
        events.append((moment, blob(f"{chance.choice(folders)}/_SUCCESS", "01", moment)))
    if chance.random() < 0.05:
        events.append((1.0, blob("a/1.csv", "01", 1.0, account="stranger")))
    events.extend((chance.random() * span, run_completed(f"run-{n}", 0.0)) for n in range(chance.choice((0, 0, 1, 2))))
    return events


def _deliveries(events: list[tuple[float, Sent]], chance: random.Random, span: float) -> list[Delivery]:
    """Each event at least once, by either door, in any order; some again, at most a day late."""
    found: list[Delivery] = []
    spare: list[tuple[float, Sent]] = []
    for moment, event in events:
        spare.append((moment + (chance.random() * 20 if chance.random() < 0.3 else 0.0), event))
        while chance.random() < 0.3:
            late = chance.random() * (0.95 * _DAY if chance.random() < 0.06 else 60.0)
            spare.append((moment + late, again(event) if chance.random() < 0.3 else event))
    while spare:
        moment, event = spare.pop()
        if chance.random() < 0.6:
            found.append(Delivery(moment, (event,)))
            continue
        batch = [event]
        while spare and chance.random() < 0.4:
            later, other = spare.pop()
            moment, batch = max(moment, later), [*batch, other]
        body: Any = [one.value for one in batch] if len(batch) > 1 or chance.random() < 0.5 else event.value
        found.append(Delivery(moment, tuple(batch), json.dumps(body).encode()))
    if chance.random() < 0.04:
        found.append(Delivery(chance.random() * span, (), chance.choice(_MALFORMED)))
    return found


_CROWDED_EACH = 5


def script(seed: int) -> Script:
    """The script of a seed; in every fifth, a route's second key overflows already."""
    usual = _script(seed)
    return usual if seed % _CROWDED_EACH else _crowded(usual)


def _script(seed: int) -> Script:
    chance = random.Random(seed)
    span = chance.choice((0.5, 10.0, 30.0, 60.0))
    routes = _routes(chance)
    two_versions = chance.random() < 0.3
    return Script(
        seed=seed,
        routes=routes,
        deliveries=_deliveries(_events(chance, span), chance, span),
        later_routes=_later(routes, chance) if two_versions else None,
        later_format=two_versions and chance.random() < 0.4,
        faults=chance.choice((0.0, 0.02, 0.05, 0.12, 0.25)),
        stalls=chance.choice((0.0, 0.0, 0.03, 0.1)),
        latency=chance.choice((0.01, 0.2, 1.0, 2.5)),
        calm=span + chance.choice((10.0, 60.0, 200.0)),
        timer=chance.choice((60.0, 300.0)),
        skew=chance.choice((0.0, 0.0, 1.0)),
        most_blocks=chance.choice((1, 2, 50_000, 50_000)),
        takes=chance.choice((0.0, 2.0, 6.0, 20.0)),
        unheard=chance.choice((0.0, 0.0, 0.0, 0.06)),
        names_runs=chance.random() < 0.6,
    )


def _crowded(usual: Script) -> Script:
    """The second key of a route overflows already."""
    later = usual.later_routes
    return replace(
        usual,
        routes=tuple(replace(route, max_open_keys=1) for route in usual.routes),
        later_routes=None if later is None else tuple(replace(route, max_open_keys=1) for route in later),
    )
