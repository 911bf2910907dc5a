"""Chooses the dtype of the computation."""

import torch

from hfclip.fast.processor import instructions
from hfclip.training.settings import Precision

_ON_CPU = {"avx512_bf16", "amx_bf16"}
_AMPERE = 8  # the first generation of GPUs with bfloat16


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """Returns "bf16" for "auto" if the device is faster with bfloat16, else "fp32".

    Weights, gradients and the loss are float32 in both. "fp32" and "bf16" are returned as they are.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        is_fast = torch.cuda.get_device_capability(device)[0] >= _AMPERE or bool(torch.version.hip)
    else:
        is_fast = device.type == "cpu" and bool(_ON_CPU & set(instructions()))
    return "bf16" if is_fast else "fp32"
