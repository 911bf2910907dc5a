"""Checks single values of a configuration."""

import operator

from hfclip.errors import ConfigError


def shown(value: object) -> str:
    """Returns the repr, at most 80 characters. Very long integers and deep lists have none."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = "too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


def integer(name: str, value: object, bounds: tuple[int, int]) -> int:
    """Returns an integer within these bounds, both included.

    Raises:
        ConfigError: The value is not an integer, or is out of bounds.
    """
    low, high = bounds
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # TypeError if not an integer
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}; it must be an integer.")
    if not low <= number <= high:
        raise ConfigError(f"{name} is {shown(number)}; it must be between {low} and {high}.")
    return number


def triple(name: str, value: object, bounds: tuple[float, float]) -> tuple[float, ...]:
    """Returns three floats, for R, G and B, within these bounds, both included.

    Raises:
        ConfigError: The value is not a list of three numbers, or one is out of bounds.
    """
    numbers = value if isinstance(value, list | tuple) else ()
    low, high = bounds
    sound = all(
        isinstance(x, int | float) and not isinstance(x, bool) and low <= x <= high for x in numbers
    )
    if len(numbers) != 3 or not sound:
        raise ConfigError(
            f"{name} is {shown(value)}; it must be three numbers between {low:g} and {high:g}, "
            "one each for R, G and B."
        )
    return tuple(float(x) for x in numbers)


def choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    """Checks that a value is one of the accepted ones.

    Raises:
        ConfigError: It is not.
    """
    if value not in accepted:
        raise ConfigError(f"{name} is {shown(value)}; expected one of {', '.join(accepted)}.")
