"""From a picture to the tensor that the image tower takes."""

from typing import TYPE_CHECKING

from PIL import Image

from hfclip.config import OPENAI_MEAN, OPENAI_STD, Triple

if TYPE_CHECKING:
    from torchvision.transforms import Compose


def image_transform(
    resolution: int, mean: Triple = OPENAI_MEAN, std: Triple = OPENAI_STD
) -> "Compose":
    """The preprocess of a CLIP: PIL image -> float32 tensor (3, resolution, resolution).

    Args:
        resolution: Side of the result, in pixels; the image's shorter side is resized to it
            (bicubic) and the middle is kept.
        mean: Subtracted from each channel, R, G and B, of values in [0, 1].
        std: Divides each channel after that.

    Returns:
        A picklable transform of five steps. The conversion to RGB comes after resizing, as in
        OpenAI's release: a palette image would differ otherwise.
    """
    # torchvision doubles the time that torch takes to import, so it waits for its first use.
    from torchvision.transforms import (  # noqa: PLC0415
        CenterCrop,
        Compose,
        InterpolationMode,
        Normalize,
        Resize,
        ToTensor,
    )

    return Compose(
        [
            Resize(resolution, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(resolution),
            _to_rgb,
            ToTensor(),
            Normalize(mean, std),
        ]
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")
