"""The options of the commands that publish a Space, and what they print."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from hfclip.cli.output import print_facts

_Function = TypeVar("_Function", bound=Callable[..., Any])

SUMMARIES = {
    "dry run": "nothing was sent",
    "published": "published      {}",
    "nothing changed": "nothing changed: {} already has these files",
}
"""The last line of a publication, by status."""


def space_options(command: _Function) -> _Function:
    """Adds the options `replace_space` and `hfclip_from` to a command."""
    replace = click.option(
        "--replace-space",
        is_flag=True,
        help="Replace files of the Space that hfclip did not write, or that were edited.",
    )
    install = click.option(
        "--hfclip-from",
        metavar="PLACE",
        help="Where the Space installs hfclip from: an address (https://..., git+https://...), or "
        "a wheel on this machine, which is sent with the Space. Default: the package index or the "
        "address that this hfclip was installed from.",
    )
    return replace(install(command))


def print_space(plan: dict[str, Any]) -> None:
    """Prints the plan of a Space, with one line for each requirement."""
    first, *others = plan["requirements"]
    rest = {name: value for name, value in plan.items() if name != "requirements"}
    print_facts({**rest, "requirements": first})
    for line in others:
        click.echo(f"{'':<14} {line}")
