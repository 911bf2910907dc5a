"""The estimate of the time with NumPy and torch, and its decisions."""

import pytest

from hfclip.cli import encoding
from hfclip.light import costs
from hfclip.light.costs import (
    COSTS,
    Backend,
    caption_gflop,
    image_gflop,
    quickest,
    seconds,
)
from hfclip.releases import RELEASES


@pytest.mark.parametrize(
    ("model", "gflop"),
    [("ViT-B/32", 8.8), ("ViT-B/16", 35.1), ("RN50", 11.6), ("ViT-L/14@336px", 381.9)],
)
def test_the_operations_for_an_image_are_counted(model: str, gflop: float) -> None:
    # 8.8 and 11.6 are the counts of an image in benchmarks/RESULTS.md.
    assert image_gflop(RELEASES[model].config) == pytest.approx(gflop, abs=0.05)


def test_a_caption_of_eight_tokens_is_counted() -> None:
    # 12 blocks of 12 * 512 * 512 weights, and the attention of 8 tokens.
    weights, attention = 12 * 12 * 512 * 512, 12 * 2 * 8 * 512
    expected = 2e-9 * 8 * (weights + attention)
    assert caption_gflop(RELEASES["ViT-B/32"].config) == pytest.approx(expected)


def test_the_seconds_are_the_start_and_the_rates() -> None:
    config = RELEASES["ViT-B/32"].config
    torch = COSTS["torch"]
    assert seconds(torch, config, 0, 0) == 1.5
    assert seconds(torch, config, 10, 0) == pytest.approx(1.5 + 10 * 8.82 * 0.0063, abs=1e-3)
    assert seconds(torch, config, 0, 10) == pytest.approx(1.5 + 10 * 0.606 * 0.0090, abs=1e-3)
    assert seconds(torch, RELEASES["RN50"].config, 1, 0) == pytest.approx(1.5625, abs=1e-3)


@pytest.mark.parametrize(
    ("model", "pictures", "captions", "expected"),
    [
        ("ViT-B/32", 1, 10, "numpy"),
        ("ViT-B/32", 0, 1, "numpy"),
        ("ViT-B/32", 30, 10, "numpy"),
        ("ViT-B/32", 1_000, 10, "torch"),
        ("ViT-B/32", 1, 5_000, "torch"),
        ("ViT-L/14@336px", 1, 10, "numpy"),
        ("ViT-L/14@336px", 20, 10, "torch"),
        ("ViT-L/14", 5, 10, "numpy"),
        ("ViT-L/14", 15, 10, "torch"),
        ("RN50", 1, 10, "numpy"),
        ("RN50", 500, 10, "torch"),
        ("RN50x64", 10, 10, "torch"),
    ],
)
def test_few_questions_are_answered_by_numpy_and_many_by_torch(
    model: str, pictures: int, captions: int, expected: Backend
) -> None:
    assert quickest(RELEASES[model].config, pictures, captions) == expected


def test_torch_that_is_imported_answers_sooner() -> None:
    config = RELEASES["ViT-B/32"].config
    assert quickest(config, 60, 10) == "numpy"
    assert quickest(config, 60, 10, has_imported_torch=True) == "torch"
    assert quickest(config, 1, 1, has_imported_torch=True) == "numpy"


def test_the_towers_are_optimized_from_the_numbers_of_the_command_on() -> None:
    assert (costs.MANY_PICTURES, costs.MANY_CAPTIONS) == (
        encoding.MANY_PICTURES,
        encoding.MANY_CAPTIONS,
    )
