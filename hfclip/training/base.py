"""The base of a fine-tune: its weights in float32, in memory of their own, and its digest."""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from hfclip.checkpoints.fit import check_fit
from hfclip.checkpoints.read import read_checkpoint
from hfclip.config import ClipConfig
from hfclip.hub.fetch import Access
from hfclip.layouts.files import Source
from hfclip.model import CLIP
from hfclip.sources.find import find


def find_base(name: str, *, revision: str | None = None, namespace: str | None = None) -> Source:
    """Returns the files of a base, which are fetched first if it is on the Hub."""
    return find(name, Access(), revision=revision, namespace=namespace)


def load_base(source: Source) -> CLIP:
    """Loads a base for training: in eval mode, with all parameters float32.

    Half precision does not suit training: with float16 weights, Adam gives NaN in the first step,
    and bfloat16 weights round most updates away. All tensors are copied, so nothing stays mapped:
    the file may change afterwards.

    Raises:
        CheckpointError: The weights are damaged or do not fit the configuration.
    """
    checkpoint = read_checkpoint(source)
    check_fit(checkpoint)
    model = CLIP.from_checkpoint(checkpoint)
    for tensor in (*model.parameters(), *model.buffers()):
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        tensor.data = tensor.data.to(dtype, copy=True)
    return model


def weights_digest(config: ClipConfig, tensors: Mapping[str, Tensor]) -> str:
    """Returns the sha256 of a configuration and of tensors on the CPU, in hexadecimal."""
    found = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for name in sorted(tensors):
        found.update(f"{name} {tuple(tensors[name].shape)}".encode())
        found.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
