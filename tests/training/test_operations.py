"""The operations of a training step have the values and the gradients of plain torch."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor

from hfclip.config import Activation
from hfclip.fast.attention import Group
from hfclip.training import operations
from hfclip.training.operations import attend, linear, mlp

GROUPS = [Group(2, 3), Group(1, 4)]
ROWS = 10


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def test_a_linear_layer_adds_its_bias_and_the_residual() -> None:
    inputs = drawn(ROWS, 4), drawn(6, 4), drawn(6), drawn(ROWS, 6)
    x, weight, bias, residual = inputs
    found = linear(*inputs, dtype=torch.float64)
    torch.testing.assert_close(found, x @ weight.t() + bias + residual)
    assert torch.autograd.gradcheck(lambda *each: linear(*each, dtype=torch.float64), inputs)


def test_a_linear_layer_without_bias_and_residual_needs_no_gradient_of_pixels() -> None:
    x, weight = drawn(ROWS, 4).detach(), drawn(6, 4)
    torch.autograd.backward(linear(x, weight, None, dtype=torch.float64).square().sum())
    expected = 2 * (x @ weight.detach().t()).t() @ x
    torch.testing.assert_close(weight.grad, expected)
    assert x.grad is None


def test_a_frozen_layer_passes_the_gradient_on_and_gets_none() -> None:
    x, weight, bias = drawn(ROWS, 4), drawn(6, 4).detach(), drawn(6).detach()
    torch.autograd.backward(linear(x, weight, bias, dtype=torch.float64).sum())
    torch.testing.assert_close(x.grad, weight.sum(dim=0).expand(ROWS, 4))
    assert weight.grad is None


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_an_mlp_has_the_values_and_gradients_of_its_layers(activation: Activation) -> None:
    inputs = drawn(ROWS, 4), drawn(7, 4), drawn(7), drawn(4, 7), drawn(4), drawn(ROWS, 4)

    def own(*each: Tensor) -> Tensor:
        x, first, first_bias, second, second_bias, residual = each
        layers = (first, first_bias), (second, second_bias)
        return mlp(x, *layers, residual, activation=activation, dtype=torch.float64)

    x, first, first_bias, second, second_bias, residual = inputs
    hidden = F.linear(x, first, first_bias)
    active = hidden * torch.sigmoid(1.702 * hidden) if "quick" in activation else F.gelu(hidden)
    torch.testing.assert_close(own(*inputs), F.linear(active, second, second_bias) + residual)
    assert torch.autograd.gradcheck(own, inputs)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("longest", [1, 128], ids=["fused", "products"])
def test_attention_stays_within_each_input(
    monkeypatch: pytest.MonkeyPatch, causal: bool, longest: int
) -> None:
    monkeypatch.setattr(operations, "_LONGEST", longest)
    qkv, heads = drawn(ROWS, 3 * 8), 2
    expected = []
    for rows in (qkv[0:3], qkv[3:6], qkv[6:10]):
        q, k, v = (part.view(-1, heads, 4).transpose(0, 1) for part in rows.chunk(3, dim=1))
        scores = q @ k.mT / 4**0.5  # (H, L, L)
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        expected.append((scores.softmax(dim=-1) @ v).transpose(0, 1).flatten(1))
    found = attend(qkv, GROUPS, heads, causal=causal)
    torch.testing.assert_close(found, torch.cat(expected))
    assert torch.autograd.gradcheck(lambda each: attend(each, GROUPS, heads, causal=causal), [qkv])


def test_bfloat16_keeps_the_dtypes_of_residual_and_gradients() -> None:
    x, weight, bias = (drawn(*shape, dtype=torch.float32) for shape in ((ROWS, 4), (6, 4), (6,)))
    for dtype in (torch.float32, torch.bfloat16):
        residual = drawn(ROWS, 6, dtype=dtype)
        found = linear(x, weight, bias, residual, dtype=torch.bfloat16)
        assert found.dtype == dtype
        exact = F.linear(x, weight, bias) + residual
        torch.testing.assert_close(found.float(), exact, atol=0.05, rtol=0.02)
        grads = torch.autograd.grad(found.float().square().sum(), (x, weight, bias, residual))
        wanted = torch.autograd.grad(exact.square().sum(), (x, weight, bias, residual))
        for each, other in zip(grads, wanted, strict=True):
            assert each.dtype == other.dtype
            assert float((each - other).norm() / other.norm()) < 0.02
