"""The operations of both transformers in training, with gradients in fewer passes over memory.

Tokens of all inputs are rows of one (T, W) matrix. Together with `hfclip.training.packed`, they
make a step of ViT-B/32 with 16 pictures and captions a quarter faster on a CPU. Plain autograd
takes more time in four places:

- It splits queries, keys and values by filling three tensors with zeros and adding them.
- torch's fused attention takes twice the time of batched products, for the 50 tokens of an image.
- It computes QuickGELU in three passes and its gradient in five. Here SiLU takes one each: the
  matrix products around it multiply by 1.702 and divide by it.
- It sums the gradient of a bias, which is slower than a matrix-vector product.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor
from torch.autograd import Function

from hfclip.config import Activation
from hfclip.fast.attention import Group
from hfclip.fast.kernels import QUICK

# Number of tokens up to which attention keeps its weights (n, H, L, L) for the backward pass.
# Longer inputs would need too much memory. They use torch's fused attention.
_LONGEST = 128


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    *,
    dtype: torch.dtype,
) -> Tensor:
    """Applies a linear layer and adds a residual: (T, in) -> (T, out).

    Args:
        x: The input. Without a gradient, such as for pixels, none is computed.
        weight: The weight, (out, in) float32.
        bias: The bias, (out,) float32.
        residual: A tensor (T, out) that is added, or None.
        dtype: The dtype of the product. The result has the dtype of the residual, if any.
    """
    result: Tensor = _Linear.apply(x, weight, bias, residual, dtype)
    return result


def mlp(
    x: Tensor,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    residual: Tensor,
    *,
    activation: Activation,
    dtype: torch.dtype,
) -> Tensor:
    """Applies two linear layers with an activation between them and adds a residual.

    Args:
        x: The input, (T, W).
        first: The weight (U, W) and the bias (U,) of the first layer, float32.
        second: The weight (W, U) and the bias (W,) of the second layer, float32.
        residual: The tensor that is added, (T, W). The result has its dtype.
        activation: The activation.
        dtype: The dtype of the products.
    """
    result: Tensor = _Mlp.apply(x, *first, *second, residual, activation, dtype)
    return result


def attend(qkv: Tensor, groups: Sequence[Group], heads: int, *, causal: bool) -> Tensor:
    """Computes attention within each input: queries, keys and values (T, 3 W) -> (T, W)."""
    if max(length for _, length in groups) <= _LONGEST:
        result: Tensor = _Attention.apply(qkv, groups, heads, causal)
        return result
    parts = torch.split(qkv, [count * length for count, length in groups])
    mixed = []
    for part, (count, length) in zip(parts, groups, strict=True):
        own = part.view(count, length, 3, heads, -1).unbind(2)  # its gradient is one stack
        q, k, v = (each.transpose(1, 2) for each in own)  # (n, H, L, W/H)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        mixed.append(out.transpose(1, 2).reshape(count * length, -1))
    return torch.cat(mixed)


class _Linear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        residual: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.input_dtype, ctx.weight_dtype = x.dtype, weight.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        return _affine(x, weight, bias, residual)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        own = gradient.to(x.dtype)
        of_x, of_weight, of_bias, of_residual = ctx.needs_input_grad[:4]
        return (
            (own @ weight).to(ctx.input_dtype) if of_x else None,
            (own.t() @ x).to(ctx.weight_dtype) if of_weight else None,
            _column_sums(own, ctx.weight_dtype) if of_bias else None,
            gradient if of_residual else None,
            None,
        )


class _Mlp(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        first: Tensor,
        first_bias: Tensor,
        second: Tensor,
        second_bias: Tensor,
        residual: Tensor,
        activation: Activation,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.input_dtype, ctx.weight_dtype = x.dtype, first.dtype
        ctx.is_quick = activation == "quick_gelu"
        scale = QUICK if ctx.is_quick else 1
        x, first, second = (each.to(dtype) for each in (x, first, second))
        hidden = torch.addmm(first_bias.to(dtype), x, first.t(), beta=scale, alpha=scale)
        active = F.silu(hidden) if ctx.is_quick else F.gelu(hidden)
        ctx.save_for_backward(x, first, second, hidden, active)
        return _affine(active, second, second_bias, residual, 1 / scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, first, second, hidden, active = ctx.saved_tensors
        (gradient,) = gradients
        own = gradient.to(x.dtype)
        of_x, of_first, of_first_bias, of_second, of_second_bias, of_residual = (
            ctx.needs_input_grad[:6]
        )
        # The scale of the second product and the scale of the first cancel out.
        of_active = own @ second
        if ctx.is_quick:
            torch.ops.aten.silu_backward.grad_input(of_active, hidden, grad_input=of_active)
        else:
            of_active = torch.ops.aten.gelu_backward(of_active, hidden)
        scale = 1 / QUICK if ctx.is_quick else 1
        return (
            (of_active @ first).to(ctx.input_dtype) if of_x else None,
            (of_active.t() @ x).to(ctx.weight_dtype) if of_first else None,
            _column_sums(of_active, ctx.weight_dtype) if of_first_bias else None,
            _scaled(own.t(), active, scale).to(ctx.weight_dtype) if of_second else None,
            _column_sums(own, ctx.weight_dtype) if of_second_bias else None,
            gradient if of_residual else None,
            None,
            None,
        )


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, groups: Sequence[Group], heads: int, causal: bool) -> Tensor:
        mixed = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
        saved = []
        for group, rows, out in _groups(groups, qkv, mixed):
            parts = _per_head(rows, group, heads, 3).contiguous().flatten(1, 2)
            queries, keys, values = parts  # (n * H, L, W/H)
            scale = queries.shape[-1] ** -0.5
            if causal:
                mask = qkv.new_full((group.length, group.length), -torch.inf).triu(1)
                scores = torch.baddbmm(mask, queries, keys.mT, alpha=scale)
            else:
                scores = _scaled(queries, keys.mT, scale)
            weights = torch.softmax(scores, dim=-1, out=scores)
            _per_head(out, group, heads, 1)[0].copy_(_inputs(torch.bmm(weights, values), heads))
            saved += [parts, weights]
        ctx.groups, ctx.heads = groups, heads
        ctx.save_for_backward(*saved)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        found = gradient.new_empty(len(gradient), 3 * gradient.shape[1])
        saved = iter(ctx.saved_tensors)
        for group, rows, out in _groups(ctx.groups, gradient, found):
            parts, weights = next(saved), next(saved)
            queries, keys, values = parts
            scale = queries.shape[-1] ** -0.5
            own = _per_head(rows, group, ctx.heads, 1)[0].reshape(values.shape)
            of_weights = torch.bmm(own, values.mT)
            of_scores = _softmax_gradient(of_weights, weights)
            targets = _per_head(out, group, ctx.heads, 3)
            products = (
                _scaled(of_scores, keys, scale),
                _scaled(of_scores.mT, queries, scale),
                torch.bmm(weights.mT, own),
            )
            for target, product in zip(targets, products, strict=True):
                target.copy_(_inputs(product, ctx.heads))
        return found, None, None, None


def _groups(
    groups: Sequence[Group], first: Tensor, second: Tensor
) -> Iterator[tuple[Group, Tensor, Tensor]]:
    """Yields each group and its rows of two matrices."""
    sizes = [count * length for count, length in groups]
    yield from zip(groups, torch.split(first, sizes), torch.split(second, sizes), strict=True)


def _per_head(rows: Tensor, group: Group, heads: int, parts: int) -> Tensor:
    """Views the rows of a group by part and head: (n * L, P * W) -> (P, n, H, L, W/H)."""
    return rows.view(*group, parts, heads, -1).permute(2, 0, 3, 1, 4)


def _inputs(batch: Tensor, heads: int) -> Tensor:
    """Views the matrices of all heads by input: (n * H, L, W/H) -> (n, H, L, W/H)."""
    return batch.view(-1, heads, *batch.shape[1:])


def _softmax_gradient(gradient: Tensor, weights: Tensor) -> Tensor:
    """Returns the gradient of the input of a softmax that gave `weights`, in one pass."""
    own: Any = torch.ops.aten
    found: Tensor = own._softmax_backward_data(gradient, weights, -1, weights.dtype)  # noqa: SLF001  # it has no public name
    return found


def _affine(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, scale: float = 1
) -> Tensor:
    """Returns scale * x W^T + bias + residual, in the dtype of the residual."""
    bias = None if bias is None else bias.to(x.dtype)
    if residual is None or bias is None:
        return F.linear(x, weight, bias)
    if residual.dtype != x.dtype:
        return residual + torch.addmm(bias, x, weight.t(), alpha=scale)
    return (residual + bias).addmm_(x, weight.t(), alpha=scale)


def _scaled(first: Tensor, second: Tensor, scale: float) -> Tensor:
    """Returns scale * first @ second for matrices or batches of matrices, in one pass."""
    unused = first.new_empty(1)  # beta is 0
    if first.ndim == 3:
        return torch.baddbmm(unused, first, second, beta=0, alpha=scale)
    return torch.addmm(unused, first, second, beta=0, alpha=scale)


def _column_sums(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the sum over the rows of a matrix: (T, N) -> (N,)."""
    if matrix.dtype != dtype:
        return matrix.sum(dim=0, dtype=dtype)
    return torch.mv(matrix.t(), matrix.new_ones(len(matrix)))
