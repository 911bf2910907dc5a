"""Loading for NumPy: each layout, strictly, and with the errors of `hfclip.load`."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT, SavedModel, draw
from huggingface_hub import close_session, constants
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from PIL import Image
from safetensors.torch import load_file, save_file
from saved_weights import save_shards
from torch import Tensor

import hfclip
import hfclip.light
from hfclip.config import ClipConfig
from hfclip.layouts.files import Source
from hfclip.layouts.transformers import to_transformers
from hfclip.layouts.write import write_layout
from hfclip.light.weights import read_arrays
from hfclip.network.clip import convert_weights
from hfclip.releases import bundled_folder
from hfclip.sources.find import find

CONFIG = dataclasses.replace(
    TINY_VIT, image_mean=(0.5, 0.25, 0.75), image_std=(0.125, 0.5, 0.25), activation="gelu"
)
MODEL = draw(CONFIG)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.standard_normal((3, 3, 32, 32), np.float32)
IDS = RANDOM.integers(1, 600, (5, 16))


def assert_same(name: str | Path, **options: Any) -> None:
    """Compares the features of a model with those that `hfclip.load` gives."""
    light, preprocess = hfclip.light.load(name, **options)
    model, transform = hfclip.load(name, "cpu", **options)
    assert light.config == model.config
    assert (light.labels, light.templates) == (model.labels, model.templates)
    with torch.inference_mode():
        expected = model.encode_image(torch.from_numpy(IMAGES)).numpy()
        assert np.allclose(light.encode_image(IMAGES), expected, rtol=1e-4, atol=1e-5)
        expected = model.encode_text(torch.from_numpy(IDS)).numpy()
        assert np.allclose(light.encode_text(IDS), expected, rtol=1e-4, atol=1e-5)
    picture = bundled_folder("digits") / "three.png"
    with Image.open(picture) as image:
        assert np.array_equal(preprocess(image), transform(image).numpy())


# Layouts.


@pytest.mark.parametrize("layout", ["hfclip", "open_clip", "transformers"])
def test_each_layout_gives_the_model_of_hfclip(layout: str, tmp_path: Path) -> None:
    write_layout(tmp_path, CONFIG, MODEL.state_dict(), layout)
    assert_same(tmp_path)


@pytest.mark.parametrize("layout", ["hfclip", "transformers"])
def test_shards_give_the_model_of_hfclip(layout: str, tmp_path: Path) -> None:
    write_layout(tmp_path, CONFIG, MODEL.state_dict(), layout)
    (tmp_path / "model.safetensors").unlink()
    weights = MODEL.state_dict()
    weights = to_transformers(weights) if layout == "transformers" else weights
    save_shards(weights, tmp_path, "model.safetensors")
    assert_same(tmp_path)
    assert_same(tmp_path / "model.safetensors.index.json")


def test_a_variant_in_a_subfolder_gives_the_model_of_hfclip(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    write_layout(folder, CONFIG, MODEL.state_dict())
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    assert_same(tmp_path, subfolder="clip", variant="fp16")


def test_a_weight_file_takes_the_configuration_of_its_base(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    write_layout(tmp_path, CONFIG, MODEL.state_dict())
    light, _ = hfclip.light.load(saved_vit.safetensors, base=str(tmp_path))
    assert light.config == CONFIG


def test_a_weight_file_alone_gives_the_configuration_of_its_shapes(saved_vit: SavedModel) -> None:
    assert_same(saved_vit.safetensors)


def test_prefixes_of_wrappers_are_removed(tmp_path: Path) -> None:
    weights = {f"module.{name}": tensor for name, tensor in draw(TINY_VIT).state_dict().items()}
    save_file(weights, tmp_path / "a.safetensors")
    assert_same(tmp_path / "a.safetensors")


def test_a_scale_of_shape_1_is_accepted(tmp_path: Path) -> None:
    weights = draw(TINY_VIT).state_dict()
    save_file({**weights, "logit_scale": torch.tensor([3.5])}, tmp_path / "a.safetensors")
    assert hfclip.light.load(tmp_path / "a.safetensors")[0].logit_scale == 3.5


def test_a_model_with_labels_has_them(tmp_path: Path) -> None:
    model = draw(CONFIG)
    model.labels, model.templates = ("cat", "dog"), ("a {}",)
    model.save_pretrained(tmp_path)
    light, _ = hfclip.light.load(tmp_path)
    assert (light.labels, light.templates) == (("cat", "dog"), ("a {}",))


# dtypes.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET], ids=["ViT", "ResNet"])
def test_a_file_of_another_dtype_is_computed_in_float32(
    config: ClipConfig, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = draw(config)
    write_layout(tmp_path, config, convert_all(model.state_dict(), dtype))
    light, _ = hfclip.light.load(tmp_path)
    exact, _ = hfclip.load(tmp_path, "cpu")
    side, length = config.image_resolution, config.context_length
    images = RANDOM.standard_normal((2, 3, side, side), np.float32)
    ids = RANDOM.integers(1, 600, (4, length))
    with torch.inference_mode():
        expected = exact.encode_image(torch.from_numpy(images)).numpy()
        assert np.allclose(light.encode_image(images), expected, rtol=1e-4, atol=1e-5)
        expected = exact.encode_text(torch.from_numpy(ids)).numpy()
        assert np.allclose(light.encode_text(ids), expected, rtol=1e-4, atol=1e-5)


def convert_all(weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }


def test_float16_halves_the_memory_of_matrices_and_float32_restores_them(tmp_path: Path) -> None:
    write_layout(tmp_path, CONFIG, MODEL.state_dict())
    source = find(tmp_path)
    whole, _ = hfclip.light.load(tmp_path)
    half, _ = hfclip.light.load(tmp_path, dtype="float16")
    dtypes = {name: tensor.dtype for name, tensor in half._weights._tensors.items()}
    assert dtypes["visual.proj"] == dtypes["visual.conv1.weight"] == np.float16
    assert dtypes["transformer.resblocks.0.attn.in_proj_weight"] == np.float16
    assert dtypes["token_embedding.weight"] == dtypes["ln_final.weight"] == np.float32
    expected = whole.encode_image(IMAGES)
    difference = np.abs(half.encode_image(IMAGES) - expected).max() / np.abs(expected).max()
    assert 1e-6 < difference < 1e-2
    convert_weights(model := draw(CONFIG), torch.float16)
    write_layout(tmp_path, CONFIG, model.state_dict())
    as_stored, _ = hfclip.light.load(tmp_path)
    converted, _ = hfclip.light.load(tmp_path, dtype="float32")
    assert np.array_equal(as_stored.encode_image(IMAGES), converted.encode_image(IMAGES))
    assert read_arrays(source).tensors["visual.proj"].dtype == np.float16


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(hfclip.ArgumentError, match="dtype is 'int8'; expected 'float32'"):
        hfclip.light.load("digits", dtype="int8")  # type: ignore[arg-type]


# Memory.


@pytest.mark.parametrize("mapped", [True, False])
def test_a_file_is_mapped_only_if_its_source_allows_it(mapped: bool, tmp_path: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list its mapped files")
    write_layout(tmp_path, CONFIG, MODEL.state_dict())
    path = tmp_path / "model.safetensors"
    tensors = read_arrays(Source(path, CONFIG, "a test", mapped=mapped)).tensors
    assert len(tensors) == len(MODEL.state_dict())
    mapped_files = {line.split()[-1] for line in maps.read_text().splitlines()}
    assert (str(path) in mapped_files) is mapped


def test_a_users_file_may_be_overwritten_while_the_model_is_in_use(tmp_path: Path) -> None:
    write_layout(tmp_path, CONFIG, MODEL.state_dict())
    light, _ = hfclip.light.load(tmp_path)
    expected = light.encode_image(IMAGES)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    path.write_bytes(b"")
    assert np.array_equal(light.encode_image(IMAGES), expected)


# Refusals: the type and the text of `hfclip.load`.


def refusal(load: Callable[[], object]) -> tuple[type[Exception], str]:
    with pytest.raises(hfclip.HfclipError) as caught:
        load()
    return caught.type, str(caught.value).replace("torch.", "")


def assert_refused_alike(name: str | Path, told: str, **options: Any) -> None:
    ours = refusal(lambda: hfclip.light.load(name, **options))
    theirs = refusal(lambda: hfclip.load(name, "cpu", **options))
    assert ours == theirs
    assert re.search(told, ours[1]), ours[1]


Change = Callable[[dict[str, Tensor]], object]


def keep_one(weights: dict[str, Tensor]) -> None:
    weights.clear()
    weights["a"] = torch.ones(3)


CHANGES: dict[str, tuple[Change, str]] = {
    "missing": (lambda w: w.pop("ln_final.bias"), "missing ln_final.bias"),
    "left over": (lambda w: w.update({"head.weight": torch.ones(1)}), "unexpected head.weight"),
    "another shape": (
        lambda w: w.update({"visual.ln_pre.bias": torch.ones(63)}),
        r"visual.ln_pre.bias is \(63,\) instead of \(64,\)",
    ),
    "integers": (
        lambda w: w.update({"ln_final.bias": torch.ones(64, dtype=torch.int32)}),
        "ln_final.bias holds int32 instead of float32",
    ),
    "two models": (
        lambda w: w.update({f"teacher.{name}": tensor.clone() for name, tensor in w.items()}),
        "2 whole CLIPs",
    ),
    "another model": (keep_one, "holds 3 numbers, but"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_weights_that_do_not_fit_are_refused_as_by_hfclip(case: str, tmp_path: Path) -> None:
    change, told = CHANGES[case]
    write_layout(tmp_path, CONFIG, MODEL.state_dict())
    weights = dict(MODEL.state_dict())
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    assert_refused_alike(tmp_path, told)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def spoil_the_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8:12] = b"{{{{"
    path.write_bytes(content)


def write_a_page(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><title>Not found</title>")


@pytest.mark.parametrize(
    "damage", [cut, lengthen, spoil_the_header, write_a_page, lambda path: path.write_bytes(b"")]
)
def test_a_damaged_file_is_refused_as_by_hfclip(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    write_layout(tmp_path, CONFIG, MODEL.state_dict())
    damage(tmp_path / "model.safetensors")
    assert_refused_alike(tmp_path, str(tmp_path / "model.safetensors"))


def test_a_shard_that_lacks_tensors_is_refused_as_by_hfclip(tmp_path: Path) -> None:
    write_layout(tmp_path, CONFIG, MODEL.state_dict())
    (tmp_path / "model.safetensors").unlink()
    save_shards(MODEL.state_dict(), tmp_path, "model.safetensors")
    shard = tmp_path / "model-00002-of-00003.safetensors"
    save_file(dict(list(load_file(shard).items())[1:]), shard)
    assert_refused_alike(tmp_path, "does not hold the tensors that")


@pytest.mark.parametrize("name", ["ViT-B/33", "no/such/folder", "", "digits"])
def test_a_wrong_name_or_option_is_refused_as_by_hfclip(name: str) -> None:
    assert_refused_alike(name, "", revision="main")


def test_a_configuration_that_does_not_belong_is_refused_as_by_hfclip(tmp_path: Path) -> None:
    write_layout(tmp_path, CONFIG, MODEL.state_dict())
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "transformer_layers": 3}))
    assert_refused_alike(tmp_path, "missing transformer.resblocks.2")
    (tmp_path / "config.json").write_text(json.dumps({**values, "vision_width": 65}))
    assert_refused_alike(tmp_path, "must be a multiple of vision_head_width|divisible|multiple")


def test_other_kinds_of_weight_files_need_torch(saved_vit: SavedModel) -> None:
    for path in (saved_vit.state_dict, saved_vit.legacy, saved_vit.archive):
        with pytest.raises(hfclip.NeedsTorchError) as caught:
            hfclip.light.load(path)
        message = str(caught.value)
        assert message.startswith(f"{path} is a ")
        assert message.endswith(
            "Load this model with hfclip.load, which needs torch: pip install torch torchvision."
        )
        assert "\n" not in message


def test_a_dtype_that_numpy_lacks_needs_torch(tmp_path: Path) -> None:
    weights = convert_all(draw(TINY_VIT).state_dict(), torch.float8_e4m3fn)
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(hfclip.NeedsTorchError, match=r"stores .* as F8_E4M3, which NumPy"):
        hfclip.light.load(tmp_path / "a.safetensors")


# The Hub.


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("HFCLIP_NAMESPACE", raising=False)
    published = tmp_path / "published"
    published.mkdir()
    write_layout(published, CONFIG, MODEL.state_dict())
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, home, monkeypatch)
        hub.add_repository("me/clip", {path.name: path for path in published.iterdir()})
        yield hub
    close_session()


def cached_weights() -> Path:
    folder = Path(constants.HF_HUB_CACHE) / "models--me--clip"
    (link,) = folder.glob("snapshots/*/model.safetensors")
    return link.resolve()


def test_a_repository_is_fetched_verified_and_mapped(hub: LoopbackHub) -> None:
    light, _ = hfclip.light.load("me/clip")
    hub.forget_calls()
    offline, _ = hfclip.light.load("me/clip", local_files_only=True)
    assert hub.calls == []
    assert np.array_equal(light.encode_text(IDS), offline.encode_text(IDS))
    assert_same("me/clip")
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(cached_weights()) in maps.read_text()


def test_a_damaged_file_of_the_cache_is_refused_as_by_hfclip(hub: LoopbackHub) -> None:
    hfclip.light.load("me/clip")
    path = cached_weights()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.unlink()
    path.write_bytes(content)
    ours = refusal(lambda: hfclip.light.load("me/clip", local_files_only=True))
    theirs = refusal(lambda: hfclip.load("me/clip", "cpu", local_files_only=True))
    assert ours == theirs
    assert ours[0] is hfclip.IntegrityError
    hfclip.light.load("me/clip")  # fetches it again
    assert path.read_bytes() != content


# The bundled model.


def test_digits_gives_the_model_of_hfclip_and_reads_all_ten_digits() -> None:
    light, preprocess = hfclip.light.load("digits")
    model, _ = hfclip.load("digits", "cpu")
    folder = bundled_folder("digits")
    names = sorted(path.stem for path in folder.glob("*.png"))
    pixels = np.stack([preprocess(folder / f"{name}.png") for name in names])
    ids = hfclip.light.tokenize(f"a handwritten {name}" for name in names)
    images, texts = light.encode_image(pixels), light.encode_text(ids)
    with torch.inference_mode():
        expected = model.encode_image(torch.from_numpy(pixels)).numpy()
        assert np.linalg.norm(images - expected) < 1e-5 * np.linalg.norm(expected)
        expected = model.encode_text(torch.from_numpy(ids)).numpy()
        assert np.linalg.norm(texts - expected) < 1e-5 * np.linalg.norm(expected)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    assert [names[best] for best in (images @ texts.T).argmax(axis=1)] == names
