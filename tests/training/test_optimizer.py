"""What is trained, what is decayed, and with which values."""

import math

import pytest
import torch

from hfclip.config import ClipConfig
from hfclip.model import CLIP
from hfclip.training.optimizer import choose_parameters, clamp_logit_scale, make_optimizer
from hfclip.training.precision import choose_precision
from hfclip.training.settings import Settings, Towers


@pytest.mark.parametrize(
    ("towers", "expected"),
    [
        ("image", {"visual", "logit_scale"}),
        (
            "text",
            {
                "transformer",
                "token_embedding",
                "positional_embedding",
                "ln_final",
                "text_projection",
                "logit_scale",
            },
        ),
    ],
)
def test_one_tower_and_the_scale_are_trained(
    model: CLIP, towers: Towers, expected: set[str]
) -> None:
    chosen = choose_parameters(model, towers)
    assert {name.split(".")[0] for name in chosen} == expected
    assert {name for name, each in model.named_parameters() if each.requires_grad} == chosen.keys()


def test_tensors_with_two_or_more_dimensions_are_decayed_and_the_scale_is_not(
    model: CLIP,
) -> None:
    parameters = choose_parameters(model, "both")
    decayed, others = make_optimizer(model, parameters, Settings(lr=1e-3)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0
    assert {each.ndim for each in decayed["params"]} == {2, 4}
    assert {each.ndim for each in others["params"]} == {0, 1}
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))
    assert decayed["betas"] == (0.9, 0.98)
    assert decayed["eps"] == 1e-6


def test_a_resnet_has_other_betas(tiny_resnet: ClipConfig) -> None:
    model = CLIP(**tiny_resnet.to_dict())
    group = make_optimizer(model, choose_parameters(model, "both"), Settings()).param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)


def test_the_scale_is_limited_to_100(model: CLIP) -> None:
    with torch.no_grad():
        model.logit_scale.fill_(7)
    clamp_logit_scale(model)
    assert float(model.logit_scale.detach().exp()) == pytest.approx(100)
    assert float(model.logit_scale.detach()) <= math.log(100) + 1e-6


@pytest.mark.parametrize(
    ("found", "expected"), [((), "fp32"), (("avx512_vnni",), "fp32"), (("amx_bf16",), "bf16")]
)
def test_bfloat16_is_chosen_where_the_processor_is_fast_with_it(
    monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...], expected: str
) -> None:
    monkeypatch.setattr("hfclip.training.precision.instructions", lambda: found)
    assert choose_precision("auto", torch.device("cpu")) == expected
    assert choose_precision("fp32", torch.device("cpu")) == "fp32"
