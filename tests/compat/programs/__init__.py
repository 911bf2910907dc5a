"""Small programs in the style of real projects, written for `clip` and unaware of hfclip."""

__all__ = [
    "adapters",
    "dense",
    "explain",
    "generation",
    "interpolation",
    "prompt_learning",
    "retrieval",
    "surgery",
    "tokenizers",
    "training",
    "video",
]

from . import (
    adapters,
    dense,
    explain,
    generation,
    interpolation,
    prompt_learning,
    retrieval,
    surgery,
    tokenizers,
    training,
    video,
)
