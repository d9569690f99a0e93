"""The drift report: one HTML page that stands by itself, with a table of all columns and a plot of the most different.

matplotlib is imported when a page is made, and only then: a first training, which has no champion to compare with,
does not pay for it.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mlops.drift.comparison import ColumnDrift, Drift
from mlops.drift.profile import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARTIFACT = "drift.html"
_PLOTS = 6
_BARS = 12
_BINS = 30
_MEANING = {
    "numbers": "Kolmogorov-Smirnov distance",
    "classes": "share of rows of another class",
    "text": "share of texts with or without a word",
}
_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #d0d7de }
td.number { font-variant-numeric: tabular-nums } tr.drifted td { background: #fff4e5; font-weight: 600 }
figure { margin: 1.5rem 0 } svg { max-width: 100%; height: auto } .scroll { overflow-x: auto }
"""


def headline(drift: Drift) -> str:
    """Return the verdict as one sentence."""
    if not drift.columns:
        return " ".join(drift.notes) or "There is no column to compare."
    if drift.drifted:
        return f"The data have drifted away from the champion's: {', '.join(drift.names[:5])}{_more(drift.names)}."
    if drift.names:
        return f"Too few columns have drifted to matter (drift.columns): {', '.join(drift.names)}."
    return f"None of {len(drift.columns)} columns has drifted."


def page(drift: Drift, title: str, against: str) -> str:
    """Return the report as HTML; `against` says what the data were compared with."""
    rows = "\n".join(_row(column) for column in drift.columns)
    figures = "\n".join(_figure(drift, column) for column in drift.columns[:_PLOTS])
    notes = "\n".join(f"<p>{html.escape(note)}</p>" for note in drift.notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p><strong>{html.escape(headline(drift))}</strong></p>
<p>{drift.now.rows} rows, compared with {drift.before.rows} rows of {html.escape(against)}. A column has drifted if the
p-value, corrected for the number of columns, is small and the difference is at least as large as needed.</p>
{notes}
<div class="scroll"><table>
<thead><tr><th>column</th><th>difference</th><th>found</th><th>needed</th><th>corrected p-value</th>
<th>drifted</th></tr></thead>
<tbody>
{rows}
</tbody></table></div>
{figures}
</body></html>
"""


def rows(drift: Drift) -> list[tuple[str, object]]:
    """Return the most different columns as rows of a summary."""
    return [
        (
            column.name,
            f"{column.effect:.3f} of {column.needed:g} needed, p {column.p_value:.2g}"
            + (": drifted" if column.drifted else ""),
        )
        for column in drift.columns[:_PLOTS]
    ]


def _more(names: list[str]) -> str:
    return f" and {len(names) - 5} more columns" if len(names) > 5 else ""


def _row(column: ColumnDrift) -> str:
    return (
        f"<tr{' class=drifted' if column.drifted else ''}><td>{html.escape(column.name)}</td>"
        f'<td>{_MEANING[column.kind]}</td><td class="number">{column.effect:.3f}</td>'
        f'<td class="number">{column.needed:g}</td><td class="number">{column.p_value:.2g}</td>'
        f"<td>{'yes' if column.drifted else 'no'}</td></tr>"
    )


def _figure(drift: Drift, column: ColumnDrift) -> str:
    """Draw one column before and now as an SVG; names and words are drawn as they are, never read as formulas."""
    import matplotlib as mpl  # noqa: PLC0415 - see above
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": column.name, "text.parse_math": False}):
        figure = Figure(figsize=(8, 2.8), dpi=72, layout="constrained")
        axes = figure.add_subplot()
        if column.kind == "numbers":
            _histogram(axes, drift.before.numbers[column.name], drift.now.numbers[column.name])
        elif column.kind == "classes":
            _bars(axes, _shares(drift.before.classes), _shares(drift.now.classes))
        else:
            _bars(axes, *(_held(profile.texts[column.name]) for profile in (drift.before, drift.now)))
        axes.set_title(column.name, loc="left", fontsize=11)
        axes.set_ylabel("share of rows")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        drawn = io.StringIO()
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    svg = drawn.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}</figure>"


def _histogram(axes: Axes, before: tuple[float, ...], now: tuple[float, ...]) -> None:
    bins = np.histogram_bin_edges(np.concatenate([before, now]), bins=_BINS)
    for values, name, color in ((before, "champion's", "#57606a"), (now, "now", "#d4570a")):
        heights = np.histogram(values, bins)[0] / max(1, len(values))
        axes.stairs(heights, bins, label=name, color=color, fill=name == "now", alpha=0.55 if name == "now" else 1.0)


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = max(1, sum(counts.values()))
    return {name: count / total for name, count in counts.items()}


def _held(words: Words) -> dict[str, float]:
    return {word: count / max(1, words.texts) for word, count in words.counts.items()}


def _bars(axes: Axes, before: Mapping[str, float], now: Mapping[str, float]) -> None:
    """Draw the classes or words whose shares differ most, side by side."""
    names = sorted({*before, *now}, key=lambda name: (-abs(before.get(name, 0) - now.get(name, 0)), name))[:_BARS]
    places = np.arange(len(names))
    axes.bar(places - 0.2, [before.get(name, 0) for name in names], 0.4, label="champion's", color="#57606a")
    axes.bar(places + 0.2, [now.get(name, 0) for name in names], 0.4, label="now", color="#d4570a")
    axes.set_xticks(places, [name if len(name) <= 16 else f"{name[:15]}…" for name in names], rotation=25, ha="right")
