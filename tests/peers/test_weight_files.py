"""Weights in the forms that transformers and open_clip save load in hfclip with their features."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_weights import save

import hfclip
from hfclip.config import ClipConfig
from hfclip.layouts.open_clip import config_to_open_clip
from hfclip.layouts.transformers import config_to_transformers

CONFIG = ClipConfig(32, 64, 2, 64, 16, 77, 49408, 48, 3, 2, vision_head_width=32)


def assert_same(ours: hfclip.CLIP, theirs: Any) -> None:
    """Compares the logits of two models on the same inputs."""
    images, tokens = torch.randn(2, 3, 64, 64), hfclip.tokenize(["a cat", "two dogs"])
    with torch.no_grad():
        found, expected = ours(images, tokens)[0], theirs(images, tokens)
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("size", ["5GB", "2MB"])
def test_what_transformers_saves_loads_with_the_same_logits(
    size: str, variant: str | None, tmp_path: Path
) -> None:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(3)
    theirs: Any = CLIPModel(CLIPConfig(**config_to_transformers(CONFIG)[0]))
    theirs.eval()
    theirs.save_pretrained(tmp_path, max_shard_size=size, variant=variant)
    shards = list(tmp_path.glob("model*-of-*.safetensors"))
    assert bool(shards) is (size == "2MB")
    ours = hfclip.load(tmp_path, "cpu", variant=variant)[0]
    assert_same(ours, lambda images, tokens: theirs(tokens.long(), images).logits_per_image)
    if variant is not None:
        with pytest.raises(hfclip.RepositoryError, match="only as variants: 'fp16'"):
            hfclip.load(tmp_path, "cpu")


def test_the_bin_file_of_open_clip_loads_with_the_same_logits(tmp_path: Path) -> None:
    import open_clip

    torch.manual_seed(4)
    values = json.loads(json.dumps(config_to_open_clip(CONFIG)))
    theirs = open_clip.CLIP(**values["model_cfg"]).eval()
    (tmp_path / "open_clip_config.json").write_text(json.dumps(values))
    save(theirs.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    ours = hfclip.load(tmp_path, "cpu")[0]
    assert_same(ours, lambda images, tokens: theirs.get_logits(images, tokens)[0])
