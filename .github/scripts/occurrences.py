"""What deserves an issue: failed runs, drift and dead letters, as values. Knows nothing of GitHub's API.

Everything that comes from an event is an outsider's input: it is shown inside of code spans only, where neither
markup nor a mention works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FAILED_RUN = "machinelearningservices-runstatuschanged"
DRIFT = "machinelearningservices-datasetdriftdetected"
_LONGEST = 300


class UnknownKind(ValueError):
    """A dispatch that is nothing to report; the text names it."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One thing that happened. `id` stays the same when it is told again; `text` is one line of Markdown."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one issue is about.

    Attributes:
        key: says which issue it is: the same for all occurrences that belong together.
        title: of the issue.
        advice: what it means and what to do, in Markdown.
        occurrences: at least one.
    """

    key: str
    title: str
    advice: str
    occurrences: tuple[Occurrence, ...]


def of_dispatch(payload: Mapping[str, Any]) -> Report:
    """The report of a dispatch's `client_payload`. Raises UnknownKind."""
    kind = str(payload.get("event_type", ""))
    data = _lower(payload.get("data"))
    if kind == FAILED_RUN:
        return _failed_run(data)
    if kind == DRIFT:
        return _drift(data, str(payload.get("dispatch_id", "")))
    raise UnknownKind(f"a dispatch of type {kind!r} is nothing to report: take it out of notify.yml")


def of_dead_letters(letters: Sequence[Mapping[str, Any]]) -> Report | None:
    """The report of what `signalbox dead-letters --json` lists; None where it lists nothing."""
    if not letters:
        return None
    return Report(
        key="dead-letters",
        title="Events could not be used",
        advice=(
            "These events, or dispatches, lie in the dead letters with the reason that stands beside them. Nothing is "
            "lost: mend the cause, look with `signalbox replay`, then `signalbox replay --yes`. "
            "[What to do](../blob/HEAD/docs/operations.md#dead-letters)"
        ),
        occurrences=tuple(
            Occurrence(
                str(letter["id"]),
                f"{code(letter['id'])} {code(letter.get('type') or letter.get('container'))} "
                f"{code(letter.get('subject') or '-')}: {code(letter.get('reason'))}",
            )
            for letter in letters
        ),
    )


def of_faults(findings: Sequence[Mapping[str, Any]]) -> Report | None:
    """The report of the faults that `signalbox doctor --json` names; None where there are none."""
    faults = [finding for finding in findings if finding["state"] == "fault"]
    if not faults:
        return None
    return Report(
        key="doctor",
        title="Signalbox needs a hand",
        advice="`signalbox doctor` found these faults, each with its mend. They come back here only if they change.",
        occurrences=tuple(
            Occurrence(
                f"{fault['check']} {fault['about']} {fault['says']}",
                f"**{code(fault['check'])}** {code(fault['about'])}: {code(fault['says'])} → {code(fault['mend'])}",
            )
            for fault in faults
        ),
    )


def _failed_run(data: Mapping[str, Any]) -> Report:
    run, experiment = str(data.get("runid", "")), str(data.get("experimentname", ""))
    data_set = str(_lower(data.get("runtags")).get("data_set", ""))
    status = str(data.get("runstatus", ""))
    what = f"{experiment} / {data_set}" if data_set else experiment
    return Report(
        key=f"failed-run {experiment} {data_set}",
        title=f"Training fails: {plain(what)}",
        advice=(
            "Jobs of this experiment did not finish. What was wrong stands in the job's own log and in the summary of "
            "the workflow run that started it; `signalbox trace JOB` finds both. The champion stays."
        ),
        occurrences=(Occurrence(run, f"job {code(run)} ended as {code(status)}"),),
    )


def _drift(data: Mapping[str, Any], dispatch_id: str) -> Report:
    name = str(data.get("datadriftname") or data.get("datadriftid") or "")
    run = str(data.get("runid") or dispatch_id)
    return Report(
        key=f"drift {name}",
        title=f"Data drifts: {plain(name)}",
        advice=(
            "Newer data is no longer distributed as the data that the champion learned from. A training on the newer "
            "data is started by the same event; whether its model is better is the gate's decision."
        ),
        occurrences=(
            Occurrence(
                run,
                f"coefficient {code(data.get('driftcoefficient'))} from {code(data.get('starttime'))} "
                f"to {code(data.get('endtime'))}, found by {code(run)}",
            ),
        ),
    )


def _lower(value: object) -> dict[str, Any]:
    """The mapping with lower-case keys: their case varies between Azure's documents and its events."""
    return {str(key).lower(): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def plain(text: object) -> str:
    """On one line and without what Markdown or GitHub would act on, cut to a length: for titles."""
    kept = "".join(character if character.isalnum() or character in " ._/-" else " " for character in str(text))
    return " ".join(kept.split())[:_LONGEST]


def code(text: object) -> str:
    """As a code span on one line, cut to a length; nothing in it can end the span, the line or a comment."""
    line = " ".join(str(text).split()).replace("`", "'").replace("<!--", "<! --").replace("-->", "-- >")
    return f"`{line[:_LONGEST] or '-'}`"


def digest(text: str) -> str:
    """Stands for a text inside of a hidden comment."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
