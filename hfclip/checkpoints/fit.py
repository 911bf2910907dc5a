"""Checks that the tensors of a checkpoint fit the network of its configuration."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from hfclip.checkpoints.comparing import compare
from hfclip.checkpoints.read import Checkpoint
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
