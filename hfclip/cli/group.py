"""The group of commands. Commands that need torch import it when they run."""

import warnings
from typing import Any

import click

from hfclip import __version__
from hfclip.cli.classify import classify
from hfclip.cli.models import download, inspect, models, verify
from hfclip.cli.output import show_warning
from hfclip.cli.publish import export, publish
from hfclip.errors import HfclipError


class _Commands(click.Group):
    """Turns the errors that hfclip raises on purpose into a message and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = show_warning
                return super().invoke(ctx)
        except HfclipError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hfclip")
def main() -> None:
    """CLIP from the Hugging Face Hub: classify pictures; fetch, export and publish models.

    \b
    Examples:
      hfclip classify cat.jpg --labels "a cat,a dog,a car"
      hfclip classify photos/ --labels "indoors,outdoors" --top 1 --json
      hfclip download ViT-B/32
      hfclip models
      hfclip inspect model.safetensors
      hfclip export ViT-B/32 clip-b32 --layout transformers
      hfclip publish last.pt me/my-clip --base ViT-B/16
    """  # noqa: D301  # \b is click's own mark


for command in (classify, models, download, verify, inspect, export, publish):
    main.add_command(command)
