"""Weight files given by path: the configuration beside them, and the argument `base=`."""

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_RESNET, TINY_VIT, draw
from huggingface_hub import close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import hfclip
from hfclip.cli import main
from hfclip.config import OPENAI_MEAN, ClipConfig
from hfclip.errors import ConfigError, ModelNotFoundError, WeightsMismatchError
from hfclip.layouts.transformers import to_transformers
from hfclip.layouts.write import write_layout
from hfclip.model import CLIP
from hfclip.publishing.finetune import read_finetune
from hfclip.releases import RELEASES
from hfclip.sources import inspect as inspection
from hfclip.sources.find import base_config

# Settings that shapes do not determine: activation, head width, mean and std.
OTHER = dataclasses.replace(
    TINY_VIT,
    activation="gelu",
    vision_head_width=32,
    image_mean=(0.5, 0.25, 0.125),
    image_std=(0.5, 0.5, 0.5),
    transformer_heads=2,
)
LAYOUTS = ("hfclip", "open_clip", "transformers")
TRAINING = {"name": "run", "epoch": 3, "optimizer": {"state": {}, "param_groups": []}}


def state(config: ClipConfig = TINY_VIT) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in drawn(config).items()}


@functools.cache
def drawn(config: ClipConfig) -> dict[str, Tensor]:
    """Returns weights that tests share, so they must not change them."""
    return draw(config).state_dict()


def write_folder(folder: Path, layout: str = "hfclip", config: ClipConfig = OTHER) -> Path:
    folder.mkdir(exist_ok=True)
    write_layout(folder, config, drawn(config), layout)
    return folder


def save_as(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


def config_of(path: Path, **options: Any) -> ClipConfig:
    """Loads the model, checks everything that depends on its configuration, and returns that."""
    model, preprocess = hfclip.load(path, device="cpu", **options)
    config: ClipConfig = model.config
    assert preprocess.transforms[-1].mean == config.image_mean
    assert preprocess.transforms[0].size == config.image_resolution
    gelu = model.visual.transformer.resblocks[0].mlp.gelu
    assert isinstance(gelu, torch.nn.GELU) is (config.activation == "gelu")
    assert model.visual.transformer.resblocks[0].attn.num_heads == config.vision_heads
    return config


# The configuration beside a weight file.


@pytest.mark.parametrize("by_transformers", [False, True])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "open_clip_model.safetensors", "best.pt", "pytorch_model.bin", "w"],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_weight_file_uses_the_configuration_beside_it(
    layout: str, name: str, by_transformers: bool, tmp_path: Path
) -> None:
    write_folder(tmp_path, layout)
    for weights in tmp_path.glob("*.safetensors"):
        weights.unlink()
    tensors = state(OTHER)
    path = save_as(tmp_path / name, to_transformers(tensors) if by_transformers else tensors)
    assert config_of(path) == OTHER
    assert CLIP.from_pretrained(path).config == OTHER
    assert read_finetune(path, None).config == OTHER
    other, _ = hfclip.load(write_folder(tmp_path / "whole", layout), device="cpu")
    image, text = torch.full((1, 3, 32, 32), 0.3), torch.tensor([[3, 1, 599, *[0] * 13]])
    assert torch.equal(hfclip.load(path, device="cpu")[0](image, text)[0], other(image, text)[0])


def test_openais_configuration_is_assumed_if_there_is_none(tmp_path: Path) -> None:
    assert config_of(save_as(tmp_path / "best.pt", state())) == TINY_VIT


def test_the_configuration_in_the_layout_of_the_file_is_used(tmp_path: Path) -> None:
    write_folder(tmp_path, "open_clip", OTHER)
    write_folder(tmp_path, "hfclip", TINY_VIT)
    assert config_of(tmp_path / "open_clip_model.safetensors") == OTHER
    assert config_of(tmp_path / "model.safetensors") == TINY_VIT
    path = save_as(tmp_path / "best.pt", state())
    with pytest.raises(ConfigError, match=r"describe different models.*base=") as refusal:
        hfclip.load(path)
    assert str(tmp_path / "config.json") in str(refusal.value)
    assert str(tmp_path / "open_clip_config.json") in str(refusal.value)
    write_folder(tmp_path, "hfclip", OTHER)
    assert config_of(path) == OTHER


TIMM = {"architecture": "vit_base_patch32_clip_224", "pretrained_cfg": {"mean": [0, 0, 0]}}
FOREIGN: dict[str, tuple[str, str]] = {
    "timm": (json.dumps(TIMM), "timm's, for an image tower only"),
    "BERT": (json.dumps({"model_type": "bert", "hidden_size": 64}), "bert"),
    "a training run": (json.dumps({"lr": 0.1, "epochs": 3}), "lacks embed_dim"),
    "no JSON": ("{", "is not JSON"),
    "a list": ("[]", "not a JSON object"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["model.safetensors", "best.pt"])
def test_a_foreign_configuration_is_refused_unless_base_is_given(
    name: str, kind: str, tmp_path: Path
) -> None:
    text, told = FOREIGN[kind]
    (tmp_path / "config.json").write_text(text)
    path = save_as(tmp_path / name, state(OTHER))
    with pytest.raises(
        ConfigError,
        match=r"Name the model that the weights were fine-tuned from with base= \(--base\)",
    ) as refusal:
        hfclip.load(path)
    assert told in str(refusal.value)
    assert str(tmp_path / "config.json") in str(refusal.value)
    assert config_of(path, base=write_folder(tmp_path / "base")) == OTHER


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "best.pt", "model.safetensors"])
def test_open_clips_configuration_is_preferred_to_timms(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path, "open_clip")
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    assert config_of(save_as(tmp_path / name, state(OTHER))) == OTHER


def test_a_configuration_that_does_not_fit_is_named_unless_base_is_given(tmp_path: Path) -> None:
    write_folder(tmp_path, "open_clip", dataclasses.replace(OTHER, transformer_layers=3))
    path = save_as(tmp_path / "best.pt", {f"module.{k}": v for k, v in state(OTHER).items()})
    with pytest.raises(WeightsMismatchError) as refusal:
        hfclip.load(path)
    for words in (
        *(str(path), str(tmp_path / "open_clip_config.json"), "begin with 'module.'"),
        *("missing transformer.resblocks.2.attn.in_proj_weight", "unexpected nothing", "base="),
    ):
        assert words in str(refusal.value)
    assert config_of(path, base=write_folder(tmp_path / "base")) == OTHER


# The base of a single weight file.


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HFCLIP_NAMESPACE", raising=False)
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        yield hub
    close_session()


@pytest.fixture
def lone(tmp_path: Path) -> Path:
    """Returns a weight file in a folder without other files."""
    (tmp_path / "run").mkdir()
    return save_as(tmp_path / "run" / "last.pt", state(OTHER))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_as_base_gives_the_configuration(layout: str, lone: Path, tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", layout)
    assert config_of(lone, base=base) == config_of(lone, base=str(base)) == OTHER
    assert CLIP.from_pretrained(lone, base=base).config == OTHER
    assert read_finetune(lone, str(base)).config == OTHER
    for weights in base.glob("*.safetensors"):
        assert config_of(lone, base=weights) == OTHER
        weights.unlink()
    assert config_of(lone, base=base) == OTHER  # a configuration without weights is enough


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_repository_as_base_gives_the_configuration_without_its_weights(
    layout: str, lone: Path, tmp_path: Path, hub: LoopbackHub
) -> None:
    base = write_folder(tmp_path / "base", layout)
    hub.add_repository("me/base", {path.name: path for path in base.iterdir()})
    for name in ("me/base", "hf-hub:me/base", "me/base@main"):
        assert config_of(lone, base=name) == OTHER
    assert not [call for call in hub.calls if (call.file or "").endswith("safetensors")]
    assert config_of(lone, base="me/base", local_files_only=True) == OTHER


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_as_base_needs_no_network(
    name: str, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFCLIP_NAMESPACE", "me")
    assert base_config(name) == RELEASES[name].config
    assert base_config("digits") == hfclip.load("digits", device="cpu")[0].config
    assert hub.calls == []


def test_sizes_that_fine_tuning_changes_are_inferred_from_the_weights(
    lone: Path, tmp_path: Path
) -> None:
    base = write_folder(tmp_path / "base")
    tensors = state(OTHER)
    tensors["visual.positional_embedding"] = torch.rand(10, 64)
    tensors["positional_embedding"] = torch.rand(20, 64)
    tensors["token_embedding.weight"] = torch.rand(611, 64)
    save_as(lone, tensors)
    expected = dataclasses.replace(OTHER, image_resolution=48, context_length=20, vocab_size=611)
    assert config_of(lone, base=base) == expected
    assert read_finetune(lone, str(base)).config == expected
    _, preprocess = hfclip.load(lone, device="cpu", base=base)
    assert preprocess(Image.new("RGB", (60, 50))).shape == (3, 48, 48)


def test_the_width_of_pruned_mlps_is_inferred_from_the_weights(lone: Path, tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base")
    pruned = dataclasses.replace(OTHER, vision_mlp_width=100, transformer_mlp_width=37)
    save_as(lone, state(pruned))
    assert config_of(lone, base=base) == pruned
    folder = write_folder(tmp_path / "pruned", config=pruned)
    assert config_of(folder, base=base) == pruned
    assert config_of(base, base=folder) == OTHER


WRONG_BASES: dict[str, tuple[ClipConfig, str]] = {
    "another patch": (dataclasses.replace(OTHER, vision_patch_size=8), "visual.conv1.weight is"),
    "more blocks": (
        dataclasses.replace(OTHER, vision_layers=3),
        "missing visual.transformer.resblocks.2.",
    ),
    "a ResNet": (TINY_RESNET, "unexpected visual.class_embedding"),
    "another width": (dataclasses.replace(OTHER, embed_dim=32), "text_projection is (64, 64)"),
}


@pytest.mark.parametrize("kind", WRONG_BASES)
def test_a_base_that_does_not_fit_is_refused_and_both_are_named(
    kind: str, lone: Path, tmp_path: Path
) -> None:
    config, told = WRONG_BASES[kind]
    base = write_folder(tmp_path / "base", config=config)
    for load in (hfclip.load, CLIP.from_pretrained, inspection.inspect):
        with pytest.raises(WeightsMismatchError) as refusal:
            load(lone, base=base)
        for words in (str(lone), f"the base {base}", told):
            assert words in str(refusal.value)


def test_a_release_that_does_not_fit_is_named(lone: Path) -> None:
    with pytest.raises(WeightsMismatchError, match=r"last\.pt holds.*the base ViT-B/32"):
        hfclip.load(lone, base="ViT-B/32")


def test_a_base_without_a_configuration_is_refused(lone: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for base in (tmp_path / "empty", lone):
        with pytest.raises(ConfigError, match=f"The base {base} has no configuration"):
            hfclip.load(lone, base=base)
    with pytest.raises(ModelNotFoundError, match="Did you mean 'ViT-B/16'"):
        hfclip.load(lone, base="vit-b-16")


def test_the_base_of_a_folder_or_repository_must_agree_with_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tuned")
    base = write_folder(tmp_path / "base", config=dataclasses.replace(OTHER, image_resolution=64))
    assert config_of(folder, base=base) == OTHER
    with pytest.raises(
        ConfigError, match=r"embed_dim is 64.*and 512 in ViT-B/16, so it is not a fine"
    ):
        hfclip.load(folder, base="ViT-B/16")
    with pytest.raises(ConfigError, match="so it is not a fine-tune of ViT-B/16"):
        hfclip.load("digits", base="ViT-B/16")


def save_as_open_clip_does(path: Path, without: str = "") -> Path:
    tensors = {f"module.{name}": tensor for name, tensor in state(OTHER).items()}
    content = {**TRAINING, "state_dict": tensors}
    torch.save({key: value for key, value in content.items() if key != without}, path)
    return path


@pytest.mark.parametrize("load", [hfclip.load, CLIP.from_pretrained])
def test_a_file_of_open_clips_trainer_without_a_base_warns(
    load: Callable[..., object], tmp_path: Path
) -> None:
    path = save_as_open_clip_does(tmp_path / "epoch_3.pt")
    with pytest.warns(UserWarning, match=r"open_clip's trainer.*base= \(--base\)") as told:
        load(path)
    assert str(path) in str(told[0].message)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path, base=write_folder(tmp_path / "base"))
        for mark in TRAINING:
            load(save_as_open_clip_does(tmp_path / "other.pt", without=mark))
        write_folder(tmp_path)
        load(path)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_inspect_marks_assumed_values(lone: Path, tmp_path: Path) -> None:
    assumed = json.loads(run("inspect", lone, "--json").stdout)
    assert (assumed["activation"], assumed["assumed"][:19]) == ("quick_gelu", "OpenAI's activation")
    assert "base= (--base)" in assumed["assumed"]
    assert "\nassumed        OpenAI's activation" in run("inspect", lone).stdout
    base = write_folder(tmp_path / "base")
    known = json.loads(run("inspect", lone, "--base", base, "--json").stdout)
    assert known["activation"] == "gelu"
    for facts in (known, json.loads(run("inspect", base, "--json").stdout)):
        assert "assumed" not in facts


def test_inspect_shows_a_resizing_that_is_not_openais(tmp_path: Path) -> None:
    squash = dataclasses.replace(OTHER, resize_mode="squash", interpolation="bilinear")
    folder = write_folder(tmp_path / "squash", "open_clip", squash)
    words = "resized to 32 x 32 without keeping the aspect ratio (bilinear)"
    assert json.loads(run("inspect", folder, "--json").stdout)["preprocess"] == words
    assert f"\npreprocess     {words}" in run("inspect", folder).stdout
    assert "preprocess" not in hfclip.inspect(write_folder(tmp_path / "own")).to_dict()


def test_a_fine_tune_may_resize_images_in_another_way_than_its_base(tmp_path: Path) -> None:
    squash = dataclasses.replace(OTHER, resize_mode="squash", resize_resolution=40)
    base = write_folder(tmp_path / "base", "transformers")
    for folder, its_base in (("a", base), ("b", write_folder(tmp_path / "squash", config=squash))):
        own = squash if folder == "a" else OTHER
        model = write_folder(tmp_path / folder, config=own)
        assert hfclip.load(model, device="cpu", base=its_base)[0].config == own


def test_the_commands_take_a_base_and_warn_in_one_line(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", config=dataclasses.replace(OTHER, vocab_size=49408))
    (tmp_path / "run").mkdir()
    tensors = state(dataclasses.replace(OTHER, vocab_size=49408))
    path = tmp_path / "run" / "epoch_3.pt"
    torch.save({**TRAINING, "state_dict": tensors}, path)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    labels = ("--labels", "cat,dog", "--template", "{}", "--json", "--backend", "torch")
    command = ("classify", tmp_path / "a.png", "--model", path, *labels)
    result = run(*command, "--base", base)
    assert (result.exit_code, result.stderr) == (0, "")
    expected = run("classify", tmp_path / "a.png", "--model", base, *labels)
    assert result.stdout == expected.stdout
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run(*command)
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Warning: {path} was saved by open_clip's trainer")
    exported = tmp_path / "exported"
    result = run("export", path, exported, "--layout", "hfclip", "--base", base)
    assert (result.exit_code, result.stderr) == (0, "")
    assert config_of(exported).activation == "gelu"
    assert OPENAI_MEAN != config_of(exported).image_mean == (0.5, 0.25, 0.125)
