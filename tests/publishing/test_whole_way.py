"""A fine-tune from training to publishing, loading by name elsewhere, and export."""

import json
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from click.testing import CliRunner
from huggingface_hub import close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from torch import Tensor

import hfclip
from conversion import digits
from hfclip.cli import main
from hfclip.training.packed import encoders

TOKEN = "hf_secretOfTheTests"
CAPTIONS = [f"a handwritten {word}" for word in digits.WORDS]
STEPS = 90

# Code of another user who has only the name.
WITH_HFCLIP = """
import sys, numpy as np, torch, hfclip
data = np.load(sys.argv[2])
model, _ = hfclip.load(sys.argv[1], "cpu")
with torch.no_grad():
    logits, _ = model(torch.from_numpy(data["images"]), torch.from_numpy(data["texts"]))
print((logits.argmax(dim=-1).numpy() == data["digits"]).mean())
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.add_account("me", TOKEN)
        yield hub
    close_session()


def turned(images: Tensor) -> Tensor:
    """Returns the pictures turned by 90 degrees."""
    return torch.rot90(images, 1, dims=(2, 3))


def tune(model: hfclip.CLIP, split: digits.Split) -> None:
    """Trains the image tower on turned pictures for some steps."""
    random = torch.Generator().manual_seed(0)
    texts = hfclip.tokenize(CAPTIONS, padding="longest")
    optimizer = torch.optim.AdamW(model.visual.parameters(), lr=6e-4, fused=True)
    encode, _ = encoders(model, bf16=False)  # as `hfclip finetune`, in half the time
    images = digits.normalise(turned(split.images))
    with torch.no_grad():
        captions = F.normalize(model.encode_text(texts), dim=-1)
    for _ in range(STEPS):
        rows = torch.randint(len(images), (64,), generator=random)
        features = F.normalize(encode(images[rows]), dim=-1)
        loss = F.cross_entropy(30 * features @ captions.t(), split.digits[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def accuracy(model: hfclip.CLIP, images: Tensor, split: digits.Split) -> float:
    with torch.no_grad():
        logits, _ = model(images, hfclip.tokenize(CAPTIONS))
    return float((logits.argmax(dim=-1) == split.digits).double().mean())


@torch.no_grad()
def accuracy_of_an_export(folder: Path, images: Tensor, split: digits.Split) -> float:
    """Returns the accuracy with transformers, in this process, which may have imported it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import CLIPModel

        theirs: Any = CLIPModel.from_pretrained(folder)
        ids = hfclip.tokenize(CAPTIONS).long()
        logits = theirs(pixel_values=images, input_ids=ids).logits_per_image
    return float((logits.argmax(dim=-1) == split.digits).double().mean())


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # a warning of the client
def test_the_accuracy_of_a_fine_tune_is_the_same_everywhere(
    hub: LoopbackHub, tmp_path: Path, python: Path
) -> None:
    train, test = digits.load_split()
    model, _ = hfclip.load("digits", "cpu")
    images = digits.normalise(turned(test.images))
    assert accuracy(model, images, test) < 0.5
    tune(model, train)
    tuned = accuracy(model, images, test)
    assert tuned > 0.9
    np.savez(
        tmp_path / "data.npz",
        images=images.numpy(),
        texts=hfclip.tokenize(CAPTIONS).numpy(),
        digits=test.digits.numpy(),
    )
    torch.save({"state_dict": model.state_dict()}, tmp_path / "last.pt")
    (tmp_path / "results.json").write_text(
        json.dumps({"digits on their side": {"accuracy": tuned}})
    )
    result = CliRunner().invoke(
        main,
        ["publish", str(tmp_path / "last.pt"), "me/turned", "--base", "digits", "--license", "mit",
         "--metrics", str(tmp_path / "results.json")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output

    environment = hub.environment(tmp_path / "colleague") | {"PYTHONWARNINGS": "ignore"}

    def run(*command: str) -> str:
        return subprocess.run(
            [python, *command],
            env=environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert float(run("-c", WITH_HFCLIP, "me/turned", "data.npz")) == tuned
    run("-m", "hfclip.cli", "export", "me/turned", "copy", "--layout", "transformers")
    assert accuracy_of_an_export(tmp_path / "copy", images, test) == tuned
