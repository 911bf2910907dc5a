"""Turns OpenAI's original .pt files into folders that can be published."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from tqdm import tqdm

from conversion.cards import release_card
from hfclip import __version__
from hfclip.cards.card import About, model_card
from hfclip.cards.renewal import is_generated, read_card, renewed, write_card
from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.compat.fetching import default_root, fetch
from hfclip.errors import ConfigError, HfclipError, IntegrityError
from hfclip.hub import integrity
from hfclip.layouts.files import CARD_FILE, Source
from hfclip.layouts.write import check_free, write_layout, written_whole
from hfclip.model import check_fit
from hfclip.releases import BUNDLED, RELEASES, Release, repository_name


@dataclass(frozen=True)
class Converted:
    """One file that was turned into a folder."""

    folder: Path
    name: str
    sha256: str
    tensors: int
    bytes: int


def convert(file: Path, folder: Path, *, force: bool = False) -> Converted:
    """Writes a folder in hfclip's layout, its weights those of the file, bit for bit.

    The same file always gives the same bytes. With `force`, a README.md in the folder that a person
    wrote stays, as `hfclip.cards.renewal` says.

    Args:
        file: OpenAI's archive or a state dict in its layout.
        folder: Where to; new or empty, unless `force`.
        force: Whether to replace files that are there.

    Raises:
        IntegrityError: The file bears the name of an original and is not it.
        HfclipError: It cannot be read, does not fit, or the folder is taken.
    """
    check_free(folder, force=force)
    sha256 = integrity.compute(file, "sha256")
    name = _release_of(file, sha256)
    config = RELEASES[name].config if name else None
    checkpoint = read_checkpoint(Source(file, config, f"the file {file}"))
    check_fit(checkpoint)
    with written_whole(folder) as part:
        weights = write_layout(part, checkpoint.config, checkpoint.tensors)
        there = read_card(folder / CARD_FILE)
        card = _card(part, checkpoint, name, _provenance(checkpoint, sha256))
        if there is not None and not is_generated(there):
            card = renewed(there, {}, lambda _: card, weights)
        write_card(part / CARD_FILE, card)
        size = weights.stat().st_size
    return Converted(folder, name or file.name, sha256, len(checkpoint.tensors), size)


def _release_of(file: Path, sha256: str) -> str | None:
    """Which of the nine a file is; refuses one that bears an original's name and is none."""
    by_hash = {release.original.sha256: name for name, release in RELEASES.items()}
    by_name = {release.original.file: name for name, release in RELEASES.items()}
    if sha256 not in by_hash and file.name in by_name:
        expected = RELEASES[by_name[file.name]].original.sha256
        raise IntegrityError(
            f"{file} has sha256 {sha256}, OpenAI's {file.name} has {expected}. It is damaged: "
            "fetch it again; or it is another model: give it another name."
        )
    return by_hash.get(sha256)


def _provenance(checkpoint: Checkpoint, sha256: str) -> dict[str, str]:
    return {
        "source file": f"`{checkpoint.path.name}`, a {checkpoint.format}",
        "its sha256": f"`{sha256}`",
        "tensors": f"{len(checkpoint.tensors)}, bit for bit, in the types of the source",
        "converter": f"hfclip {__version__}, `python -m conversion convert`",
    }


def _card(
    folder: Path, checkpoint: Checkpoint, name: str | None, provenance: dict[str, str]
) -> str:
    if name:
        return release_card(name, folder, provenance)
    return str(model_card(folder, checkpoint.config, About(provenance=provenance)))


def original(release: Release) -> Path:
    """OpenAI's file: where `clip` keeps it if it is there and whole, else downloaded to there."""
    return fetch(release.original.url, default_root())


def _jobs(sources: tuple[str, ...], out: Path, convert_all: bool) -> Iterator[tuple[str, Path]]:
    names = list(RELEASES) if convert_all else list(sources)
    for name in names:
        folder = repository_name(name) if name in RELEASES else Path(name).stem
        yield name, out / folder if convert_all or len(names) > 1 else out


def source_file(source: str) -> Path:
    """Returns the file that an argument of the command means.

    Raises:
        ConfigError: The argument is neither a file nor one of the nine names.
        HfclipError: The original cannot be fetched.
    """
    path = Path(source).expanduser()
    if source in RELEASES:
        return original(RELEASES[source])
    if path.is_file():
        return path
    raise ConfigError(_no_file(source, path))


def _no_file(source: str, path: Path) -> str:
    """Says why there is nothing to convert."""
    if source in BUNDLED:
        return (
            f"{source} is the model inside the package, in hfclip's layout already. "
            f"`hfclip export {source} FOLDER --layout hfclip` writes a copy."
        )
    if path.is_dir():
        return (
            f"{source} is a folder; `convert` takes one of OpenAI's .pt files. If the folder holds "
            f"a model, `hfclip export {source} FOLDER --layout hfclip` writes hfclip's layout."
        )
    near = difflib.get_close_matches(source, RELEASES, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"{source} does not exist: it is neither a file nor one of the nine names "
        f"{', '.join(RELEASES)}.{suggestion}"
    )


def _attempt(source: str, folder: Path, *, force: bool) -> tuple[bool, str]:
    """Converts one file; returns whether that succeeded, and what to tell of it."""
    try:
        done = convert(source_file(source), folder, force=force)
    except HfclipError as error:
        return False, str(error)
    except OSError as error:
        return False, f"{error.filename or source}: {error.strerror or error}."
    return True, f"{done.tensors} tensors, {done.bytes:,} bytes"


def is_done(source: str, folder: Path) -> bool:
    """Whether a folder holds what this release converts to: the card names its source's hash."""
    card = folder / CARD_FILE
    if source not in RELEASES or not card.is_file():
        return False
    return f"`{RELEASES[source].original.sha256}`" in card.read_text(encoding="utf-8")


@click.command(
    epilog="Examples: python -m conversion convert ViT-B-32.pt out/ViT-B-32; "
    "python -m conversion convert --all out"
)
@click.argument("sources", nargs=-1, metavar="[FILE|NAME]...")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--all", "convert_all", is_flag=True, help="The nine, each in a folder of OUT.")
@click.option("--force", is_flag=True, help="Replace what is in the way.")
def main(sources: tuple[str, ...], out: Path, convert_all: bool, force: bool) -> None:
    """Turn OpenAI's .pt files into folders that can be published.

    FILE is an archive or a state dict in OpenAI's layout; NAME is one of the nine, whose original
    is taken from ~/.cache/clip or downloaded to there. With --all, what is done already stays.
    """
    if convert_all and sources:
        raise click.UsageError("With --all give only OUT, the folder for the nine.")
    if not convert_all and not sources:
        raise click.UsageError(
            f"Only {str(out)!r} is given, which is taken for OUT, the folder to write. Give the "
            f"files or names to convert before it, as in `convert {out} out`; or --all."
        )
    rows, failed = [], 0
    jobs = list(_jobs(sources, out, convert_all))
    with tqdm(jobs, unit="model", disable=None if len(jobs) > 1 else True) as bar:
        for source, folder in bar:
            bar.set_description(source)
            if convert_all and not force and is_done(source, folder):
                rows.append((source, "there already", str(folder)))
                continue
            succeeded, told = _attempt(source, folder, force=force)
            failed += not succeeded
            rows.append((source, told, str(folder)) if succeeded else (source, "failed", told))
    for row in rows:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, (15, 30, 0), strict=True))
        )
    if failed:
        raise click.ClickException(f"{failed} of {len(jobs)} were not converted; see above.")
