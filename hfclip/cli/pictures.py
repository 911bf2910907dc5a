"""Reports skipped files and empty folders, for commands that take pictures."""

from typing import TYPE_CHECKING

from hfclip.cli.output import echo
from hfclip.errors import ImageError

if TYPE_CHECKING:
    from hfclip.images.reading import FoundImages

# The number of skipped files that are listed by name. The others are counted.
NAMED = 5


def report_skipped(found: "FoundImages") -> None:
    """Lists the skipped files in one line on standard error."""
    names = found.skipped
    if not names:
        return
    count = "1 file was" if len(names) == 1 else f"{len(names):,} files were"
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    echo(f"{count} skipped: {', '.join(names[:NAMED])}{more}", err=True)


def empty_folders(found: "FoundImages") -> list[tuple[str, ImageError]]:
    """Returns the folders without a picture, each with its error, as results of a command."""
    return [
        (name, ImageError(f"{name}: this folder contains no pictures."))
        for name in found.empty_folders
    ]
