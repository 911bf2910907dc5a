"""Computes the gradients of one batch and saves them: a program for `torchrun`.

Usage: gradients.py FOLDER CHUNK...
"""

import sys
from pathlib import Path

import torch
from coloured import small_model
from safetensors.torch import save_file
from torch import Tensor

from hfclip.text.tokenizer import tokenize
from hfclip.training.optimizer import choose_parameters
from hfclip.training.processes import Processes, join_processes
from hfclip.training.settings import Towers
from hfclip.training.step import Batch, Gradients, compute_gradients

PICTURES = 64
CAPTIONS = ["a red square", "a circle", "two dogs that run on a beach", "it", "a b c d", "night"]


def batch_of(processes: Processes) -> Batch:
    """Returns a batch in which captions repeat and each third picture has two."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(PICTURES, 3, 32, 32, generator=generator)
    positives = torch.zeros(PICTURES, len(CAPTIONS), dtype=torch.bool)
    for row in range(PICTURES):
        positives[row, row % len(CAPTIONS)] = True
        positives[row, 5 - row % 3] |= row % 3 == 0
    tokens = tokenize(CAPTIONS, padding="longest")
    shares = processes.share(PICTURES), processes.share(len(CAPTIONS))
    return Batch(tuple(range(PICTURES)), pixels[shares[0]], tokens[shares[1]], positives)


def gradients(
    processes: Processes, chunk: int, towers: Towers = "both"
) -> tuple[Gradients, dict[str, Tensor]]:
    model = small_model()
    parameters = choose_parameters(model, towers)
    found = compute_gradients(
        model, list(parameters.values()), batch_of(processes), processes, chunk
    )
    return found, {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


if __name__ == "__main__":
    joined = join_processes("cpu")
    for size in sys.argv[2:]:
        _, tensors = gradients(joined, int(size))
        if joined.is_first:
            path = Path(sys.argv[1], f"{size}.safetensors")
            save_file(tensors, path, metadata={"processes": str(joined.count)})
    joined.end()
