"""The processes of a training: their number, their device, and what they tell each other."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hfclip.devices import Device, choose_device
from hfclip.errors import ArgumentError, HfclipError, TrainingError

if TYPE_CHECKING:
    from accelerate import PartialState

_T = TypeVar("_T")
# The process with rank 0 evaluates and writes while the others wait.
_LONGEST_WAIT = timedelta(days=1)
# Numbers that are summed over the processes in one message.
_BUCKET = 2**24


@dataclass(frozen=True)
class Processes:
    """The processes that train one model.

    Attributes:
        rank: The number of this process, from 0. The process 0 writes and reports.
        count: The number of processes on all machines.
        device: The device of this process.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def describe(self) -> str:
        """Returns the number of processes and the device in words."""
        device = str(self.device)
        if self.device.type == "cpu":
            device = f"cpu, {torch.get_num_threads()} threads each"
        return f"{self.count} process{'es' if self.count > 1 else ''} on {device}"

    def share(self, count: int) -> slice:
        """Returns the part of `count` items that belongs to this process."""
        return slice(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over the processes in place and returns it."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_all(self, tensors: Iterable[Tensor]) -> None:
        """Sums tensors over the processes in place, many of them in one message."""
        if self.count == 1:
            return
        for bucket in _buckets(tensors):
            flat = self.sum(torch.cat([tensor.reshape(-1) for tensor in bucket]))
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Copies the values of tensors from the process 0 to all others."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Returns for each flag whether it is set in any process."""
        if self.count == 1:
            return flags
        counts = self.sum(torch.tensor(flags, dtype=torch.int32, device=self.device))
        return tuple(bool(count) for count in counts.tolist())

    def on_first(self, function: Callable[[], _T]) -> _T:
        """Calls a function in the process 0 and returns its result in all processes.

        Raises:
            HfclipError: The function raised it in the process 0. All processes raise it.
        """
        outcome: list[_T | HfclipError | None] = [None]
        if self.is_first:
            try:
                outcome = [function()]
            except HfclipError as error:
                if self.count == 1:
                    raise
                outcome = [error]
        if self.count > 1:
            dist.broadcast_object_list(outcome, src=0)
        (result,) = outcome
        if isinstance(result, HfclipError):
            raise result
        return result  # type: ignore[return-value]  # the function's own

    def check_same(self, name: str, value: str) -> None:
        """Raises TrainingError unless a value is the same in all processes."""
        first = self.on_first(lambda: value)
        if first != value:
            raise TrainingError(
                f"Process {self.rank} reads other {name} than process 0. Give all processes the "
                "same files."
            )

    def end(self) -> None:
        """Leaves the group of processes."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join_processes(device: Device = None) -> Processes:
    """Joins the processes that `torchrun` or `accelerate launch` started, or stays alone.

    Args:
        device: The device. None selects the GPU of this process if there is one, else the CPU.

    Raises:
        TrainingError: accelerate is not installed.
        ArgumentError: One GPU is named for several processes.
        DeviceError: The device cannot be used.
    """
    wanted = choose_device(device)
    state = _state(on_cpu=wanted.type == "cpu")
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != started:
        raise TrainingError(
            f"{started} processes were started, and accelerate finds {state.num_processes}. Start "
            "them with: torchrun --nproc-per-node N -m hfclip finetune ..."
        )
    if started > 1 and wanted.type != state.device.type:
        raise ArgumentError(
            f"The device is {wanted}, but the {started} processes use {state.device.type}."
        )
    # Each process has a GPU of its own; a process that is alone uses the one that it is given.
    return Processes(state.process_index, started, state.device if started > 1 else wanted)


def _state(*, on_cpu: bool) -> "PartialState":
    try:
        from accelerate import PartialState  # noqa: PLC0415
    except ImportError as error:
        raise TrainingError(
            "Fine-tuning needs accelerate: pip install 'hfclip[finetune]'."
        ) from error
    return PartialState(cpu=on_cpu, timeout=_LONGEST_WAIT)


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yields lists of tensors with up to `_BUCKET` numbers, or with one larger tensor."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(each.numel() for each in bucket) + tensor.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
