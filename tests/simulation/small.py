"""Small scenes for enumeration: without chance in them, so that each call of a port can be made to fail in turn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from functions.core.routes import Hold, Route, Settle, Where

from .history import FAULTS, History
from .invariants import violations
from .script import BLOB_CREATED, DEPLOY, EACH, Delivery, Script, Sent, again, blob, run_completed, seconds

TRAIN = Route(
    "train",
    (BLOB_CREATED,),
    "storage-blobcreated",
    Where(container=("training-data",), suffix=(".csv",)),
    key="folder",
    settle=Settle(seconds(3), seconds(12), marker="_SUCCESS"),
)
AUDIT = Route("audit", (BLOB_CREATED,), "audit", Where(container=("training-data",)), settle=TRAIN.settle)


def _by_trigger(*events: tuple[float, Sent]) -> tuple[Delivery, ...]:
    return tuple(Delivery(moment, (event,)) for moment, event in events)


def _by_queue(moment: float, *events: Sent) -> Delivery:
    return Delivery(moment, events, json.dumps([one.value for one in events]).encode())


def _scene(routes: tuple[Route, ...], deliveries: tuple[Delivery, ...], **more: Any) -> Script:
    return Script(seed=1, routes=routes, deliveries=deliveries, timer=30.0, takes=1.0, **more)


_DOOR = {"workflow": "train.yml", "ref": "main"}
_A1, _A2, _B1 = blob("a/1.csv", "01", 0.0), blob("a/2.csv", "01", 0.0), blob("b/1.csv", "01", 0.0)

_GIVEN_UP = (
    (0.0, _A1),
    (0.0, _B1),
    (1.0, run_completed("r", 0.0)),
    (1.0, blob("a/1.csv", "01", 0.0, account="stranger")),
)

SCENES = {
    "two windows with duplicates": _scene(
        (TRAIN,),
        _by_trigger((0.0, _A1), (0.5, _A2), (0.6, _A1), (20.0, again(_A1)), (20.2, blob("a/3.csv", "01", 20.0))),
    ),
    "segments roll over": _scene(
        (TRAIN,), _by_trigger(*((n / 10, blob(f"a/{n}.csv", "01", 0.0)) for n in range(4))), most_blocks=1
    ),
    "an event arrives while its window closes": _scene((TRAIN,), _by_trigger((0.0, _A1), (3.1, _A2), (3.15, _B1))),
    "two routes, by the queue's door": _scene(
        (TRAIN, AUDIT), (_by_queue(0.0, _A1, _B1, _A1), _by_queue(15.0, _A2, _A1))
    ),
    "held while a run goes on": _scene(
        (replace(TRAIN, hold=Hold(seconds(40))),),
        _by_trigger((0.0, _A1), (8.0, _A2), (9.0, blob("a/3.csv", "01", 9.0))),
    ),
    "a marker": _scene((TRAIN,), _by_trigger((0.0, _A1), (0.2, blob("a/_SUCCESS", "01", 0.0)), (0.4, _A2))),
    "without a window": _scene(
        (DEPLOY, EACH), _by_trigger((0.0, run_completed("r", 0.0)), (1.0, run_completed("r", 0.0)), (2.0, _A1))
    ),
    "more keys than may be open": _scene(
        (replace(TRAIN, max_open_keys=1),), _by_trigger((0.0, _A1), (0.5, _B1), (20.0, _B1))
    ),
    "to one workflow": _scene(
        (replace(TRAIN, **_DOOR), replace(DEPLOY, **_DOOR)),
        _by_trigger((0.0, _A1), (0.5, run_completed("r", 0.0)), (8.0, _A2)),
    ),
    "to one workflow, on a server that does not name its runs": _scene(
        (replace(TRAIN, **_DOOR),), _by_trigger((0.0, _A1)), names_runs=False
    ),
    "letters": _scene(
        (TRAIN,), (*_by_trigger((0.0, blob("a/1.csv", "01", 0.0, account="stranger"))), Delivery(1.0, (), b"{"))
    ),
    "messages that the host gave up": _scene(
        (TRAIN, DEPLOY),
        tuple(replace(_by_queue(moment, event), given_up=True) for moment, event in _GIVEN_UP),
    ),
    "a newer version of a blob": _scene(
        (TRAIN,),
        _by_trigger((0.0, blob("a/1.csv", "02", 0.0)), (0.2, _A1), (12.0, blob("a/1.csv", "03", 12.0)), (24.0, _A1)),
    ),
    "a version that knows other lines": _scene(
        (TRAIN, DEPLOY),
        _by_trigger((0.0, _A1), (3.0, _A2), (9.0, blob("a/3.csv", "01", 9.0)), (9.0, run_completed("r", 9.0))),
        later_routes=(TRAIN, DEPLOY),
        later_format=True,
        calm=8.0,
    ),
    "a version that knows another door": _scene(
        (TRAIN, DEPLOY),
        _by_trigger((0.0, _A1), (5.0, _A2), (9.0, blob("a/3.csv", "01", 9.0)), (9.0, run_completed("r", 9.0))),
        later_routes=(replace(TRAIN, **_DOOR), replace(DEPLOY, **_DOOR)),
        later_format=True,
        calm=8.0,
    ),
}
"""Their only fault is the enumerated one."""

OVERFLOWED = _scene((replace(TRAIN, max_open_keys=1),), _by_trigger((0.0, _A1), (0.5, _B1), (5.0, _B1)))
"""An event is taken in twice, under the overflow's key and under its own, and both windows close at once."""

OVERFLOWED_LAST = _scene(
    (replace(TRAIN, max_open_keys=1),),
    _by_trigger((0.0, _B1), (6.0, _A1), (6.5, _B1)),
    later_routes=(DEPLOY,),
    later_from=1.0,
    calm=7.5,
)
"""An event that was listed under its own key comes again and overflows; then its route is taken out of the file."""


def every_fault(scene: Script) -> Iterator[tuple[int, str, list[str]]]:
    """One history for each call of the undisturbed scene and each fault at it: (call, fault, broken promises)."""
    calls = len(History(scene).run().trace)
    for number in range(calls):
        for fault in FAULTS:
            yield number, fault, violations(History(scene, fault_at=(number, fault)).run())
