"""How a step speaks: faults as one sentence, a readable job summary, and folded log groups.

Workflow commands (`::group::`, `::error::`) and `GITHUB_STEP_SUMMARY` follow GitHub's page
"Workflow commands for GitHub Actions"; outside of a workflow the same text is simply printed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


class Fault(Exception):
    """A foreseeable fault: each sentence says what is wrong, where, and how to mend it."""

    def __init__(self, *sentences: str) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = sentences


def say(line: str) -> None:
    """Print one line, at once, so that a live log shows it in order with the output of subprocesses.

    It stays one line whatever is in it: a column's name from a file must not become a workflow command.
    """
    print(" ".join(line.splitlines()), flush=True)


def escaped(text: str) -> str:
    """`text` as the message of a workflow command, on one line (blob names are an outsider's input)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def cell(text: object) -> str:
    """`text` as the cell of a Markdown table: no line ends, no bars, no markup that could pretend."""
    plain = " ".join(str(text).split())
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), ("[", "&#91;"), ("|", "&#124;"), ("`", "&#96;")):
        plain = plain.replace(mark, entity)
    return plain


def summarize(title: str, lines: Sequence[str]) -> None:
    """Append a section to the job summary; `lines` are Markdown."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write("\n".join([f"### {title}", "", *lines, "", ""]))


def table(rows: Sequence[tuple[str, object]]) -> list[str]:
    """Return a Markdown table of two columns without a header."""
    return ["| | |", "|---|---|", *(f"| {cell(name)} | {cell(value)} |" for name, value in rows)]


@contextlib.contextmanager
def group(title: str) -> Iterator[None]:
    """Fold what is printed inside under `title`, and print how long it took."""
    say(f"::group::{escaped(title)}")
    started = time.monotonic()
    try:
        yield
    finally:
        say("::endgroup::")
        say(f"{title}: {time.monotonic() - started:.1f} s")


def step(title: str, main: Callable[[], None]) -> None:
    """Run a script's `main`; a `Fault` becomes an error line, a summary section and exit status 1.

    A script that is told to stop ends with 130, as a shell would say it.
    """
    try:
        main()
    except Fault as fault:
        for sentence in fault.sentences:
            say(f"::error title={title}::{escaped(sentence)}")
        summarize(f"{title}: failed", [f"- {cell(sentence)}" for sentence in fault.sentences])
        sys.exit(1)
    except KeyboardInterrupt:
        say(f"::error title={title}::Stopped from outside.")
        sys.exit(130)
