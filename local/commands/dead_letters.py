"""`signalbox dead-letters`: what could not be used, ours and Event Grid's, and dispatches that GitHub refused."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable

from functions.adapters.dead_letters import DeadLetterBox
from functions.adapters.history import History
from functions.core.dead_letters import DeadLetter
from functions.core.dispatch import Dispatch, State
from functions.core.values import JsonObject, format_time
from local.commands import surroundings
from local.commands.moments import shown
from local.commands.plain import plain

LEDGER = "ledger"


def run(options: argparse.Namespace) -> int:
    """List them, the newest first."""
    found = surroundings.of(options)
    with surroundings.asking(found):
        storage = found.storage()
        reports = [_of_letter(letter) for letter in DeadLetterBox(storage).letters()]
        reports += [_of_dispatch(dispatch) for dispatch in History(storage).dispatches_in(State.DEAD)]
    reports.sort(key=lambda report: str(report["time"]), reverse=True)
    if options.json:
        print(json.dumps(reports, indent=2))
    else:
        print("\n".join(map(plain, _lines(reports))) or f"no dead letters in {found.place}")
    return 0


def _of_letter(letter: DeadLetter) -> JsonObject:
    return {
        "id": letter.id,
        "container": letter.container,
        "blob": letter.blob,
        "reason": letter.reason,
        "time": format_time(letter.time),
        "event_id": letter.event_id,
        "type": letter.type,
        "subject": letter.subject,
    }


def _of_dispatch(dispatch: Dispatch) -> JsonObject:
    return {
        "id": dispatch.id,
        "container": LEDGER,
        "blob": None,
        "reason": dispatch.reason,
        "time": format_time(dispatch.created),
        "event_id": "",
        "type": dispatch.source,
        "subject": dispatch.subject,
    }


def _lines(reports: Iterable[JsonObject]) -> Iterable[str]:
    for report in reports:
        yield f"{report['id']}  {str(report['time'])[:19]}Z  {report['type'] or '-'}  {report['subject'] or '-'}"
        yield f"  {report['container']}: {report['reason']}"


def title(letter: DeadLetter) -> str:
    """One line that names a letter."""
    return f"{letter.id}  {shown(letter.time)}  {letter.type or '-'}  {letter.subject or '-'}"
