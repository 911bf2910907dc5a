"""The files of a model in each layout: their names, and where those of one model are."""

from dataclasses import dataclass
from pathlib import Path

from hfclip.config import ClipConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
OPEN_CLIP_CONFIG_FILE = "open_clip_config.json"
OPEN_CLIP_WEIGHTS_FILE = "open_clip_model.safetensors"
OPENAI_WEIGHTS_FILE = "model.pt"
PREPROCESSOR_FILE = "preprocessor_config.json"
PREPROCESSOR_FILES = (PREPROCESSOR_FILE, "processor_config.json")
CARD_FILE = "README.md"


@dataclass(frozen=True)
class Source:
    """The files of one model, verified where a hash is known.

    Attributes:
        weights: The weight file, of any kind that `hfclip.checkpoints.read` reads.
        config: Its configuration, or None: then the shapes must tell.
        origin: Where it comes from, in words.
        config_origin: Where the configuration comes from, in words.
        is_base: Whether the configuration is that of the model which the weights were fine-tuned
            from. The sizes that fine-tuning may change are then read off the weights.
        mapped: Whether a safetensors file may be mapped into memory instead of read. Only a file
            that nobody writes in place may be: one of the Hub client's cache, or of hfclip itself.
    """

    weights: Path
    config: ClipConfig | None
    origin: str
    config_origin: str = "its configuration"
    is_base: bool = False
    mapped: bool = False
