"""Computes medians, spreads and ratios, and judges whether the rounds meet a target."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

# With fewer rounds, a difference may be chance.
FEWEST_ROUNDS = 3


class Summary(NamedTuple):
    """Median, lowest and highest value of the rounds."""

    median: float
    low: float
    high: float


def summarize(values: Sequence[float]) -> Summary:
    """Returns the median and the whole spread; with so few rounds, no outlier is left out."""
    return Summary(statistics.median(values), min(values), max(values))


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Divides values by base round by round, since a slow round slows both engines."""
    return [value / own for value, own in zip(values, base, strict=True)]


def judge(times: Sequence[float], goal: float | None) -> str:
    """Judges the ratios of all rounds against a target.

    Args:
        times: How many times better hfclip is than a peer, one number for each round.
        goal: Smallest ratio to reach. Without it, the question is which of the two is better.

    Returns:
        The verdict in words; empty without a target if the rounds agree.
    """
    claim = f"at least {goal:g} x: " if goal else ""
    if len(times) < FEWEST_ROUNDS:
        return f"{claim}too few rounds to tell"
    aim = goal or 1.0
    if min(times) < aim <= max(times):
        return f"{claim}the spread is too wide to tell"
    if goal:
        short = 1 - statistics.median(times) / goal
        return claim + ("met" if min(times) >= goal else f"falls short by {short:.0%}")
    wide = max(times) - min(times) > statistics.median(times)
    return "the spread is too wide to tell how much" if wide else ""


def judge_bounds(values: Sequence[float], least: float | None, most: float | None) -> str:
    """Judges whether a number, such as a difference, is within its bounds in every round."""
    verdicts = []
    if least is not None:
        verdicts.append(f"at least {least:g}: " + _kept(values, min(values) >= least))
    if most is not None:
        verdicts.append(f"at most {most:g}: " + _kept(values, max(values) <= most))
    return "; ".join(verdicts)


def _kept(values: Sequence[float], kept: bool) -> str:
    return "met" if kept else f"falls short with {statistics.median(values):g}"
