"""Medians, spreads, ratios, and whether a claim stands against the noise."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

# Fewer rounds cannot tell a difference from chance.
FEWEST_ROUNDS = 3


class Summary(NamedTuple):
    """The median of some rounds and the lowest and highest of them."""

    median: float
    low: float
    high: float


def summarize(values: Sequence[float]) -> Summary:
    """The median and the whole spread; a few rounds are too few to leave any out."""
    return Summary(statistics.median(values), min(values), max(values))


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """How many times the base each value is, round by round: what slows a round slows both."""
    return [value / own for value, own in zip(values, base, strict=True)]


def judge(times: Sequence[float], goal: float | None) -> str:
    """Says whether the rounds bear out a ratio.

    Args:
        times: A peer's seconds or bytes as multiples of hfclip's, one a round.
        goal: The least that is aimed for; without one, the question is which is the lower.

    Returns:
        The verdict in words; empty where there is no goal and no doubt.
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
    """Says whether a number itself, such as a difference, keeps its bounds in every round."""
    verdicts = []
    if least is not None:
        verdicts.append(f"at least {least:g}: " + _kept(values, min(values) >= least))
    if most is not None:
        verdicts.append(f"at most {most:g}: " + _kept(values, max(values) <= most))
    return "; ".join(verdicts)


def _kept(values: Sequence[float], kept: bool) -> str:
    return "met" if kept else f"falls short with {statistics.median(values):g}"
