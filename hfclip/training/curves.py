"""The curves of a fine-tune: as a PNG, and as text for a terminal. Imports no torch."""

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hfclip.training.card import columns
from hfclip.training.results import Results

logger = logging.getLogger(__name__)

_BARS = "▁▂▃▄▅▆▇█"
# The widest sparkline, and the points of the loss in the PNG.
_COLUMNS, _POINTS = 40, 400
_OWN, _KEEP = "#2a7f62", "#c0503c"


def read_losses(path: Path) -> list[tuple[int, float]]:
    """Reads the steps and their losses, less the floor, from a log.jsonl.

    Lines without a loss are skipped. A file that does not exist has no losses.
    """
    if not path.is_file():
        return []
    rows = [_parsed(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["step"], row["loss"]) for row in rows if row.keys() >= {"step", "loss"}]


def _parsed(line: str) -> Mapping[str, Any]:
    """Returns the values of a line, or nothing if the line is incomplete."""
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def sparkline(values: Sequence[float]) -> str:
    """Draws numbers as a line of bars. The lowest is the lowest bar; more than 40 are averaged."""
    if not values:
        return ""
    points = _averaged(values, _COLUMNS)
    low, high = min(points), max(points)
    top = len(_BARS) - 1
    return "".join(
        _BARS[round(top * (point - low) / (high - low)) if high > low else 0] for point in points
    )


def _averaged(values: Sequence[float], count: int) -> list[float]:
    """Returns at most `count` means of neighbouring values."""
    count = min(count, len(values))
    edges = [place * len(values) // count for place in range(count + 1)]
    parts = [values[start:end] for start, end in pairwise(edges)]
    return [sum(part) / len(part) for part in parts]


def summary(results: Results, losses: Sequence[tuple[int, float]] = ()) -> str:
    """Returns the results as text: the curves, the mixtures, and a table of before and after."""
    lines = []
    if losses:
        values = [loss for _, loss in losses]
        lines.append(_curve("loss less its floor", values, "{:.3f}"))
    name = results.before.own.headline.name
    own = [100 * epoch.scores.own.headline.value for epoch in results.epochs]
    lines.append(_curve(f"{name}, validation", own, "{:.1f} %"))
    kept = [epoch.scores.keep for epoch in results.epochs]
    keep = [100 * metrics.headline.value for metrics in kept if metrics is not None]
    lines.append(_curve("not to forget", keep, "{:.1f} %"))
    curves = "\n".join(filter(None, lines))
    return "\n\n".join(filter(None, [curves, _mixtures(results), _table(results)]))


def _curve(title: str, values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    ends = f"{form.format(values[0])} -> {form.format(values[-1])}"
    return f"{title:<22} {sparkline(values)}  {ends}"


def _mixtures(results: Results) -> str:
    """Returns a line for each alpha, with a mark at the chosen one."""
    if not results.alphas:
        return ""
    rows = [["alpha", f"{results.before.own.headline.name}, validation", "not to forget", ""]]
    for alpha, scores in sorted(results.alphas.items()):
        keep = "-" if scores.keep is None else _percent(scores.keep.headline.value)
        chosen = "chosen" if alpha == results.alpha else ""
        rows.append([f"{alpha:g}", _percent(scores.own.headline.value), keep, chosen])
    return _aligned(rows)


def _table(results: Results) -> str:
    models = columns(results)
    rows = [["", *models]]
    for name in results.before.own.shares():
        shown = [_percent(scores.own.shares()[name]) for scores in models.values()]
        rows.append([f"{name}, {results.split}", *shown])
    keep = {title: scores.keep for title, scores in models.items()}
    known = [metrics for metrics in keep.values() if metrics is not None]
    if len(known) == len(models):
        name = known[0].headline.name
        rows.append(
            [f"{name}, not to forget", *(_percent(metrics.headline.value) for metrics in known)]
        )
    return _aligned(rows)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows with the first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def draw(results: Results, losses: Sequence[tuple[int, float]], path: Path) -> bool:
    """Writes a PNG with the loss, the scores after each epoch, and the scores of the mixtures.

    Returns:
        False if matplotlib is not installed. A note is logged then.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        logger.warning("%s needs matplotlib: pip install 'hfclip[finetune]'.", path.name)
        return False
    figure = Figure(figsize=(12, 3.6), dpi=100, layout="constrained")
    of_loss, of_epochs, of_mixtures = figure.subplots(1, 3)
    _draw_losses(of_loss, losses)
    epochs = {epoch.number: epoch.scores for epoch in results.epochs}
    _draw_scores(of_epochs, epochs, results, "epoch")
    _draw_scores(of_mixtures, results.alphas, results, "alpha: share of the trained weights")
    if results.alphas:
        of_mixtures.axvline(results.alpha, color="#8a8a8a", linestyle=":", label="chosen")
        of_mixtures.legend()
    # Figure.savefig would draw twice, for the same bytes.
    FigureCanvasAgg(figure).print_png(path)  # type: ignore[no-untyped-call]
    return True


def _draw_losses(axes: Any, losses: Sequence[tuple[int, float]]) -> None:
    if losses:
        steps = _averaged([step for step, _ in losses], _POINTS)
        axes.plot(steps, _averaged([loss for _, loss in losses], _POINTS), color=_OWN)
    axes.set(xlabel="step", ylabel="loss less its floor")


def _draw_scores(axes: Any, scores: Mapping[Any, Any], results: Results, xlabel: str) -> None:
    name = results.before.own.headline.name
    places = sorted(scores)
    if places:
        own = [100 * scores[place].own.headline.value for place in places]
        axes.plot(places, own, "o-", color=_OWN, label="validation")
        kept = [scores[place].keep for place in places]
        if all(metrics is not None for metrics in kept):
            keep = [100 * metrics.headline.value for metrics in kept]
            axes.plot(places, keep, "o-", color=_KEEP, label="not to forget")
        axes.legend()
    axes.set(xlabel=xlabel, ylabel=f"{name}, %")
