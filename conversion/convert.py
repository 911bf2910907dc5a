"""Converts OpenAI's .pt files to folders that can be published."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from tqdm import tqdm

from conversion.cards import release_card
from hfclip import __version__
from hfclip.atomic import check_free, written_whole
from hfclip.cards.card import About, model_card
from hfclip.cards.renewal import is_generated, read_card, renewed, write_card
from hfclip.checkpoints.fit import check_fit
from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.compat.fetching import default_root, fetch
from hfclip.errors import ConfigError, HfclipError, IntegrityError
from hfclip.hub import integrity
from hfclip.layouts.files import CARD_FILE, Source
from hfclip.layouts.write import write_layout
from hfclip.releases import BUNDLED, RELEASES, Release, repository_name


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        folder: The converted folder.
        name: The name of the release, or of the file if it is not a release.
        sha256: The hash of the source file.
        tensors: The number of tensors.
        bytes: The size of the written weight file.
    """

    folder: Path
    name: str
    sha256: str
    tensors: int
    bytes: int


def convert(file: Path, folder: Path, *, force: bool = False) -> Converted:
    """Writes a folder in hfclip's layout with the weights of a file, bit for bit.

    The same file always gives the same bytes. With `force`, a README.md in the folder that a person
    wrote is kept, as `hfclip.cards.renewal` describes.

    Args:
        file: OpenAI's TorchScript archive, or a state dict with OpenAI's names.
        folder: The folder to write. It must be new or empty, unless `force` is True.
        force: Whether to replace existing files.

    Raises:
        IntegrityError: The file has the name of one of OpenAI's files, but another sha256.
        HfclipError: The file cannot be read, its weights do not fit, or the folder is not empty.
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
    """Returns the release whose sha256 a file has, or None.

    Raises:
        IntegrityError: The file has the name of one of OpenAI's files, but another sha256.
    """
    by_hash = {release.original.sha256: name for name, release in RELEASES.items()}
    by_name = {release.original.file: name for name, release in RELEASES.items()}
    if sha256 not in by_hash and file.name in by_name:
        expected = RELEASES[by_name[file.name]].original.sha256
        raise IntegrityError(
            f"{file} has sha256 {sha256}; expected {expected}, the sha256 of OpenAI's {file.name}. "
            "If the file is damaged, download it again. If it is another model, give it another "
            "name."
        )
    return by_hash.get(sha256)


def _provenance(checkpoint: Checkpoint, sha256: str) -> dict[str, str]:
    return {
        "source file": f"`{checkpoint.path.name}`, a {checkpoint.format}",
        "its sha256": f"`{sha256}`",
        "tensors": f"{len(checkpoint.tensors)}, bit for bit, in the dtypes of the source",
        "converter": f"hfclip {__version__}, `python -m conversion convert`",
    }


def _card(
    folder: Path, checkpoint: Checkpoint, name: str | None, provenance: dict[str, str]
) -> str:
    if name:
        return release_card(name, folder, provenance)
    return str(model_card(folder, checkpoint.config, About(provenance=provenance)))


def original(release: Release) -> Path:
    """Returns OpenAI's file in the folder of `clip`; downloads it if it is missing or damaged."""
    return fetch(release.original.url, default_root())


def _jobs(sources: tuple[str, ...], out: Path, convert_all: bool) -> Iterator[tuple[str, Path]]:
    names = list(RELEASES) if convert_all else list(sources)
    for name in names:
        folder = repository_name(name) if name in RELEASES else Path(name).stem
        yield name, out / folder if convert_all or len(names) > 1 else out


def source_file(source: str) -> Path:
    """Returns the file to convert for a file name or the name of a release.

    Raises:
        ConfigError: The argument is neither a file nor one of the nine names.
        HfclipError: OpenAI's file cannot be downloaded.
    """
    path = Path(source).expanduser()
    if source in RELEASES:
        return original(RELEASES[source])
    if path.is_file():
        return path
    raise ConfigError(_no_file(source, path))


def _no_file(source: str, path: Path) -> str:
    """Returns the error message for an argument that is neither a file nor a release."""
    if source in BUNDLED:
        return (
            f"{source} is a model inside the package and already in hfclip's layout. "
            f"`hfclip export {source} FOLDER --layout hfclip` writes a copy."
        )
    if path.is_dir():
        return (
            f"{source} is a folder; expected one of OpenAI's .pt files. If the folder contains a "
            f"model, `hfclip export {source} FOLDER --layout hfclip` writes hfclip's layout."
        )
    near = difflib.get_close_matches(source, RELEASES, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"{source} does not exist: it is neither a file nor one of the nine names: "
        f"{', '.join(RELEASES)}.{suggestion}"
    )


def _attempt(source: str, folder: Path, *, force: bool) -> tuple[bool, str]:
    """Converts one file; returns whether it succeeded, and a summary or the error message."""
    try:
        done = convert(source_file(source), folder, force=force)
    except HfclipError as error:
        return False, str(error)
    except OSError as error:
        return False, f"{error.filename or source}: {error.strerror or error}."
    return True, f"{done.tensors} tensors, {done.bytes:,} bytes"


def is_done(source: str, folder: Path) -> bool:
    """Returns whether a folder contains the converted release, judged by the hash in its card."""
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
@click.option(
    "--all", "convert_all", is_flag=True, help="Convert all nine, each to a folder in OUT."
)
@click.option("--force", is_flag=True, help="Replace existing files.")
def main(sources: tuple[str, ...], out: Path, convert_all: bool, force: bool) -> None:
    """Convert OpenAI's .pt files to folders that can be published.

    FILE is one of OpenAI's TorchScript archives, or a state dict with OpenAI's names. NAME is one
    of the nine releases; its file is downloaded to ~/.cache/clip if it is not there. With one FILE
    or NAME, OUT is the folder to write; with several, each gets a folder in OUT. With --all,
    releases that are already converted are skipped.
    """
    if convert_all and sources:
        raise click.UsageError("With --all, give only OUT, the folder for the nine releases.")
    if not convert_all and not sources:
        raise click.UsageError(
            f"Only {str(out)!r} is given, and it is read as OUT, the folder to write. Give the "
            f"files or names to convert before it, as in `convert {out} out`, or --all."
        )
    rows, failed = [], 0
    jobs = list(_jobs(sources, out, convert_all))
    with tqdm(jobs, unit="model", disable=None if len(jobs) > 1 else True) as bar:
        for source, folder in bar:
            bar.set_description(source)
            if convert_all and not force and is_done(source, folder):
                rows.append((source, "already converted", str(folder)))
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
