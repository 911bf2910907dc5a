"""The configuration of a CLIP, validated before any memory is allocated. Imports no torch."""

import codecs
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from hfclip.config.parameters import count_block, count_resnet, count_vit
from hfclip.config.resizing import (
    SIDE_RANGE,
    Interpolation,
    ResizeMode,
    describe_resizing,
    settled_resizing,
)
from hfclip.config.values import choice, integer, shown, triple
from hfclip.errors import ConfigError

Activation = Literal["quick_gelu", "gelu"]
Triple = tuple[float, float, float]

# Mean and standard deviation of OpenAI's training pixels, RGB, for values in [0, 1].
OPENAI_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Triple = (0.26862954, 0.26130258, 0.27577711)

MAX_BYTES = 32 * 2**30
_MAX_JSON_BYTES = 2**20

# The accepted range of each number, both ends included.
_RANGES = {
    "embed_dim": (1, 65_536),
    "image_resolution": SIDE_RANGE,
    "vision_width": (2, 65_536),
    "vision_patch_size": (1, 16_384),
    "context_length": (2, 4_096),  # the attention mask has context_length**2 elements
    "vocab_size": (2, 10_000_000),
    "transformer_width": (1, 65_536),
    "transformer_heads": (1, 65_536),
    "transformer_layers": (1, 1_000),
    "vision_head_width": (1, 65_536),
}
_LAYERS_RANGE = (1, 1_000)
_MLP_RANGE = (1, 262_144)
_MEAN_RANGE, _STD_RANGE = (-1e6, 1e6), (1e-6, 1e6)

# Fields that config.json leaves out if they have their default: older files do not have them.
_LEFT_OUT_IF_DEFAULT = frozenset(
    {
        "vision_mlp_width",
        "transformer_mlp_width",
        "fill_color",
        "interpolation",
        "resize_mode",
        "resize_resolution",
    }
)

# Keys that other tools add to config.json. They describe the file, not the model.
_DESCRIPTIVE_KEYS = frozenset({"model_type", "architectures", "library_name", "_name_or_path"})


@dataclass(frozen=True)
class ClipConfig:
    """The configuration of a CLIP, with the names of OpenAI's constructor and of config.json.

    Attributes:
        embed_dim: Width of the embeddings that images and texts share.
        image_resolution: Side of the square input image, in pixels.
        vision_layers: Number of blocks of a ViT, or of each of the four stages of a ResNet.
        vision_width: Width of the ViT, or of the first stage of the ResNet.
        vision_patch_size: Side of a ViT's patch, in pixels; None for a ResNet.
        context_length: Maximum number of tokens in a text, start and end tokens included.
        vocab_size: Number of rows of the token embedding.
        transformer_width: Width of the text tower.
        transformer_heads: Number of attention heads in each block of the text tower.
        transformer_layers: Number of blocks of the text tower.
        activation: Activation function in the MLP of every transformer block.
        vision_head_width: Width of an attention head in the image tower.
        vision_mlp_width: Number of hidden units in the MLP of each block of a ViT. None stands for
            four times `vision_width`; that number becomes None. It is None for a ResNet.
        transformer_mlp_width: Number of hidden units in the MLP of each block of the text tower.
            None stands for four times `transformer_width`; that number becomes None.
        image_mean: Mean of the training pixels, RGB, for values in [0, 1].
        image_std: Standard deviation of the training pixels, RGB, for values in [0, 1].
        resize_mode: How an image is resized. "shortest": its shorter side to `resize_resolution`,
            then the center is cropped. "longest": its longer side, then the rest is padded.
            "squash": both sides, whatever its aspect ratio.
        interpolation: The filter of the resizing, "bicubic" or "bilinear".
        resize_resolution: Side in pixels to which an image is resized before the center is cropped,
            at least `image_resolution`; None stands for `image_resolution`.
        fill_color: Level from 0 to 255 of the padding in every channel of the image's own mode. It
            applies to "longest" only, and is 0 otherwise.

    Raises:
        ConfigError: A value has the wrong type or is out of range, a width is not divisible into
            heads, or the model would need more than 32 GiB in float32.
    """

    embed_dim: int
    image_resolution: int
    vision_layers: int | tuple[int, int, int, int]
    vision_width: int
    vision_patch_size: int | None
    context_length: int
    vocab_size: int
    transformer_width: int
    transformer_heads: int
    transformer_layers: int
    _: KW_ONLY
    activation: Activation = "quick_gelu"
    vision_head_width: int = 64
    vision_mlp_width: int | None = None
    transformer_mlp_width: int | None = None
    image_mean: Triple = OPENAI_MEAN
    image_std: Triple = OPENAI_STD
    resize_mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"
    resize_resolution: int | None = None
    fill_color: int = 0

    def __post_init__(self) -> None:
        self._set("vision_layers", _layers(self.vision_layers))
        if self.is_resnet:
            self._set("vision_patch_size", None)
        for name, bounds in _RANGES.items():
            if name != "vision_patch_size" or not self.is_resnet:
                self._set(name, integer(name, getattr(self, name), bounds))
        self._set_mlp_widths()
        self._set("image_mean", triple("image_mean", self.image_mean, _MEAN_RANGE))
        self._set("image_std", triple("image_std", self.image_std, _STD_RANGE))
        choice("activation", self.activation, get_args(Activation))
        side, fill = settled_resizing(
            self.image_resolution,
            self.resize_mode,
            self.interpolation,
            self.resize_resolution,
            self.fill_color,
        )
        self._set("resize_resolution", side)
        self._set("fill_color", fill)
        self._check_divisions()
        self._check_memory()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _set_mlp_widths(self) -> None:
        """Checks the widths of the MLPs and replaces the usual width by None."""
        if self.is_resnet and self.vision_mlp_width is not None:
            raise ConfigError(
                f"vision_mlp_width is {shown(self.vision_mlp_width)}; it must be None for a "
                "ResNet, whose blocks have no MLP."
            )
        towers = {
            "vision_mlp_width": self.vision_width,
            "transformer_mlp_width": self.transformer_width,
        }
        for name, width in towers.items():
            if getattr(self, name) is not None:
                units = integer(name, getattr(self, name), _MLP_RANGE)
                self._set(name, None if units == 4 * width else units)

    @property
    def is_resnet(self) -> bool:
        """Returns whether the image tower is a ResNet (four stages) and not a ViT (one stack)."""
        return isinstance(self.vision_layers, tuple)

    @property
    def vision_heads(self) -> int:
        """Returns the number of heads of the ViT, or of the ResNet's attention pooling."""
        return self.vision_feature_width // self.vision_head_width

    @property
    def vision_mlp_units(self) -> int:
        """Returns the number of hidden units in the MLP of each block of a ViT."""
        return self.vision_mlp_width or 4 * self.vision_width

    @property
    def transformer_mlp_units(self) -> int:
        """Returns the number of hidden units in the MLP of each block of the text tower."""
        return self.transformer_mlp_width or 4 * self.transformer_width

    @property
    def vision_feature_width(self) -> int:
        """Returns the width before the final projection: 32 times `vision_width` for a ResNet."""
        return self.vision_width * 32 if self.is_resnet else self.vision_width

    @property
    def image_positions(self) -> int:
        """Returns the number of rows of the image tower's positional embedding: grid plus one."""
        return (self.image_resolution // (self.vision_patch_size or 32)) ** 2 + 1

    @property
    def parameter_count(self) -> int:
        """Returns the number of trainable parameters, without building the model."""
        width, positions = self.vision_width, self.image_positions
        if isinstance(self.vision_layers, tuple):
            vision = count_resnet(width, self.vision_layers, positions, self.embed_dim)
        else:
            blocks = count_block(width, self.vision_mlp_units) * self.vision_layers
            vision = count_vit(
                width, self.vision_patch_size or 0, positions, blocks, self.embed_dim
            )
        width = self.transformer_width
        text = (self.vocab_size + self.context_length + 2 + self.embed_dim) * width
        blocks = count_block(width, self.transformer_mlp_units) * self.transformer_layers
        return vision + text + blocks + 1

    def describe_image_tower(self) -> str:
        """Describes the image tower, for example `ViT, 12 blocks of width 768, patch 32`."""
        if isinstance(self.vision_layers, tuple):
            stages = ", ".join(map(str, self.vision_layers))
            return f"ResNet, stages of {stages} blocks, width {self.vision_width}"
        return (
            f"ViT, {self.vision_layers} blocks of width {self.vision_width}"
            f"{_described_mlp(self.vision_mlp_width)}, "
            f"patch {self.vision_patch_size}"
        )

    def describe_text_tower(self) -> str:
        """Describes the text tower: its blocks, width, heads and context length."""
        return (
            f"{self.transformer_layers} blocks of width {self.transformer_width}"
            f"{_described_mlp(self.transformer_mlp_width)}, "
            f"{self.transformer_heads} attention head{'s' * (self.transformer_heads > 1)}, "
            f"{self.context_length} tokens"
        )

    def describe_preprocess(self) -> str | None:
        """Describes how an image is resized, or returns None if this is done as by OpenAI."""
        resizing = self.resize_mode, self.interpolation, self.resize_resolution, self.fill_color
        if resizing == ("shortest", "bicubic", None, 0):
            return None
        return describe_resizing(self.image_resolution, *resizing)

    def _check_divisions(self) -> None:
        if self.is_resnet and self.image_resolution % 32:
            raise ConfigError(
                f"image_resolution is {self.image_resolution}; a ResNet halves it five times, "
                "so it must be a multiple of 32."
            )
        if self.vision_patch_size is not None and self.vision_patch_size > self.image_resolution:
            raise ConfigError(
                f"vision_patch_size is {self.vision_patch_size}; it must be at most "
                f"image_resolution, which is {self.image_resolution}."
            )
        if self.is_resnet and self.vision_width % 2:
            raise ConfigError(f"vision_width is {self.vision_width}; it must be even for a ResNet.")
        _check_multiple(
            "the image tower's width", self.vision_feature_width, self.vision_head_width
        )
        _check_multiple("transformer_width", self.transformer_width, self.transformer_heads)

    def _check_memory(self) -> None:
        needed = 4 * (self.parameter_count + self.context_length**2)
        if needed > MAX_BYTES:
            raise ConfigError(
                f"This configuration needs {needed / 2**30:,.0f} GiB in float32, more than the "
                f"{MAX_BYTES // 2**30} GiB that hfclip allows. Check its numbers."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns a flat dict, as in config.json and as `CLIP(**values)` takes it."""
        values = dataclasses.asdict(self)
        for field in dataclasses.fields(self):
            if field.name in _LEFT_OUT_IF_DEFAULT and values[field.name] == field.default:
                del values[field.name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a configuration from the mapping of a config.json.

        Raises:
            ConfigError: A key is missing or unknown, or a value is invalid.
        """
        given = {key: value for key, value in values.items() if key not in _DESCRIPTIVE_KEYS}
        fields = dataclasses.fields(cls)
        known = {f.name for f in fields}
        required = [f.name for f in fields if f.default is dataclasses.MISSING]
        missing = [name for name in required if name not in given]
        unknown = [name for name in given if name not in known]
        if missing:
            raise ConfigError(
                f"The configuration lacks {', '.join(missing)}. Use the config.json that hfclip "
                "wrote for these weights, or add the missing keys."
            )
        if unknown:
            raise ConfigError(
                f"The configuration has unknown keys: {', '.join(map(shown, unknown[:5]))}. "
                "Update hfclip if a newer version wrote them, or use the config.json of a CLIP."
            )
        return cls(**given)

    @classmethod
    def from_json(cls, path: Path) -> Self:
        """Reads a config.json.

        Raises:
            ConfigError: The file is not a JSON object, or `from_dict` rejects its values.
        """
        values = read_json(path)
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a UTF-8 file of at most 1 MiB, with or without a byte order mark.

    Raises:
        ConfigError: The file cannot be read, is too large, or does not hold a JSON object.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(text) > _MAX_JSON_BYTES:
        raise ConfigError(
            f"{path} is larger than {_MAX_JSON_BYTES:,} bytes; expected the config.json of a CLIP."
        )
    try:
        content = text.removeprefix(codecs.BOM_UTF8).decode()
        values = json.loads(content, object_pairs_hook=_with_unique_keys)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}. Restore or rewrite it.") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds {shown(values)}, not a JSON object. Restore or rewrite it."
        )
    return values


def _with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key occurs more than once")
    return values


def _layers(value: object) -> int | tuple[int, ...]:
    if not isinstance(value, list | tuple):
        return integer("vision_layers", value, _LAYERS_RANGE)
    if len(value) != 4:
        raise ConfigError(
            f"vision_layers has {len(value)} stages; expected four for a ResNet, or one integer "
            "for a ViT."
        )
    return tuple(integer("vision_layers", stage, _LAYERS_RANGE) for stage in value)


def _check_multiple(name: str, width: int, divisor: int) -> None:
    if width % divisor:
        raise ConfigError(
            f"{name} is {width}; it must be a multiple of {divisor}, so that every attention head "
            "has the same width."
        )


def _described_mlp(units: int | None) -> str:
    return "" if units is None else f" with MLPs of width {units}"
