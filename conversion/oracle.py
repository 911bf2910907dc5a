"""Runs a TorchScript archive's own code on a batch: `python -m conversion.oracle FILE BATCH OUT`.

This is the only module of the project that runs code from a file. `python -m conversion check
--run-torchscript` starts it in a separate process. It does not import hfclip's model, so that the
two computations of the logits share no code.
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hfclip.config import ClipConfig

LOGITS = "logits_per_image"
TOLERANCE = 1e-5  # relative difference of the logits

# TorchScript's numbers for float16 and float32.
_HALF, _FLOAT = 5, 6


def fixed_batch(config: ClipConfig) -> tuple[Tensor, Tensor]:
    """Returns two images (2, 3, S, S) and three texts (3, L), the same on each call."""
    random = torch.Generator().manual_seed(0)
    side, end = config.image_resolution, config.vocab_size - 1
    images = torch.randn(2, 3, side, side, generator=random)
    texts = torch.randint(1, end, (3, config.context_length), generator=random)
    texts[0, config.context_length // 2] = end
    texts[0, config.context_length // 2 + 1 :] = 0
    texts[1:, -1] = end
    return images, texts


def run(archive: Path, images: Tensor, texts: Tensor) -> Tensor:
    """Computes the archive's logits per image (B, T) on the CPU in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch deprecate TorchScript
        module = torch.jit.load(str(archive), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    for graph in _graphs(module):
        _move_to_cpu_and_float32(graph)
    # The code runs once, so optimising it would take longer than it gains.
    unoptimized = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
    with torch.no_grad(), unoptimized:
        logits: Tensor = module.float()(images, texts)[0]
    return logits


def _graphs(module: Any) -> Iterator[Any]:
    """Yields the traced graph of every method of every module."""
    for part in module.modules():
        for name in part._c._method_names():  # noqa: SLF001  # torch has no public function for it
            yield part._c._get_method(name).graph  # noqa: SLF001


def _move_to_cpu_and_float32(graph: Any) -> None:
    """Replaces the devices, dtypes and masks that tracing on a GPU in float16 stored."""
    for node in graph.findAllNodes("prim::Constant"):
        if not node.hasAttribute("value"):
            continue
        kind = node.kindOf("value")
        if kind == "s" and node.s("value").startswith("cuda"):
            node.s_("value", "cpu")
        elif kind == "t" and node.t("value").dtype == torch.float16:
            node.t_("value", node.t("value").float())
    for node in graph.findAllNodes("aten::to"):
        for given in node.inputs():
            constant = given.node()
            is_type = constant.kind() == "prim::Constant" and constant.hasAttribute("value")
            if is_type and constant.kindOf("value") == "i" and constant.i("value") == _HALF:
                constant.i_("value", _FLOAT)


def main(archive: str, batch: str, out: str) -> None:
    """Reads a batch, runs the archive on it and writes the logits."""
    given = load_file(batch)
    save_file({LOGITS: run(Path(archive), given["images"], given["texts"])}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
