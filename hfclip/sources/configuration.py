"""Chooses the configuration of a weight file, and reads it in any layout."""

import dataclasses
import logging
from collections.abc import Callable, Set
from pathlib import Path

from hfclip.config import ClipConfig, read_json
from hfclip.errors import ConfigError, NetworkError
from hfclip.layouts.detect import config_from_json, is_transformers_clip
from hfclip.layouts.files import CONFIG_FILE, OPEN_CLIP_CONFIG_FILE, PREPROCESSOR_FILES
from hfclip.layouts.labels import LABELS_FILE, LabelSet, read_labels
from hfclip.layouts.open_clip import config_from_open_clip
from hfclip.layouts.weight_files import config_of

logger = logging.getLogger(__name__)

# Fine-tuning may change these settings. All others belong to the architecture.
_TUNABLE = {
    *("image_resolution", "context_length", "vocab_size", "image_mean", "image_std"),
    *("vision_mlp_width", "transformer_mlp_width"),  # pruning
    *("resize_mode", "interpolation", "resize_resolution", "fill_color"),
}


def config_beside(path: Path) -> tuple[str, ClipConfig] | None:
    """Returns the file name and content of the configuration beside a weight file, or None.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    try:
        return config_in(known_files(path.parent), path.parent.joinpath, path.name)
    except ConfigError as error:
        raise ConfigError(
            f"The configuration beside {path} cannot be used: {error} Name the model that the "
            "weights were fine-tuned from with base= (--base), such as 'ViT-B/32', or move the "
            "weights to a new folder."
        ) from None


def known_files(folder: Path) -> set[str]:
    """Returns the names of a folder's configuration files."""
    known = (OPEN_CLIP_CONFIG_FILE, CONFIG_FILE, *PREPROCESSOR_FILES)
    return {name for name in known if (folder / name).is_file()}


def config_in(
    names: Set[str], get: Callable[[str], Path], weights: str = ""
) -> tuple[str, ClipConfig] | None:
    """Chooses the configuration of a folder or repository.

    A weight file with the standard name of a layout uses the configuration of that layout. If one
    of two configurations is not a CLIP's, the other is used: timm's repositories hold both.

    Args:
        names: The names of the files in the folder or repository.
        get: A function that returns the path of a file.
        weights: The weight file's name; empty if only the configuration is needed.

    Returns:
        The configuration's file name and content, or None if there is none.

    Raises:
        ConfigError: No configuration is a CLIP's, or two differ and either may apply.
    """
    configs: dict[str, ClipConfig] = {}
    refusals: list[str] = []
    for file in (OPEN_CLIP_CONFIG_FILE, CONFIG_FILE):
        if file in names:
            try:
                configs[file] = read_config(file, names, get)
            except ConfigError as error:
                refusals.append(f"{get(file)}: {error}")
    own = config_of(weights)
    if own in configs:
        return own, configs[own]
    if len(set(configs.values())) > 1:
        files = " and ".join(str(get(file)) for file in configs)
        refusals = [f"{files} describe different models, and either may apply."]
    elif configs:
        return next(iter(configs.items()))
    if refusals:
        raise ConfigError(" ".join(refusals))
    return None


def labels_in(names: Set[str], get: Callable[[str], Path]) -> LabelSet | None:
    """Reads the labels of a fine-tuned model; returns None if a folder or repository has none.

    The labels are optional: a model loads without them if they are not cached and the Hub cannot be
    asked. A warning says so.

    Args:
        names: The names of the files in the folder or repository.
        get: A function that returns the path of a file.

    Raises:
        ConfigError: The file has hfclip's form, and its content is not valid.
        HubError: The file is damaged, or cannot be fetched for another reason.
    """
    if LABELS_FILE not in names:
        return None
    try:
        path = get(LABELS_FILE)
    except NetworkError as error:
        logger.warning("%s The model is loaded without its labels.", error)
        return None
    return read_labels(path)


def read_config(file: str, names: Set[str], get: Callable[[str], Path]) -> ClipConfig:
    """Reads a configuration of any layout, with the preprocessor's file if there is one."""
    values = read_json(get(file))
    if file == OPEN_CLIP_CONFIG_FILE:
        return config_from_open_clip(values)
    preprocessors = PREPROCESSOR_FILES if is_transformers_clip(values) else ()
    preprocessor = next((read_json(get(name)) for name in preprocessors if name in names), None)
    return config_from_json(values, preprocessor)


def check_base(config: ClipConfig, origin: str, base: ClipConfig, name: str) -> None:
    """Raises an error for a model that cannot be a fine-tune of its base.

    Args:
        config: The configuration of the model.
        origin: A description of the model's origin.
        base: The configuration of the base.
        name: The name of the base.

    Raises:
        ConfigError: A setting differs that fine-tuning does not change.
    """
    theirs, ours = dataclasses.asdict(base), dataclasses.asdict(config)
    differing = [key for key in ours if ours[key] != theirs[key] and key not in _TUNABLE]
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{key} is {ours[key]!r} in the configuration of {origin}, and "
            f"{theirs[key]!r} in {name}, so it is not a fine-tune of {name}. Name the right "
            "base, or correct the configuration."
        )
