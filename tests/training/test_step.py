"""The gradient of a step is the same in chunks, in several processes, and after lack of memory."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from coloured import small_model
from gradients import PICTURES, batch_of, gradients
from safetensors import safe_open
from torch import Tensor

from hfclip.errors import TrainingError
from hfclip.model import CLIP
from hfclip.training.loss import contrastive_loss
from hfclip.training.optimizer import choose_parameters
from hfclip.training.processes import Processes
from hfclip.training.step import compute_gradients

# A lack of memory collects garbage.
pytestmark = pytest.mark.usefixtures("little_to_collect")

ALONE = Processes(0, 1, torch.device("cpu"))
BOUND = 1e-5


def error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Returns the norm of the difference, relative to the norm of what is expected."""
    assert found.keys() == expected.keys()
    difference = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    total = sum(float(each.square().sum()) for each in expected.values())
    return float((difference / total) ** 0.5)


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    """Returns the gradients of the whole batch in one process, by plain autograd."""
    model, batch = small_model(), batch_of(ALONE)
    images, texts = model.encode_image(batch.pixels), model.encode_text(batch.tokens)
    contrastive_loss(images, texts, model.logit_scale, batch.positives).excess.backward()  # type: ignore[no-untyped-call]  # untyped in torch
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("chunk", [PICTURES, 8, 5])
def test_chunks_give_the_gradient_of_the_whole_batch(whole: dict[str, Tensor], chunk: int) -> None:
    found, own = gradients(ALONE, chunk)
    assert error(own, whole) < BOUND
    assert found.chunk == chunk


def test_plain_accumulation_does_not_give_it(whole: dict[str, Tensor]) -> None:
    model, batch = small_model(), batch_of(ALONE)
    for rows in torch.split(torch.arange(PICTURES), 8):
        positives = batch.positives[rows]
        present = positives.any(dim=0)
        images, texts = model.encode_image(batch.pixels[rows]), model.encode_text(batch.tokens)
        loss = contrastive_loss(
            images, texts[present], model.logit_scale, positives[:, present]
        ).excess
        (loss * len(rows) / PICTURES).backward()  # type: ignore[no-untyped-call]
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    assert error(found, whole) > 1000 * BOUND


def test_two_processes_give_the_gradient_of_one(
    whole: dict[str, Tensor], tmp_path: Path, python: Path
) -> None:
    program = Path(__file__).parents[1] / "gradients.py"
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    subprocess.run(
        [python, "-m", *launch, python, str(program), str(tmp_path), "32", "3"],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    for chunk in (32, 3):
        with safe_open(tmp_path / f"{chunk}.safetensors", "pt") as file:
            assert file.metadata() == {"processes": "2"}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert error(found, whole) < BOUND


@pytest.mark.parametrize(
    "lack", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), "DefaultCPUAllocator"]
)
@pytest.mark.parametrize("in_backward", [False, True])
def test_the_chunk_is_halved_until_it_fits(
    whole: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    lack: Exception | str,
    in_backward: bool,
) -> None:
    encode = CLIP.encode_image

    def limited(self: CLIP, image: Tensor) -> Tensor:
        if len(image) > 20 and torch.is_grad_enabled() >= in_backward:
            raise lack if isinstance(lack, Exception) else RuntimeError(lack)
        return encode(self, image)

    monkeypatch.setattr(CLIP, "encode_image", limited)
    found, own = gradients(ALONE, 48)
    assert found.chunk == 12
    assert error(own, whole) < BOUND


def test_lack_of_memory_for_one_picture_ends_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(CLIP, "encode_image", full)
    with pytest.raises(TrainingError, match="--train image"):
        gradients(ALONE, 48)


def test_another_error_is_not_taken_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> Tensor:
        raise RuntimeError("shape")

    monkeypatch.setattr(CLIP, "encode_image", wrong)
    with pytest.raises(RuntimeError, match="shape"):
        gradients(ALONE, 48)


@pytest.mark.parametrize("chunk", [64, 8])
def test_a_frozen_tower_gets_no_gradient_and_the_other_the_same(
    whole: dict[str, Tensor], chunk: int
) -> None:
    _, image = gradients(ALONE, chunk, "image")
    _, text = gradients(ALONE, chunk, "text")
    assert image.keys() & text.keys() == {"logit_scale"}
    assert error(image | text, whole) < BOUND


def test_bfloat16_changes_the_gradient_by_rounding_and_keeps_it_float32(model: CLIP) -> None:
    parameters = list(choose_parameters(model, "both").values())
    batch = batch_of(ALONE)
    grads = []
    for chunk in (64, 8):
        compute_gradients(model, parameters, batch, ALONE, chunk, bf16=True)
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        assert {each.dtype for each in grads[-1].values()} == {torch.float32}
    _, exact = gradients(ALONE, 64)
    assert 1e-5 < error(grads[0], exact) < 0.05
    assert error(grads[1], grads[0]) < 0.05
