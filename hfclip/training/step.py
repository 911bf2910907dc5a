"""The gradient of one step, whatever the memory and the number of processes.

The loss compares all pictures of a batch with all its captions, so it does not split into parts.
GradCache (Gao et al., 2021) computes its exact gradient in chunks: first the features of each chunk
without a graph, then the loss and its gradient on all features, then each chunk again with a graph,
through which the gradient of its features flows back. Each process encodes its share of the batch.
"""

import gc
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from hfclip.errors import TrainingError
from hfclip.model import CLIP
from hfclip.training.loss import contrastive_loss
from hfclip.training.packed import encoders
from hfclip.training.processes import Processes

_T = TypeVar("_T")


class Batch(NamedTuple):
    """The pictures and captions of one step.

    Attributes:
        rows: The number of each picture in the training split, for all processes.
        pixels: The pictures of this process, float32 (b, 3, S, S).
        tokens: The distinct captions of this process, int32 (t, L).
        positives: Which caption belongs to which picture, for all processes, bool (B, T).
    """

    rows: tuple[int, ...]
    pixels: Tensor
    tokens: Tensor
    positives: Tensor


class Gradients(NamedTuple):
    """The result of `compute_gradients`. The gradients are in the parameters.

    Attributes:
        excess: The loss less its floor.
        floor: The floor of the loss.
        chunk: The largest number of pictures or captions that fits into memory at once.
        odd: The places in the batch of pictures whose features are not finite numbers.
    """

    excess: float
    floor: float
    chunk: int
    odd: tuple[int, ...]


def compute_gradients(
    model: CLIP,
    parameters: Sequence[nn.Parameter],
    batch: Batch,
    processes: Processes,
    chunk: int,
    *,
    bf16: bool = False,
) -> Gradients:
    """Sets the gradients of the parameters: the same in all processes, for the whole batch.

    Args:
        model: The model, in eval mode on the device of this process.
        parameters: The parameters to train. The others must not require a gradient.
        batch: The batch, with the share of this process.
        processes: The processes.
        chunk: The largest number of pictures or captions to encode at once. It is halved while
            memory runs out, which changes the result only by rounding.
        bf16: Whether matrix products are computed in bfloat16.

    Raises:
        TrainingError: Memory runs out with a chunk of 1.
    """
    device = processes.device
    pixels, tokens = (each.to(device, non_blocking=True) for each in (batch.pixels, batch.tokens))
    shares = [processes.share(size) for size in batch.positives.shape]
    trained = (_is_trained(model.visual), _is_trained(model.transformer))
    towers = [
        _Tower(encode, inputs, share, total, learns)
        for encode, inputs, share, total, learns in zip(
            encoders(model, bf16=bf16),
            (pixels, tokens),
            shares,
            batch.positives.shape,
            trained,
            strict=True,
        )
    ]
    positives = batch.positives.to(device)
    while True:
        outcome = _attempt(model, parameters, towers, positives, processes, chunk)
        if outcome is not None:
            return outcome
        chunk = _halved(chunk, -(-max(batch.positives.shape) // processes.count))


class _Tower(NamedTuple):
    """A tower and its inputs in this process.

    Attributes:
        encode: The function from inputs (n, ...) to float32 features (n, D).
        inputs: The inputs of this process.
        share: The place of these inputs in the batch.
        total: The number of inputs in the batch.
        learns: Whether the tower has a parameter to train.
    """

    encode: Callable[[Tensor], Tensor]
    inputs: Tensor
    share: slice
    total: int
    learns: bool

    def all_features(self, chunk: int, *, graph: bool) -> Tensor:
        """Returns the features of this process (n, D), with a graph or without."""
        with torch.set_grad_enabled(graph and self.learns):
            return torch.cat([self.encode(part) for part in torch.split(self.inputs, chunk)])

    def backward(self, gradient: Tensor, chunk: int) -> None:
        """Encodes each chunk again and passes on the gradient (n, D) of its features."""
        for part, wanted in zip(
            *(torch.split(each, chunk) for each in (self.inputs, gradient)), strict=True
        ):
            torch.autograd.backward(self.encode(part), wanted)


def _attempt(
    model: CLIP,
    parameters: Sequence[nn.Parameter],
    towers: Sequence[_Tower],
    positives: Tensor,
    processes: Processes,
    chunk: int,
) -> Gradients | None:
    """Returns the result of one chunk size, or None if memory runs out in any process."""
    for parameter in parameters:
        parameter.grad = None
    whole = all(len(tower.inputs) <= chunk for tower in towers)  # then one pass is enough
    own = _unless_full(
        lambda: [tower.all_features(chunk, graph=whole) for tower in towers], processes
    )
    if own is None:
        return None
    leaves = [
        _gathered(features.detach(), tower, processes).requires_grad_(tower.learns)
        for features, tower in zip(own, towers, strict=True)
    ]
    loss = contrastive_loss(leaves[0], leaves[1], model.logit_scale, positives)
    loss.excess.backward()  # type: ignore[no-untyped-call]  # untyped in torch

    def pass_on() -> bool:
        for tower, features, leaf in zip(towers, own, leaves, strict=True):
            if leaf.grad is None:
                continue
            if whole:
                torch.autograd.backward(features, leaf.grad[tower.share])
            else:
                tower.backward(leaf.grad[tower.share], chunk)
        return True

    if _unless_full(pass_on, processes) is None:
        return None
    _sum_gradients(model, parameters, processes)
    excess = float(loss.excess.detach())
    odd = () if math.isfinite(excess) else _odd_rows(leaves[0])
    return Gradients(excess, loss.floor, chunk, odd)


def _gathered(own: Tensor, tower: _Tower, processes: Processes) -> Tensor:
    """Returns the features of all processes: (n, D) -> (total, D)."""
    features = own.new_zeros(tower.total, own.shape[1])
    features[tower.share] = own
    return processes.sum(features)


def _sum_gradients(model: CLIP, parameters: Sequence[nn.Parameter], processes: Processes) -> None:
    """Sums the gradients over the processes. Each of them has the whole one of logit_scale."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter is model.logit_scale:
            parameter.grad /= processes.count
    processes.sum_all(parameter.grad for parameter in parameters if parameter.grad is not None)


def _unless_full(function: Callable[[], _T], processes: Processes) -> _T | None:
    """Returns the result of a function, or None if memory runs out in any process."""
    result: _T | None = None
    try:
        result = function()
    except (RuntimeError, MemoryError) as error:
        if not _is_lack_of_memory(error):
            raise
    (is_full,) = processes.any(result is None)
    return None if is_full else result


def _is_lack_of_memory(error: Exception) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


def _halved(chunk: int, largest: int) -> int:
    """Returns half of the chunk that was in use, at most `largest` inputs of a process."""
    used = min(chunk, largest)
    if used == 1:
        raise TrainingError(
            "Memory runs out with a single picture or caption at once. Train a smaller model or "
            "one tower (--train image), or end other programs that use this memory."
        )
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return used // 2


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _odd_rows(features: Tensor) -> tuple[int, ...]:
    odd = ~features.detach().isfinite().all(dim=1)
    return tuple(odd.nonzero().flatten().tolist())
