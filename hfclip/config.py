"""The numbers that rebuild a CLIP, checked before any memory is asked for. No torch here."""

import codecs
import dataclasses
import json
import operator
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from hfclip.errors import ConfigError

Activation = Literal["quick_gelu", "gelu"]
Triple = tuple[float, float, float]

# Of the pixels that OpenAI trained on, in RGB order, for values in [0, 1].
OPENAI_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Triple = (0.26862954, 0.26130258, 0.27577711)

MAX_BYTES = 32 * 2**30
_MAX_JSON_BYTES = 2**20

# The widest range in which each number makes sense, ends included.
_RANGES = {
    "embed_dim": (1, 65_536),
    "image_resolution": (1, 16_384),
    "vision_width": (2, 65_536),
    "vision_patch_size": (1, 16_384),
    "context_length": (2, 4_096),  # the mask is this number squared, and is filled when built
    "vocab_size": (2, 10_000_000),
    "transformer_width": (1, 65_536),
    "transformer_heads": (1, 65_536),
    "transformer_layers": (1, 1_000),
    "vision_head_width": (1, 65_536),
}
_LAYERS_RANGE = (1, 1_000)
_MEAN_RANGE, _STD_RANGE = (-1e6, 1e6), (1e-6, 1e6)

# Keys that other tools write beside ours; they describe the file, not the model.
_DESCRIPTIVE_KEYS = frozenset({"model_type", "architectures", "library_name", "_name_or_path"})


@dataclass(frozen=True)
class ClipConfig:
    """One CLIP, as OpenAI's constructor arguments name it; the same names are config.json.

    Attributes:
        embed_dim: Width of the space that images and texts share.
        image_resolution: Side of the square input image, in pixels.
        vision_layers: Blocks of a ViT, or the four stages of a ResNet.
        vision_width: Width of the image tower (of a ResNet: its first stage's).
        vision_patch_size: Side of a ViT's patch, in pixels; None for a ResNet.
        context_length: Tokens in a text, start and end tokens included.
        vocab_size: Rows of the token embedding.
        transformer_width: Width of the text tower.
        transformer_heads: Attention heads of the text tower.
        transformer_layers: Blocks of the text tower.
        activation: Between the two layers of every transformer's MLP.
        vision_head_width: Width of an attention head in the image tower.
        image_mean: Mean of the training pixels, RGB, for values in [0, 1].
        image_std: Their standard deviation.

    Raises:
        ConfigError: A number has the wrong type, is out of range, does not divide as it
            must, or the whole would need more than 32 GiB in float32.
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
    image_mean: Triple = OPENAI_MEAN
    image_std: Triple = OPENAI_STD

    def __post_init__(self) -> None:
        self._set("vision_layers", _layers(self.vision_layers))
        if self.is_resnet:
            self._set("vision_patch_size", None)
        for name, bounds in _RANGES.items():
            if name != "vision_patch_size" or not self.is_resnet:
                self._set(name, _integer(name, getattr(self, name), bounds))
        self._set("image_mean", _triple("image_mean", self.image_mean, _MEAN_RANGE))
        self._set("image_std", _triple("image_std", self.image_std, _STD_RANGE))
        if self.activation not in get_args(Activation):
            raise ConfigError(
                f"activation is {_shown(self.activation)}; "
                f"known are {', '.join(get_args(Activation))}."
            )
        self._check_divisions()
        self._check_memory()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def is_resnet(self) -> bool:
        """Whether the image tower is a ResNet (four stages) and not a ViT (one stack)."""
        return isinstance(self.vision_layers, tuple)

    @property
    def vision_heads(self) -> int:
        """Attention heads of the ViT, or of the ResNet's attention pooling."""
        return self.vision_feature_width // self.vision_head_width

    @property
    def vision_feature_width(self) -> int:
        """Width of what the image tower projects from: the ViT's own, 32 times the ResNet's."""
        return self.vision_width * 32 if self.is_resnet else self.vision_width

    @property
    def image_positions(self) -> int:
        """Rows of the image tower's positional embedding: the grid and one more."""
        return (self.image_resolution // (self.vision_patch_size or 32)) ** 2 + 1

    @property
    def parameter_count(self) -> int:
        """Trainable numbers in the model, without building it."""
        vision = _resnet_parameters(self) if self.is_resnet else _vit_parameters(self)
        width = self.transformer_width
        text = (self.vocab_size + self.context_length + 2 + self.embed_dim) * width
        return vision + text + _block_parameters(width) * self.transformer_layers + 1

    def describe_image_tower(self) -> str:
        """The image tower in a few words, as in `ViT, 12 blocks of width 768, patch 32`."""
        if isinstance(self.vision_layers, tuple):
            stages = ", ".join(map(str, self.vision_layers))
            return f"ResNet, stages of {stages} blocks, width {self.vision_width}"
        return (
            f"ViT, {self.vision_layers} blocks of width {self.vision_width}, "
            f"patch {self.vision_patch_size}"
        )

    def describe_text_tower(self) -> str:
        """The text tower in a few words."""
        return (
            f"{self.transformer_layers} blocks of width {self.transformer_width}, "
            f"{self.transformer_heads} attention head{'s' * (self.transformer_heads > 1)}, "
            f"{self.context_length} tokens"
        )

    def _check_divisions(self) -> None:
        if self.is_resnet and self.image_resolution % 32:
            raise ConfigError(
                f"image_resolution is {self.image_resolution}; a ResNet halves it five times, "
                "so it must be a multiple of 32."
            )
        if self.vision_patch_size is not None and self.vision_patch_size > self.image_resolution:
            raise ConfigError(
                f"vision_patch_size is {self.vision_patch_size}, more than the image's "
                f"{self.image_resolution} pixels; no patch would fit."
            )
        if self.is_resnet and self.vision_width % 2:
            raise ConfigError(f"vision_width is {self.vision_width}; a ResNet's must be even.")
        _divides("the image tower's width", self.vision_feature_width, self.vision_head_width)
        _divides("transformer_width", self.transformer_width, self.transformer_heads)

    def _check_memory(self) -> None:
        needed = 4 * (self.parameter_count + self.context_length**2)
        if needed > MAX_BYTES:
            raise ConfigError(
                f"This configuration asks for {needed / 2**30:,.0f} GiB in float32, more than the "
                f"{MAX_BYTES // 2**30} GiB that hfclip allows; is a number mistyped?"
            )

    def to_dict(self) -> dict[str, Any]:
        """The flat mapping that config.json holds and that `CLIP(**mapping)` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads the mapping of a config.json.

        Raises:
            ConfigError: A name is missing, a name is unknown, or a value is refused.
        """
        given = {key: value for key, value in values.items() if key not in _DESCRIPTIVE_KEYS}
        fields = dataclasses.fields(cls)
        known = {f.name for f in fields}
        required = [f.name for f in fields if f.default is dataclasses.MISSING]
        missing = [name for name in required if name not in given]
        unknown = [name for name in given if name not in known]
        if missing:
            raise ConfigError(
                f"The configuration lacks {', '.join(missing)}. Give the config.json that hfclip "
                "wrote for these weights, or add what is missing."
            )
        if unknown:
            raise ConfigError(
                f"The configuration holds {', '.join(map(_shown, unknown[:5]))}, which this "
                "version of hfclip does not know; a newer version may, or the file is not a CLIP's."
            )
        return cls(**given)

    @classmethod
    def from_json(cls, path: Path) -> Self:
        """Reads a config.json.

        Raises:
            ConfigError: `read_json` or `from_dict` refuses it.
        """
        values = read_json(path)
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a small UTF-8 file, with or without a byte order mark.

    Raises:
        ConfigError: The file cannot be read, is no JSON, or holds something else than an object.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(text) > _MAX_JSON_BYTES:
        raise ConfigError(f"{path} is over {_MAX_JSON_BYTES:,} bytes: not a CLIP's config.json.")
    try:
        values = json.loads(
            text.removeprefix(codecs.BOM_UTF8).decode(), object_pairs_hook=_unambiguous
        )
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}. Restore or rewrite it.") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds {_shown(values)}, not a JSON object. Restore or rewrite it."
        )
    return values


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name stands in it twice, and which value is meant cannot be told")
    return values


def _shown(value: object) -> str:
    """A value for a message; Python refuses to print the longest integers and deepest lists."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = "too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _integer(name: str, value: object, bounds: tuple[int, int]) -> int:
    low, high = bounds
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # it is what we are finding out
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ConfigError(f"{name} is {_shown(value)}; it must be an integer.")
    if not low <= number <= high:
        raise ConfigError(f"{name} is {_shown(number)}; it must be between {low} and {high}.")
    return number


def _layers(value: object) -> int | tuple[int, ...]:
    if not isinstance(value, list | tuple):
        return _integer("vision_layers", value, _LAYERS_RANGE)
    if len(value) != 4:
        raise ConfigError(f"vision_layers has {len(value)} stages; a ResNet has four, a ViT one.")
    return tuple(_integer("vision_layers", stage, _LAYERS_RANGE) for stage in value)


def _triple(name: str, value: object, bounds: tuple[float, float]) -> tuple[float, ...]:
    numbers = value if isinstance(value, list | tuple) else ()
    low, high = bounds
    sound = all(
        isinstance(x, int | float) and not isinstance(x, bool) and low <= x <= high for x in numbers
    )
    if len(numbers) != 3 or not sound:
        raise ConfigError(
            f"{name} is {_shown(value)}; it must be three numbers between {low:g} and {high:g}, "
            "one each for R, G and B."
        )
    return tuple(float(x) for x in numbers)


def _divides(name: str, width: int, divisor: int) -> None:
    if width % divisor:
        raise ConfigError(
            f"{name} is {width}, which {divisor} does not divide; every attention head must be "
            "of the same width."
        )


def _block_parameters(width: int) -> int:
    """Attention 4 W W + 4 W, MLP 8 W W + 5 W, two LayerNorms 4 W."""
    return 12 * width * width + 13 * width


def _vit_parameters(config: ClipConfig) -> int:
    width, patch, layers = config.vision_width, config.vision_patch_size, config.vision_layers
    assert patch is not None  # noqa: S101  # not a ResNet
    assert isinstance(layers, int)  # noqa: S101
    embeddings = (3 * patch * patch + 1 + config.image_positions) * width
    return embeddings + 4 * width + width * config.embed_dim + _block_parameters(width) * layers


def _resnet_parameters(config: ClipConfig) -> int:
    assert isinstance(config.vision_layers, tuple)  # noqa: S101  # what is_resnet means
    width, features = config.vision_width, config.vision_feature_width
    half = width // 2
    stem = 27 * half + 2 * half + 9 * half * half + 2 * half + 9 * half * width + 2 * width
    stages, fan_in = 0, width
    for stage, blocks in enumerate(config.vision_layers):
        planes = width * 2**stage
        fan_out = planes * 4
        stages += fan_in * fan_out + 2 * fan_out  # the shortcut of the stage's first block
        for _ in range(blocks):
            stages += fan_in * planes + 9 * planes**2 + planes * fan_out + 4 * planes + 2 * fan_out
            fan_in = fan_out
    pooling = (config.image_positions + 3 * (features + 1)) * features
    return stem + stages + pooling + (features + 1) * config.embed_dim
