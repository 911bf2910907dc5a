"""Names the models that hfclip does not load, hfclip's rule that each breaks, and its loader."""

from collections.abc import Mapping
from reprlib import Repr
from typing import Any, NamedTuple

from hfclip.errors import ConfigError

BOTH_TOWERS = "a CLIP has two towers, each with a projection, and no other part"
TOKENIZER = "the tokenizer is OpenAI's"
TEXT = "the text tower is a causal transformer with OpenAI's names"
IMAGE = "the image tower is a ViT or a ResNet with OpenAI's names"
CLASS_TOKEN = "an image tower returns its class token, and the logits have no bias"  # noqa: S105
INPUTS = "a model reads single RGB images and texts"


class Kind(NamedTuple):
    """A kind of model in transformers that hfclip does not load.

    Attributes:
        name: The name of the kind.
        rule: The rule of hfclip that it breaks.
        loader: The class of transformers that loads it, if the file names no other.
    """

    name: str
    rule: str
    loader: str


# The `model_type` of a transformers configuration -> its kind.
KINDS = {
    "clip_vision_model": Kind("the image tower of a CLIP alone", BOTH_TOWERS, "CLIPVisionModel"),
    "clip_text_model": Kind("the text tower of a CLIP alone", BOTH_TOWERS, "CLIPTextModel"),
    "metaclip_2": Kind("MetaCLIP 2", TOKENIZER, "MetaClip2Model"),
    "siglip": Kind("SigLIP", CLASS_TOKEN, "SiglipModel"),
    "siglip2": Kind("SigLIP 2", CLASS_TOKEN, "Siglip2Model"),
    "chinese_clip": Kind("Chinese-CLIP", TEXT, "ChineseCLIPModel"),
    "altclip": Kind("AltCLIP", TEXT, "AltCLIPModel"),
    "align": Kind("ALIGN", IMAGE, "AlignModel"),
    "blip": Kind("BLIP", TEXT, "BlipForImageTextRetrieval"),
    "blip-2": Kind("BLIP-2", BOTH_TOWERS, "Blip2ForImageTextRetrieval"),
    "instructblip": Kind("InstructBLIP", BOTH_TOWERS, "InstructBlipForConditionalGeneration"),
    "bridgetower": Kind("BridgeTower", BOTH_TOWERS, "BridgeTowerModel"),
    "flava": Kind("FLAVA", BOTH_TOWERS, "FlavaModel"),
    "clipseg": Kind("CLIPSeg", BOTH_TOWERS, "CLIPSegForImageSegmentation"),
    "groupvit": Kind("GroupViT", IMAGE, "GroupViTModel"),
    "owlvit": Kind("OWL-ViT", BOTH_TOWERS, "OwlViTForObjectDetection"),
    "owlv2": Kind("OWLv2", BOTH_TOWERS, "Owlv2ForObjectDetection"),
    "xclip": Kind("X-CLIP", INPUTS, "XCLIPModel"),
    "clap": Kind("CLAP", INPUTS, "ClapModel"),
    "vision-text-dual-encoder": Kind("a dual encoder", TEXT, "VisionTextDualEncoderModel"),
}
# The classes of transformers that hold a part of a CLIP.
PARTS = {
    "CLIPVisionModel": "the image tower of a CLIP alone",
    "CLIPVisionModelWithProjection": "the image tower of a CLIP alone",
    "CLIPTextModel": "the text tower of a CLIP alone",
    "CLIPTextModelWithProjection": "the text tower of a CLIP alone",
    "CLIPForImageClassification": "the image tower of a CLIP, with a classifier",
}

# A part of a value in an open_clip configuration -> the family of models that use it.
_FAMILIES = {
    "nllb-200": "NLLB-CLIP",
    "siglip": "SigLIP",
    "eva_giant": "EVA-CLIP",
    "eva02_": "EVA-CLIP",
    "vit_base_mci": "MobileCLIP",
    "fastvit_mci": "MobileCLIP",
    "vitamin_": "ViTamin",
    "vit_pe_core": "the Perception Encoder",
    "convnext_": "OpenCLIP's ConvNeXt",
    "xlm-v-base": "MetaCLIP 2",
}

_repr = Repr()
_repr.maxstring = 60  # the name of a class or repository is shown whole
_repr.maxdict = 1


def check_kind(values: Mapping[str, Any]) -> None:
    """Raises an error for a transformers configuration of a kind that hfclip does not load.

    Unknown kinds are accepted.

    Raises:
        ConfigError: The message says what the model is, and the class that loads it.
    """
    model_type, architecture = values.get("model_type"), _architecture(values)
    kind = KINDS.get(model_type) if isinstance(model_type, str) else None
    if kind is not None:
        loader = f"transformers' {architecture or kind.loader}"
        raise refusal("model_type", model_type, kind.rule, loader, f" ({kind.name})")
    if model_type == "clip" and architecture in PARTS and not values.get("auto_map"):
        found, part = values["architectures"], f" ({PARTS[architecture]})"
        raise refusal("architectures", found, BOTH_TOWERS, f"transformers' {architecture}", part)


def family(value: object) -> str:
    """Returns " (as in ...)" for a value of an open_clip configuration that a family is known by.

    Returns an empty text for any other value.
    """
    if not isinstance(value, str):
        return ""
    known = (name for part, name in _FAMILIES.items() if part in value.lower())
    return next((f" (as in {name})" for name in known), "")


def refusal(
    setting: str, value: object, rule: str, loader: str, explanation: str = ""
) -> ConfigError:
    """Returns the error for a setting's value that hfclip does not accept.

    Args:
        setting: The name of the setting, with its path in the file.
        value: The value in the file.
        rule: The rule of hfclip that the value breaks.
        loader: The package or class that loads the model.
        explanation: A remark about the value, in parentheses after a space.
    """
    return ConfigError(
        f"{setting} is {_repr.repr(value)}{explanation}, but in hfclip {rule}. "
        f"Load this model with {loader} instead."
    )


def _architecture(values: Mapping[str, Any]) -> str | None:
    """Returns the class that a configuration names, or None if it does not name just one."""
    match values.get("architectures"):
        case [str(name)] if name.isidentifier():
            return name
    return None
