"""The layers of both transformers, whose tensors have the shape (length, batch, width)."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hfclip.network.inputs import is_traced


def recomputes() -> bool:
    """Returns whether a block with `grad_checkpointing` recomputes: a backward pass may follow."""
    return torch.is_grad_enabled() and not is_traced()


def recomputed(function: Callable[[Tensor], Tensor], x: Tensor, **options: Any) -> Tensor:
    """Computes function(x) without its activations and recomputes them in the backward pass.

    Args:
        function: A function that returns the same result for the same x.
        x: A tensor of any shape.
        options: Keyword arguments of `torch.utils.checkpoint.checkpoint`.
    """
    result: Tensor = checkpoint(function, x, use_reentrant=False, **options)
    return result


class LayerNorm(nn.LayerNorm):
    """Applies LayerNorm in the dtype of its weights: float32 in a half-precision CLIP.

    Shapes: (..., W) -> (..., W), in the input's dtype.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last dimension of x."""
        # A layer without weights (elementwise_affine=False) computes in float32.
        dtype = torch.float32 if self.weight is None else self.weight.dtype
        return super().forward(x.to(dtype)).to(x.dtype)


class QuickGELU(nn.Module):
    """Computes x * sigmoid(1.702 x), the approximation of GELU in OpenAI's models.

    Shapes: any shape -> the same shape.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Applies the activation to each element."""
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    """Adds LayerNorm and attention, then LayerNorm and an MLP.

    The MLP has `mlp_width` hidden units; by default four times the width.

    Shapes: (L, B, W) -> (L, B, W). `attn_mask`, if any, is (N, N) with N >= L. Its last L rows and
    columns are added to the attention scores. In a causal mask, any L consecutive ones are equal.
    """

    # Whether the backward pass recomputes the activations instead of keeping them. It is an
    # attribute of the class so that blocks from older pickles have it.
    grad_checkpointing = False

    def __init__(
        self,
        d_model: int,
        n_head: int,
        attn_mask: Tensor | None = None,
        *,
        mlp_width: int | None = None,
    ) -> None:
        super().__init__()
        hidden = d_model * 4 if mlp_width is None else mlp_width
        self.attn = nn.MultiheadAttention(d_model, n_head)
        self.ln_1 = LayerNorm(d_model)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(d_model, hidden),
                gelu=QuickGELU(),
                c_proj=nn.Linear(hidden, d_model),
            )
        )
        self.ln_2 = LayerNorm(d_model)
        self.attn_mask = attn_mask

    def attention(self, x: Tensor) -> Tensor:
        """Computes attention between the positions: (L, B, W) -> (L, B, W)."""
        mask = self._mask_for(x)
        mixed: Tensor = self.attn(x, x, x, need_weights=False, attn_mask=mask)[0]
        return mixed

    def _mask_for(self, x: Tensor) -> Tensor | None:
        if self.attn_mask is None:
            return None
        mask = self.attn_mask
        if mask.dtype != x.dtype or mask.device != x.device:
            # The converted mask is kept, so it is copied to a GPU only once. It must not be an
            # inference tensor, which training cannot save. On the meta device it has no values.
            with torch.inference_mode(False):
                mask = mask.to(dtype=x.dtype, device=x.device)
            if not x.is_meta:
                self.attn_mask = mask
        return mask[..., -x.shape[0] :, -x.shape[0] :]

    def forward(self, x: Tensor) -> Tensor:
        """Adds attention and the MLP to x: (L, B, W) -> (L, B, W)."""
        if self.grad_checkpointing and recomputes():
            return recomputed(self._step, x)
        return self._step(x)

    def _step(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x  # noqa: RET504  # to the type checker, the result of an mlp is Any


def mlp_options(mlp_width: int | None) -> dict[str, int]:
    """Returns the keyword argument `mlp_width`, or none for the usual width.

    A program may replace a class of this module by its own, which takes only OpenAI's arguments.
    """
    return {} if mlp_width is None else {"mlp_width": mlp_width}


class Transformer(nn.Module):
    """A stack of residual attention blocks. `mlp_width` is that of each block.

    Shapes: (L, B, W) -> (L, B, W).
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        attn_mask: Tensor | None = None,
        *,
        mlp_width: int | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.layers = layers
        options = mlp_options(mlp_width)
        self.resblocks = nn.Sequential(
            *(ResidualAttentionBlock(width, heads, attn_mask, **options) for _ in range(layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Runs the blocks in order."""
        out: Tensor = self.resblocks(x)
        return out


def normal_parameter(*shape: int, std: float) -> nn.Parameter:
    """Returns a parameter drawn from the normal distribution with mean 0."""
    parameter = nn.Parameter(torch.empty(*shape))
    nn.init.normal_(parameter, std=std)
    return parameter


def normalize(features: Tensor) -> Tensor:
    """Divides each row by its norm, as OpenAI's code does: (N, D) -> (N, D)."""
    normalized: Tensor = features / features.norm(dim=-1, keepdim=True)
    return normalized
