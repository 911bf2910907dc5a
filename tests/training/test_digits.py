"""Handwritten digits turned by 90 degrees: what a fine-tune must reach, and what it may forget."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfclip.training.run import Finetuned, finetune

load_digits = pytest.importorskip("sklearn.datasets").load_digits
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, no_curves: None) -> Finetuned:
    """Fine-tunes `digits` on class folders of turned digits; upright ones must not be forgotten."""
    folder, collection = tmp_path_factory.mktemp("digits"), load_digits()
    for number, (pixels, digit) in enumerate(
        zip(collection.images, collection.target, strict=True)
    ):
        image = Image.fromarray((pixels * 255 / 16).round().astype(np.uint8))
        turned = image.transpose(Image.Transpose.ROTATE_90)
        is_test = number % 5 == 4
        _save(turned, folder / "turned" / ("test" if is_test else "train") / WORDS[digit], number)
        if number % 10 == 4:  # half of the test split
            _save(image, folder / "upright" / WORDS[digit], number)
    return finetune(
        folder / "turned",
        "digits",
        folder / "out",
        keep=folder / "upright",
        device="cpu",
        lr=7e-4,
        epochs=3,
        batch_size=64,
        template="a handwritten {}",
    )


def _save(image: Image.Image, folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"{number:04}.png")


def test_turned_digits_are_learned(done: Finetuned) -> None:
    assert done.results.split == "test"
    assert (done.results.before.own.accuracy or 1) < 0.12
    assert (done.results.tuned.own.accuracy or 0) >= 0.90


def test_the_mixture_forgets_less_and_is_as_good_on_validation(done: Finetuned) -> None:
    results = done.results
    assert 0 < results.alpha < 1
    scores = {alpha: found.own.accuracy or 0 for alpha, found in results.alphas.items()}
    best, count = max(scores.values()), results.data.validation
    assert scores[results.alpha] >= best - (best * (1 - best) / count) ** 0.5
    assert results.mixed.keep is not None
    assert results.tuned.keep is not None
    gained = results.mixed.keep.headline.value - results.tuned.keep.headline.value
    assert gained >= 0.03
