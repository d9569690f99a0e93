"""The pages for people: the table of runs, and one run with its steps, summary and log. Plain HTML, no script."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from local.github.runs import Run, read_jobs

_LOG_BYTES = 512 * 1024
_STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #656d76; --back: #f6f8fa; --link: #0969da;
  --good: #1a7f37; --bad: #cf222e; --busy: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --line: #30363d; --soft: #8d96a0; --back: #161b22; --link: #4493f8;
  --good: #3fb950; --bad: #f85149; --busy: #d29922; } body { background: #0d1117; color: #e6edf3; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1.5rem; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
h1 { font-size: 1.35rem; margin: .3rem 0; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .5rem; }
nav, .soft { color: var(--soft); font-size: .87rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: .4rem .6rem; text-align: left; vertical-align: top; }
th { color: var(--soft); font-size: .8rem; font-weight: 600; } .time { text-align: right; white-space: nowrap; }
.steps td:first-child { width: 8rem; }
.title { overflow-wrap: anywhere; } .state { font-weight: 600; white-space: nowrap; }
.success { color: var(--good); } .failure, .startup_failure, .timed_out { color: var(--bad); }
.in_progress, .queued, .pending { color: var(--busy); } .skipped, .cancelled { color: var(--soft); }
section.box { border: 1px solid var(--line); border-radius: 6px; padding: .2rem 1rem; overflow-x: auto; }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px; font-size: 12.5px; line-height: 1.45;
  overflow: auto; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
"""
_SIGNS = {"success": "✓", "failure": "✗", "startup_failure": "✗", "timed_out": "✗", "in_progress": "●"}
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")


def list_page(repository: str, runs: list[Run]) -> str:
    """The table of runs, newest first; it reloads itself, more often while one is open."""
    rows = "".join(
        f"<tr><td>{_state(run.status, run.conclusion)}</td>"
        f'<td class="title"><a href="/{escape(repository)}/actions/runs/{run.id}">{escape(run.display_title)}</a>'
        f'<div class="soft">{escape(run.workflow_name)} #{run.run_number}</div></td>'
        f'<td class="time">{escape(run.created_at)}</td><td class="time">{_run_length(run)}</td></tr>'
        for run in runs
    )
    table = (
        '<div class="scroll"><table><tr><th>State</th><th>Run</th><th class="time">Created</th>'
        f'<th class="time">Time</th></tr>{rows}</table></div>'
        if runs
        else "<p>No run yet. A repository dispatch that a workflow listens to starts one.</p>"
    )
    busy = any(run.status != "completed" for run in runs)
    body = f"<nav>{escape(repository)}</nav><h1>Workflow runs</h1>{table}"
    return _page(f"Workflow runs · {repository}", body, 2 if busy else 10)


def run_page(repository: str, run: Run, folder: Path) -> str:
    """One run: its state, its steps with their times, its summary, its log."""
    link = f"/{escape(repository)}/actions"
    group = f" · group {escape(run.concurrency_group)}" if run.concurrency_group else ""
    head = (
        f'<nav><a href="{link}">{escape(repository)} · workflow runs</a></nav><h1>{escape(run.display_title)}</h1>'
        f"<p>{_state(run.status, run.conclusion)} <span class=soft>· {escape(run.workflow_name)} #{run.run_number} · "
        f"{escape(run.workflow_path)} · {escape(run.event_name)} · commit {escape(run.head_sha[:7])} · "
        f"{escape(run.created_at)} · {_run_length(run)}{group}</span></p>"
    )
    jobs = "".join(_job(place, job) for place, job in enumerate(read_jobs(folder)))
    summary = _text(folder / "summary.md")
    shown = f'<h2>Summary</h2><section class="box">{_MARKDOWN.render(summary)}</section>' if summary else ""
    log = _text(folder / "log.txt")
    body = f"{head}{shown}{jobs}<h2>Log</h2><pre>{escape(log) or 'Nothing yet.'}</pre>"
    return _page(f"{run.display_title} · {repository}", body, 0 if run.status == "completed" else 2)


def missing_page() -> str:
    """The page for an address that shows nothing."""
    return _page("Not found", "<h1>Not found</h1><p>No such repository or run on this machine.</p>", 0)


def _job(place: int, job: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{_state(step['status'], step['conclusion'])}</td><td class=title>{escape(step['name'])}</td>"
        f'<td class="time">{_length(step["started_at"], step["completed_at"])}</td></tr>'
        for step in job["steps"]
    )
    return (
        f'<h2 id="job-{place}">{escape(job["name"])} <span class=soft>'
        f"{_state(job['status'], job['conclusion'])} {_length(job['started_at'], job['completed_at'])}</span></h2>"
        f'<div class="scroll"><table class="steps">{rows}</table></div>'
    )


def _state(status: str, conclusion: str | None) -> str:
    word = conclusion or status
    return f'<span class="state {escape(word)}">{_SIGNS.get(word, "○")} {escape(word.replace("_", " "))}</span>'


def _run_length(run: Run) -> str:
    if run.status in {"queued", "pending"}:
        return ""
    length = _length(run.run_started_at, run.updated_at if run.status == "completed" else None)
    return "&lt; 1 s" if length == "0.0 s" else length.replace(".0 s", " s")


def _length(start: str | None, end: str | None) -> str:
    if start is None:
        return ""
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    seconds = max(0.0, (until - datetime.fromisoformat(start)).total_seconds())
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _text(path: Path) -> str:
    """The end of a file, as much of it as a page can show."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(0, size - _LOG_BYTES))
        cut = "" if size <= _LOG_BYTES else f"(the first {size - _LOG_BYTES} bytes are in {path.name} only)\n"
        return cut + file.read().decode(errors="replace")


def _page(title: str, body: str, refresh: int) -> str:
    reload = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{reload}<title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
