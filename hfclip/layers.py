"""What both transformers are made of. Inside, tensors are (length, batch, width)."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


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
        if self.attn_mask.dtype != x.dtype or self.attn_mask.device != x.device:
            # Kept, so that a GPU asks the CPU for it once; and as a tensor that training may
            # save, whatever mode this first call runs in.
            with torch.inference_mode(False):
                self.attn_mask = self.attn_mask.to(dtype=x.dtype, device=x.device)
        return self.attn_mask[..., -x.shape[0] :, -x.shape[0] :]

    def forward(self, x: Tensor) -> Tensor:
        """One step of the residual stream: (L, B, W) -> (L, B, W)."""
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
