"""The model of a collection in NumPy, which encodes a few texts sooner than torch is imported."""

from collections.abc import Callable, Sequence

import numpy as np

from hfclip.embedding.identity import check_config
from hfclip.embedding.manifest import Manifest
from hfclip.layouts.files import Source
from hfclip.light import LightCLIP
from hfclip.light.loading import load_source
from hfclip.light.weights import Floats
from hfclip.text.tokenizer import token_ids


class TextModel:
    """Encodes texts with the model that made the embeddings of a collection.

    Attributes:
        model: The model in NumPy.
    """

    def __init__(self, source: Source, manifest: Manifest) -> None:
        """Loads the model.

        Args:
            source: The files that `hfclip.embedding.identity.find_model_of` found.
            manifest: The manifest of the collection.

        Raises:
            DataError: The configuration has changed since.
            HfclipError: As `hfclip.light.load`.
        """
        self.model: LightCLIP = load_source(source)[0]
        check_config(self.model.config, manifest)
        self._normalize = manifest.normalized

    @property
    def context_length(self) -> int:
        """The largest number of tokens of a text."""
        return self.model.config.context_length

    def start_texts(self, texts: Sequence[str]) -> Callable[[], Floats]:
        """Encodes texts and returns a function that returns the features, float32 (T, D).

        Texts longer than the model's context are truncated. This is the method of the same name of
        `hfclip.embedding.encode.Encoder`.
        """
        ids = token_ids(list(texts), self.context_length, truncate=True, padding="longest")
        features = self.model.encode_text(ids)
        if self._normalize:
            features /= np.linalg.norm(features, axis=-1, keepdims=True)
        return lambda: features
