"""Defines the command `hfclip`. The module of a subcommand is imported when it is asked for."""

import warnings
from importlib import import_module
from typing import Any

import click

from hfclip.cli import interrupts
from hfclip.cli.output import show_warning
from hfclip.errors import HfclipError, without_torch
from hfclip.version import __version__

# The module in this package that defines a command, in the order of the help.
_MODULES = {
    "classify": "classify",
    "embed": "embed",
    "search": "search",
    "probe": "probe",
    "duplicates": "duplicates",
    "app": "app",
    "models": "models",
    "download": "models",
    "verify": "models",
    "inspect": "models",
    "finetune": "finetune",
    "export": "publish",
    "publish": "publish",
    "completion": "completion",
    "env": "env",
}


class _Commands(click.Group):
    """Ends with a message and exit status 1 after an error of hfclip, and 130 after Ctrl-C."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Returns the names in the order of the help."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns a command, or returns None for an unknown name."""
        if cmd_name in self.commands or cmd_name not in _MODULES:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"hfclip.cli.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

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
            explained = without_torch(error, f"hfclip {ctx.invoked_subcommand}") or error
            if isinstance(explained, HfclipError):
                raise click.ClickException(str(explained)) from error
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
