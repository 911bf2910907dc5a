"""Tells whether a tower computes what its classes define, so that other code may compute it.

Programs change a CLIP in many ways: by hooks, by modules in place of others, by methods of an
object or of a class. `hfclip.training.packed` leaves such towers to the model.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hfclip.model import CLIP
from hfclip.network.layers import LayerNorm, QuickGELU, ResidualAttentionBlock, Transformer
from hfclip.network.vit import VisionTransformer

_CLASSES: tuple[type[nn.Module], ...] = (
    *(CLIP, VisionTransformer, Transformer, ResidualAttentionBlock, LayerNorm, QuickGELU, nn.GELU),
    *(nn.MultiheadAttention, nn.modules.linear.NonDynamicallyQuantizableLinear, nn.Linear),
    *(nn.Sequential, nn.Embedding, nn.Conv2d),
)
_METHODS = ("forward", "encode_image", "encode_text", "attention")


def _methods(kind: type[nn.Module]) -> dict[str, Callable[..., Any]]:
    return {name: getattr(kind, name) for name in _METHODS if hasattr(kind, name)}


_ORIGINAL = {kind: _methods(kind) for kind in _CLASSES}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_unchanged(model: nn.Module, parts: Iterable[nn.Module]) -> bool:
    """Returns whether a CLIP and some of its modules are as hfclip builds them, in float32.

    Args:
        model: The CLIP. Its sub-modules are not looked at.
        parts: Modules of it, with their sub-modules.
    """
    modules = [module for part in parts for module in part.modules()]
    tensors = [tensor for part in parts for tensor in part.parameters()]
    return (
        all(_is_original(module) for module in (model, *modules))
        and all(_is_usual(module) for module in modules)
        and all(tensor.dtype == torch.float32 for tensor in tensors)
    )


def _is_original(module: nn.Module) -> bool:
    kind = type(module)
    return (
        _ORIGINAL.get(kind) == _methods(kind)
        and not vars(module).keys() & set(_METHODS)
        and not any(getattr(module, name) for name in _HOOKS)
    )


def _is_usual(module: Any) -> bool:
    """Returns whether a module has the options of a new CLIP."""
    if isinstance(module, ResidualAttentionBlock):
        first, activation, second = [*module.mlp] if len(module.mlp) == 3 else (None, None, None)
        return (
            not module.grad_checkpointing
            and isinstance(first, nn.Linear)
            and isinstance(activation, QuickGELU | nn.GELU)
            and isinstance(second, nn.Linear)
            and isinstance(module.attn, nn.MultiheadAttention)
            and (module.attn_mask is None or _is_causal(module.attn_mask))
        )
    if isinstance(module, nn.MultiheadAttention):
        return (
            module.in_proj_weight is not None
            and module.in_proj_bias is not None
            and module.bias_k is None
            and not (module.dropout or module.add_zero_attn or module.batch_first)
        )
    if isinstance(module, nn.Embedding):
        unusual = (module.padding_idx, module.max_norm)
        return unusual == (None, None) and not (module.scale_grad_by_freq or module.sparse)
    if isinstance(module, LayerNorm):
        return module.weight is not None and module.bias is not None
    return not isinstance(module, nn.GELU) or module.approximate == "none"


def _is_causal(mask: Tensor) -> bool:
    usual = torch.full_like(mask, -torch.inf).triu_(1)
    return mask.ndim == 2 and torch.equal(mask, usual)
