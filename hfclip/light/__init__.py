"""CLIP in NumPy, for a first answer without torch. Nothing in this package imports torch.

>>> import math, numpy as np, hfclip.light
>>> model, preprocess = hfclip.light.load("ViT-B/32")
>>> images = model.encode_image(np.stack([preprocess("cat.jpg")]))
>>> texts = model.encode_text(hfclip.light.tokenize(["a cat", "a dog"]))
>>> images /= np.linalg.norm(images, axis=1, keepdims=True)
>>> texts /= np.linalg.norm(texts, axis=1, keepdims=True)
>>> logits = math.exp(model.logit_scale) * images @ texts.T

The modules are short, and made to be read: `layers` has the layers, `vit` and `resnet` the image
towers, `model` the text tower and the whole, `shapes` the names and shapes of all weights, and
`weights` reads them from a file.
"""

from hfclip.light.loading import Preprocess, load, tokenize
from hfclip.light.model import LightCLIP

__all__ = ["LightCLIP", "Preprocess", "load", "tokenize"]
