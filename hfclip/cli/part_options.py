"""The options that say where a model and its files are, for the commands that read one."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from hfclip.cli.completion import complete_models

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


def source_options(command: _Function) -> _Function:
    """Adds the options `namespace`, `base`, `subfolder` and `variant` to a command."""
    namespace = click.option(
        "--namespace", help="The account whose copies of the nine releases are used."
    )
    base = click.option(
        "--base",
        shell_complete=complete_models,
        help="The model that a weight file was fine-tuned from.",
    )
    return namespace(base(part_options(command)))
