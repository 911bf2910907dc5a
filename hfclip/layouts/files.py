"""The files of a model in each layout: their names, and where those of one model are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hfclip.config import ClipConfig
from hfclip.layouts.labels import LabelSet

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
OPEN_CLIP_CONFIG_FILE = "open_clip_config.json"
OPEN_CLIP_WEIGHTS_FILE = "open_clip_model.safetensors"
OPENAI_WEIGHTS_FILE = "model.pt"
# Files of torch.save, which are read as data.
PICKLE_FILE = "pytorch_model.bin"
OPEN_CLIP_PICKLE_FILE = "open_clip_pytorch_model.bin"
PREPROCESSOR_FILE = "preprocessor_config.json"
PREPROCESSOR_FILES = (PREPROCESSOR_FILE, "processor_config.json")
CARD_FILE = "README.md"


class Shard(NamedTuple):
    """One of the weight files of a model.

    Attributes:
        path: The file.
        tensors: The names of its tensors, as the index lists them.
    """

    path: Path
    tensors: frozenset[str]


@dataclass(frozen=True)
class Source:
    """The files of one model, verified where a hash is known.

    Attributes:
        weights: The weight file, of any kind that `hfclip.checkpoints.read` reads, or the index of
            the shards.
        config: The configuration, or None if it must be inferred from the shapes.
        origin: A description of the model's origin.
        config_origin: A description of the configuration's origin.
        is_base: Whether the configuration belongs to the model from which the weights were
            fine-tuned. The weights then give the sizes that fine-tuning may change.
        mapped: Whether a safetensors file may be mapped into memory. This is safe only for files
            that nobody writes in place: those in the Hub client's cache or in hfclip's package.
        shards: The weight files, if there are several with an index; else empty.
        labels: The labels and templates of a fine-tuned model, or None.
    """

    weights: Path
    config: ClipConfig | None
    origin: str
    config_origin: str = "its configuration"
    is_base: bool = False
    mapped: bool = False
    shards: tuple[Shard, ...] = ()
    labels: LabelSet | None = None

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold the tensors: the weight file, or its shards."""
        return tuple(shard.path for shard in self.shards) or (self.weights,)


class Files(NamedTuple):
    """The files of a model's folder: one weight file, and the text files by file name."""

    weights_file: str
    weights: "Mapping[str, Tensor]"
    texts: Mapping[str, str]


def json_text(values: Mapping[str, Any]) -> str:
    """Returns a JSON file: sorted, indented, the same text for the same values."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
