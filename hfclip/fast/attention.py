"""Attention over inputs of different lengths whose tokens are rows of one (T, W) matrix.

Inputs of equal length form a group, so no input has padding tokens. Rows after the last group pad
the matrix to one of few sizes: see `padded_rows`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor

from hfclip.fast.kernels import BlockKernels, Portable

# Largest number of rows of activations that are computed at once.
TOKENS = 1024
# Number of rows from which two matrix products are faster than torch's fused attention.
_ROWS_FOR_PRODUCTS = 96


class Group(NamedTuple):
    """Consecutive rows of a (T, W) matrix that hold `inputs` of `length` tokens each."""

    inputs: int
    length: int


def batches(lengths: Sequence[int]) -> Iterator[list[Group]]:
    """Splits inputs into batches of at most `TOKENS` tokens, or of one longer input.

    Args:
        lengths: The number of tokens in each input, in ascending order.

    Yields:
        The groups of one batch.
    """
    groups: list[Group] = []
    tokens = 0
    for length in lengths:
        if groups and tokens + length > TOKENS:
            yield groups
            groups, tokens = [], 0
        if groups and groups[-1].length == length:
            groups[-1] = Group(groups[-1].inputs + 1, length)
        else:
            groups.append(Group(1, length))
        tokens += length
    if groups:
        yield groups


def split(x: Tensor, groups: Sequence[Group]) -> Iterator[Tensor]:
    """Yields the inputs of each group, (n, L, W), as views of a matrix (T, W)."""
    sizes = [count * length for count, length in groups]
    parts = torch.split(x[: sum(sizes)], sizes)
    for part, (count, length) in zip(parts, groups, strict=True):
        yield part.view(count, length, -1)


def padded_rows(rows: int) -> int:
    """Rounds a number of rows up to one of 16 numbers for each power of two.

    oneDNN compiles kernels for each number of rows that it meets and keeps them: about a megabyte
    for each number. Batches of texts have hundreds of different numbers of rows. Rounding leaves
    112 up to `TOKENS` rows, which bounds this memory. Powers of two would be simpler, but could
    double the rows; here the padding is at most one row in 16, and none up to 32 rows.
    """
    step = 1 << max(0, (rows - 1).bit_length() - 5)
    return -(-rows // step) * step


def padded(parts: list[Tensor], rows: int) -> Tensor:
    """Concatenates the parts into a new tensor and pads it to `rows` rows.

    The padding repeats the first row, because other values could widen the range that int8 covers.
    """
    missing = rows - sum(map(len, parts))
    return torch.cat([*parts, parts[0][:1].expand(missing, *parts[0].shape[1:])])


def attend(qkv: Tensor, groups: Sequence[Group], heads: int, *, causal: bool) -> Tensor:
    """Computes attention within each input: queries, keys and values (T, 3 W) -> (T, W).

    Rows after those of the groups are padding. In the result they repeat the first row.
    """
    # torch's fused attention multiplies bfloat16 on a CPU at half the speed of its bmm. Texts use
    # it nevertheless: they have many shapes, and bmm keeps a compiled kernel for each shape.
    is_bfloat16_on_cpu = qkv.dtype == torch.bfloat16 and qkv.device.type == "cpu"
    has_faster_products = is_bfloat16_on_cpu and not causal
    mixed = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
    start = 0
    for part in split(qkv, groups):
        count, length = part.shape[:2]
        parts = part.view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (3, n, H, L, W/H)
        if has_faster_products and count * length >= _ROWS_FOR_PRODUCTS:
            out = _two_products(parts)
        else:
            q, k, v = parts
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal and length > 1)
        end = start + count * length
        mixed[start:end].view(count, length, heads, -1).copy_(out.transpose(1, 2))
        start = end
    mixed[start:] = mixed[0]
    return mixed


def _two_products(qkv: Tensor) -> Tensor:
    """Computes attention as two matrix products: (3, n, H, L, W/H) -> (n, H, L, W/H)."""
    q, k, v = qkv.flatten(1, 2)
    scores = torch.bmm(q, k.mT).mul_(q.shape[-1] ** -0.5)
    weights = torch.softmax(scores, dim=-1, out=scores)
    return torch.bmm(weights, v).view(qkv.shape[1:])


class PooledAttention(Portable):
    """Computes attention for one query per input, without keys and values.

    With one query q, the matrix products can be reordered:

    - The scores q (X Wk)^T equal (q Wk^T) X^T, for the tokens X of an input.
    - The weighted sum of values p (X Wv) equals (p X) Wv, for the attention weights p.

    A product with Wk or Wv then has one row per input instead of one per token: W / heads times
    less work. The bias of the keys adds the same number to all scores of a query, which does not
    change the softmax, so it is left out.

    Shapes: (T, W) in groups -> (N, W), with N the number of inputs in all groups. Rows after those
    of the groups are padding, see `padded`.
    """

    def __init__(
        self,
        kernels: BlockKernels,
        query: tuple[Tensor, Tensor],
        key_weight: Tensor,
        value: tuple[Tensor, Tensor],
        heads: int,
    ) -> None:
        width = key_weight.shape[0]
        scale = (width // heads) ** -0.5
        self._heads = heads
        self._query = kernels.linear(query[0] * scale, query[1] * scale)
        self._key = key_weight.to(kernels.dtype).view(heads, -1, width)  # (H, W/H, W)
        self._value = value[0].to(kernels.dtype).view(heads, -1, width).mT  # (H, W, W/H)
        self._bias = value[1].to(kernels.dtype)

    def __call__(self, x: Tensor, queries: Tensor, groups: Sequence[Group]) -> Tensor:
        """Computes attention over tokens x (T, W) from one query per input, (N, W)."""
        rows = self._per_head(self._query(queries))  # (H, N, W/H)
        rows = torch.bmm(rows, self._key).transpose(0, 1)  # (N, H, W)
        mixed = []
        start = 0
        for own in split(x, groups):
            # float32, because torch keeps a compiled kernel for each shape of a bfloat16 product.
            tokens = own.float()
            scores = torch.bmm(rows[start : start + len(own)].float(), tokens.mT)  # (n, H, L)
            mixed.append(torch.bmm(scores.softmax(dim=-1), tokens))  # (n, H, W)
            start += len(own)
        merged = padded(mixed, len(rows)).to(rows.dtype).transpose(0, 1)  # (H, N, W)
        pooled = torch.bmm(merged, self._value).transpose(0, 1)  # (N, H, W/H)
        return pooled.flatten(1).add_(self._bias)

    def _per_head(self, x: Tensor) -> Tensor:
        return x.view(len(x), self._heads, -1).transpose(0, 1)
