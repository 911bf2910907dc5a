"""Compares the tensors of a checkpoint with those that a network needs. Imports no torch."""

from collections.abc import Mapping
from typing import Any, Protocol

from hfclip.checkpoints.assembly import Assembled
from hfclip.checkpoints.names import describe_misfit
from hfclip.errors import WeightsMismatchError


class Expected(Protocol):
    """The shape and the dtype of a tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each dimension."""

    @property
    def dtype(self) -> Any:
        """The type of the elements, whose name holds "float" if they are floating-point numbers."""


def compare(expected: Mapping[str, Expected], checkpoint: Assembled[Any]) -> None:
    """Compares the names, shapes and kinds of numbers of two sets of tensors.

    Args:
        expected: The tensors of a network, or their shapes and dtypes.
        checkpoint: The tensors that were found.

    Raises:
        WeightsMismatchError: A tensor is missing, unexpected or of another shape or kind.
    """
    found = checkpoint.tensors
    misfit = describe_misfit(found.keys(), expected.keys())
    problems = [misfit] if misfit else []
    for key in sorted(expected.keys() & found.keys()):
        want, have = expected[key], found[key]
        if tuple(want.shape) != tuple(have.shape):
            problems.append(f"{key} is {tuple(have.shape)} instead of {tuple(want.shape)}")
        elif _is_float(want) != _is_float(have):
            problems.append(f"{key} holds {have.dtype} instead of {want.dtype}")
    if problems:
        shown = "; ".join(problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        under = f" (its names begin with {checkpoint.prefix!r})" if checkpoint.prefix else ""
        raise WeightsMismatchError(
            f"{checkpoint.path}{under} does not fit {checkpoint.config_origin}: {shown}{more}. "
            + (_SAVE_ALONE if misfit.startswith("missing nothing") else _GIVE_CONFIG)
        )


def _is_float(tensor: Expected) -> bool:
    return "float" in str(tensor.dtype)  # torch.bfloat16, float32


_SAVE_ALONE = "Save the CLIP's weights alone: torch.save(clip.state_dict(), ...)."
_GIVE_CONFIG = (
    "Provide the config.json of these weights, name the model that they were fine-tuned from with "
    "base= (--base), or export the weights again."
)
