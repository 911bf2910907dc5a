"""Traces a CLIP to the ScriptModule that `load(..., jit=True)` returns."""

import warnings

import torch
from torch import Tensor, nn

from hfclip.network.clip import CLIP


class _Traceable(nn.Module):
    """A CLIP with three buffers that OpenAI's archives have in addition to the weights."""

    input_resolution: Tensor
    context_length: Tensor
    vocab_size: Tensor

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        # Parameters and modules are those of CLIP itself, so that the archive has the same names.
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.register_buffer("input_resolution", torch.tensor(model.visual.input_resolution))
        self.register_buffer("context_length", torch.tensor(model.context_length))
        self.register_buffer("vocab_size", torch.tensor(model.vocab_size))
        for name, module in model.named_children():
            self.add_module(name, module)

    dtype = CLIP.dtype
    encode_image = CLIP.encode_image
    encode_text = CLIP.encode_text
    forward = CLIP.forward


def script(model: CLIP) -> torch.jit.ScriptModule:
    """Traces a model. The result runs without hfclip and can be saved as a TorchScript archive.

    Returns:
        A module with the methods `encode_image` (B, 3, S, S) -> (B, D), `encode_text`
        (T, L) -> (T, D) and `forward`, for any B, T and L up to the context length. It has the
        0-dimensional tensors `input_resolution`, `context_length` and `vocab_size`.
    """
    device = model.positional_embedding.device
    side = model.visual.input_resolution
    # A trace records operations, not values, so empty batches give the same trace without the time
    # to compute. It could record a size of one as a constant.
    image = torch.zeros(0, 3, side, side, device=device)
    text = torch.zeros(0, model.context_length, dtype=torch.int64, device=device)
    examples = {"forward": (image, text), "encode_image": image, "encode_text": text}
    with warnings.catch_warnings(), torch.no_grad():
        # torch warns that TorchScript is deprecated, but the user has asked for it with jit=True.
        warnings.simplefilter("ignore")
        model.encode_text(text)  # converts the mask to the model's dtype before the trace
        # The check is off because it would run every method twice more.
        traced: torch.jit.ScriptModule = torch.jit.trace_module(  # type: ignore[no-untyped-call]
            _Traceable(model).eval(), examples, check_trace=False
        )
    return traced
