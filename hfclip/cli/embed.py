"""The command `hfclip embed`."""

import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hfclip.cli import interrupts
from hfclip.cli.completion import complete_models
from hfclip.cli.engine_options import cluster_of, engine_options
from hfclip.cli.output import echo, sentence
from hfclip.cli.part_options import source_options

if TYPE_CHECKING:
    from hfclip.embedding.run import Outcome

_T = TypeVar("_T")


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
    type=click.Path(),
    help="Folder to write, or its URL: s3://bucket/name. The same command again continues there.",
)
@click.option("--text", "as_text", is_flag=True, help="Embed texts instead of pictures.")
@click.option(
    "--model",
    default="ViT-B/32",
    show_default=True,
    shell_complete=complete_models,
    help="A name, folder, file or repository.",
)
@source_options
@click.option("--image-column", help="Column of the pictures in a table; their ending in a tar.")
@click.option("--caption-column", help="Column of the captions, or of the texts with --text.")
@click.option("--key-column", help="Column with a unique name for each row.  [default: row number]")
@click.option("--no-captions", is_flag=True, help="Do not embed the captions beside pictures.")
@click.option(
    "--preprocess",
    type=click.Choice(["fast", "exact"]),
    default="fast",
    show_default=True,
    help="exact gives the pixels of OpenAI's release bit for bit.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="auto computes in float32 on a CPU and in float16 on a GPU.",
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
    help='Colour below transparent pixels, such as "white".  [default: alpha is dropped]',
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Inputs that the model encodes at once.  [default: 64; 256 on a GPU]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Threads that decode pictures; with --engine ray, the processes that encode.  [default: "
    "all cores]",
)
@click.option(
    "--part-size",
    type=click.IntRange(min=1),
    default=5_000,
    show_default=True,
    help="Inputs in a part. A part is kept once it is complete.",
)
@click.option(
    "--part-of",
    callback=_part_of,
    metavar="K/N",
    help="Encode only the K-th of N shares, on several machines or GPUs at once.",
)
@click.option("--rehash", is_flag=True, help="Compare all files by content, not by size and time.")
@click.option("--retry-errors", is_flag=True, help="Try inputs again that could not be read.")
@click.option("--drop", is_flag=True, help="Remove the inputs of sources that are no longer named.")
@click.option("--compact", is_flag=True, help="Rewrite the parts without the rows that are gone.")
@click.option("--device", help="cpu, cuda, cuda:1, ...  [default: the GPU if there is one]")
@engine_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def embed(sources: tuple[str, ...], out: str, as_json: bool, **options: Any) -> None:
    """Embed a collection of pictures or texts.

    SOURCE is a folder, a pattern, a text file of paths, a WebDataset tar, or a Parquet, CSV, TSV or
    JSONL file; on this machine or at a URL (hf://datasets/org/name/..., s3://...). With --text it
    is a text file with one text a line, or a table with a column of texts.

    The output folder gets Parquet files with a row for each input, and a manifest. An input that
    cannot be read does not stop the others: its row has the reason, and errors.csv lists it. The
    exit status is 1 only if nothing was embedded.

    The same command again continues an interrupted run. Later it encodes only what is new or has
    changed, and removes what is gone. Ctrl-C ends after the batch with exit status 130; complete
    parts stay.

    \b
    Examples:
      hfclip embed photos/ -o photos-embedded
      hfclip embed photos/ -o photos-embedded --model ViT-L/14 --preprocess exact
      hfclip embed "shards/*.tar" -o shards-embedded --part-of 1/4 --device cuda:0
      hfclip embed products.csv -o products-embedded --key-column sku
      hfclip embed hf://datasets/org/name/data/*.parquet -o name-embedded --no-captions
      hfclip embed captions.txt --text -o captions-embedded
      hfclip embed photos/ -o photos-embedded --engine ray --workers 16 --gpus-per-worker 1
    """  # noqa: D301  # \b is click's syntax
    from hfclip.embedding.decoding import parse_colour  # noqa: PLC0415
    from hfclip.embedding.options import Options  # noqa: PLC0415
    from hfclip.embedding.run import Planning, embed_collection  # noqa: PLC0415
    from hfclip.embedding.settings import Listing  # noqa: PLC0415

    if options["part_of"] and options["compact"]:
        raise click.UsageError("--compact needs a run without --part-of: others may write.")
    options["share"] = options.pop("part_of")
    options["kind"] = "texts" if options.pop("as_text") else "images"
    options["captions"] = not options.pop("no_captions")
    cluster = cluster_of(options)
    if options["background"] is not None:
        options["background"] = parse_colour(options["background"])

    if options["kind"] == "images" and options["preprocess"] == "fast":
        echo("Uses the fast preprocess. --preprocess exact gives OpenAI's pixels.", err=True)

    def chosen(kind: type[_T]) -> _T:
        names = {field.name for field in fields(kind)} & options.keys()  # type: ignore[arg-type]
        return kind(**{name: options[name] for name in names})

    try:
        with interrupts.left_to_program():
            outcome = embed_collection(
                sources,
                out,
                chosen(Options),
                chosen(Listing),
                chosen(Planning),
                cluster=cluster,
                progress=True,
            )
    except KeyboardInterrupt:
        echo("Complete parts are kept. The same command continues.", err=True)
        raise
    _print(outcome, as_json=as_json)
    is_share_without_work = outcome.pending and not outcome.encoded
    sys.exit(0 if outcome.embedded or is_share_without_work else 1)


def _print(outcome: "Outcome", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(outcome.to_dict()))
        return
    names = ("new", "changed", "deleted", "moved", "unchanged", "retried", "pending")
    counts = {name: count for name in names if (count := getattr(outcome, name))}
    click.echo(
        f"{outcome.embedded:,} of {outcome.inputs:,} inputs are embedded ({sentence(counts)})."
    )
    if outcome.encoded:
        click.echo(
            f"Encoded {outcome.encoded:,} in {outcome.seconds:,.1f} s ({outcome.rate:,.1f} a "
            f"second) in {outcome.precision}, with the {outcome.preprocess} preprocess."
        )
    if outcome.errors:
        click.echo(f"{outcome.errors:,} could not be read: see {outcome.errors_file}")
