"""Completes model names in the shell. `hfclip completion bash` prints the script for it."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

_CACHED_FOLDER = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
# Weight files that hfclip reads. Models other than CLIP have them too.
_WEIGHT_FILES = (
    *("model.safetensors", "open_clip_model.safetensors"),
    *("pytorch_model.bin", "open_clip_pytorch_model.bin"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
)


def complete_models(
    ctx: click.Context,  # noqa: ARG001  # click's signature
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    """Returns the model names that start with the typed text, and files and folders."""
    from hfclip.releases import BUNDLED, RELEASES  # noqa: PLC0415  # --help needs no table

    names = [*RELEASES, *BUNDLED, *sorted(_cached_repositories())]
    matching = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    # The file item is first: in bash it clears the list, and applies if no name matches.
    return [CompletionItem(incomplete, type="file"), *matching]


def _cached_repositories() -> Iterator[str]:
    """Yields the repositories in the Hub's cache with weight files that hfclip may read.

    `hfclip.sources.cached.scan` finds more, but its import takes 0.4 s, too long for a key press.
    """
    from huggingface_hub import constants  # noqa: PLC0415

    for folder in Path(constants.HF_HUB_CACHE).glob("models--*--*"):
        match = _CACHED_FOLDER.fullmatch(folder.name)
        if match and any(next(folder.glob(f"snapshots/*/{name}"), None) for name in _WEIGHT_FILES):
            yield f"{match[1]}/{match[2]}"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and models in SHELL.

    \b
    Examples:
      hfclip completion bash >> ~/.bashrc
      hfclip completion zsh >> ~/.zshrc
      hfclip completion fish > ~/.config/fish/completions/hfclip.fish
    """  # noqa: D301  # \b is click's syntax
    script = get_completion_class(shell)
    assert script is not None  # noqa: S101  # click has all three
    click.echo(script(ctx.find_root().command, {}, "hfclip", "_HFCLIP_COMPLETE").source())
