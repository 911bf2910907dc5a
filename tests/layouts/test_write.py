import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SavedModel, draw
from PIL import Image
from safetensors.torch import load_file

import hfclip
from hfclip.atomic import check_free, written_whole
from hfclip.checkpoints.finite import check_finite
from hfclip.config import ClipConfig
from hfclip.errors import ConfigError, PublishError, WeightsMismatchError
from hfclip.layouts.write import write_layout

NAMES = {
    "hfclip": ["config.json", "model.safetensors", "preprocessor_config.json"],
    "open_clip": ["open_clip_config.json", "open_clip_model.safetensors"],
    "transformers": ["config.json", "model.safetensors", "preprocessor_config.json"],
    "openai": ["model.pt"],
}


@pytest.mark.parametrize("layout", NAMES)
def test_a_layout_writes_the_expected_files(
    layout: str, saved_vit: SavedModel, tmp_path: Path
) -> None:
    write_layout(tmp_path, saved_vit.model.config, saved_vit.model.state_dict(), layout)
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES[layout]


def test_a_model_with_the_full_vocabulary_is_saved_with_the_tokenizer(tmp_path: Path) -> None:
    model = draw(ClipConfig(8, 16, 1, 64, 16, 8, 49_408, 64, 1, 1))
    write_layout(tmp_path, model.config, model.state_dict())
    assert (tmp_path / "vocab.json").is_file()
    assert (tmp_path / "merges.txt").read_text().count("\n") == 48_895


def test_the_same_model_gives_the_same_bytes(saved_model: SavedModel, tmp_path: Path) -> None:
    for layout in ("hfclip", "open_clip", "openai"):
        written = []
        for folder in (tmp_path / layout / "one", tmp_path / layout / "two"):
            folder.mkdir(parents=True)
            model = saved_model.model
            write_layout(folder, model.config, model.state_dict(), layout)
            written.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert written[0] == written[1]


def test_every_tensor_keeps_its_dtype_and_its_values(
    saved_model: SavedModel, tmp_path: Path
) -> None:
    expected = saved_model.model.state_dict()
    tensors = load_file(write_layout(tmp_path, saved_model.model.config, expected))
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


def test_tensors_that_share_memory_are_written_separately(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    tensors = dict(saved_vit.model.state_dict())
    tensors["ln_final.bias"] = tensors["ln_final.weight"]
    tensors["visual.ln_post.bias"] = torch.stack([tensors["ln_final.weight"]] * 2)[1]
    found = load_file(write_layout(tmp_path, saved_vit.model.config, tensors))
    assert torch.equal(found["ln_final.bias"], tensors["ln_final.weight"])
    assert torch.equal(found["visual.ln_post.bias"], tensors["ln_final.weight"])


def test_an_unknown_layout_is_refused_and_the_known_ones_are_listed(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match="expected one of hfclip, open_clip, transformers, openai"
    ):
        write_layout(tmp_path, saved_vit.model.config, {}, "flax")


def test_a_resnet_is_refused_in_the_transformers_layout(
    saved_resnet: SavedModel, tmp_path: Path
) -> None:
    model = saved_resnet.model
    with pytest.raises(ConfigError, match="supports only a ViT"):
        write_layout(tmp_path, model.config, model.state_dict(), "transformers")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"activation": "gelu"},
        {"vision_head_width": 32},
        {"image_mean": (0.5, 0.5, 0.5)},
        {"transformer_heads": 2},
        {"vision_mlp_width": 100},  # shapes determine it, but OpenAI's package ignores them
        {"transformer_mlp_width": 100},
        {"resize_mode": "squash"},
        {"interpolation": "bilinear"},
        {"resize_resolution": 40},
    ],
)
def test_openais_layout_refuses_settings_that_its_package_does_not_read(
    change: dict[str, object], saved_vit: SavedModel, tmp_path: Path
) -> None:
    config = replace(saved_vit.model.config, **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="layout has no configuration to describe it") as caught:
        write_layout(tmp_path, config, saved_vit.model.state_dict(), "openai")
    assert all(f"{name} is {value!r}" in str(caught.value) for name, value in change.items())


def test_no_preprocessor_is_written_for_transformers_if_images_are_padded(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    config = replace(saved_vit.model.config, resize_mode="longest", fill_color=9)
    write_layout(tmp_path, config, saved_vit.model.state_dict())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert hfclip.load(tmp_path, device="cpu")[0].config == config
    squash = replace(saved_vit.model.config, resize_mode="squash")
    write_layout(tmp_path, squash, saved_vit.model.state_dict())
    preprocessor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert preprocessor["size"] == {"height": 32, "width": 32}


@pytest.mark.parametrize("layout", ["hfclip", "open_clip", "transformers"])
def test_a_squashing_model_keeps_its_preprocess_in_each_layout(
    layout: str, saved_vit: SavedModel, tmp_path: Path
) -> None:
    config = replace(saved_vit.model.config, resize_mode="squash", interpolation="bilinear")
    write_layout(tmp_path, config, saved_vit.model.state_dict(), layout)
    image = Image.linear_gradient("L").resize((90, 40))
    expected = hfclip.image_transform(32, resize_mode="squash", interpolation="bilinear")(image)
    model, preprocess = hfclip.load(tmp_path, device="cpu")
    assert model.config == config
    assert torch.equal(preprocess(image), expected)
    _, fast = hfclip.load(tmp_path, device="cpu", preprocess="fast")
    assert torch.equal(fast(image), expected)


def test_weights_that_were_never_loaded_are_refused(saved_vit: SavedModel, tmp_path: Path) -> None:
    tensors = {name: tensor.to("meta") for name, tensor in saved_vit.model.state_dict().items()}
    with pytest.raises(WeightsMismatchError, match="on the meta device"):
        write_layout(tmp_path, saved_vit.model.config, tensors)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_with_nan_or_infinity_is_named(value: float, saved_vit: SavedModel) -> None:
    tensors = {name: tensor.clone() for name, tensor in saved_vit.model.state_dict().items()}
    check_finite(tensors)
    tensors["ln_final.weight"][3] = value
    with pytest.raises(PublishError, match=r"ln_final\.weight hold NaN or infinity"):
        check_finite(tensors)


def test_a_failed_write_leaves_the_folder_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("old")

    def interrupted() -> None:
        with written_whole(folder) as part:
            (part / "config.json").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (folder / "config.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_successful_write_replaces_only_its_own_files(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("old")
    (folder / "notes.txt").write_text("mine")
    with written_whole(folder) as part:
        (part / "config.json").write_text("new")
        assert (folder / "config.json").read_text() == "old"
    assert (folder / "config.json").read_text() == "new"
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_not_empty_is_written_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"already holds notes\.txt.*--force"):
        check_free(tmp_path, force=False)
    check_free(tmp_path, force=True)
    check_free(tmp_path / "new", force=False)
    with pytest.raises(ConfigError, match="is a file"):
        check_free(tmp_path / "notes.txt", force=True)


def test_a_saved_folder_loads_with_identical_weights(
    saved_model: SavedModel, tmp_path: Path
) -> None:
    saved_model.model.save_pretrained(tmp_path / "model")
    loaded = hfclip.CLIP.from_pretrained(tmp_path / "model")
    for name, tensor in saved_model.model.state_dict().items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded.state_dict()[name], expected)
    assert loaded.config == saved_model.model.config


def test_saving_again_keeps_the_readme(saved_vit: SavedModel, tmp_path: Path) -> None:
    saved_vit.model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text().startswith("---\nlibrary_name: hfclip\n")
    (tmp_path / "README.md").write_text("my own words")
    saved_vit.model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own words"


def test_the_configuration_records_resized_embeddings(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    model = draw(saved_vit.model.config)
    # 3 x 3 patches and the class token
    model.visual.positional_embedding = torch.nn.Parameter(torch.randn(10, 64))
    model.positional_embedding = torch.nn.Parameter(torch.randn(20, 64))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["image_resolution"], config["context_length"]) == (48, 20)
    loaded, _ = hfclip.load(tmp_path, "cpu")
    assert loaded.encode_image(torch.zeros(1, 3, 48, 48)).shape == (1, 64)


@torch.no_grad()
def test_the_configuration_records_pruned_mlps(saved_vit: SavedModel, tmp_path: Path) -> None:
    model = draw(saved_vit.model.config)
    for stack, units in ((model.visual.transformer, 100), (model.transformer, 37)):
        for block in stack.resblocks:
            first, second = block.mlp.c_fc, block.mlp.c_proj
            first.weight, first.bias = (
                torch.nn.Parameter(tensor[:units]) for tensor in (first.weight, first.bias)
            )
            second.weight = torch.nn.Parameter(second.weight[:, :units].contiguous())
    model.save_pretrained(tmp_path)
    loaded, _ = hfclip.load(tmp_path, "cpu")
    assert loaded.config == replace(model.config, vision_mlp_width=100, transformer_mlp_width=37)
    image, text = torch.randn(2, 3, 32, 32), torch.tensor([[5, 599, 0], [7, 8, 599]])
    assert torch.equal(loaded(image, text)[0], model(image, text)[0])


def test_a_model_that_is_not_a_clip_is_not_saved(saved_vit: SavedModel, tmp_path: Path) -> None:
    model = draw(saved_vit.model.config)
    model.visual.proj = None
    with pytest.raises(WeightsMismatchError, match=r"missing visual\.proj"):
        model.save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
