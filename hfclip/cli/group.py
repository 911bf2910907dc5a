"""Defines the command `hfclip`. Its subcommands import torch only when they run."""

import warnings
from typing import Any

import click

from hfclip.cli import interrupts
from hfclip.cli.app import app
from hfclip.cli.classify import classify
from hfclip.cli.completion import completion
from hfclip.cli.duplicates import duplicates
from hfclip.cli.embed import embed
from hfclip.cli.env import env
from hfclip.cli.finetune import finetune
from hfclip.cli.models import download, inspect, models, verify
from hfclip.cli.output import show_warning
from hfclip.cli.probe import probe
from hfclip.cli.publish import export, publish
from hfclip.cli.search import search
from hfclip.errors import HfclipError
from hfclip.version import __version__


class _Commands(click.Group):
    """Ends with a message and exit status 1 after an error of hfclip, and 130 after Ctrl-C."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs as a program. After Ctrl-C the process ends within five seconds with status 130."""
        interrupts.watch()
        try:
            return super().__call__(*args, **kwargs)
        except SystemExit as end:
            if end.code == interrupts.STATUS:
                interrupts.leave()
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = show_warning
                return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            if interrupts.is_behind(error):
                click.echo(interrupts.MESSAGE, err=True)
                ctx.exit(interrupts.STATUS)
            if isinstance(error, HfclipError):
                raise click.ClickException(str(error)) from error
            raise


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hfclip")
def main() -> None:
    """CLIP from the Hugging Face Hub: classify pictures; fetch, fine-tune and publish models.

    \b
    Examples:
      hfclip classify cat.jpg --labels "a cat,a dog,a car"
      hfclip classify photos/ --labels "indoors,outdoors" --top 1 --json
      hfclip download ViT-B/32
      hfclip embed photos/ -o photos-embedded
      hfclip search photos-embedded "a red bicycle"
      hfclip app --embeddings photos-embedded
      hfclip probe photos-embedded --labels-from folder -o my-probe
      hfclip models
      hfclip inspect model.safetensors
      hfclip export ViT-B/32 clip-b32 --layout transformers
      hfclip finetune photos/ --base ViT-B/32 -o my-clip
      hfclip publish last.pt me/my-clip --base ViT-B/16
      hfclip completion bash >> ~/.bashrc
    """  # noqa: D301  # \b is click's mark for text that it does not wrap


for command in (
    classify,
    embed,
    search,
    probe,
    duplicates,
    app,
    models,
    download,
    verify,
    inspect,
    finetune,
    export,
    publish,
    completion,
    env,
):
    main.add_command(command)
