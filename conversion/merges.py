"""Writes `hfclip/text/merges.bin`, the merge table of the tokenizer, from open_clip_torch's copy.

The file contains the 48,894 merges in order, as pairs of token ids: first all left ids, then all
right ids, each a little-endian uint16. It is not compressed, because a wheel is compressed anyway
and the bytes of a compressed file depend on the version of zlib.
"""

import gzip
import hashlib
import os
import struct
import sys
from importlib import metadata
from pathlib import Path

import click

from hfclip.text.bpe import FIRST_MERGED_ID, MERGES_FILE, PRINTING_BYTES

SOURCE = "open_clip/bpe_simple_vocab_16e6.txt.gz"
SOURCE_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
MERGES = 48_894
WORD_END = "</w>"


@click.command(epilog="Example: python -m conversion merges --check")
@click.option("--check", is_flag=True, help="Write nothing. Exit with 1 if the file differs.")
def main(check: bool) -> None:
    """Write hfclip/text/merges.bin from the installed open_clip_torch."""
    table = packed(merge_lines(read_source()))
    if not check:
        write(table)
        click.echo(f"wrote {MERGES_FILE.name}: {MERGES:,} merges, {len(table):,} bytes")
    elif not MERGES_FILE.is_file() or MERGES_FILE.read_bytes() != table:
        click.echo(
            f"{MERGES_FILE} differs from its source. Write it again with "
            "`python -m conversion merges`."
        )
        sys.exit(1)


def read_source() -> bytes:
    """Reads the compressed table in open_clip_torch and checks that it is OpenAI's.

    Raises:
        click.ClickException: open_clip_torch is not installed, or its table has another sha256.
    """
    try:
        path = Path(str(metadata.distribution("open_clip_torch").locate_file(SOURCE)))
    except metadata.PackageNotFoundError as error:
        raise click.ClickException(
            "open_clip_torch is not installed. Install it: pip install 'hfclip[peers]'"
        ) from error
    data = path.read_bytes()
    actual = hashlib.sha256(data).hexdigest()
    if actual != SOURCE_SHA256:
        raise click.ClickException(
            f"{path} has sha256 {actual[:12]}...; expected {SOURCE_SHA256[:12]}..., that of "
            "OpenAI's table. Reinstall open_clip_torch."
        )
    return data


def merge_lines(source: bytes) -> list[tuple[str, str]]:
    """Returns the merges that CLIP uses: the first 48,894 lines after the header.

    Raises:
        click.ClickException: There are fewer lines, or a line does not have two parts.
    """
    lines = gzip.decompress(source).decode().split("\n")[1 : 1 + MERGES]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    if len(merges) != MERGES or not all(left and right for left, right in merges):
        raise click.ClickException(
            f"The table has {len(merges):,} merges; expected {MERGES:,}, each with two parts."
        )
    return merges


def packed(merges: list[tuple[str, str]]) -> bytes:
    """Converts the parts of the merges to token ids and packs the ids."""
    ids = byte_ids()
    for rank, (left, right) in enumerate(merges):
        ids[left + right] = FIRST_MERGED_ID + rank
    lefts = [ids[left] for left, _ in merges]
    rights = [ids[right] for _, right in merges]
    return struct.pack(f"<{2 * len(merges)}H", *lefts, *rights)


def byte_ids() -> dict[str, int]:
    """Returns the ids of the 512 symbols of the source that stand for one byte.

    The source writes a printable Latin-1 byte as its character and any other byte as a character
    from U+0100 on. It appends `</w>` to the last byte of a word.
    """
    hidden = 256 - len(PRINTING_BYTES)
    symbols = [chr(code) for code in (*PRINTING_BYTES, *range(0x100, 0x100 + hidden))]
    return {name: i for i, name in enumerate(symbols + [s + WORD_END for s in symbols])}


def write(table: bytes) -> None:
    """Writes the table under a temporary name, then renames it."""
    unfinished = MERGES_FILE.with_name(f"{MERGES_FILE.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(table)
        unfinished.replace(MERGES_FILE)
    finally:
        unfinished.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
