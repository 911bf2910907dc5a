"""Describes and reads one JSON object of a foreign configuration.

The formats of open_clip and transformers describe many more architectures than OpenAI's. Each table
lists the values that are read and the settings that must have the value of OpenAI's models. A
setting of another architecture, tokenizer or preprocess raises an error with its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any

from hfclip.config import ClipConfig
from hfclip.errors import ConfigError
from hfclip.layouts import kinds

# The accepted values of a setting, and the rule of hfclip for the error message.
Fixed = tuple[tuple[object, ...], str]


@dataclass(frozen=True)
class Section:
    """One JSON object of a foreign configuration.

    Attributes:
        owner: The package of the format, for error messages.
        name: The object's path in the file, with a dot at the end; empty for the whole file.
        numbers: The settings that are read: foreign name -> hfclip's name and the foreign default.
        fixed: The settings with a limited set of accepted values.
        ignored: The settings without an effect on features; None ignores all others.
    """

    owner: str
    name: str
    numbers: Mapping[str, tuple[str, object]]
    fixed: Mapping[str, Fixed]
    ignored: frozenset[str] | None = None

    def read(self, values: object) -> dict[str, Any]:
        """Returns the values of `numbers` by hfclip's names.

        Raises:
            ConfigError: A setting is unknown or has a value that is not accepted.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{self.name.rstrip('.') or 'The configuration'} is {shown(values)}, not a JSON "
                "object. Get the published file again."
            )
        for key in self.fixed:
            self.check(key, values)
        self._check_names(values)
        return {
            ours: self._side(key, values.get(key, other))
            for key, (ours, other) in self.numbers.items()
        }

    def check(self, key: str, values: Mapping[str, object]) -> None:
        """Raises an error if a setting of `fixed` has a value that is not accepted.

        Raises:
            ConfigError: The message names the setting.
        """
        accepted, why = self.fixed[key]
        if key in values and values[key] not in accepted:
            raise self.refusal(key, values[key], why)

    def _check_names(self, values: Mapping[str, object]) -> None:
        if self.ignored is None:
            return
        unknown = values.keys() - self.numbers.keys() - self.fixed.keys() - self.ignored
        if unknown:
            raise self.refusal(min(unknown), values[min(unknown)], "this setting is unknown")

    def _side(self, key: str, value: object) -> object:
        """Returns one side of a square that is given by two; any other value unchanged."""
        if key not in SQUARES or not isinstance(value, list | tuple) or len(value) != 2:
            return value
        if value[0] != value[1]:
            raise self.refusal(key, value, "images and patches are square")
        return value[0]

    def refusal(self, key: str, value: object, why: str) -> ConfigError:
        """Returns the error for a value that is not accepted."""
        remark = "" if key in self.numbers else kinds.family(value)
        return kinds.refusal(f"{self.name}{key}", value, why, self.owner, remark)

    def write(self, config: ClipConfig) -> dict[str, Any]:
        """Returns the values by their foreign names, in JSON types: the inverse of `read`."""
        values = {key: getattr(config, ours) for key, (ours, _) in self.numbers.items()}
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


OFF = (False, None)
NOTHING: tuple[object, ...] = (None, {})
SQUARES = frozenset({"image_size", "patch_size"})
MLP = "an MLP is two linear layers with the activation between them"
ATTENTION = "attention is the same as OpenAI's"
SCALE = "blocks have no layer scale"
NORM = "the LayerNorms are the same as OpenAI's"
ACTIVATION = "the activation is QuickGELU or GELU, without options"
POOLING = "the output of a tower is that of its class or end token, after the LayerNorm"
TOKENIZER = kinds.TOKENIZER
TEXT = kinds.TEXT
IMAGE = kinds.IMAGE
CHANNELS = "images are RGB"
RESIZE = "an image is resized by its shorter side, its longer side or both, then cropped or padded"
FILTER = "an image is resized with the bicubic or the bilinear filter"
NO_CODE = "code from a repository is not run"
