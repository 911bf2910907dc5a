"""The option --backend of the commands that NumPy may answer."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])


def backend_option(command: _Function) -> _Function:
    """Adds the option `backend` to a command."""
    option = click.option(
        "--backend",
        type=click.Choice(["auto", "numpy", "torch"]),
        default="auto",
        show_default=True,
        help="numpy starts without torch, torch is faster for many pictures or texts, auto takes "
        "what is probably sooner. The results differ by rounding.",
    )
    return option(command)
