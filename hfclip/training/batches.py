"""The batches of a training, each a function of the seed and the step alone.

No random state is kept: the order of an epoch is a function of (seed, epoch), and the crop of a
picture one of (seed, epoch, row). Training that goes on from a checkpoint sees the same batches, as
does each of several processes.
"""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hfclip.data.records import Example
from hfclip.errors import TrainingError
from hfclip.images.exact import RESAMPLING, Recipe
from hfclip.images.reading import core_count, open_picture
from hfclip.text.tokenizer import tokenize
from hfclip.training.captions import captions_of
from hfclip.training.processes import Processes
from hfclip.training.settings import Plan, Settings
from hfclip.training.step import Batch

# Batches that are read while the model computes.
_AHEAD = 2


@dataclass(frozen=True)
class Batches:
    """The batches of a training, with the share of this process.

    Attributes:
        examples: The training split.
        settings: The settings.
        plan: The size of a batch and the number of steps.
        processes: The processes.
        recipe: The preprocess of the model.
        context_length: The largest number of tokens of a caption.
    """

    examples: Sequence[Example]
    settings: Settings
    plan: Plan
    processes: Processes
    recipe: Recipe
    context_length: int

    def rows(self, step: int) -> tuple[int, ...]:
        """Returns the numbers of the pictures in a step, in order."""
        epoch, place = divmod(step, self.plan.steps_per_epoch)
        order = _order(self.settings.seed, epoch, len(self.examples))
        start = place * self.plan.batch
        return order[start : start + self.plan.batch]

    def from_step(self, step: int) -> Generator[Batch, None, None]:
        """Yields the batches from a step to the last. Threads read the next ones meanwhile."""
        with ThreadPoolExecutor(self.settings.workers or core_count()) as pool:
            waiting: deque[_Pending] = deque()
            try:
                for later in range(step, self.plan.steps):
                    waiting.append(self._begin(pool, later))
                    if len(waiting) > _AHEAD:
                        yield self._finish(waiting.popleft())
                while waiting:
                    yield self._finish(waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, step: int) -> "_Pending":
        """Starts to read the pictures of this process."""
        rows = self.rows(step)
        own = rows[self.processes.share(len(rows))]
        epoch = step // self.plan.steps_per_epoch
        return rows, [pool.submit(self.pixels, row, epoch) for row in own]

    def _finish(self, pending: "_Pending") -> Batch:
        rows, pictures = pending
        tokens, positives = self._texts(rows)
        own = [picture.result() for picture in pictures]
        side = self.recipe.resolution
        pixels = torch.stack(own) if own else torch.empty(0, 3, side, side)
        return Batch(rows, pixels, tokens[self.processes.share(len(tokens))], positives)

    def _texts(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns the distinct captions of some pictures, and which belong to which picture.

        Captions with equal tokens are the same caption, such as "A cat" and "a cat". A caption that
        is too long is cut.

        Shapes: int32 (T, L), bool (B, T).
        """
        captions = [captions_of(self.examples[row], self.settings.template) for row in rows]
        tokens = tokenize(
            list(chain(*captions)), self.context_length, truncate=True, padding="longest"
        )
        keys = [row.tobytes() for row in tokens.numpy()]
        first = {key: index for index, key in reversed(list(enumerate(keys)))}
        places = {key: place for place, key in enumerate(sorted(first, key=first.__getitem__))}
        positives = torch.zeros(len(rows), len(places), dtype=torch.bool)
        owners = chain(*([place] * len(some) for place, some in enumerate(captions)))
        for owner, key in zip(owners, keys, strict=True):
            positives[owner, places[key]] = True
        return tokens[[first[key] for key in places]], positives

    def pixels(self, row: int, epoch: int) -> Tensor:
        """Returns a picture as the model sees it in an epoch: float32 (3, S, S).

        Raises:
            TrainingError: The picture has changed or cannot be read any more.
        """
        example = self.examples[row]
        try:
            content = example.image.read()
        except OSError as error:
            raise TrainingError(f"{example.key} can no longer be read: {error}.") from error
        with open_picture(content, name=example.key) as image:
            if self.settings.crop == 1:
                return self.recipe.exact(image)
            random = np.random.default_rng((self.settings.seed, epoch, row))
            return self.recipe.exact(_cropped(image, self.recipe, self.settings.crop, random))


_Pending: TypeAlias = tuple[tuple[int, ...], list["Future[Tensor]"]]


def _cropped(
    image: Image.Image, recipe: Recipe, least: float, random: np.random.Generator
) -> Image.Image:
    """Returns a random part of an image in the size to which the preprocess resizes the image.

    The part has at least `least` of the area and the aspect ratio of the image.
    """
    share, x, y = random.random(3).tolist()
    kept = (least + (1 - least) * share) ** 0.5  # of the width and of the height
    left, top = x * (1 - kept) * image.width, y * (1 - kept) * image.height
    right, bottom = left + kept * image.width, top + kept * image.height
    box = left, top, min(right, image.width), min(bottom, image.height)
    return image.resize(recipe.resized(image.size), RESAMPLING[recipe.interpolation], box)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """Returns the order of the pictures in an epoch."""
    return tuple(np.random.default_rng((seed, epoch)).permutation(count).tolist())
