"""The command `hfclip search`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hfclip.cli.output import echo
from hfclip.errors import DataError

if TYPE_CHECKING:
    from hfclip.embedding.embeddings import Embeddings
    from hfclip.embedding.options import Loaded
    from hfclip.search.searcher import Hit


def _weights(
    ctx: click.Context,  # noqa: ARG001  # click's signature
    param: click.Parameter,  # noqa: ARG001
    value: str | None,
) -> tuple[float, ...] | None:
    """Returns "1,0.5" as (1.0, 0.5)."""
    if value is None:
        return None
    try:
        return tuple(float(one) for one in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}; expected numbers such as 1,0.5.") from error


@click.command()
@click.argument("out", type=click.Path())
@click.argument("texts", nargs=-1, metavar="[QUERY]...")
@click.option("--image", "images", multiple=True, metavar="FILE", help="A picture. Repeatable.")
@click.option("--like", multiple=True, metavar="KEY", help="A key of the collection. Repeatable.")
@click.option(
    "--without",
    multiple=True,
    metavar="TEXT",
    help="Remove the direction of a text from the query. Repeatable.",
)
@click.option(
    "--weights",
    callback=_weights,
    metavar="W,W,...",
    help="A weight for each QUERY, then each --image, then each --like. Default: 1 each.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    help='A caption with {} for each text, such as "a photo of a {}". Repeat to average several. '
    "Default: the text as it is.",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="Number of results."
)
@click.option("--min-score", type=float, help="Lowest cosine similarity of a result.")
@click.option("--device", help="cpu, cuda, cuda:1, ... Default: the GPU if there is one.")
@click.option(
    "--index",
    is_flag=True,
    help="Without a query, build an index of the collection. With a query, search with it.",
)
@click.option(
    "--recall",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Share of the 10 best results that the index has to find.  [default: 0.95]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON array.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a picture with a thumbnail, name and score of each result: PNG, JPEG or WebP.",
)
@click.option(
    "--copy-to",
    type=click.Path(path_type=Path, file_okay=False),
    help="Copy the pictures to a folder, with their rank in the name. Nothing is replaced.",
)
def search(
    out: str,
    texts: tuple[str, ...],
    as_json: bool,
    sheet: Path | None,
    copy_to: Path | None,
    device: str | None,
    index: bool,
    recall: float | None,
    **query: Any,
) -> None:
    """Search a collection that `hfclip embed` has written.

    OUT is the folder of the collection. The query is any number of texts, pictures and keys; their
    weighted average is searched. Each result has its cosine similarity to the query. All embeddings
    are compared, so the first 5 of 15 results are the 5 best.

    A text query is used as it is, and needs the model that made the embeddings. A search with only
    --like needs no model.

    For millions of pictures, --index builds an index, which a search with --index reads. It is
    approximate: its recall is measured when it is built and printed with each search.

    The exit status is 1 if a picture could not be copied, otherwise 0.

    \b
    Examples:
      hfclip search photos-embedded "a red bicycle"
      hfclip search photos-embedded "a beach" --without "people" --sheet beach.png
      hfclip search photos-embedded "a beach" "sunset" --weights 1,0.5 --json
      hfclip search photos-embedded --image holiday.jpg --top 20 --copy-to found/
      hfclip search photos-embedded --like photos/7.jpg --min-score 0.9
      hfclip search photos-embedded --index
      hfclip search photos-embedded --index "a red bicycle"
    """  # noqa: D301  # \b is click's syntax
    if recall is not None and not index:
        raise click.UsageError("--recall is that of an index: give --index too.")
    asked = bool(texts or query["images"] or query["like"])
    if not (asked or index):
        raise click.UsageError('Give a QUERY such as "a red bicycle", --image or --like.')
    from hfclip.embedding.embeddings import Embeddings  # noqa: PLC0415
    from hfclip.search.collection_index import RECALL  # noqa: PLC0415
    from hfclip.search.searcher import Searcher  # noqa: PLC0415

    embeddings = Embeddings(out, progress=True)
    recall = RECALL if recall is None else recall
    if not asked:
        _build(embeddings, device, recall)
        return
    _check_pictures(embeddings, sheet, copy_to)
    searcher = Searcher(embeddings, device=device, index=index, recall=recall)
    hits = searcher.search(texts, **query)
    if searcher.index is not None:
        echo(searcher.index.facts.sentence, err=True)
    _print(hits, as_json=as_json)
    if sheet is not None:
        _draw(embeddings, hits, sheet)
    if copy_to is not None and not _copy(embeddings, hits, copy_to):
        sys.exit(1)


def _build(embeddings: "Embeddings", device: str | None, recall: float) -> None:
    """Builds an index, unless there is one with this recall."""
    from hfclip.search.collection_index import (  # noqa: PLC0415
        build_collection_index,
        open_collection_index,
    )
    from hfclip.search.index import WORTHWHILE  # noqa: PLC0415

    if len(embeddings) < WORTHWHILE:
        echo(
            f"Exact search of {len(embeddings):,} rows takes a fraction of a second; an index is "
            f"worth building from {WORTHWHILE:,} rows.",
            err=True,
        )

    def load() -> "Loaded":
        from hfclip.embedding.options import load_model_of  # noqa: PLC0415  # imports torch

        return load_model_of(embeddings.manifest, device=device)

    try:
        found = open_collection_index(embeddings, recall)
    except DataError:
        found = build_collection_index(
            embeddings,
            load,
            recall=recall,
            warn=lambda sentence: echo(f"Warning: {sentence}", err=True),
            progress=True,
        )
    echo(found.facts.sentence)


def _check_pictures(embeddings: "Embeddings", sheet: Path | None, copy_to: Path | None) -> None:
    """Checks --sheet and --copy-to before the search."""
    if embeddings.manifest.kind == "texts" and (sheet or copy_to):
        raise click.UsageError(f"{embeddings.out} is a collection of texts, without pictures.")
    if sheet is not None:
        from hfclip.search.sheet import check_sheet  # noqa: PLC0415  # imports torch

        check_sheet(sheet)


def _print(hits: "Sequence[Hit]", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_row(hit) for hit in hits], indent=2))
        return
    if not hits:
        echo("No result reaches the lowest score.", err=True)
    for hit in hits:
        caption = "" if hit.caption is None else f"  {' '.join(hit.caption.split())}"
        echo(f"{hit.score:7.4f}  {hit.key}{caption}")


def _row(hit: "Hit") -> dict[str, Any]:
    caption = {} if hit.caption is None else {"caption": hit.caption}
    return {"key": hit.key, "score": round(hit.score, 6), **caption}


def _draw(embeddings: "Embeddings", hits: "Sequence[Hit]", sheet: Path) -> None:
    from hfclip.search.sheet import Entry, draw_sheet  # noqa: PLC0415

    if not hits:
        echo(f"{sheet} is not written, because there are no results.", err=True)
        return
    items = embeddings.items([hit.row for hit in hits])
    entries = [
        Entry(item, hit.key, f"{rank}.  {hit.score:.4f}")
        for rank, (item, hit) in enumerate(zip(items, hits, strict=True), 1)
    ]
    manifest = embeddings.manifest
    failed = draw_sheet(
        entries, sheet, auto_orient=manifest.auto_orient, max_pixels=manifest.max_pixels
    )
    _report(failed)


def _copy(embeddings: "Embeddings", hits: "Sequence[Hit]", folder: Path) -> bool:
    """Copies the pictures and returns whether all could be copied."""
    from hfclip.search.copies import copy_originals  # noqa: PLC0415

    failed = copy_originals(embeddings.items([hit.row for hit in hits]), folder)
    _report(failed)
    return not failed


def _report(failed: Sequence[tuple[str, str]]) -> None:
    for key, reason in failed:
        echo(f"Error: {key}: {reason}", err=True)
