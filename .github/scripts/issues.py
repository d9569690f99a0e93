"""One GitHub issue for each thing that goes wrong: made once, then brought up to date, never repeated.

The issue is found by a hidden marker in its body, and what it tells already by hidden digests, so telling the same
thing again changes nothing. Called by notify.yml and watch.yml; needs nothing but Python's standard library.

Environment: `GITHUB_TOKEN` with "Issues: write", `GITHUB_REPOSITORY`, `GITHUB_API_URL`, and for `dispatch` the
`client_payload` in `PAYLOAD`. Where `ISSUES` is not `true` (one machine has no issues), only the summary is written.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from occurrences import Occurrence, Report, UnknownKind, digest, of_dead_letters, of_dispatch, of_faults

AUTHOR = "github-actions[bot]"
MOST_SHOWN = 30
MOST_KNOWN = 2500
"""Digests kept in a body, which GitHub limits to 65,536 characters."""

_TIMEOUT = 20
_MOST_PAGES = 20
_KNOWN = re.compile(r"<!-- known: ([0-9a-f ]*) -->")
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')


class Refused(RuntimeError):
    """GitHub did not take a call; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Tracker:
    """The issues of one repository."""

    api_url: str
    repository: str
    token: str

    def open_issues(self) -> Iterator[dict[str, Any]]:
        """Open issues of the workflows' own account, the oldest first ("List repository issues")."""
        url = f"{self.api_url}/repos/{self.repository}/issues?state=open&sort=created&direction=asc&per_page=100"
        for _ in range(_MOST_PAGES):
            listed, links = self._call("GET", url)
            for issue in listed:
                if "pull_request" not in issue and (issue.get("user") or {}).get("login") == AUTHOR:
                    yield issue
            following = _NEXT.search(links)
            if not following:
                return
            url = following[1]

    def create(self, title: str, body: str) -> dict[str, Any]:
        """Open an issue ("Create an issue")."""
        created: dict[str, Any] = self._call("POST", self._url(), {"title": title, "body": body})[0]
        return created

    def update(self, number: int, **fields: str) -> None:
        """Change an issue ("Update an issue")."""
        self._call("PATCH", self._url(f"/{number}"), fields)

    def comment(self, number: int, body: str) -> None:
        """Add a comment, which people are told of ("Create an issue comment")."""
        self._call("POST", self._url(f"/{number}/comments"), {"body": body})

    def _url(self, rest: str = "") -> str:
        return f"{self.api_url}/repos/{self.repository}/issues{rest}"

    def _call(self, method: str, url: str, body: object = None) -> tuple[Any, str]:
        """The answer's JSON and its Link header. Raises Refused."""
        if not url.startswith(f"{self.api_url}/"):
            raise Refused(f"GitHub named a next page at another address: {url}")
        request = urllib.request.Request(  # noqa: S310 - the address is the runner's own GITHUB_API_URL
            url,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "User-Agent": "signalbox",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null"), answer.headers.get("Link", "")
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace")
            mend = {
                403: ": the job needs the permission 'issues: write'",
                404: ": the job needs the permission 'issues: write'",
                410: ": switch the repository's issues on (Settings, General, Features)",
            }.get(error.code, "")
            raise Refused(f"GitHub answered {error.code} to {method} {url}{mend} ({said})") from error
        except (urllib.error.URLError, TimeoutError) as error:
            raise Refused(f"GitHub did not answer {method} {url}: {error}") from error


def tell(tracker: Tracker, report: Report) -> str:
    """Bring the report's issue up to date; gives one sentence on what was done. Raises Refused."""
    issue = _find(tracker, report)
    if issue is None:
        created = tracker.create(report.title, body_of(report, (), report.occurrences, ""))
        first = _find(tracker, report)
        if first is None or first["number"] == created["number"]:
            return f"opened issue #{created['number']}"
        # Another run of this workflow was as fast; its issue is the older one.
        tracker.update(created["number"], state="closed", state_reason="not_planned")
        issue = first
    number, body = int(issue["number"]), str(issue.get("body") or "")
    known = known_in(body)
    new = tuple(one for one in report.occurrences if digest(one.id) not in known)
    if not new:
        return f"issue #{number} tells it already"
    tracker.update(number, body=body_of(report, known, new, body))
    tracker.comment(number, "\n".join(_lines(new[:MOST_SHOWN])))
    return f"brought issue #{number} up to date"


def body_of(report: Report, known: Sequence[str], new: Sequence[Occurrence], before: str) -> str:
    """The issue's body: marker, advice, the newest occurrences, and the digests of all that were ever told."""
    told = [*(digest(one.id) for one in new), *known]
    shown = [*_lines(new), *(line for line in before.splitlines() if line.startswith("- "))]
    rest = len(told) - min(len(shown), MOST_SHOWN)
    return "\n".join(
        [
            marker(report),
            report.advice,
            "",
            *shown[:MOST_SHOWN],
            *([f"\n…and {rest} more."] if rest > 0 else []),
            "",
            f"<!-- known: {' '.join(told[:MOST_KNOWN])} -->",
        ]
    )


def marker(report: Report) -> str:
    """The hidden line by which the report's issue is found."""
    return f"<!-- signalbox: {digest(report.key)} -->"


def known_in(body: str) -> tuple[str, ...]:
    """The digests of what an issue's body tells already."""
    found = _KNOWN.search(body)
    return tuple(found[1].split()) if found else ()


def _find(tracker: Tracker, report: Report) -> dict[str, Any] | None:
    return next((i for i in tracker.open_issues() if str(i.get("body") or "").startswith(marker(report))), None)


def _lines(occurrences: Sequence[Occurrence]) -> list[str]:
    return [f"- {one.text}" for one in occurrences]


def summarize(report: Report, done: str) -> None:
    """Write the report into the job's summary."""
    _summarize([f"### {report.title}", "", report.advice, "", *_lines(report.occurrences[:MOST_SHOWN]), "", done, ""])


def _summarize(lines: Sequence[str]) -> None:
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write("\n".join(lines) + "\n")


_KINDS: dict[str, Callable[[Any], Report | None]] = {
    "dispatch": of_dispatch,
    "dead-letters": of_dead_letters,
    "faults": of_faults,
}


def main(arguments: Sequence[str]) -> int:
    """`issues.py dispatch`, or `issues.py dead-letters FILE` and `issues.py faults FILE` with the command's JSON."""
    kind, *files = arguments
    told = json.loads(Path(files[0]).read_text(encoding="utf-8") if files else os.environ["PAYLOAD"])
    try:
        report = _KINDS[kind](told)
        if report is None:
            _summarize([f"Nothing to report about {kind}."])
            return 0
        if os.environ.get("ISSUES") == "true":
            tracker = Tracker(os.environ["GITHUB_API_URL"], os.environ["GITHUB_REPOSITORY"], os.environ["GITHUB_TOKEN"])
            done = tell(tracker, report)
        else:
            done = "No issue: there is no issue tracker on one machine."
    except (UnknownKind, Refused) as error:
        print(f"::error title=Report::{' '.join(str(error).split()).replace('%', '%25')}")
        return 1
    summarize(report, done[0].upper() + done[1:])
    print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
