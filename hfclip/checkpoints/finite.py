"""Checks that weights are numbers."""

from collections.abc import Mapping

from torch import Tensor

from hfclip.errors import PublishError


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises an error for weights with NaN or infinity, which come from failed training.

    Raises:
        PublishError: A tensor holds NaN or infinity; the message names it.
    """
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        more = f" and {len(broken) - 1} more tensors" if len(broken) > 1 else ""
        raise PublishError(
            f"{broken[0]}{more} hold NaN or infinity, so the model gives no valid result. Use a "
            "checkpoint from before training failed."
        )
