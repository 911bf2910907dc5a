"""The options --subfolder and --variant of the commands that read a model."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])


def part_options(command: _Function) -> _Function:
    """Adds the options `subfolder` and `variant` to a command."""
    subfolder = click.option(
        "--subfolder", help="Folder inside a folder or repository that holds the model."
    )
    variant = click.option(
        "--variant", help="Variant of the weights: fp16 for model.fp16.safetensors."
    )
    return subfolder(variant(command))
