"""Lists the examples of WebDataset tars. Reads headers and texts, but no picture."""

from collections.abc import Iterator

from hfclip.data.columns import find_caption_column
from hfclip.data.records import UnusableRowError
from hfclip.data.tars import Sample, add_samples, cells_of, picture_of
from hfclip.embedding.items import Item
from hfclip.embedding.locations import Location
from hfclip.embedding.named import Roles, row_key, row_text
from hfclip.embedding.settings import Listing
from hfclip.errors import DataError

# The caption is the member .txt, or this field of .json.
_TEXT, _FIELD = "txt", "caption"


def tar_items(file: Location, listing: Listing) -> Iterator[Item]:
    """Yields the examples of a tar in their order: the picture, and the caption if there is one.

    Raises:
        DataError: Several fields of .json could hold the caption.
        DamagedFileError: The tar is compressed, or damaged after the examples that were yielded.
        OSError: The file cannot be read.
    """
    info = file.info()
    samples: dict[str, Sample] = {}
    problem: DataError | None = None
    with file.open() as content:
        try:
            add_samples(content, file.where, info.size or 0, samples, [])
        except DataError as error:
            problem = error
    for name, sample in samples.items():
        key = f"{file.key}/{name}"
        try:
            yield _item(key, sample, listing, info.mtime_ns, file.key)
        except UnusableRowError as error:
            yield Item(key, None, None, mtime_ns=info.mtime_ns, error=str(error))
    if problem is not None:
        raise problem


def _item(key: str, sample: Sample, listing: Listing, mtime_ns: int | None, what: str) -> Item:
    if sample.problem:
        raise UnusableRowError(sample.problem)
    image = picture_of(sample, listing.image_column)
    text = None
    if listing.captions or listing.key_column is not None:
        cells = cells_of(sample)
        caption = listing.caption_column or _caption_field(tuple(cells), what)
        roles = Roles(None, caption if listing.captions else None, listing.key_column)
        key, text = row_key(cells, roles, key), row_text(cells, roles)
    return Item(key, image, text, image.size, mtime_ns)


def _caption_field(names: tuple[str, ...], what: str) -> str | None:
    exact = next((name for name in (_TEXT, _FIELD) if name in names), None)
    return exact or find_caption_column(names, f"{what}, .json")
