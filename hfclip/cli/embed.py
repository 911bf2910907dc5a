"""The command `hfclip embed`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hfclip.cli import interrupts
from hfclip.cli.completion import complete_models
from hfclip.cli.output import echo
from hfclip.cli.part_options import part_options

if TYPE_CHECKING:
    from hfclip.embedding.run import Outcome


def _part_of(
    ctx: click.Context,  # noqa: ARG001  # click's signature
    param: click.Parameter,  # noqa: ARG001
    value: str | None,
) -> tuple[int, int] | None:
    """Returns 3/16 as (3, 16): the third of 16 shares."""
    if value is None:
        return None
    first, _, second = value.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise click.BadParameter(f"{value!r}; expected a share such as 3/16, the third of 16.")
    return int(first), int(second)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write. The same command again continues there.",
)
@click.option("--text", "as_text", is_flag=True, help="Embed texts instead of pictures.")
@click.option(
    "--model",
    default="ViT-B/32",
    show_default=True,
    shell_complete=complete_models,
    help="A name, folder, file or repository.",
)
@click.option("--namespace", help="The account whose copies of the nine releases are used.")
@click.option(
    "--base",
    shell_complete=complete_models,
    help="The model that a weight file was fine-tuned from.",
)
@part_options
@click.option("--device", help="cpu, cuda, cuda:1, ... Default: the GPU if there is one.")
@click.option(
    "--preprocess",
    type=click.Choice(["fast", "exact"]),
    default="fast",
    show_default=True,
    help="exact gives the pixels of OpenAI's release bit for bit.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="With fp32 a CPU computes in float32 and a GPU in float16; with bf16 both in bfloat16.",
)
@click.option("--raw", is_flag=True, help="Do not normalise the embeddings.")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Type of the embeddings in the files.",
)
@click.option(
    "--auto-orient/--no-auto-orient",
    default=True,
    show_default=True,
    help="Apply the EXIF orientation of photographs.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=178_956_970,
    show_default=True,
    help="Largest number of pixels of a picture that is decoded.",
)
@click.option(
    "--background",
    help='Colour below transparent pixels, such as "white". Default: alpha is dropped.',
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Default: 64; 256 on a GPU.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Threads that read pictures. Default: all cores."
)
@click.option(
    "--part-size",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Inputs in a part, which is kept once it is complete.",
)
@click.option(
    "--part-of", callback=_part_of, metavar="K/N", help="Encode only the K-th of N shares."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def embed(
    sources: tuple[str, ...], out: Path, as_text: bool, as_json: bool, **options: Any
) -> None:
    """Embed a collection of pictures or texts.

    SOURCE is a folder, a pattern, a text file of paths, a tar, a Parquet or a CSV file. The
    embeddings are written to Parquet files in the output folder, with a row for each input. An
    input that cannot be read does not stop the others: its row has the reason, and errors.csv lists
    it. The exit status is 1 only if nothing was embedded.

    The same command again continues an interrupted run, and does nothing if all is done. Ctrl-C
    ends after the batch, with exit status 130.

    \b
    Examples:
      hfclip embed photos/ -o photos-embedded
      hfclip embed photos/ -o photos-embedded --model ViT-L/14 --preprocess exact
      hfclip embed captions.txt --text -o captions-embedded
    """  # noqa: D301  # \b is click's syntax
    from hfclip.embedding.decoding import parse_colour  # noqa: PLC0415
    from hfclip.embedding.options import Options  # noqa: PLC0415
    from hfclip.embedding.run import embed_collection  # noqa: PLC0415

    part_size, share = options.pop("part_size"), options.pop("part_of")
    background = options.pop("background")
    chosen = Options(
        kind="texts" if as_text else "images",
        background=None if background is None else parse_colour(background),
        **options,
    )
    if not as_text:
        echo(f"{chosen.preprocess} preprocess", err=True)
    with interrupts.left_to_program():
        outcome = embed_collection(
            sources, out, chosen, part_size=part_size, share=share, progress=True
        )
    _print(outcome, as_json=as_json)
    sys.exit(0 if outcome.embedded else 1)


def _print(outcome: "Outcome", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(outcome.to_dict()))
        return
    errors = f", {outcome.errors:,} errors in {outcome.errors_file}" if outcome.errors else ""
    click.echo(
        f"{outcome.embedded:,} of {outcome.inputs:,} embedded{errors}; {outcome.encoded:,} in this "
        f"run, {outcome.rate:,.1f} a second."
    )
