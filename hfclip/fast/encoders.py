"""Image and text encoders for inference, with fewer operations than the model.

The encoders change the model's results by rounding only. They save work in four ways:

- The last block computes only the position that is pooled, without its keys and values.
- Texts are cut after their end token. The causal mask allows this.
- The tokens of all inputs are rows of one (T, W) matrix, without padding inside an input. Each
  layer is one matrix product.
- A call computes as many inputs at once as a processor's cache holds activations for.

benchmarks/RESULTS.md gives the gain under "Encode images" and "Encode captions".
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from hfclip.config import Activation
from hfclip.fast.attention import (
    TOKENS,
    Group,
    PooledAttention,
    attend,
    batches,
    padded,
    padded_rows,
    split,
)
from hfclip.fast.kernels import BlockKernels, Convolution, Kernel, Kernels, Linear, Mlp, Portable
from hfclip.network.layers import LayerNorm, QuickGELU, ResidualAttentionBlock, Transformer
from hfclip.network.resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from hfclip.network.vit import VisionTransformer

# Number of pixels in the images that a ResNet computes at once.
PIXELS = 8 * 224 * 224


class Block:
    """Computes a residual attention block: (T, W) -> (T, W)."""

    def __init__(self, kernels: BlockKernels, block: ResidualAttentionBlock) -> None:
        attention = block.attn
        self._norms = Norm(block.ln_1), Norm(block.ln_2)
        self._heads, self._causal = attention.num_heads, block.attn_mask is not None
        self._qkv = kernels.qkv(attention.in_proj_weight, attention.in_proj_bias)
        self._out = kernels.linear(attention.out_proj.weight, attention.out_proj.bias)
        self._mlp = kernels.mlp(*_mlp(block))

    def __call__(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        """Adds attention and the MLP to x."""
        qkv = self._qkv(self._norms[0](x))
        x = self._out(attend(qkv, groups, self._heads, causal=self._causal), x)
        first, second = self._mlp
        return second(first(self._norms[1](x)), x)


class LastBlock:
    """Computes a residual attention block at one position of each input: (T, W) -> (N', W).

    N' is `padded_rows(N)` for N inputs. The first N rows are the results; the rest is padding.

    The position must attend to all tokens of its input. The class token of an image does, and so
    does the end token of a text that was cut after it.
    """

    def __init__(self, kernels: BlockKernels, block: ResidualAttentionBlock) -> None:
        attention = block.attn
        weights = attention.in_proj_weight.chunk(3)
        biases = attention.in_proj_bias.chunk(3)
        self._norms = Norm(block.ln_1), Norm(block.ln_2)
        self._pool = PooledAttention(
            kernels,
            (weights[0], biases[0]),
            weights[1],
            (weights[2], biases[2]),
            attention.num_heads,
        )
        self._out = kernels.linear(attention.out_proj.weight, attention.out_proj.bias)
        self._mlp = kernels.mlp(*_mlp(block))

    def __call__(self, x: Tensor, groups: Sequence[Group], position: int) -> Tensor:
        """Returns the residual stream after this block, at `position` of each input."""
        kept = self._norms[0](x)
        count = padded_rows(sum(count for count, _ in groups))
        queries, rows = (
            padded([part[:, position] for part in split(matrix, groups)], count)
            for matrix in (kept, x)
        )
        rows = self._out(self._pool(kept, queries, groups), rows)
        first, second = self._mlp
        return second(first(self._norms[1](rows)), rows)


class Blocks:
    """Computes a transformer at the pooled position of each input: (T, W) -> (N, W).

    Rows of x after those of the groups are padding.
    """

    def __init__(self, kernels: BlockKernels, transformer: Transformer, position: int) -> None:
        blocks: list[Any] = [*transformer.resblocks]
        last = blocks.pop()
        self.dtype = kernels.dtype
        self._blocks = [Block(kernels, block) for block in blocks]
        self._last, self._position = LastBlock(kernels, last), position

    def __call__(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        """Runs the blocks in order."""
        x = x.to(self.dtype)
        for block in self._blocks:
            x = block(x, groups)
        return self._last(x, groups, self._position)[: sum(count for count, _ in groups)]


class Norm(Portable):
    """Applies LayerNorm in float32 and returns the input's dtype: (..., W) -> (..., W)."""

    def __init__(self, layer: LayerNorm) -> None:
        self._weight, self._bias, self._eps = layer.weight, layer.bias, layer.eps

    def __call__(self, x: Tensor) -> Tensor:
        """Normalises the last dimension of x."""
        return F.layer_norm(x, self._weight.shape, self._weight, self._bias, self._eps)


def _mlp(block: ResidualAttentionBlock) -> tuple[Mlp, Activation]:
    layers: Any = block.mlp
    first, activation, second = layers
    kind: Activation = "quick_gelu" if isinstance(activation, QuickGELU) else "gelu"
    return ((first.weight, first.bias), (second.weight, second.bias)), kind


class VisionEncoder(Portable):
    """Encodes images with a ViT: (B, 3, S, S) -> (B, D) float32.

    Attributes:
        at_once: The largest number of images per call that is fast.
    """

    def __init__(self, kernels: Kernels, blocks: BlockKernels, tower: VisionTransformer) -> None:
        weight = tower.conv1.weight
        self._patch = weight.shape[-1]
        self._dtype = kernels.dtype
        self._patches = kernels.linear(weight.flatten(1), None)
        self._positions = tower.positional_embedding
        self._first = tower.class_embedding + tower.positional_embedding[0]
        self._norms = Norm(tower.ln_pre), Norm(tower.ln_post)
        self._blocks = Blocks(blocks, tower.transformer, position=0)
        self._projection = tower.proj
        self.at_once = max(1, TOKENS // len(self._positions))

    def __call__(self, images: Tensor) -> Tensor:
        """Encodes a batch of any size. Fastest with up to `at_once` images per call."""
        tokens = self._norms[0](self._embed(images))
        group = Group(*tokens.shape[:2])
        pooled = self._blocks(tokens.flatten(0, 1), [group])  # (B, W)
        pooled = self._norms[1](pooled.float())
        return pooled if self._projection is None else pooled @ self._projection

    def _embed(self, images: Tensor) -> Tensor:
        """Returns class token and patches with positions: (B, 3, S, S) -> (B, 1 + G*G, W)."""
        count, side = len(images), self._patch
        grid = images.shape[-1] // side
        patches = images.to(self._dtype).unfold(2, side, side).unfold(3, side, side)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(count * grid * grid, -1)
        rows = self._patches(patches).view(count, grid * grid, -1)
        tokens = rows.new_empty(count, 1 + grid * grid, rows.shape[-1])
        tokens[:, 0] = self._first
        torch.add(rows, self._positions[1:].to(rows.dtype), out=tokens[:, 1:])
        return tokens


class ResNetEncoder:
    """Encodes images with a ResNet: (B, 3, S, S) -> (B, D) float32.

    Attributes:
        at_once: The largest number of images per call that is fast.
    """

    def __init__(self, kernels: Kernels, tower: ModifiedResNet) -> None:
        self._dtype = kernels.dtype
        side = tower.input_resolution
        self._stem = [
            kernels.convolution(fold(tower.conv1, tower.bn1, side), relu=True),
            kernels.convolution(fold(tower.conv2, tower.bn2, side // 2), relu=True),
            kernels.convolution(fold(tower.conv3, tower.bn3, side // 2), relu=True),
        ]
        self._blocks = []
        stages: Any = (tower.layer1, tower.layer2, tower.layer3, tower.layer4)
        side //= 4
        for block in chain.from_iterable(stages):
            self._blocks.append(_Bottleneck(kernels, block, side))
            side //= block.stride
        self._pool = _GridPooling(kernels, tower.attnpool)
        self.at_once = max(1, PIXELS // tower.input_resolution**2)

    def __call__(self, images: Tensor) -> Tensor:
        """Encodes a batch of any size. Fastest with up to `at_once` images per call."""
        x = images.to(self._dtype, memory_format=torch.channels_last)
        for convolution in self._stem:
            x = convolution(x)
        x = F.avg_pool2d(x, 2)
        for block in self._blocks:
            x = block(x)
        return self._pool(x)


class _Bottleneck:
    def __init__(self, kernels: Kernels, block: Bottleneck, side: int) -> None:
        self._stride, after = block.stride, side // block.stride
        self._reduce = kernels.convolution(fold(block.conv1, block.bn1, side), relu=True)
        self._mix = kernels.convolution(fold(block.conv2, block.bn2, side), relu=True)
        self._expand = kernels.convolution(fold(block.conv3, block.bn3, after), relu=True)
        self._shortcut: Convolution | None = None
        if block.downsample is not None:
            shortcut: Any = block.downsample
            _, layer, batch_norm = shortcut
            self._shortcut = kernels.convolution(fold(layer, batch_norm, after), relu=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Computes (B, C, H, H) -> (B, C', H / stride, H / stride). May overwrite x."""
        out = self._mix(self._reduce(x))
        if self._stride > 1:
            out, x = F.avg_pool2d(out, self._stride), F.avg_pool2d(x, self._stride)
        return self._expand(out, x if self._shortcut is None else self._shortcut(x))


def fold(layer: nn.Conv2d, batch_norm: nn.BatchNorm2d, side: int) -> Kernel:
    """Returns one convolution that replaces a layer and its BatchNorm.

    Args:
        layer: The convolution, without a bias.
        batch_norm: The BatchNorm after it, with running statistics.
        side: The height and width of the layer's input, in pixels.
    """
    mean, variance = batch_norm.running_mean, batch_norm.running_var
    assert mean is not None  # noqa: S101  # every BatchNorm of a CLIP has statistics
    assert variance is not None  # noqa: S101
    scale = batch_norm.weight.double() / (variance.double() + batch_norm.eps).sqrt()
    weight = layer.weight.double() * scale.view(-1, 1, 1, 1)
    bias = batch_norm.bias.double() - mean.double() * scale
    return Kernel(weight.float(), bias.float(), int(layer.padding[0]), layer.stride[0], side)


class _GridPooling(Portable):
    """Pools the grid of a ResNet by attention: (B, W, G, G) -> (B, D) float32."""

    def __init__(self, kernels: Kernels, pool: AttentionPool2d) -> None:
        self._positions = pool.positional_embedding
        self._attention = PooledAttention(
            kernels,
            (pool.q_proj.weight, pool.q_proj.bias),
            pool.k_proj.weight,
            (pool.v_proj.weight, pool.v_proj.bias),
            pool.num_heads,
        )
        self._out: Linear = kernels.linear(pool.c_proj.weight, pool.c_proj.bias)

    def __call__(self, x: Tensor) -> Tensor:
        grid = x.flatten(2).mT  # (B, G*G, W)
        tokens = torch.cat([grid.mean(dim=1, keepdim=True), grid], dim=1)
        tokens += self._positions.to(tokens.dtype)
        group = Group(*tokens.shape[:2])
        queries = tokens[:, 0].clone()
        return self._out(self._attention(tokens.flatten(0, 1), queries, [group])).float()


class TextEncoder(Portable):
    """Encodes texts: (T, L) integer token ids -> (T, D) float32.

    A batch padded to its longest text would compute padding in every layer. Instead, texts of equal
    length attend together and no text has padding. The matrix of all tokens gets at most 1/16 more
    rows, which bounds the memory of oneDNN: see `hfclip.fast.attention.padded_rows`.

    With the text tower of ViT-B/32 in float32 this class encodes 152 captions per second. The
    model, which pads to the longest caption, encodes 24.4 (benchmarks/RESULTS.md, "Encode
    captions").
    """

    def __init__(
        self,
        kernels: BlockKernels,
        transformer: Transformer,
        embeddings: tuple[Tensor, Tensor],
        head: tuple[LayerNorm, Tensor],
    ) -> None:
        self._tokens, self._positions = embeddings
        self._blocks = Blocks(kernels, transformer, position=-1)
        self._norm, self._projection = Norm(head[0]), head[1]

    def __call__(self, ids: Tensor) -> Tensor:
        """Encodes any number of texts, 0 included."""
        if not len(ids):
            return self._projection.new_empty(0, self._projection.shape[1])
        # argmax finds the end token, which has the highest id.
        lengths, order = (ids.argmax(dim=-1) + 1).sort(stable=True)
        out = self._projection.new_empty(len(ids), self._projection.shape[1])
        start = 0
        for groups in batches(lengths.tolist()):
            rows = order[start : start + sum(count for count, _ in groups)]
            out[rows] = self._encode(ids[rows], groups)
            start += len(rows)
        return out

    def _encode(self, ids: Tensor, groups: Sequence[Group]) -> Tensor:
        """Encodes texts that are sorted by length: (N, L) -> (N, D)."""
        texts = zip(torch.split(ids, [group.inputs for group in groups]), groups, strict=True)
        parts = [self._embed(part[:, : group.length]) for part, group in texts]
        rows = padded_rows(sum(count * length for count, length in groups))
        embedded = padded(parts, rows)
        pooled = self._norm(self._blocks(embedded, groups).float())
        return pooled @ self._projection

    def _embed(self, ids: Tensor) -> Tensor:
        """Returns the embeddings of tokens plus positions: (n, L) -> (n * L, W)."""
        x = F.embedding(ids, self._tokens) + self._positions[: ids.shape[1]]
        return x.flatten(0, 1)
