"""Converts the weights of a CLIP between OpenAI's layout and transformers', with one table.

hfclip and open_clip use OpenAI's layout. transformers uses other names, three separate attention
projections instead of one, and transposed output projections.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from hfclip.errors import WeightsMismatchError

# transformers' name -> OpenAI's name.
_SINGLE = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
_TRANSPOSED = {
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
_STACKS = {
    "text_model.encoder.layers.": "transformer.resblocks.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
}
_IN_BLOCK = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
}
_QUERY_KEY_VALUE = tuple(f"self_attn.{letter}_proj." for letter in "qkv")
# Older files hold these position indices beside the weights.
_NOT_WEIGHTS = frozenset(
    {"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"}
)


def from_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts weights from transformers' layout to OpenAI's. Unknown names are kept.

    The attention projections are joined and the output projections transposed in new memory. The
    other tensors are not copied.

    Raises:
        WeightsMismatchError: One of the three attention projections is missing.
    """
    renamed = {}
    for name, tensor in tensors.items():
        if name in _TRANSPOSED:
            renamed[_TRANSPOSED[name]] = tensor.t().contiguous()
        elif _QUERY_KEY_VALUE[0] in name:
            renamed[_openai_block_name(name)] = _joined(name, tensors)
        elif name not in _NOT_WEIGHTS and not any(part in name for part in _QUERY_KEY_VALUE):
            renamed[_SINGLE.get(name) or _openai_block_name(name)] = tensor
    return renamed


def to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts the weights of a ViT from OpenAI's layout to transformers'."""
    single = {ours: theirs for theirs, ours in _SINGLE.items()}
    transposed = {ours: theirs for theirs, ours in _TRANSPOSED.items()}
    renamed = {}
    for name, tensor in tensors.items():
        if name in transposed:
            renamed[transposed[name]] = tensor.t().contiguous()
        elif ".attn.in_proj_" in name:
            for part, piece in zip(_QUERY_KEY_VALUE, tensor.chunk(3), strict=True):
                theirs = _transformers_block_name(name).replace("attn.in_proj_", part)
                renamed[theirs] = piece.contiguous()
        else:
            renamed[single.get(name) or _transformers_block_name(name)] = tensor
    return renamed


def _joined(query: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """Returns the query, key and value projections as one tensor, (3 W, W) or (3 W,)."""
    names = [query.replace(_QUERY_KEY_VALUE[0], part) for part in _QUERY_KEY_VALUE]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise WeightsMismatchError(
            f"The weights hold {query} but lack {' and '.join(missing)}. Get the file again."
        )
    return torch.cat([tensors[name] for name in names])


def _openai_block_name(name: str) -> str:
    name = _replace(name, _STACKS.items())
    name = name.replace(_QUERY_KEY_VALUE[0], "attn.in_proj_")
    return _replace(name, _IN_BLOCK.items())


def _transformers_block_name(name: str) -> str:
    # The longer prefix first: it ends with the shorter one.
    name = _replace(name, [(ours, theirs) for theirs, ours in reversed(_STACKS.items())])
    return _replace(name, [(ours, theirs) for theirs, ours in _IN_BLOCK.items()])


def _replace(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Replaces the old text of the first pair that occurs in a name."""
    for old, new in pairs:
        if old in name:
            return name.replace(old, new)
    return name
