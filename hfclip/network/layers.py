"""What both transformers are made of. Inside, tensors are (length, batch, width)."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hfclip.network.inputs import is_traced


def recomputes() -> bool:
    """Whether a block with `grad_checkpointing` has to spare memory: a backward pass may follow."""
    return torch.is_grad_enabled() and not is_traced()


def recomputed(function: Callable[[Tensor], Tensor], x: Tensor, **options: Any) -> Tensor:
    """Computes function(x), keeps no activations, and computes it again in the backward pass.

    Args:
        function: Gives the same result at each call with the same x.
        x: A tensor of any shape.
        options: As of `torch.utils.checkpoint.checkpoint`.
    """
    result: Tensor = checkpoint(function, x, use_reentrant=False, **options)
    return result


class LayerNorm(nn.LayerNorm):
    """Normalises in the type of its own weights (float32 in a half-precision CLIP).

    Shapes: (..., W) -> (..., W), in the input's dtype.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last dimension of x."""
        # Without weights of its own (elementwise_affine=False) it computes in float32.
        dtype = torch.float32 if self.weight is None else self.weight.dtype
        return super().forward(x.to(dtype)).to(x.dtype)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): the approximation of GELU that OpenAI trained with.

    Shapes: any -> the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Applies the activation to each element."""
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    """Attention, then an MLP of four times the width, each normalised first and added.

    Shapes: (L, B, W) -> (L, B, W). `attn_mask`, if any, is (N, N) with N >= L, added to the
    attention scores; its last L rows and columns are used, which for a causal mask are any L.
    """

    # Whether the backward pass computes the activations again, so that none are kept. The class
    # has this attribute so that blocks of older pickles have it.
    grad_checkpointing = False

    def __init__(self, d_model: int, n_head: int, attn_mask: Tensor | None = None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(d_model, n_head)
        self.ln_1 = LayerNorm(d_model)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(d_model, d_model * 4),
                gelu=QuickGELU(),
                c_proj=nn.Linear(d_model * 4, d_model),
            )
        )
        self.ln_2 = LayerNorm(d_model)
        self.attn_mask = attn_mask

    def attention(self, x: Tensor) -> Tensor:
        """Mixes the positions: (L, B, W) -> (L, B, W)."""
        mask = self._mask_for(x)
        mixed: Tensor = self.attn(x, x, x, need_weights=False, attn_mask=mask)[0]
        return mixed

    def _mask_for(self, x: Tensor) -> Tensor | None:
        if self.attn_mask is None:
            return None
        mask = self.attn_mask
        if mask.dtype != x.dtype or mask.device != x.device:
            # Kept, so that a GPU asks the CPU for it once; and as a tensor that training may
            # save, whatever mode this first call runs in. On the meta device it has no values.
            with torch.inference_mode(False):
                mask = mask.to(dtype=x.dtype, device=x.device)
            if not x.is_meta:
                self.attn_mask = mask
        return mask[..., -x.shape[0] :, -x.shape[0] :]

    def forward(self, x: Tensor) -> Tensor:
        """One step of the residual stream: (L, B, W) -> (L, B, W)."""
        if self.grad_checkpointing and recomputes():
            return recomputed(self._step, x)
        return self._step(x)

    def _step(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x  # noqa: RET504  # the type checker takes what an mlp gives for Any


class Transformer(nn.Module):
    """A stack of residual attention blocks.

    Shapes: (L, B, W) -> (L, B, W).
    """

    def __init__(
        self, width: int, layers: int, heads: int, attn_mask: Tensor | None = None
    ) -> None:
        super().__init__()
        self.width = width
        self.layers = layers
        self.resblocks = nn.Sequential(
            *(ResidualAttentionBlock(width, heads, attn_mask) for _ in range(layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Runs the blocks in order."""
        out: Tensor = self.resblocks(x)
        return out


def normal_parameter(*shape: int, std: float) -> nn.Parameter:
    """A parameter drawn from the normal distribution around zero."""
    parameter = nn.Parameter(torch.empty(*shape))
    nn.init.normal_(parameter, std=std)
    return parameter
