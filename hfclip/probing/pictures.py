"""Encodes pictures as the embeddings of a collection were made."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.decoding import pixel_limit
from hfclip.errors import ImageError
from hfclip.images.reading import core_count

if TYPE_CHECKING:
    from torch import Tensor

    from hfclip.embedding.options import Loaded

# The number of pictures from which the optimized model saves time.
MANY = 64
_BATCH = 64


class Encoded(NamedTuple):
    """A batch of B pictures, of which G can be read.

    Attributes:
        names: The names of the pictures, B of them.
        errors: The error of each picture that cannot be read, by its place in the batch.
        vectors: The embeddings of the others, in order: float32 (G, D).
    """

    names: list[str]
    errors: dict[int, ImageError]
    vectors: NDArray[np.float32]


def encode_pictures(loaded: "Loaded", names: Iterable[str]) -> Iterator[Encoded]:
    """Reads and encodes pictures in batches.

    Args:
        loaded: The model and the reader of the collection.
        names: Paths, or "-" for standard input.
    """
    import torch  # noqa: PLC0415  # `loaded` has imported it

    def read(name: str) -> "Tensor | ImageError":
        try:
            return loaded.reader(name, name).pixels
        except ImageError as error:
            return error

    remaining = iter(names)
    with pixel_limit(loaded.manifest.max_pixels), ThreadPoolExecutor(core_count()) as pool:
        while batch := list(islice(remaining, _BATCH)):
            read_ones = list(pool.map(read, batch))
            pixels = [one for one in read_ones if not isinstance(one, ImageError)]
            errors = {n: one for n, one in enumerate(read_ones) if isinstance(one, ImageError)}
            stacked = torch.stack(pixels) if pixels else torch.empty(0, device="cpu")
            yield Encoded(batch, errors, loaded.encoder.start(stacked)())
