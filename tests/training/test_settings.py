"""The settings of a fine-tune, and the plan that follows from them."""

import math
from typing import Any

import pytest

from hfclip.errors import ArgumentError, ArgumentTypeError
from hfclip.training.settings import Plan, Settings


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"epochs": 3, "steps": 5}, "not both"),
        ({"template": "a photo"}, "expected a caption with {}"),
        ({"train": "vision"}, "expected both, image, text"),
        ({"validation": 0.9}, "validation is 0.9"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_was_expected(
    values: dict[str, Any], found: str
) -> None:
    with pytest.raises(ArgumentError, match=found.replace("{", r"\{")):
        Settings(**values)


@pytest.mark.parametrize("values", [{"lr": "1e-5"}, {"epochs": 2.5}, {"seed": True}, {"mix": 1}])
def test_a_value_of_another_type_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ArgumentTypeError, match=next(iter(values))):
        Settings(**values)


def test_settings_survive_json_and_unknown_ones_are_refused() -> None:
    settings = Settings(lr=3e-4, epochs=5, mix=False, chunk=8)
    assert Settings.from_dict(settings.to_dict()) == settings
    with pytest.raises(ArgumentError, match="'learning_rate' is unknown; expected train, lr"):
        Settings.from_dict({"learning_rate": 1})


def test_what_changes_only_rounding_or_speed_may_differ_when_training_goes_on() -> None:
    one, other = Settings(), Settings(chunk=4, workers=2, checkpoint_minutes=0, max_skipped=1)
    assert one.deciding() == other.deciding()
    assert Settings(seed=1).deciding() != one.deciding()


@pytest.mark.parametrize(
    ("settings", "count", "plan"),
    [
        (Settings(), 100_000, Plan(256, 390, 3900, 390)),
        (Settings(), 1000, Plan(256, 3, 500, 50)),
        (Settings(), 10, Plan(10, 1, 500, 50)),
        (Settings(epochs=2), 1000, Plan(256, 3, 6, 0)),
        (Settings(epochs=100), 100_000, Plan(256, 390, 39_000, 500)),
        (Settings(steps=7, warmup=3, batch_size=4), 9, Plan(4, 2, 7, 3)),
    ],
)
def test_the_plan_follows_from_settings_and_count(
    settings: Settings, count: int, plan: Plan
) -> None:
    assert Plan.of(settings, count) == plan


def test_a_warm_up_that_never_ends_is_refused() -> None:
    with pytest.raises(ArgumentError, match="warm-up has 7 steps and the training 7"):
        Plan.of(Settings(steps=7, warmup=7), 100)


def test_the_learning_rate_rises_to_its_highest_and_falls_to_nearly_0() -> None:
    plan = Plan(4, 10, 110, 10)
    shares = [plan.lr_share(step) for step in range(110)]
    assert shares[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11])
    assert shares[10] == 1 == max(shares)
    assert shares[60] == pytest.approx(0.5)
    assert shares[109] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))
