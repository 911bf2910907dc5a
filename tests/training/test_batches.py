"""Batches are functions of the seed and the step, and captions with equal tokens are one."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from coloured import COLOURS, CONFIG, Bytes, example
from PIL import Image

from hfclip.data.records import Example
from hfclip.errors import TrainingError
from hfclip.images.exact import Recipe
from hfclip.images.preprocess import image_transform
from hfclip.training.batches import Batches
from hfclip.training.processes import Processes
from hfclip.training.settings import Plan, Settings

SIDE = CONFIG.image_resolution
EXAMPLES = [example(label, 10 * place + n) for place, label in enumerate(COLOURS) for n in range(4)]


def batches(settings: Settings, rank: int = 0, count: int = 1) -> Batches:
    processes = Processes(rank, count, torch.device("cpu"))
    plan = Plan.of(settings, len(EXAMPLES))
    return Batches(EXAMPLES, settings, plan, processes, Recipe.of(CONFIG), 77)


def test_each_epoch_has_each_picture_once_in_an_order_of_its_own() -> None:
    own = batches(Settings(batch_size=4, epochs=2))
    epochs = [[row for step in steps for row in own.rows(step)] for steps in ((0, 1, 2), (3, 4, 5))]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert epochs[0] != epochs[1]
    assert batches(Settings(batch_size=4, epochs=2, seed=1)).rows(0) != own.rows(0)


def test_a_training_that_goes_on_sees_the_same_batches() -> None:
    own = batches(Settings(batch_size=5, steps=7))
    whole = list(own.from_step(0))
    later = list(batches(Settings(batch_size=5, steps=7, workers=1)).from_step(4))
    assert len(whole) == 7
    assert len(later) == 3
    for one, other in zip(whole[4:], later, strict=True):
        assert one.rows == other.rows
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.tokens, other.tokens)


def test_a_picture_is_cropped_in_another_way_in_each_epoch() -> None:
    own = batches(Settings(batch_size=4, epochs=2))
    assert torch.equal(own.pixels(3, 0), own.pixels(3, 0))
    assert not torch.equal(own.pixels(3, 0), own.pixels(3, 1))
    uncropped = batches(Settings(batch_size=4, epochs=2, crop=1))
    with Image.open(io.BytesIO(EXAMPLES[3].image.read())) as image:
        expected = image_transform(SIDE)(image)
    assert torch.equal(uncropped.pixels(3, 1), expected)


def test_a_crop_keeps_at_least_its_share_of_the_centre() -> None:
    # Each pixel holds its place, so that the crop can be read from its corners.
    ramp = np.zeros((64, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(100)[None, :] * 2, np.arange(64)[:, None] * 2
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    image: Any = Bytes(file.getvalue())
    ramped = replace(EXAMPLES[0], image=image)
    own = replace(
        batches(Settings(batch_size=4, epochs=2)),
        examples=[ramped],
        recipe=Recipe(SIDE, (0, 0, 0), (1, 1, 1)),
    )
    for epoch in range(20):
        pixels = own.pixels(0, epoch)[:2] * 255 / 2
        side = 64 / SIDE  # of a pixel of the result, in pixels of the picture
        x, y = pixels[0, 0], pixels[1, :, 0]
        widths = [float(each[-2] - each[1]) * SIDE / (SIDE - 3) for each in (x, y)]
        assert widths[0] == pytest.approx(widths[1], abs=1.5)
        assert 64 * 0.9**0.5 - 1.5 < widths[0] < 64 + 1.5
        assert 18 - side < float(x[0]) < float(x[-1]) < 82 + side


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(SIDE, (0, 0, 0), (1, 1, 1), "squash", "bilinear"),
        Recipe(SIDE, (0, 0, 0), (1, 1, 1), "longest", fill_color=77),
        Recipe(SIDE, (0, 0, 0), (1, 1, 1), resize_resolution=2 * SIDE),
    ],
)
def test_a_crop_of_nearly_everything_is_what_the_preprocess_of_the_model_gives(
    recipe: Recipe,
) -> None:
    ramp = np.zeros((64, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(100)[None, :] * 2, np.arange(64)[:, None] * 2
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    image: Any = Bytes(file.getvalue())
    settings = Settings(batch_size=4, epochs=2, crop=0.96)
    own = replace(batches(settings), examples=[replace(EXAMPLES[0], image=image)], recipe=recipe)
    difference = (own.pixels(0, 0) - recipe.exact(Image.fromarray(ramp))).abs().max()
    assert 0 < difference * 255 <= 6  # levels; two for each pixel of the image


def test_processes_share_each_batch() -> None:
    settings = Settings(batch_size=7, steps=2)
    one = next(batches(settings).from_step(1))
    parts = [next(batches(settings, rank, 3).from_step(1)) for rank in range(3)]
    assert [len(part.pixels) for part in parts] == [2, 2, 3]
    assert torch.equal(torch.cat([part.pixels for part in parts]), one.pixels)
    assert torch.equal(torch.cat([part.tokens for part in parts]), one.tokens)
    assert all(torch.equal(part.positives, one.positives) for part in parts)


def test_a_process_without_a_picture_has_an_empty_share() -> None:
    part = next(batches(Settings(batch_size=2, steps=1), 0, 3).from_step(0))
    assert part.pixels.shape == (0, 3, SIDE, SIDE)


def test_captions_with_equal_tokens_are_one_and_a_long_one_is_cut() -> None:
    captions = [("a red thing", "A  red thing", "night"), ("night",), ("word " * 100,)]
    examples = [example("red", n, some) for n, some in enumerate(captions)]
    own = replace(
        batches(Settings(batch_size=3, steps=1)), examples=examples, plan=Plan(3, 1, 1, 0)
    )
    batch = next(own.from_step(0))
    assert batch.tokens.shape == (3, 77)
    of_row = {row: batch.positives[place] for place, row in enumerate(batch.rows)}
    assert of_row[0].sum() == 2
    assert of_row[1].sum() == 1
    assert (of_row[0] & of_row[1]).sum() == 1
    assert (of_row[2] & (of_row[0] | of_row[1])).sum() == 0


def test_a_label_fills_the_template() -> None:
    batch = next(batches(Settings(batch_size=12, steps=1, template="{}!")).from_step(0))
    assert batch.tokens.shape == (3, 4)  # start, word, "!", end
    assert batch.positives.sum(dim=0).tolist() == [4, 4, 4]


def test_a_picture_that_vanished_ends_training_with_its_name() -> None:
    class Gone:
        def read(self) -> bytes:
            raise FileNotFoundError("no such file")

    image: Any = Gone()
    gone: list[Example] = [replace(EXAMPLES[0], image=image)] * 12
    with pytest.raises(TrainingError, match=r"red/0\.png can no longer be read: no such file"):
        list(replace(batches(Settings(batch_size=4, steps=1)), examples=gone).from_step(0))
