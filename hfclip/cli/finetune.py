"""The command `hfclip finetune`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hfclip.cli import interrupts
from hfclip.cli.completion import complete_models
from hfclip.training.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from hfclip.training.run import Finetuned

_F = TypeVar("_F", bound="Callable[..., Any]")

_DEFAULTS = Settings()


def _setting(name: str, text: str, **options: Any) -> "Callable[[_F], _F]":
    """Returns the option of a setting. Its default stands in `Settings` alone."""
    default = getattr(_DEFAULTS, name.strip("-").replace("-", "_"))
    shown = "" if default is None else f"  [default: {default}]"
    return click.option(name, help=text + shown, **options)


@click.command()
@click.argument("data")
@click.option(
    "--base",
    required=True,
    shell_complete=complete_models,
    help="Model to start from: a name, folder, file or repository.",
)
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write. The same command again goes on with the training in it.",
)
@click.option("--keep", help="Data that measures what is forgotten.")
@_setting("--train", "Towers to train.", type=click.Choice(["both", "image", "text"]))
@_setting("--lr", "Highest learning rate.", type=float)
@_setting("--epochs", "Passes through the data.  [default: 10, >= 500 steps]", type=int)
@_setting("--steps", "Optimizer steps, instead of --epochs.", type=int)
@_setting("--batch-size", "Pictures in a step, over all processes.", type=int)
@_setting("--template", "Caption with {} for the label, for pictures with labels.")
@click.option(
    "--mix/--no-mix",
    default=None,
    help="Mix the trained weights with the base's, so that less is forgotten.  [default: mix]",
)
@_setting("--validation", "Share to hold out if the data has no split.", type=float)
@_setting("--max-skipped", "Largest share of pictures or rows to skip.", type=float)
@_setting("--limit", "Largest number of training pictures, for a trial.", type=int)
@_setting("--seed", "Seed of split, order and crops.", type=int)
@_setting("--weight-decay", "Weight decay of matrices.", type=float)
@_setting("--warmup", "Warm-up steps.  [default: 10 % of the steps, <= 500]", type=int)
@_setting("--clip", "Largest norm of the gradient.", type=float)
@_setting("--crop", "Smallest share of the area that a random crop keeps.", type=float)
@_setting(
    "--precision",
    "Computation: bf16 where the hardware is faster with it. Weights are always float32.",
    type=click.Choice(["auto", "fp32", "bf16"]),
)
@_setting("--chunk", "Pictures that a process encodes at once.", type=int)
@_setting("--workers", "Threads that read pictures.  [default: all cores]", type=int)
@_setting("--checkpoint-minutes", "Minutes between two checkpoints.", type=float)
@click.option("--image-column", help="Column of the pictures in a table.")
@click.option("--caption-column", help="Column of the captions.")
@click.option("--label-column", help="Column of the labels.")
@click.option("--revision", help="Branch, tag or commit of the base.")
@click.option("--namespace", help="The account whose copies of the nine releases are used.")
@click.option("--device", help="cpu, cuda, cuda:1, ... Default: the GPU if there is one.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
def finetune(data: str, base: str, out: Path, as_json: bool, **options: Any) -> None:
    """Fine-tune a CLIP on your pictures, and write a folder to publish.

    DATA is a folder with a folder for each class, a folder with metadata.csv or metadata.jsonl, a
    CSV, TSV, JSONL or Parquet file, captions in COCO's format, WebDataset tars, or hf:org/name.

    The model is measured before, after each epoch and at the end. The same command again goes on
    where the last one ended. Ctrl-C ends after the step with a checkpoint; the exit status is then
    130.

    \b
    Examples:
      hfclip finetune photos/ --base ViT-B/32 -o my-clip --template "a photo of a {}, a bird"
      hfclip finetune captions.csv --base ViT-B/16 -o my-clip --keep everyday-photos/
      torchrun --nproc-per-node 2 -m hfclip finetune photos/ --base ViT-B/32 -o my-clip
      hfclip publish my-clip me/my-clip
    """  # noqa: D301  # \b is click's mark for text that it does not wrap
    from hfclip.training.run import finetune as finetune_model  # noqa: PLC0415

    given = {name: value for name, value in options.items() if value is not None}
    with interrupts.left_to_program():
        outcome = finetune_model(data, base, out, progress=True, **given)
    if outcome.is_first:
        _print(outcome, as_json)


def _print(outcome: "Finetuned", as_json: bool) -> None:
    from hfclip.training.curves import read_losses, summary  # noqa: PLC0415

    if as_json:
        facts = {"status": outcome.status, "folder": str(outcome.folder)}
        click.echo(json.dumps(facts | outcome.results.to_dict(), indent=2))
        return
    click.echo(summary(outcome.results, read_losses(outcome.folder / "log.jsonl")))
    click.echo(f"\n{outcome.folder} is ready: hfclip publish {outcome.folder} me/my-clip")
