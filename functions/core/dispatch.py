"""The ledger of dispatches: each one's states, and which step follows from what GitHub said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum

from functions.core.github import Dead, Park, Retry, Run, Sent, Unknown, Verdict
from functions.core.values import JsonObject, compact_json, format_time, parse_time

SENDING_TIMEOUT = timedelta(seconds=90)
"""A dispatch that is `sending` for so long without a run was left so by a crash: longer than a request can take to
leave and to end, and its run to appear."""

WORKFLOW_SENDING_TIMEOUT = timedelta(seconds=150)
"""The same for one that goes to a workflow: where the server refuses to name its run, the request is made twice."""

LATEST_START = timedelta(seconds=5)
"""The request must leave so soon after `sending` was stored, so that it ends before SENDING_TIMEOUT."""

LOOK_BEFORE = timedelta(minutes=5)
"""Runs are looked for from this long before the dispatch was sent: GitHub's clock is not ours."""

RUN_SETTLES = timedelta(seconds=30)
"""After a reply that never came, a run may still appear this long; only then is the dispatch sent again."""

HEARD_WITHIN = timedelta(minutes=10)
"""A dispatch that no run answers to for so long is `unheard`."""


class State(StrEnum):
    """Where a dispatch stands. `done`, `dead` and `empty` are final."""

    READY = "ready"
    SENDING = "sending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    DONE = "done"
    PARKED = "parked"
    DEAD = "dead"
    EMPTY = "empty"


FINAL = frozenset({State.DONE, State.DEAD, State.EMPTY})

_DOOR = "workflow_dispatch "
"""Stands before the unfinished states of a row that goes to one workflow."""

GONE_FOR = timedelta(hours=1)
"""A confirmed run that is not listed for so long is taken for deleted."""

MOST_UNSTARTED = 3
"""How often a dispatch is sent again because its run was cancelled before it began."""

UNSTARTED_PAUSE = timedelta(minutes=5)
"""The first pause before that, four times as long each time: what displaced the run shall get on meanwhile."""


@dataclass(frozen=True, slots=True)
class ManifestRef:
    """What the payload says of the manifest."""

    url: str
    sha256: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One row of the ledger.

    Attributes:
        id: stands in the payload, the run's name, the job's name and the model's tags.
        route, key: which route made it, and for which key.
        event_type: GitHub's `event_type`.
        repository: OWNER/NAME.
        workflow, ref: the one workflow file that is to start, and the branch or tag it is read from; "" where a
            repository_dispatch starts every workflow that listens.
        source: the Azure event type of its first event.
        subject, data: of its first event; `data` already trimmed to what a payload carries.
        event_count: how many events it carries.
        manifest: None for a route without a window.
        created: when the row was inserted.
        state, reason: where it stands and, in words, why.
        attempts: how often it was sent.
        not_before: it is not sent again before this moment.
        sending_since: when its last sending began, or since when it is unknown whether GitHub got it.
        sent: when GitHub accepted it.
        looked: when a run was last looked for.
        parked: when it was last parked.
        probes: how often it went on from there by itself, to find out whether the cause was mended.
        unheard: how often its run was looked for again, and it was sent again, after it went unheard.
        replays: how often a person sent it on its way again.
        unstarted: ids of its runs that were cancelled before they began; they do not count as its runs.
        restarts: how often it was sent again because of that; one sending may start several runs.
        run_id, run_url: of the run that it started, or of the first of several, once that is known.
        other_runs: ids of the further ones.
        conclusion: of them all: the first that is not success.
        version: the row's ETag; "" where it is not stored yet.
    """

    id: str
    route: str
    key: str
    event_type: str
    repository: str
    source: str
    subject: str
    data: JsonObject
    event_count: int
    manifest: ManifestRef | None
    created: datetime
    workflow: str = ""
    ref: str = ""
    state: State = State.READY
    reason: str = ""
    attempts: int = 0
    not_before: datetime | None = None
    sending_since: datetime | None = None
    sent: datetime | None = None
    looked: datetime | None = None
    parked: datetime | None = None
    probes: int = 0
    unheard: int = 0
    replays: int = 0
    unstarted: tuple[int, ...] = ()
    restarts: int = 0
    run_id: int | None = None
    run_url: str = ""
    other_runs: tuple[int, ...] = ()
    conclusion: str = ""
    version: str = field(default="", compare=False)

    @property
    def trigger(self) -> str:
        """GitHub's name of the event that its runs are listed under."""
        return "workflow_dispatch" if self.workflow else "repository_dispatch"

    @property
    def door(self) -> tuple[str, str, str]:
        """Where it is sent: what GitHub refuses there says nothing of other doors, whose permissions differ."""
        return (self.repository, self.workflow, self.ref)

    @property
    def is_final(self) -> bool:
        """True where nothing more will happen to it by itself."""
        return self.state in FINAL

    @property
    def waits_for_run(self) -> bool:
        """True while a listing of GitHub's runs can tell something new about it."""
        return self.state in {State.SENDING, State.SENT, State.CONFIRMED}

    @property
    def is_unheard(self) -> bool:
        """True where GitHub accepted it, and it is parked because no run answered."""
        return self.state is State.PARKED and self.sent is not None

    def to_text(self) -> str:
        """The row as one ASCII text, without its version."""
        row = asdict(self)
        del row["version"]
        if self.workflow and not self.is_final:
            # A version that knows repository_dispatch only must not send it: it cannot read this state.
            row["state"] = f"{_DOOR}{self.state}"
        return compact_json(
            {name: format_time(value) if isinstance(value, datetime) else value for name, value in row.items()}
        )

    @staticmethod
    def from_text(line: str, version: str) -> Dispatch:
        """Read back what `to_text` wrote; keys that this version does not know are left out."""
        row: Mapping[str, object] = json.loads(line)
        known = {item.name for item in fields(Dispatch)}
        values: dict[str, object] = {name: value for name, value in row.items() if name in known}
        for name in ("created", "not_before", "sending_since", "sent", "looked", "parked"):
            if isinstance(written := values.get(name), str):
                values[name] = parse_time(written)
        if isinstance(reference := values.get("manifest"), dict):
            values["manifest"] = ManifestRef(**reference)
        for several in ("unstarted", "other_runs"):
            if isinstance(listed := values.get(several), list):
                values[several] = tuple(listed)
        values["state"] = State(str(values["state"]).removeprefix(_DOOR))
        return Dispatch(**values, version=version)  # type: ignore[arg-type]


def readable(rows: Iterable[tuple[str, str]]) -> list[Dispatch]:
    """Dispatches from (text, version); rows that a later version of the app wrote are left to that version."""
    found = []
    for line, version in rows:
        try:
            found.append(Dispatch.from_text(line, version))
        except (ValueError, TypeError, KeyError):
            continue
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a dispatch, and after how long it must be looked at again (None: nobody needs to)."""

    dispatch: Dispatch
    again: timedelta | None = None


def begin(dispatch: Dispatch, now: datetime) -> Step:
    """May it be sent now? If so its state becomes `sending`, which must be stored before the request goes out."""
    if dispatch.state is not State.READY:
        return Step(dispatch)
    if dispatch.not_before is not None and dispatch.not_before > now:
        return Step(dispatch, dispatch.not_before - now)
    return Step(
        replace(
            dispatch,
            state=State.SENDING,
            reason="",
            attempts=dispatch.attempts + 1,
            sending_since=now,
            sent=None,
            not_before=None,
        )
    )


def after_answer(dispatch: Dispatch, verdict: Verdict, now: datetime) -> Step:
    """The step that follows from GitHub's answer to the sending of `dispatch`."""
    match verdict:
        case Sent(None):
            return Step(replace(dispatch, state=State.SENT, sent=now, reason=""))
        case Sent(run_id, run_url):
            confirmed = replace(dispatch, state=State.CONFIRMED, sent=now, run_id=run_id, run_url=run_url, reason="")
            return Step(confirmed)
        case Retry(after, reason):
            retried = replace(dispatch, state=State.READY, not_before=now + after, reason=reason)
            return Step(retried, after)
        case Unknown(reason, after):
            return Step(replace(dispatch, sending_since=now, not_before=now + after, reason=reason))
        case Park(reason):
            return Step(replace(dispatch, state=State.PARKED, parked=now, reason=reason))
        case Dead(reason):  # pragma: no branch - there is no other verdict
            return Step(replace(dispatch, state=State.DEAD, reason=reason))


def runs_of(dispatch: Dispatch, runs: Iterable[Run]) -> list[Run]:
    """The runs that `dispatch` started, oldest first: its id stands in their names, or GitHub said which one.

    One that was cancelled before it began counts again once somebody ran it again.
    """
    told = (dispatch.run_id, *dispatch.unstarted)  # its name need not hold the id where GitHub's answer named it
    found = (run for run in runs if dispatch.id in run.title or run.id in told)
    counting = (run for run in found if run.id not in dispatch.unstarted or run.conclusion != "cancelled")
    return sorted(counting, key=lambda run: run.id)


def are_found(dispatch: Dispatch, runs: Iterable[Run]) -> bool:
    """True where `runs` hold a run of `dispatch`, and every one that it is known to have.

    Less says nothing of how it goes: the runs of one dispatch may stand on two pages of a listing.
    """
    found = {run.id for run in runs_of(dispatch, runs)}
    return bool(found) and {dispatch.run_id or min(found), *dispatch.other_runs} <= found


def after_listing(dispatch: Dispatch, runs: tuple[Run, ...], now: datetime) -> Dispatch:
    """What a listing of runs, made after `dispatch` was sent, says about it."""
    found = runs_of(dispatch, runs)
    if found:
        run = found[0]
        ended = all(other.status == "completed" for other in found)
        return replace(
            dispatch,
            state=State.DONE if ended else State.CONFIRMED,
            sent=dispatch.sent or dispatch.sending_since,
            looked=now,
            unstarted=tuple(sorted(set(dispatch.unstarted).difference(other.id for other in found))),
            # Where one was deleted, nobody can tell any more whether it began: nothing may be sent again.
            restarts=dispatch.restarts if are_found(dispatch, runs) else MOST_UNSTARTED,
            run_id=run.id,
            run_url=run.url,
            other_runs=tuple(other.id for other in found[1:]),
            conclusion=_conclusion(found) if ended else "",
            reason="",
        )
    looked = replace(dispatch, looked=now)
    if dispatch.state is State.SENDING and dispatch.sending_since is not None:
        timeout = WORKFLOW_SENDING_TIMEOUT if dispatch.workflow else SENDING_TIMEOUT
        patience = RUN_SETTLES if dispatch.reason else timeout
        until = max(dispatch.sending_since + patience, dispatch.not_before or dispatch.sending_since)
        if until > now:
            return looked
        reason = f"attempt {dispatch.attempts} started no run that began, so it is sent again"
        return replace(looked, state=State.READY, not_before=None, reason=reason)
    if dispatch.state is State.SENT and dispatch.sent is not None and now - dispatch.sent > HEARD_WITHIN:
        reason = f"unheard: GitHub accepted it, but no run's name holds {dispatch.id}. {_how_to_be_heard(dispatch)}"
        return replace(looked, state=State.PARKED, parked=now, reason=reason)
    if dispatch.state is State.CONFIRMED:
        return looked if _is_listed_soon(dispatch, now) else _run_gone(dispatch, now)
    return replace(looked, reason="")


def _how_to_be_heard(dispatch: Dispatch) -> str:
    if dispatch.workflow:
        return f"Put inputs.dispatch_id into the run-name of {dispatch.workflow} on {dispatch.ref}"
    return (
        f"Let a workflow on the default branch of {dispatch.repository} listen to repository_dispatch "
        f"'{dispatch.event_type}' and put github.event.client_payload.dispatch_id into its run-name"
    )


def to_look_into(dispatch: Dispatch, runs: Iterable[Run]) -> tuple[int, ...]:
    """The dispatch's runs whose jobs have to be looked into: all of them were cancelled, maybe before they began."""
    found = runs_of(dispatch, runs)
    if dispatch.restarts >= MOST_UNSTARTED or any(run.conclusion != "cancelled" for run in found):
        return ()
    if not are_found(dispatch, runs):
        return ()  # one that is known was deleted: nobody can tell whether that began
    return tuple(run.id for run in found)


def after_no_start(dispatch: Dispatch, runs: tuple[int, ...], now: datetime) -> Dispatch:
    """The dispatch whose runs were cancelled before any of them began: nothing was done yet, so it is sent again.

    Until then it is looked for like one whose outcome is unknown: a person may run such a run again, and a further
    workflow's run may still come.
    """
    pause = UNSTARTED_PAUSE * 4**dispatch.restarts
    return replace(
        dispatch,
        state=State.SENDING,
        not_before=now + pause,
        unstarted=(*dispatch.unstarted, *runs),
        restarts=dispatch.restarts + 1,
        looked=now,
        run_id=None,
        run_url="",
        other_runs=(),
        conclusion="",
        reason=f"run {runs[0]} was cancelled before it began, so it is sent again after {format_time(now + pause)}",
    )


def _is_listed_soon(dispatch: Dispatch, now: datetime) -> bool:
    """A run that GitHub named in its answer, and no listing did so far, may be listed only seconds later."""
    sent, looked = dispatch.sent, dispatch.looked
    return sent is not None and (looked is None or looked < sent) and now - sent <= RUN_SETTLES


def _run_gone(dispatch: Dispatch, now: datetime) -> Dispatch:
    """A run that is not listed any more was deleted; a listing can err, so it gets an hour to come back."""
    if not dispatch.reason or dispatch.looked is None:
        return replace(dispatch, looked=now, reason=f"run {dispatch.run_id} is not listed any more")
    if now - dispatch.looked < GONE_FOR:
        return dispatch
    return replace(dispatch, state=State.DONE, conclusion="unknown", reason=f"run {dispatch.run_id} was deleted")


def _conclusion(runs: list[Run]) -> str:
    """The worst news first: one dispatch may have started several runs."""
    conclusions = [run.conclusion or "unknown" for run in runs]
    return next((one for one in conclusions if one != "success"), "success")


def next_look(waiting: list[Dispatch], now: datetime, pages: int) -> timedelta:
    """How long until the next listing of a repository's runs, of which the last one took `pages` requests.

    Often while a dispatch is fresh, each minute later on; longer listings are made more rarely, so that they never
    use up GitHub's 5,000 requests an hour.
    """
    youngest = min((now - (item.sent or item.sending_since or item.created) for item in waiting), default=timedelta())
    if youngest < timedelta(minutes=2):
        return timedelta(seconds=3) * pages
    return (timedelta(seconds=15) if youngest < timedelta(minutes=15) else timedelta(minutes=1)) * pages
