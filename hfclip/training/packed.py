"""Encodes images and texts for training with fewer operations than the model, on a CPU.

The features and the gradients are those of the model, up to rounding. The encoders save work as
`hfclip.fast.encoders` does for inference:

- The last block computes only the position that is pooled, without its keys and values.
- Texts are cut after their end token, and the tokens of all texts are rows of one matrix. So no
  layer computes padding.
- The blocks use `hfclip.training.operations`.

The blocks are not called as modules, so hooks on them would not fire. The model itself encodes a
tower with hooks, or with a module or a method that was replaced.

With `hfclip.training.operations`, a step of ViT-B/32 with 16 pictures and captions is a quarter
faster. benchmarks/results/training.md compares it with open_clip and transformers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor

from hfclip.config import Activation
from hfclip.fast.attention import Group, split
from hfclip.model import CLIP
from hfclip.network.inputs import are_images, are_texts
from hfclip.network.layers import LayerNorm, QuickGELU, ResidualAttentionBlock, Transformer
from hfclip.network.vit import VisionTransformer
from hfclip.training.operations import attend, linear, mlp
from hfclip.training.unchanged import is_unchanged

Encode = Callable[[Tensor], Tensor]


def encoders(model: CLIP, *, bf16: bool) -> tuple[Encode, Encode]:
    """Returns the functions that encode images and texts: (n, ...) -> (n, D) float32.

    Args:
        model: The model, with float32 weights.
        bf16: Whether matrix products are computed in bfloat16.
    """
    images, texts = _Plain(model.encode_image, bf16), _Plain(model.encode_text, bf16)
    if model.logit_scale.device.type != "cpu":
        return images, texts
    dtype = torch.bfloat16 if bf16 else torch.float32
    visual = model.visual
    text = (model.transformer, model.token_embedding, model.ln_final)
    return (
        _Images(visual, images, dtype)
        if isinstance(visual, VisionTransformer) and is_unchanged(model, [visual])
        else images,
        _Texts(model, texts, dtype) if is_unchanged(model, text) else texts,
    )


class _Plain:
    """Encodes with a method of the model."""

    def __init__(self, encode: Encode, bf16: bool) -> None:
        self._encode, self._bf16 = encode, bf16

    def __call__(self, inputs: Tensor) -> Tensor:
        """Encodes in a context of its own, because autocast caches what it casts."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            return self._encode(inputs).float()


class _Images:
    """Encodes images: (B, 3, S, S) -> (B, D) float32."""

    def __init__(self, tower: VisionTransformer, plain: Encode, dtype: torch.dtype) -> None:
        self._tower, self._plain, self._dtype = tower, plain, dtype

    def __call__(self, images: Tensor) -> Tensor:
        tower = self._tower
        weight = tower.conv1.weight
        if not are_images(images, tower.input_resolution, weight.device) or not len(images):
            return self._plain(images)
        side = weight.shape[-1]
        patches = images.to(self._dtype).unfold(2, side, side).unfold(3, side, side)
        rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, weight[0].numel())  # (B*G*G, 3*P*P)
        rows = linear(rows, weight.flatten(1), None, dtype=self._dtype)
        x = rows.view(len(images), -1, rows.shape[1])  # (B, G*G, W)
        first = tower.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + tower.positional_embedding.to(x.dtype)
        group = Group(*x.shape[:2])
        x = _normalized(tower.ln_pre, x.flatten(0, 1))  # (B * (1 + G*G), W)
        pooled = _blocks(tower.transformer, x, [group], 0, self._dtype)  # (B, W)
        pooled = _normalized(tower.ln_post, pooled)
        return pooled if tower.proj is None else pooled @ tower.proj


class _Texts:
    """Encodes token ids: (T, L) integers -> (T, D) float32."""

    def __init__(self, model: CLIP, plain: Encode, dtype: torch.dtype) -> None:
        self._model, self._plain, self._dtype = model, plain, dtype

    def __call__(self, ids: Tensor) -> Tensor:
        model = self._model
        words, positions = model.token_embedding.weight, model.positional_embedding
        if not are_texts(ids, len(positions), words.device) or not len(ids):
            return self._plain(ids)
        if not 0 <= int(ids.min()) <= int(ids.max()) < len(words):
            return self._plain(ids)
        # argmax finds the end token, which has the highest id.
        lengths, order = (ids.argmax(dim=-1) + 1).sort(stable=True)
        is_used = torch.arange(ids.shape[1]) < lengths[:, None]
        places = is_used.nonzero()[:, 1]  # (N,) for N tokens
        x = F.embedding(ids[order][is_used], words) + F.embedding(places, positions)
        groups = _grouped(lengths.tolist())
        pooled = _blocks(model.transformer, x, groups, -1, self._dtype)  # (T, W)
        features = _normalized(model.ln_final, pooled) @ model.text_projection
        return features[order.argsort()]


def _grouped(lengths: Sequence[int]) -> list[Group]:
    """Returns the groups of inputs with equal length, for lengths in ascending order."""
    return [Group(lengths.count(length), length) for length in dict.fromkeys(lengths)]


def _blocks(
    transformer: Transformer, x: Tensor, groups: Sequence[Group], position: int, dtype: torch.dtype
) -> Tensor:
    """Computes a transformer at a position of each input: (T, W) -> (N, W) float32."""
    blocks: list[Any] = [*transformer.resblocks]
    last = blocks.pop()
    for block in blocks:
        x = _block(block, x, groups, dtype)
    return _last_block(last, x.float(), groups, position)


def _block(
    block: ResidualAttentionBlock, x: Tensor, groups: Sequence[Group], dtype: torch.dtype
) -> Tensor:
    """Computes a block: (T, W) -> (T, W)."""
    attention, is_causal = block.attn, block.attn_mask is not None
    kept = _normalized(block.ln_1, x)
    qkv = linear(kept, attention.in_proj_weight, attention.in_proj_bias, dtype=dtype)
    mixed = attend(qkv, groups, attention.num_heads, causal=is_causal)
    out = attention.out_proj
    x = linear(mixed, out.weight, out.bias, x, dtype=dtype)
    return _mlp(block, x, dtype)


def _last_block(
    block: ResidualAttentionBlock, x: Tensor, groups: Sequence[Group], position: int
) -> Tensor:
    """Computes a block at a position of each input: (T, W) -> (N, W).

    The position must attend to all tokens of its input. It is computed in float32, because it is a
    small part of the work. `hfclip.fast.attention.PooledAttention` explains the order of products.
    """
    attention, heads = block.attn, block.attn.num_heads
    query, key, value = (
        part.view(heads, -1, part.shape[1]) for part in attention.in_proj_weight.chunk(3)
    )  # (H, W/H, W)
    query_bias, _, value_bias = attention.in_proj_bias.chunk(3)
    kept = _normalized(block.ln_1, x)
    queries, rows = (
        torch.cat([part[:, position] for part in split(matrix, groups)]) for matrix in (kept, x)
    )  # (N, W)
    wanted = F.linear(queries, query.flatten(0, 1), query_bias) * query.shape[1] ** -0.5
    wanted = torch.bmm(wanted.view(len(rows), heads, -1).transpose(0, 1), key)  # (H, N, W)
    counts = [count for count, _ in groups]
    mixed = [
        torch.bmm(torch.bmm(own, tokens.mT).softmax(dim=-1), tokens)  # (n, H, W)
        for own, tokens in zip(
            torch.split(wanted.transpose(0, 1), counts), split(kept, groups), strict=True
        )
    ]
    values = torch.bmm(torch.cat(mixed).transpose(0, 1), value.mT)  # (H, N, W/H)
    pooled = values.transpose(0, 1).flatten(1) + value_bias
    rows = linear(
        pooled, attention.out_proj.weight, attention.out_proj.bias, rows, dtype=rows.dtype
    )
    return _mlp(block, rows, rows.dtype)


def _mlp(block: ResidualAttentionBlock, x: Tensor, dtype: torch.dtype) -> Tensor:
    layers: Any = block.mlp
    first, kind, second = layers
    activation: Activation = "quick_gelu" if isinstance(kind, QuickGELU) else "gelu"
    return mlp(
        _normalized(block.ln_2, x),
        (first.weight, first.bias),
        (second.weight, second.bias),
        x,
        activation=activation,
        dtype=dtype,
    )


def _normalized(layer: LayerNorm, x: Tensor) -> Tensor:
    """Applies LayerNorm. The kernel computes in float32 and returns the dtype of x."""
    return F.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
