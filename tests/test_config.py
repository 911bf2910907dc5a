import dataclasses
import json
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import malicious
import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT

from hfclip.config import OPENAI_MEAN, OPENAI_STD, ClipConfig
from hfclip.errors import ConfigError, HfclipError
from hfclip.model import CLIP
from hfclip.releases import RELEASES

PARAMETERS = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
}
NAN, INFINITY = float("nan"), float("inf")


def read(text: str | bytes, folder: Path) -> ClipConfig:
    data = text.encode() if isinstance(text, str) else text
    return ClipConfig.from_json(malicious.write(folder / "config.json", data))


def changed(**changes: object) -> dict[str, Any]:
    return {**TINY_VIT.to_dict(), **changes}


OTHER_MLPS = dataclasses.replace(TINY_VIT, vision_mlp_width=100, transformer_mlp_width=37)


def test_the_releases_have_the_parameter_counts_of_openais_models() -> None:
    assert {name: r.config.parameter_count for name, r in RELEASES.items()} == PARAMETERS


@pytest.mark.parametrize(
    "config",
    [
        TINY_VIT,
        TINY_RESNET,
        ClipConfig(8, 17, 3, 12, 4, 5, 11, 6, 2, 3, vision_head_width=6),
        ClipConfig(8, 32, (2, 1, 3, 1), 2, None, 5, 11, 6, 2, 2),
        ClipConfig(5, 96, (1, 1, 1, 2), 6, None, 7, 13, 8, 4, 1, vision_head_width=32),
        ClipConfig(16, 16, 1, 64, 16, 4, 8, 32, 1, 1, activation="gelu"),
        OTHER_MLPS,
        dataclasses.replace(OTHER_MLPS, vision_width=128, vision_layers=5, transformer_layers=3),
        dataclasses.replace(TINY_RESNET, transformer_mlp_width=3),
    ],
)
def test_the_parameter_count_equals_that_of_the_built_model(config: ClipConfig) -> None:
    model = CLIP(**config.to_dict())
    assert config.parameter_count == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET, RELEASES["RN50x16"].config, OTHER_MLPS])
def test_a_config_survives_json(config: ClipConfig, tmp_path: Path) -> None:
    assert read(json.dumps(config.to_dict()), tmp_path) == config


def test_the_usual_mlp_width_is_none_and_is_not_written() -> None:
    written = TINY_VIT.to_dict()
    assert list(written)[10:] == ["activation", "vision_head_width", "image_mean", "image_std"]
    given = ClipConfig(**written, vision_mlp_width=256, transformer_mlp_width=256)
    assert given == TINY_VIT
    assert given.to_dict() == written
    assert (given.vision_mlp_width, given.transformer_mlp_width) == (None, None)
    assert (given.vision_mlp_units, given.transformer_mlp_units) == (256, 256)
    wider = dataclasses.replace(given, vision_width=128)
    assert (wider.vision_mlp_units, wider.transformer_mlp_units) == (512, 256)


def test_another_mlp_width_is_written_and_sets_the_shapes() -> None:
    assert OTHER_MLPS.to_dict() == {
        **TINY_VIT.to_dict(),
        "vision_mlp_width": 100,
        "transformer_mlp_width": 37,
    }
    assert (OTHER_MLPS.vision_mlp_units, OTHER_MLPS.transformer_mlp_units) == (100, 37)
    shapes = {
        name: tensor.shape for name, tensor in CLIP(**OTHER_MLPS.to_dict()).named_parameters()
    }
    for blocks, units in (("visual.transformer", 100), ("transformer", 37)):
        assert shapes[f"{blocks}.resblocks.1.mlp.c_fc.weight"] == (units, 64)
        assert shapes[f"{blocks}.resblocks.1.mlp.c_fc.bias"] == (units,)
        assert shapes[f"{blocks}.resblocks.1.mlp.c_proj.weight"] == (64, units)


def test_missing_values_are_openais(tmp_path: Path) -> None:
    names = [f.name for f in dataclasses.fields(ClipConfig) if f.default is dataclasses.MISSING]
    bare = {name: value for name, value in TINY_VIT.to_dict().items() if name in names}
    config = read(json.dumps(bare), tmp_path)
    assert (config.activation, config.vision_head_width) == ("quick_gelu", 64)
    assert (config.image_mean, config.image_std) == (OPENAI_MEAN, OPENAI_STD)
    assert OPENAI_MEAN == (0.48145466, 0.4578275, 0.40821073)
    assert OPENAI_STD == (0.26862954, 0.26130258, 0.27577711)


RESIZING = {"resize_mode", "interpolation", "resize_resolution", "fill_color"}


def test_a_default_resizing_is_left_out_of_the_file() -> None:
    assert not RESIZING & TINY_VIT.to_dict().keys()
    equal = dataclasses.replace(TINY_VIT, resize_resolution=32, fill_color=7)
    assert equal == TINY_VIT
    assert (equal.resize_resolution, equal.fill_color) == (None, 0)
    assert equal.describe_preprocess() is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"interpolation": "bilinear"}, "shorter side resized to 32 (bilinear), center cropped"),
        ({"resize_resolution": 40}, "shorter side resized to 40 (bicubic), center cropped"),
        (
            {"resize_mode": "squash"},
            "resized to 32 x 32 without keeping the aspect ratio (bicubic)",
        ),
        (
            {"resize_mode": "squash", "resize_resolution": 40},
            "resized to 40 x 40 without keeping the aspect ratio (bicubic), center cropped",
        ),
        (
            {"resize_mode": "longest", "fill_color": 9},
            "longer side resized to 32 (bicubic), padded with level 9",
        ),
    ],
)
def test_another_resizing_is_written_read_and_described(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(TINY_VIT, **changes)
    assert config.to_dict() == {**TINY_VIT.to_dict(), **changes}
    assert read(json.dumps(config.to_dict()), tmp_path) == config
    assert CLIP(**config.to_dict()).config == config
    assert config.describe_preprocess() == words


def test_keys_that_describe_the_file_are_ignored(tmp_path: Path) -> None:
    described = changed(model_type="clip", architectures=["CLIP"], library_name="hfclip")
    assert read(json.dumps(described), tmp_path) == TINY_VIT


def test_a_config_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY_VIT.embed_dim = 7  # type: ignore[misc]


def test_integers_of_other_libraries_become_python_integers() -> None:
    config = ClipConfig(**changed(embed_dim=torch.tensor(64), vision_width=torch.tensor(64)))
    assert config == TINY_VIT
    assert type(config.embed_dim) is int


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a float": ({"embed_dim": 64.0}, "embed_dim is 64.0; it must be an integer"),
    "NaN": ({"embed_dim": NAN}, "embed_dim is nan; it must be an integer"),
    "infinity": ({"vocab_size": INFINITY}, "vocab_size is inf; it must be an integer"),
    "a text": ({"context_length": "16"}, "context_length is '16'; it must be an integer"),
    "true": ({"transformer_layers": True}, "transformer_layers is True; it must be an integer"),
    "null": ({"transformer_heads": None}, "transformer_heads is None; it must be an integer"),
    "a list": ({"transformer_width": [64]}, r"transformer_width is \[64\]; it must be an integer"),
    "an object": ({"vision_width": {}}, r"vision_width is {}; it must be an integer"),
    "zero": ({"embed_dim": 0}, "embed_dim is 0; it must be between 1 and 65536"),
    "negative": ({"image_resolution": -32}, "image_resolution is -32; it must be between"),
    "large": ({"context_length": 4097}, "context_length is 4097; it must be between 2 and 4096"),
    "huge": ({"vocab_size": 10**30}, "vocab_size is 10+; it must be between"),
    "a huge text": ({"embed_dim": "9" * 10**6}, r"embed_dim is '9{76}\.\.\.; it must be"),
    "no layers": ({"vision_layers": 0}, "vision_layers is 0; it must be between 1 and 1000"),
    "layers in a text": ({"vision_layers": "2"}, "vision_layers is '2'; it must be an integer"),
    "three stages": ({"vision_layers": [1, 1, 1]}, "vision_layers has 3 stages"),
    "a float stage": ({"vision_layers": [1, 1, 1, 1.0]}, "vision_layers is 1.0"),
    "an empty stage": ({"vision_layers": [1, 1, 1, 0]}, "vision_layers is 0"),
    "no patch": ({"vision_patch_size": None}, "vision_patch_size is None; it must be an integer"),
    "a patch over the image": (
        {"vision_patch_size": 33},
        "must be at most image_resolution, which is 32",
    ),
    "uneven text heads": (
        {"transformer_heads": 3},
        "transformer_width is 64; it must be a multiple of 3,",
    ),
    "uneven image heads": ({"vision_head_width": 48}, "width is 64; it must be a multiple of 48,"),
    "no hidden units": (
        {"vision_mlp_width": 0},
        "vision_mlp_width is 0; it must be between 1 and 262144",
    ),
    "a float of hidden units": (
        {"transformer_mlp_width": 256.0},
        "transformer_mlp_width is 256.0; it must be an integer",
    ),
    "true hidden units": ({"vision_mlp_width": True}, "vision_mlp_width is True; it must be an"),
    "an activation": (
        {"activation": "relu"},
        "activation is 'relu'; expected one of quick_gelu, gelu",
    ),
    "an activation of none": ({"activation": None}, "activation is None; expected one of"),
    "an activation in a list": (
        {"activation": ["gelu"]},
        r"activation is \['gelu'\]; expected one of",
    ),
    "a mean of NaN": ({"image_mean": [0.5, NAN, 0.5]}, "image_mean is .*nan.* three numbers"),
    "a mean of infinity": ({"image_mean": [0.5, -INFINITY, 0]}, "image_mean is .* three numbers"),
    "a mean of text": ({"image_mean": ["0.5"] * 3}, "image_mean is .* three numbers"),
    "a mean of truths": ({"image_mean": [True] * 3}, "image_mean is .* three numbers"),
    "two means": ({"image_mean": [0.5, 0.5]}, "image_mean is .* three numbers"),
    "one mean": ({"image_mean": 0.5}, "image_mean is 0.5; it must be three numbers"),
    "a mean past floats": ({"image_mean": [10**400, 0, 0]}, "image_mean is .* three numbers"),
    "no mean": ({"image_mean": None}, "image_mean is None; it must be three numbers"),
    "a deviation of zero": ({"image_std": [0.5, 0, 0.5]}, "image_std is .* between 1e-06 and"),
    "a negative deviation": ({"image_std": [-0.5] * 3}, "image_std is .* between 1e-06 and"),
    "a vanishing deviation": ({"image_std": [5e-324] * 3}, "image_std is .* between 1e-06 and"),
    "an unknown resize mode": ({"resize_mode": "crop"}, "resize_mode is 'crop'; expected one of s"),
    "no resize mode": ({"resize_mode": None}, "resize_mode is None; expected one of shortest,"),
    "a list of filters": ({"interpolation": ["bicubic"]}, "interpolation is .*; expected one of"),
    "a small resize side": ({"resize_resolution": 31}, "resize_resolution is 31; it must be at l"),
    "a large resize side": ({"resize_resolution": 10**5}, "must be between 1 and 16384"),
    "a resize side and padding": (
        {"resize_mode": "longest", "resize_resolution": 40},
        "resize_resolution is 40, but with resize_mode 'longest'",
    ),
    "a fill color of three": ({"fill_color": [1, 2, 3]}, "fill_color is .* must be an integer"),
    "a fill color past 255": ({"fill_color": 256}, "fill_color is 256; it must be between 0 and"),
    "an unknown key": ({"vision_depth": 3}, "has unknown keys: 'vision_depth'. Update hfclip"),
    "unknown keys": (
        {str(n): n for n in range(10**4)},
        "unknown keys: '0', '1', '2', '3', '4'. Update",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_value_is_refused_and_shown(case: str, tmp_path: Path) -> None:
    changes, told = REFUSED[case]
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError, match=told) as refusal:
        read(json.dumps(changed(**changes)), tmp_path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert len(str(refusal.value)) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("image_resolution", 48, "image_resolution is 48; a ResNet halves it five times"),
        ("vision_width", 3, "vision_width is 3; it must be even for a ResNet"),
        ("vision_head_width", 48, "the image tower's width is 128; it must be a multiple of 48,"),
        ("vision_mlp_width", 16, "vision_mlp_width is 16; it must be None for a ResNet"),
    ],
)
def test_a_resnet_with_impossible_sizes_is_refused(name: str, value: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ClipConfig(**{**TINY_RESNET.to_dict(), name: value})


def test_each_missing_name_is_reported(tmp_path: Path) -> None:
    given = TINY_VIT.to_dict()
    del given["embed_dim"], given["vocab_size"], given["image_std"]
    with pytest.raises(ConfigError, match="lacks embed_dim, vocab_size"):
        read(json.dumps(given), tmp_path)


HUGE = {
    "text": changed(transformer_width=65_536, transformer_layers=1_000),
    "image": changed(vision_width=65_536, vision_layers=1_000),
    "resnet": {**TINY_RESNET.to_dict(), "vision_width": 65_536, "vision_layers": [1_000] * 4},
    "vocabulary": changed(vocab_size=10_000_000, transformer_width=1_024),
    "mlp": changed(transformer_width=8_192, transformer_mlp_width=262_144),
    "positions": changed(image_resolution=16_384, vision_patch_size=1),
}


@pytest.mark.parametrize("case", HUGE)
def test_a_model_over_the_memory_limit_is_refused_before_allocation(
    case: str, tmp_path: Path
) -> None:
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ConfigError, match=r"needs [\d,]+ GiB in float32, more than the 32 GiB"):
        read(json.dumps(HUGE[case]), tmp_path)
    assert time.process_time() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    tracemalloc.stop()


def test_the_memory_limit_is_32_gib() -> None:
    width = 8_192  # 805,412,864 parameters per block
    below = ClipConfig(**changed(transformer_width=width, transformer_layers=10))
    assert 31 * 2**30 > 4 * below.parameter_count > 29 * 2**30
    with pytest.raises(ConfigError, match="33 GiB"):
        ClipConfig(**changed(transformer_width=width, transformer_layers=11))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not JSON: Expecting value"),
        ("{", "is not JSON: Expecting property name"),
        ("[]", r"holds \[\], not a JSON object"),
        ("null", "holds None, not a JSON object"),
        ("NaN", "holds nan, not a JSON object"),
        ('"text"', "holds 'text', not a JSON object"),
        ("7", "holds 7, not a JSON object"),
        ("{} {}", "is not JSON: Extra data"),
        ("{'embed_dim': 1}", "is not JSON"),
        ("{}", "lacks embed_dim, image_resolution"),
        ('{"embed_dim": 1, "embed_dim": 2}', "is not JSON: a key occurs more than once"),
        ("[" * 100_000, "is not JSON: maximum recursion depth"),
        ('{"a":' * 100_000, "is not JSON: maximum recursion depth"),
        ('{"embed_dim": ' + "9" * 5_000 + "}", "is not JSON: Exceeds the limit"),
        (b"\xff\xfe{}", "is not JSON: 'utf-8' codec can't decode"),
        (b"\x80\x02.", "is not JSON: 'utf-8' codec can't decode"),
        (b"\0" * 100, "is not JSON"),
        (" " * 2**20 + "{}", "is larger than 1,048,576 bytes"),
    ],
)
def test_a_file_without_a_json_object_is_refused_and_described(
    text: str | bytes, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told) as refusal:
        read(text, tmp_path)
    assert str(tmp_path / "config.json") in str(refusal.value)
    assert len(str(refusal.value)) < len(str(tmp_path)) + 500


def test_a_byte_order_mark_before_the_json_is_ignored(tmp_path: Path) -> None:
    text = json.dumps(TINY_VIT.to_dict()).encode("utf-8-sig")
    assert text.startswith(b"\xef\xbb\xbf{")
    assert read(text, tmp_path) == TINY_VIT


def test_deeply_nested_lists_are_refused_with_a_config_error(tmp_path: Path) -> None:
    for depth in (10, 300, 900):
        text = json.dumps(changed(embed_dim=0)).replace(" 0", "[" * depth + "]" * depth, 1)
        with pytest.raises(ConfigError, match=r"embed_dim is|is not JSON"):
            read(text, tmp_path)


def test_an_integer_too_long_for_python_to_print_is_refused() -> None:
    with pytest.raises(ConfigError, match="embed_dim is too long to show; it must be between"):
        ClipConfig(**changed(embed_dim=10**5_000))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        ClipConfig.from_json(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        ClipConfig.from_json(tmp_path / "config.json")


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**34)
    tracemalloc.start()
    with pytest.raises(ConfigError, match="is larger than"):
        ClipConfig.from_json(path)
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    tracemalloc.stop()


def test_a_refused_config_is_also_a_value_error() -> None:
    with pytest.raises(ValueError, match="embed_dim") as refusal:
        ClipConfig(**changed(embed_dim=-1))
    assert isinstance(refusal.value, HfclipError)


@pytest.mark.parametrize(
    ("config", "image", "text"),
    [
        (TINY_VIT, "ViT, 2 blocks of width 64, patch 16", "2 blocks of width 64, 1 attention head"),
        (TINY_RESNET, "ResNet, stages of 1, 2, 1, 1 blocks, width 4", "1 blocks of width 64, 1 "),
        (
            OTHER_MLPS,
            "ViT, 2 blocks of width 64 with MLPs of width 100, patch 16",
            "2 blocks of width 64 with MLPs of width 37, 1 attention head",
        ),
    ],
)
def test_a_config_describes_its_towers(config: ClipConfig, image: str, text: str) -> None:
    assert config.describe_image_tower() == image
    assert re.match(text, config.describe_text_tower())
