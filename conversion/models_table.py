"""Generates the page of the documentation that says which published models hfclip loads."""

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hfclip.config import ClipConfig
from hfclip.errors import ConfigError
from hfclip.layouts.detect import config_from_json
from hfclip.layouts.kinds import KINDS
from hfclip.layouts.open_clip import config_from_open_clip

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/pages/models.md"

_LARGE = {
    "projection_dim": 768,
    "text_config": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "vision_config": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "patch_size": 14,
    },
}
_BASE_16 = {"vision_config": {"patch_size": 16}}
_GELU = {"text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "gelu"}}


def _merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a CLIP's config.json: transformers' defaults, changed by each part in turn."""
    values: dict[str, Any] = {"model_type": "clip", "architectures": ["CLIPModel"]}
    for part in parts:
        for key, value in part.items():
            is_section = isinstance(value, Mapping)
            values[key] = {**values.get(key, {}), **value} if is_section else value
    return values


def _laion(width: int, text: tuple[int, int, int], vision: tuple[int, int, int]) -> dict[str, Any]:
    """Returns the config.json of a large model of LAION, with GELU, patches of 14 and 16 heads.

    Args:
        width: The width of the embeddings.
        text: The width, the heads and the layers of the text tower.
        vision: The width, the layers and the MLP's width of the image tower.
    """
    sizes = {
        "projection_dim": width,
        "text_config": {
            "hidden_size": text[0],
            "intermediate_size": 4 * text[0],
            "num_attention_heads": text[1],
            "num_hidden_layers": text[2],
        },
        "vision_config": {
            "hidden_size": vision[0],
            "num_hidden_layers": vision[1],
            "intermediate_size": vision[2],
            "num_attention_heads": 16,
            "patch_size": 14,
        },
    }
    return _merged(_GELU, sizes)


def _of_kind(model_type: str) -> dict[str, Any]:
    return {"model_type": model_type, "architectures": [KINDS[model_type].loader]}


# Well-known repositories of transformers -> their config.json, less what does not matter here.
TRANSFORMERS = {
    "openai/clip-vit-base-patch32": _merged(),
    "openai/clip-vit-base-patch16": _merged(_BASE_16),
    "openai/clip-vit-large-patch14": _merged(_LARGE),
    "openai/clip-vit-large-patch14-336": _merged(_LARGE, {"vision_config": {"image_size": 336}}),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": _merged(_GELU),
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": _merged(_GELU, _LARGE),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": _laion(1024, (1024, 16, 24), (1280, 32, 5120)),
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K": _laion(1024, (1024, 16, 24), (1408, 40, 6144)),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": _laion(1280, (1280, 20, 32), (1664, 48, 8192)),
    "patrickjohncyh/fashion-clip": _merged(),
    "flax-community/clip-rsicd-v2": _merged(),
    "zer0int/CLIP-GmP-ViT-L-14": _merged(_LARGE),
    "facebook/metaclip-b32-400m": _merged(),
    "facebook/metaclip-2-worldwide-huge-quickgelu": _of_kind("metaclip_2"),
    "google/siglip-base-patch16-224": _of_kind("siglip"),
    "google/siglip2-base-patch16-naflex": _of_kind("siglip2"),
    "OFA-Sys/chinese-clip-vit-base-patch16": _of_kind("chinese_clip"),
    "BAAI/AltCLIP": _of_kind("altclip"),
    "kakaobrain/align-base": _of_kind("align"),
    "CIDAS/clipseg-rd64-refined": _of_kind("clipseg"),
}


class Row(NamedTuple):
    """A published model.

    Attributes:
        model: Its name in open_clip, or its repository.
        tag: Its tag in open_clip; empty for a repository of transformers.
        repo_id: Its repository on the Hub.
        config: Its configuration, or None if hfclip refuses it.
        reason: Why hfclip refuses it; empty if hfclip loads it.
    """

    model: str
    tag: str
    repo_id: str
    config: ClipConfig | None
    reason: str

    @property
    def answer(self) -> str:
        """Whether hfclip loads the model."""
        return "yes" if self.config else "no"

    @property
    def facts(self) -> str:
        """The image tower in words, or why hfclip refuses the model."""
        if self.config is None:
            return self.reason
        return f"{self.config.describe_image_tower()}, {self.config.image_resolution} pixels"


def open_clip_file(model: str, tag: str) -> dict[str, Any]:
    """Returns the open_clip_config.json of an entry of open_clip's own table."""
    import open_clip  # noqa: PLC0415  # needed only here, and slow to import

    preprocess = open_clip.get_pretrained_cfg(model, tag)
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {
        "model_cfg": open_clip.get_model_config(model),
        "preprocess_cfg": {key: preprocess[key] for key in keys},
    }


def open_clip_rows() -> Iterator[Row]:
    """Yields a row for each entry of the table of the installed open_clip, in its order."""
    import open_clip  # noqa: PLC0415

    for model, tag in open_clip.list_pretrained():
        file = open_clip.get_pretrained_cfg(model, tag)["hf_hub"]  # org/name/ or org/name/file
        repo_id = "/".join(file.split("/")[:2])
        yield Row(model, tag, repo_id, *_judged(config_from_open_clip, open_clip_file(model, tag)))


def transformers_rows() -> Iterator[Row]:
    """Yields a row for each repository in `TRANSFORMERS`."""
    for repo_id, values in TRANSFORMERS.items():
        yield Row(repo_id, "", repo_id, *_judged(config_from_json, values))


def _judged(
    read: Callable[[dict[str, Any]], ClipConfig], values: dict[str, Any]
) -> tuple[ClipConfig | None, str]:
    """Returns the configuration in a file and an empty text, or None and why it is refused."""
    try:
        return read(values), ""
    except ConfigError as error:
        return None, str(error).partition(". Load this model with ")[0]


def render() -> str:
    """Returns the page."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  # the page is Markdown, and its values are not a user's
    )
    open_clip = list(open_clip_rows())
    return environment.get_template("models_page.md.jinja").render(
        version=version("open_clip_torch"),
        open_clip=open_clip,
        loaded=sum(row.config is not None for row in open_clip),
        transformers=list(transformers_rows()),
        kinds=KINDS,
    )


@click.command(epilog="Example: python -m conversion models-table --check")
@click.option("--check", is_flag=True, help="Write nothing. Exit with 1 if the page differs.")
def main(check: bool) -> None:
    """Write docs/pages/models.md from the table of the installed open_clip."""
    text = render()
    is_stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text
    if is_stale and not check:
        PAGE.write_text(text, encoding="utf-8")
    if is_stale:
        click.echo(f"{PAGE.name} {'differs' if check else 'written'}")
    sys.exit(1 if check and is_stale else 0)
