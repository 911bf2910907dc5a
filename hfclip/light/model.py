"""CLIP in NumPy: both towers, with the checks of their inputs."""

from collections.abc import Mapping

import numpy as np

from hfclip.config import ClipConfig
from hfclip.errors import ShapeError, UnknownTokenError
from hfclip.images.memory import keep_freed_memory
from hfclip.layouts.labels import LabelSet
from hfclip.light.layers import layer_norm, transformer
from hfclip.light.resnet import encode_resnet
from hfclip.light.vit import encode_vit
from hfclip.light.weights import Array, Floats, Weights

# The inputs that are encoded together. More would not be faster, and need more memory.
_IMAGES_AT_ONCE = 16
_TEXTS_AT_ONCE = 32


class LightCLIP:
    """Encodes images and texts in NumPy, in float32, so that an image is near its caption.

    The features equal those of `hfclip.load` on the CPU but for rounding: the difference is below
    1e-5 of their norm. Threads may share a model.

    Attributes:
        config: The configuration.
        logit_scale: The logarithm of the factor of cosine similarities, as in the state dict: the
            logits are `math.exp(model.logit_scale) * images @ texts.T` for features of norm 1.
        labels: The labels that the model was fine-tuned for, or None.
        templates: The templates of their captions, or None.
    """

    def __init__(
        self, config: ClipConfig, tensors: Mapping[str, Array], labels: LabelSet | None = None
    ) -> None:
        """Takes the tensors by OpenAI's names; `load` checks their names and shapes."""
        self.config = config
        self.logit_scale = float(tensors["logit_scale"])
        self.labels = labels.labels if labels else None
        self.templates = labels.templates if labels else None
        self._weights = Weights(tensors)

    def encode_image(self, pixels: Array) -> Floats:
        """Encodes preprocessed images: floats (B, 3, S, S) -> float32 (B, D), not normalised.

        Raises:
            ShapeError: The images have another shape or type.
        """
        side = self.config.image_resolution
        if not _is_array(pixels, "f", 4) or pixels.shape[1:] != (3, side, side):
            raise ShapeError(
                f"The images are {_described(pixels)}; expected floats (B, 3, {side}, {side}). "
                "Apply the model's preprocess to each image and stack the results."
            )
        keep_freed_memory()
        encode = encode_resnet if self.config.is_resnet else encode_vit
        weights = self._weights.part("visual")
        features = np.empty((len(pixels), self.config.embed_dim), np.float32)
        for start in range(0, len(pixels), _IMAGES_AT_ONCE):
            batch = slice(start, start + _IMAGES_AT_ONCE)
            features[batch] = encode(np.asarray(pixels[batch], np.float32), weights, self.config)
        return features

    def encode_text(self, ids: Array) -> Floats:
        """Encodes token ids: integers (T, L) -> float32 (T, D), not normalised.

        L may be any number up to `context_length`. A text ends at its highest id, the end token.
        What follows is not computed: no position sees those after it.

        Raises:
            ShapeError: The ids have another shape or type.
            UnknownTokenError: An id is not in the vocabulary.
        """
        self._check_ids(ids)
        keep_freed_memory()
        features = np.empty((len(ids), self.config.embed_dim), np.float32)
        ends = ids.argmax(axis=1) if ids.size else np.zeros(0, np.int64)
        by_length = ends.argsort()
        for start in range(0, len(ids), _TEXTS_AT_ONCE):
            batch = by_length[start : start + _TEXTS_AT_ONCE]
            features[batch] = self._encode_texts(ids[batch], ends[batch])
        return features

    def _encode_texts(self, ids: Array, ends: Array) -> Floats:
        """Encodes texts and takes the features at their ends: (T, L), (T,) -> (T, D)."""
        weights, config = self._weights, self.config
        ids = ids[:, : ends.max() + 1]
        x = weights.rows("token_embedding.weight", ids)  # (T, L, W)
        x = x + weights["positional_embedding"][: ids.shape[1]]
        x = transformer(
            x,
            weights.part("transformer"),
            config,
            config.transformer_heads,
            config.transformer_layers,
            causal=True,
        )
        x = layer_norm(x[np.arange(len(x)), ends], weights.part("ln_final"))  # (T, W)
        return x @ weights["text_projection"]

    def _check_ids(self, ids: Array) -> None:
        length, vocabulary = self.config.context_length, self.config.vocab_size
        if not _is_array(ids, "iu", 2) or not min(1, len(ids)) <= ids.shape[1] <= length:
            raise ShapeError(
                f"The text is {_described(ids)}; expected integers (T, L) with L from 1 to "
                f"{length}. Use hfclip.light.tokenize."
            )
        if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary:
            raise UnknownTokenError(
                f"The text has ids from {ids.min()} to {ids.max()}; the model has tokens 0 to "
                f"{vocabulary - 1}. Use the tokenizer of this model."
            )


def _is_array(found: object, kinds: str, dimensions: int) -> bool:
    """Returns whether something is an array of these kinds of numbers and of this rank."""
    return isinstance(found, np.ndarray) and found.dtype.kind in kinds and found.ndim == dimensions


def _described(found: object) -> str:
    if isinstance(found, np.ndarray):
        return f"{found.dtype} {found.shape}"
    kind = type(found)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"of type {module}{kind.__name__}"
