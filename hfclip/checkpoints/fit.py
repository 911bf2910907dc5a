"""Checks that the tensors of a checkpoint fit the network of its configuration."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from hfclip.checkpoints.names import describe_misfit
from hfclip.checkpoints.read import Checkpoint
from hfclip.errors import WeightsMismatchError
from hfclip.network.clip import CLIP
from hfclip.network.initialization import NoInitialization


def check_fit(checkpoint: Checkpoint, *, allow_others: bool = False) -> None:
    """Checks that tensors fit their configuration.

    Args:
        checkpoint: The configuration and the tensors.
        allow_others: Whether tensors may be missing or unexpected, as in a subclass. Only the
            tensors in both are compared then. Loading the subclass compares all of its tensors.

    Raises:
        WeightsMismatchError: A tensor is missing, unexpected or of another shape or kind.
    """
    with NoInitialization():
        expected: Mapping[str, Tensor] = CLIP(**checkpoint.config.to_dict()).state_dict()
    if allow_others:
        common = expected.keys() & checkpoint.tensors.keys()
        expected = {key: expected[key] for key in common}
        tensors = {key: checkpoint.tensors[key] for key in common}
        checkpoint = replace(checkpoint, tensors=tensors)
    compare(expected, checkpoint)


def compare(expected: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    """Compares the names, shapes and kinds of numbers of two sets of tensors.

    Args:
        expected: The tensors of a network.
        checkpoint: The tensors that were found.

    Raises:
        WeightsMismatchError: A tensor is missing, unexpected or of another shape or kind.
    """
    found = checkpoint.tensors
    misfit = describe_misfit(found.keys(), expected.keys())
    problems = [misfit] if misfit else []
    for key in sorted(expected.keys() & found.keys()):
        want, have = expected[key], found[key]
        if want.shape != have.shape:
            problems.append(f"{key} is {tuple(have.shape)} instead of {tuple(want.shape)}")
        elif want.is_floating_point() != have.is_floating_point():
            problems.append(f"{key} holds {have.dtype} instead of {want.dtype}")
    if problems:
        shown = "; ".join(problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        under = f" (its names begin with {checkpoint.prefix!r})" if checkpoint.prefix else ""
        raise WeightsMismatchError(
            f"{checkpoint.path}{under} does not fit {checkpoint.config_origin}: {shown}{more}. "
            + (_SAVE_ALONE if misfit.startswith("missing nothing") else _GIVE_CONFIG)
        )


_SAVE_ALONE = "Save the CLIP's weights alone: torch.save(clip.state_dict(), ...)."
_GIVE_CONFIG = (
    "Provide the config.json of these weights, name the model that they were fine-tuned from with "
    "base= (--base), or export the weights again."
)
