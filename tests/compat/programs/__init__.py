"""Small programs in the style of real projects, written for `clip` without hfclip."""

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
