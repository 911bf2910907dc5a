"""Draws the summary table: one bar for each ratio of hfclip to the best peer."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.overview import Line
from benchmarks.report import Row
from benchmarks.store import write_whole
from benchmarks.summary import Summary

_MET, _MISSED, _NO_TARGET = "#2a7f62", "#c0503c", "#8a8a8a"
_LEGEND = (
    "How many times better hfclip is than the best peer: median, lowest to highest round. "
    "The mark is the target.\nGreen: every round meets it. Red: some or all rounds miss it. "
    "Grey: no target."
)
Bar = tuple[Line, Row, Summary]


def draw(families: Mapping[str, Sequence[Line]], path: Path) -> bool:
    """Writes an SVG with one panel for each processor family.

    Args:
        families: The summary by processor family, as `overview.by_family` returns it.
        path: The file to write.

    Returns:
        False if there is nothing to draw or matplotlib is not installed.
    """
    panels = {family: bars for family, lines in families.items() if (bars := _bars(lines))}
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not panels:
        return False
    heights = [len(bars) + 2 for bars in panels.values()]
    # Text stays text, and equal results give equal files.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hfclip", "font.size": 8}):
        figure = Figure(figsize=(9, 1 + 0.2 * sum(heights)), layout="constrained")
        all_axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axes, (family, bars) in zip(all_axes, panels.items(), strict=True):
            _draw(axes, family, bars)
        figure.supxlabel(_LEGEND, fontsize=8)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    write_whole(path, "".join(f"{line.rstrip()}\n" for line in drawing.getvalue().splitlines()))
    return True


def _bars(lines: Sequence[Line]) -> list[Bar]:
    return [(line, line.peer, line.peer.ratio) for line in lines if line.peer and line.peer.ratio]


def _draw(axes: Any, family: str, bars: Sequence[Bar]) -> None:
    """Draws a bar to the median, a line over the spread and a mark at the target."""
    ratios = [ratio for _, _, ratio in bars]
    spreads = [
        [ratio.median - ratio.low for ratio in ratios],
        [ratio.high - ratio.median for ratio in ratios],
    ]
    places = range(len(bars))
    medians, colours = [ratio.median for ratio in ratios], [_colour(bar) for bar in bars]
    # Bars start at 1: what reaches to the left is slower than the peer.
    lengths = [median - 1 for median in medians]
    axes.barh(places, lengths, left=1, xerr=spreads, color=colours, height=0.6, ecolor="black")
    aims = [(line.goal, place) for place, (line, _, _) in enumerate(bars) if line.goal]
    goals, heights = zip(*aims, strict=True) if aims else ((), ())
    axes.plot(goals, heights, linestyle="none", marker="|", markersize=9, color="black")
    axes.set_yticks(places, [f"{line.work} ({peer.engine})" for line, peer, _ in bars])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="grey", linewidth=0.8)
    ticks = (0.5, 1, 2, 5, 10)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_title(family, fontsize=9)


def _colour(bar: Bar) -> str:
    line, _, ratio = bar
    if not line.goal:
        return _NO_TARGET
    return _MET if ratio.low >= line.goal else _MISSED
