"""Loads a model for NumPy and its preprocess from a name."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from PIL import Image

from hfclip.checkpoints.comparing import compare
from hfclip.errors import ArgumentError
from hfclip.hub.fetch import Access
from hfclip.images.exact import Pixels, Recipe
from hfclip.images.reading import Picture, open_picture
from hfclip.light.model import LightCLIP
from hfclip.light.shapes import expected_tensors
from hfclip.light.weights import Array, read_arrays
from hfclip.sources.find import Found, find
from hfclip.text.tokenizer import TokenIds, token_ids

LightDtype: TypeAlias = Literal["float32", "float16"]


class Preprocess:
    """Prepares pictures for `LightCLIP.encode_image`, with exactly OpenAI's pixels.

    Attributes:
        recipe: The parameters. `recipe.pixels` is the preprocess of a PIL image.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __call__(self, picture: Picture) -> Pixels:
        """Returns the pixels of a picture: float32 (3, S, S).

        Args:
            picture: A PIL image, which is prepared as it is, like by the preprocess of
                `hfclip.load`. Or a path, "-" for standard input, or the bytes of a file, which
                are first made upright and converted to 8 bits per channel, as by
                `hfclip.images.reading.load_batch`.

        Raises:
            ImageError: The picture does not exist or cannot be decoded.
            ArgumentTypeError: `picture` has another type.
        """
        if isinstance(picture, Image.Image):
            return self.recipe.pixels(picture)
        with open_picture(picture) as image:
            return self.recipe.pixels(image)


def load(
    name: str | Path,
    *,
    dtype: LightDtype | None = None,
    base: str | Path | None = None,
    revision: str | None = None,
    namespace: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str | None = None,
    variant: str | None = None,
    download_root: str | Path | None = None,
) -> tuple[LightCLIP, Preprocess]:
    """Loads a CLIP that computes in NumPy, and its preprocess. Imports no torch.

    Names, files, verification and errors are those of `hfclip.load`. Only safetensors files are
    read. Each tensor must have the name and shape that the configuration gives, and none may be
    left over.

    The first answer comes soonest as the weights are stored, which is the default. float32 weights
    in the Hub's cache are mapped, so nothing is copied. float16 weights are converted at each use.

    Args:
        name: A name as in `hfclip.load`: a release, "digits", a file, a folder or a repository.
        dtype: The dtype of the weights in memory; the computation is always in float32. "float32"
            converts float16 weights once, which pays if many pictures are encoded. "float16" halves
            the memory of float32 weights and changes features by about 1e-3 of their norm. By
            default the weights stay as they are stored.
        base: The model from which a weight file was fine-tuned, as in `hfclip.load`.
        revision: A branch, tag or commit, as in `hfclip.load`.
        namespace: The account whose copies of the nine releases are used, as in `hfclip.load`.
        token: A Hub token, True for the stored token, False for none.
        cache_dir: The folder of the Hub's cache; by default HF_HUB_CACHE, else a folder in HF_HOME.
        local_files_only: Whether to make no request.
        force_download: Whether to fetch cached files again.
        subfolder: The folder inside a folder or repository, as in `hfclip.load`.
        variant: The variant of the weights, such as "fp16", as in `hfclip.load`.
        download_root: The folder of OpenAI's own files, as in `hfclip.load`.

    Returns:
        The model, and a callable from a picture to a float32 array (3, S, S).

    Raises:
        NeedsTorchError: The weights are not in safetensors files, or have a dtype that NumPy lacks.
        ModelNotFoundError: The name is unknown.
        HubError: The files cannot be fetched, or differ from the published files.
        CheckpointError: The weights are damaged or do not fit the configuration.
        ConfigError: The configuration is invalid.
        ArgumentError: `dtype` has an unsupported value.

    Example:
        >>> model, preprocess = hfclip.light.load("ViT-B/32")
        >>> image = model.encode_image(preprocess("cat.jpg")[None])
        >>> text = model.encode_text(hfclip.light.tokenize(["a cat", "a dog"]))
    """
    source = find(
        name,
        Access(token, cache_dir, local_files_only, force_download),
        revision=revision,
        namespace=namespace,
        download_root=download_root,
        base=base,
        subfolder=subfolder,
        variant=variant,
    )
    return load_source(source, dtype)


def load_source(source: Found, dtype: LightDtype | None = None) -> tuple[LightCLIP, Preprocess]:
    """Loads the model of files that `hfclip.sources.find` found, and its preprocess.

    Args:
        source: The files.
        dtype: The dtype of the weights in memory, as for `load`.

    Raises:
        NeedsTorchError: The weights are not in safetensors files, or have a dtype that NumPy lacks.
        CheckpointError: The weights are damaged or do not fit the configuration.
        ConfigError: The configuration is invalid.
        ArgumentError: `dtype` has an unsupported value.
    """
    if dtype is not None and dtype not in get_args(LightDtype):
        raise ArgumentError(f"dtype is {dtype!r}; expected 'float32', 'float16' or None.")
    checkpoint = read_arrays(source)
    compare(expected_tensors(checkpoint.config), checkpoint)
    tensors = _converted(checkpoint.tensors, dtype)
    model = LightCLIP(checkpoint.config, tensors, checkpoint.labels)
    return model, Preprocess(Recipe.of(checkpoint.config))


def tokenize(texts: str | Iterable[str], truncate: bool = False) -> TokenIds:
    """Encodes texts as a batch of token ids: int32 (n, 77), with the ids of `hfclip.tokenize`.

    Args:
        texts: One text, or any iterable of texts.
        truncate: Whether to cut a text that is too long. The end token stays last.

    Raises:
        TextTooLongError: A text has more than 77 tokens and `truncate` is False.
        ArgumentTypeError: A text is not a string, or `texts` is not an iterable of texts.
    """
    return token_ids(texts, truncate=truncate)


def _converted(tensors: Mapping[str, Array], dtype: LightDtype | None) -> dict[str, Array]:
    return {
        name: tensor.astype(dtype, copy=False)
        if dtype and _converts(name, tensor, dtype)
        else tensor
        for name, tensor in tensors.items()
    }


def _converts(name: str, tensor: Any, dtype: LightDtype) -> bool:
    """Returns whether a tensor gets the dtype: for float16, only the factors of products do."""
    if tensor.dtype.kind != "f":
        return False
    return dtype == "float32" or (tensor.ndim > 1 and "embedding" not in name)
