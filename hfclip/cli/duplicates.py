"""The command `hfclip duplicates`."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hfclip.cli.output import echo

if TYPE_CHECKING:
    from hfclip.embedding.embeddings import Embeddings
    from hfclip.search.duplicates import Duplicates

# Pictures of a group on a sheet.
_SHOWN = 16


class _Member(NamedTuple):
    """A picture of a group: its row, its key, its cosine with the first, and a key or None.

    `identical_to` is the key of an earlier picture of the group with the same bytes.
    """

    row: int
    key: str
    score: float
    identical_to: str | None


@click.command()
@click.argument("out", type=click.Path())
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=0.97,
    show_default=True,
    help="Smallest cosine similarity of near-duplicates.",
)
@click.option("--pairs", "as_pairs", is_flag=True, help="List pairs instead of groups.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="Largest number of pairs that are listed, the most similar ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a picture with the thumbnails of each group: PNG, JPEG or WebP.",
)
def duplicates(
    out: str, threshold: float, as_pairs: bool, limit: int, as_json: bool, sheet: Path | None
) -> None:
    """Find near-duplicates in a collection that `hfclip embed` has written.

    OUT is the folder of the collection. A group is a picture and all later ones whose cosine
    similarity to it reaches the threshold; each has its similarity to the first. Files with the
    same bytes are marked as identical. If all but the first of each group are removed, no two
    pictures that remain are near-duplicates. Nothing is removed here.

    \b
    Examples:
      hfclip duplicates photos-embedded
      hfclip duplicates photos-embedded --threshold 0.99 --sheet duplicates.png
      hfclip duplicates photos-embedded --json
      hfclip duplicates photos-embedded --pairs --limit 50
    """  # noqa: D301  # \b is click's syntax
    from hfclip.embedding.embeddings import Embeddings  # noqa: PLC0415
    from hfclip.search.duplicates import find_duplicates  # noqa: PLC0415

    embeddings = Embeddings(out, progress=True)
    if sheet is not None:
        _check_sheet(embeddings, sheet)
    found = find_duplicates(
        embeddings.vectors, threshold, limit=limit if as_pairs else 0, progress=True
    )
    if as_pairs:
        _print_pairs(embeddings, found, as_json=as_json)
    else:
        _print_groups(_groups(embeddings, found), as_json=as_json)
    if sheet is not None:
        _draw(embeddings, found, sheet)
    groups = sum(1 for _ in found.groups())
    echo(
        f"{groups:,} groups with {found.members:,} near-duplicates of their first, among "
        f"{len(embeddings):,}; {found.count:,} pairs have a cosine of {threshold} or more.",
        err=True,
    )


def _groups(embeddings: "Embeddings", found: "Duplicates") -> Iterator[Iterator[_Member]]:
    """Yields the pictures of each group, one after the other, so that a large one fits."""
    import numpy as np  # noqa: PLC0415

    for rows in found.groups():
        digests = embeddings.digests(rows)
        # The place of the first picture of the group with the same bytes.
        names = digests.view(f"V{digests.shape[1]}").ravel()
        _, places, which = np.unique(names, return_index=True, return_inverse=True)
        same = np.where(digests.any(axis=1), places[which], np.arange(len(rows)))
        yield (
            _Member(
                int(row),
                embeddings.keys[row],
                float(found.scores[row]),
                None if copy == place else embeddings.keys[rows[copy]],
            )
            for place, (row, copy) in enumerate(zip(rows.tolist(), same.tolist(), strict=True))
        )


def _print_groups(groups: Iterable[Iterable[_Member]], *, as_json: bool) -> None:
    """Prints groups while they are read, as text or as an array of arrays."""
    if not as_json:
        for number, group in enumerate(groups):
            for place, member in enumerate(group):
                echo(_line(member) if place else f"{chr(10) if number else ''}{member.key}")
        return
    click.echo("[", nl=False)
    for number, group in enumerate(groups):
        click.echo(",\n  [" if number else "\n  [", nl=False)
        for place, member in enumerate(group):
            click.echo(f"{',' if place else ''}\n    {json.dumps(_row(member))}", nl=False)
        click.echo("\n  ]", nl=False)
    click.echo("\n]")


def _line(member: _Member) -> str:
    identical = f"  identical to {member.identical_to}" if member.identical_to else ""
    return f"  {member.score:.4f}  {member.key}{identical}"


def _row(member: _Member) -> dict[str, Any]:
    identical = {"identical_to": member.identical_to} if member.identical_to else {}
    return {"key": member.key, "score": round(member.score, 6), **identical}


def _print_pairs(embeddings: "Embeddings", found: "Duplicates", *, as_json: bool) -> None:
    keys = embeddings.keys
    pairs = [
        (keys[first], keys[second], float(score))
        for (first, second), score in zip(
            found.pairs.rows.tolist(), found.pairs.scores, strict=True
        )
    ]
    if as_json:
        rows = [{"first": a, "second": b, "score": round(score, 6)} for a, b, score in pairs]
        click.echo(json.dumps(rows, indent=2))
        return
    for first, second, score in pairs:
        echo(f"{score:.4f}  {first}  {second}")
    if len(pairs) < found.count:
        echo(f"The {len(pairs):,} most similar pairs are listed.", err=True)


def _check_sheet(embeddings: "Embeddings", sheet: Path) -> None:
    """Checks --sheet before the comparison."""
    from hfclip.search.sheet import check_sheet  # noqa: PLC0415

    if embeddings.manifest.kind == "texts":
        raise click.UsageError(f"{embeddings.out} is a collection of texts, without pictures.")
    check_sheet(sheet)


def _draw(embeddings: "Embeddings", found: "Duplicates", sheet: Path) -> None:
    from hfclip.search.sheet import MOST, Entry, draw_sheet  # noqa: PLC0415

    members: list[tuple[_Member, str | None]] = []
    for number, (rows, group) in enumerate(
        zip(found.groups(), _groups(embeddings, found), strict=True), 1
    ):
        shown = list(islice(group, _SHOWN))
        if len(members) + len(shown) > MOST:
            echo(f"{sheet} shows the first {number - 1:,} groups.", err=True)
            break
        rest = f", {len(shown)} shown" if len(shown) < len(rows) else ""
        heading = f"Group {number:,}: {len(rows):,} pictures{rest}"
        members += [(one, heading if place == 0 else None) for place, one in enumerate(shown)]
    if not members:
        echo(f"{sheet} is not written, because there are no near-duplicates.", err=True)
        return
    items = embeddings.items([one.row for one, _ in members])
    entries = [
        Entry(item, one.key, _note(one, first=heading is not None), heading)
        for item, (one, heading) in zip(items, members, strict=True)
    ]
    manifest = embeddings.manifest
    failed = draw_sheet(
        entries, sheet, auto_orient=manifest.auto_orient, max_pixels=manifest.max_pixels
    )
    for key, reason in failed:
        echo(f"Error: {key}: {reason}", err=True)


def _note(member: _Member, *, first: bool) -> str:
    if first:
        return "first"
    return f"{member.score:.4f}{', identical' if member.identical_to else ''}"
