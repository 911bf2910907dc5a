"""Mixing with the base, and the rule that chooses alpha."""

import math

import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT, draw

import hfclip
from hfclip.errors import ArgumentError, WeightsMismatchError
from hfclip.training.metrics import Metrics
from hfclip.training.mix import ALPHAS, choose_alpha, mixed, score_alphas
from training.samples import share


def test_the_mixture_lies_between_the_two() -> None:
    base = {"a": torch.tensor([0.0, 10.0]), "b": torch.tensor(4.0).half()}
    tuned = {"a": torch.tensor([1.0, 20.0]), "b": torch.tensor(8.0)}
    found = mixed(base, tuned, 0.25)
    assert torch.equal(found["a"], torch.tensor([0.25, 12.5]))
    assert torch.equal(found["b"], torch.tensor(5.0))
    assert found["b"].dtype == torch.float32


def test_0_and_1_are_the_two_models_exactly_in_memory_of_their_own() -> None:
    base, tuned = draw(TINY_RESNET).state_dict(), draw(TINY_VIT).state_dict()
    tuned = {name: tensor * 1.7 if tensor.is_floating_point() else tensor + 1
             for name, tensor in base.items()}  # fmt: skip
    for alpha, wanted in ((0.0, base), (1.0, tuned)):
        found = mixed(base, tuned, alpha)
        for name, tensor in found.items():
            exact = wanted if tensor.is_floating_point() else tuned
            assert torch.equal(tensor, exact[name]), name
            assert tensor.data_ptr() not in {base[name].data_ptr(), tuned[name].data_ptr()}


def test_integers_come_from_the_trained_model() -> None:
    base, tuned = {"steps": torch.tensor(3)}, {"steps": torch.tensor(8)}
    assert mixed(base, tuned, 0.1)["steps"] == 8


def test_models_that_do_not_fit_and_shares_out_of_range_are_refused() -> None:
    one = {"a": torch.zeros(2), "b": torch.zeros(1)}
    with pytest.raises(WeightsMismatchError, match=r"^b differs"):
        mixed(one, {"a": torch.zeros(2)}, 0.5)
    with pytest.raises(WeightsMismatchError, match=r"^a differs"):
        mixed(one, {**one, "a": torch.zeros(1)}, 0.5)
    for alpha in (-0.1, 1.1, math.nan):
        with pytest.raises(ArgumentError, match="alpha is"):
            mixed(one, one, alpha)


def test_each_mixture_is_measured_and_the_model_keeps_its_weights() -> None:
    model = draw(TINY_VIT)
    base = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[float] = []

    def measure(model: hfclip.CLIP) -> Metrics:
        now = model.text_projection.detach()[0, 0]
        seen.append(float(now / before["text_projection"][0, 0]))
        return share(seen[-1])

    scores = score_alphas(model, base, measure)
    assert seen == pytest.approx(list(ALPHAS))
    assert list(scores) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert [metrics.accuracy for metrics in scores.values()] == seen
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_an_error_while_measuring_leaves_the_trained_weights() -> None:
    model = draw(TINY_VIT)
    before = model.text_projection.detach().clone()

    def measure(model: hfclip.CLIP) -> Metrics:
        raise KeyboardInterrupt

    base = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        score_alphas(model, base, measure)
    assert torch.equal(model.text_projection, before)


def test_alpha_is_the_smallest_within_one_standard_error_of_the_best() -> None:
    # Digits turned by 90 degrees, 359 pictures; the standard error of 94.4 % is 1.2 points.
    scores = {0.5: 0.685, 0.7: 0.886, 0.8: 0.925, 0.9: 0.936, 1.0: 0.944}
    assert choose_alpha({alpha: share(value, 359) for alpha, value in scores.items()}) == 0.9
    # With a tenth of the pictures the standard error is 3.9 points.
    assert choose_alpha({alpha: share(value, 35) for alpha, value in scores.items()}) == 0.8


def test_the_best_may_be_a_mixture_and_a_perfect_score_has_no_error() -> None:
    falling = {0.0: 0.5, 0.6: 0.9, 1.0: 0.7}
    assert choose_alpha({alpha: share(value) for alpha, value in falling.items()}) == 0.6
    perfect = {0.4: 0.99, 0.5: 1.0, 1.0: 1.0}
    assert choose_alpha({alpha: share(value) for alpha, value in perfect.items()}) == 0.5
    assert choose_alpha({alpha: share(0.3) for alpha in ALPHAS}) == 0.0
    with pytest.raises(ArgumentError, match="no score"):
        choose_alpha({})


def test_without_labels_recall_decides() -> None:
    scores = {
        alpha: Metrics(None, {}, {1: value}, {1: value}, 10_000)
        for alpha, value in ((0.2, 0.3), (0.7, 0.6), (1.0, 0.604))
    }
    assert choose_alpha(scores) == 0.7
