"""A live list of steps with their times on a terminal; plain lines where the output is a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table


@dataclass(slots=True)
class Step:
    """One line of the list. `say` replaces what stands behind its title."""

    title: str
    began: float
    detail: str = ""
    ended: float | None = None
    failed: bool = False
    spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    def say(self, detail: str) -> None:
        """Show what the step is at, or what came out of it."""
        self.detail = detail

    @property
    def seconds(self) -> float:
        """How long it takes or took."""
        return (self.ended or time.monotonic()) - self.began


class StepList:
    """Context manager that shows headings and steps while work goes on inside of it."""

    def __init__(self, console: Console) -> None:
        """`console` decides by itself whether there is a terminal."""
        self.console = console
        self.began = time.monotonic()
        self._lines: list[str | Step] = []
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, transient=False)

    def __enter__(self) -> StepList:
        """Start drawing."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Draw a last time."""
        if self.console.is_terminal:
            self._live.stop()

    def heading(self, title: str) -> None:
        """Begin a group of steps."""
        self._lines.append(title)
        if not self.console.is_terminal:
            self.console.print(f"\n{escape(title)}", highlight=False)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while the block runs; an exception marks it as failed and goes on its way."""
        step = Step(title, time.monotonic())
        self._lines.append(step)
        try:
            yield step
        except BaseException:
            step.failed = True
            raise
        finally:
            step.ended = time.monotonic()
            if not self.console.is_terminal:
                mark = "FAILED" if step.failed else "ok"
                line = f"  {mark:6} {step.seconds:5.1f} s  {step.title}  {step.detail}"
                self.console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        groups: list[RenderableType] = []
        table: Table | None = None
        for line in self._lines:
            if isinstance(line, str):
                groups.append(f"\n[bold]{escape(line)}[/bold]")
                table = None
                continue
            if table is None:
                table = Table.grid(padding=(0, 2))
                table.add_column(width=1)
                table.add_column(min_width=34)
                table.add_column(justify="right", width=7)
                table.add_column(ratio=1, overflow="fold")
                groups.append(table)
            table.add_row(_mark(line), escape(line.title), f"{line.seconds:.1f} s", f"[dim]{escape(line.detail)}[/dim]")
        return Group(*groups)


def _mark(step: Step) -> RenderableType:
    if step.failed:
        return "[red]✗[/red]"
    return step.spinner if step.ended is None else "[green]✓[/green]"
