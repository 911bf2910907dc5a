"""Fills in the pins that `hfclip/releases.py` lacks: commit, size and sha256 of files on the Hub.

The values come from the pinned commit, or from main if no commit is pinned. Existing pins are not
changed: a change in a repository must not move a pin.
"""

import os
from dataclasses import replace
from pathlib import Path

import click
from huggingface_hub import HfApi

from hfclip import releases
from hfclip.hub.errors import to_hub_error
from hfclip.releases import RELEASES, HubFile, Release

_BEGIN, _END = "RELEASES = {\n", "}\n\n# Models that ship"


@click.command(epilog="Example: python -m conversion pin")
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path(releases.__file__),
    help="Python file with the table; by default hfclip/releases.py.",
)
def main(path: Path) -> None:
    """Fill in the pins that hfclip/releases.py lacks with values from the Hub."""
    unknown = [name for name, release in RELEASES.items() if None in _pins(release.hub)]
    table = dict(RELEASES)
    with click.progressbar(unknown, label="asking the Hub") as names:
        for name in names:
            table[name] = replace(table[name], hub=pinned(table[name].hub))
    _rewrite(path, render(table))
    for name in unknown:
        click.echo(f"{name}  {table[name].hub.revision}  {table[name].hub.sha256}")
    click.echo(f"{len(unknown)} filled in, {len(table) - len(unknown)} already complete")


def pinned(file: HubFile) -> HubFile:
    """Returns the file with its missing values filled in from the Hub.

    Raises:
        click.ClickException: The Hub cannot be reached; or the repository no longer has the file,
            has it without a sha256, or has it with another sha256 than the table.
    """
    try:
        info = HfApi().model_info(file.repo_id, revision=file.revision, files_metadata=True)
    except Exception as error:  # huggingface_hub raises many types
        raise click.ClickException(str(to_hub_error(error, file.repo_id))) from error
    found = {entry.rfilename: entry.lfs for entry in info.siblings or []}.get(file.file)
    if found is None or info.sha is None:
        raise click.ClickException(
            f"{file.repo_id} has no {file.file} with a sha256. Check the repository on the Hub."
        )
    if file.sha256 not in {None, found.sha256}:
        raise click.ClickException(
            f"{file.repo_id} at {info.sha} has {file.file} with sha256 {found.sha256}; "
            f"releases.py expects {file.sha256}. Find the commit that has the expected file."
        )
    return replace(
        file,
        revision=file.revision or info.sha,
        size=file.size or found.size,
        sha256=file.sha256 or found.sha256,
    )


def render(table: dict[str, Release]) -> str:
    """Returns the source code of the table."""
    return "".join(_entry(name, release) for name, release in table.items())


def _entry(name: str, release: Release) -> str:
    hub, original = release.hub, release.original
    numbers = ", ".join(str(number) for number in list(release.config.to_dict().values())[:10])
    return f"""\
    "{name}": Release(
        ClipConfig({numbers}),
        HubFile(
            repo_id="{hub.repo_id}",
            revision={_literal(hub.revision)},
            file="{hub.file}",
            size={_literal(hub.size)},
            sha256={_literal(hub.sha256)},
        ),
        Original(
            "{original.file}",
            {_literal(original.size)},
            "{original.sha256}",
        ),
    ),
"""


def _literal(value: str | int | None) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return "None" if value is None else f"{value:_}"


def _pins(file: HubFile) -> tuple[object, ...]:
    return file.revision, file.size, file.sha256


def _rewrite(path: Path, table: str) -> None:
    """Replaces the table in the file; writes under a temporary name, then renames."""
    before, _, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_text(before + _BEGIN + table + _END + after, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
