"""Draws every ratio that has a target, with its spread, from the runs in JSON."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import write_whole

_MET, _SHORT = "#2a7f62", "#c0503c"
_LEGEND = (
    "Times better than the peer: median, lowest to highest. A mark stands at the target; green if "
    "every round reached it."
)


def draw(runs: Mapping[str, Any], path: Path) -> bool:
    """Writes an SVG.

    Args:
        runs: What `report.read_json` gives.
        path: Where to.

    Returns:
        Whether there was something to draw, and matplotlib to draw it with.
    """
    rows = [
        {**row, "section": name}
        for name, run in runs.items()
        for row in run["rows"]
        if row["goal"] and row["ratio"]
    ]
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not rows:
        return False
    # Text stays text, and equal runs give equal files.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hfclip", "font.size": 8}):
        figure = Figure(figsize=(10, 1 + 0.24 * len(rows)), layout="constrained")
        _bars(figure.subplots(), rows)
        figure.supxlabel(_LEGEND, fontsize=8)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    write_whole(path, "".join(f"{line.rstrip()}\n" for line in drawing.getvalue().splitlines()))
    return True


def _bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    """A bar to the median, a line over the spread and a mark at the target for each row."""
    medians = [row["ratio"]["median"] for row in rows]
    spreads = [
        [row["ratio"]["median"] - row["ratio"]["low"] for row in rows],
        [row["ratio"]["high"] - row["ratio"]["median"] for row in rows],
    ]
    goals = [row["goal"] for row in rows]
    colours = [_MET if row["ratio"]["low"] >= row["goal"] else _SHORT for row in rows]
    places = range(len(rows))
    axes.barh(places, medians, xerr=spreads, color=colours, height=0.6, ecolor="black")
    axes.plot(goals, places, linestyle="none", marker="|", markersize=12, color="black")
    axes.set_yticks(places, [_label(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="grey", linewidth=0.8)


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['section']} - {row['measure']}: {row['group']}, {row['engine']}"
