"""`optimize`: builds a fast CLIP for inference only and checks its features against the model's.

`encoders` implements both towers with the layers of `kernels` and `onednn`.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from hfclip.checkpoints.read import Checkpoint
from hfclip.config import ClipConfig
from hfclip.errors import ArgumentError, HfclipError, OptimizationError
from hfclip.fast import onednn
from hfclip.fast.encoders import ResNetEncoder, TextEncoder, VisionEncoder
from hfclip.fast.kernels import Portable, Precision, Toolbox
from hfclip.model import CLIP
from hfclip.network import inputs
from hfclip.network.layers import (
    LayerNorm,
    QuickGELU,
    ResidualAttentionBlock,
    Transformer,
    normalize,
)
from hfclip.network.resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from hfclip.network.vit import VisionTransformer


class Accuracy(NamedTuple):
    """Error of features against the model's features in float32: the worst of several inputs.

    Attributes:
        difference: The norm of the difference, divided by the norm of the model's features.
        cosine: The cosine similarity of both.
    """

    difference: float
    cosine: float

    def is_within(self, stated: "Accuracy") -> bool:
        """Returns whether both numbers are as good as stated. NaN is not."""
        return self.difference <= stated.difference and self.cosine >= stated.cosine


# Largest difference and lowest cosine accepted for each precision.
STATED: dict[Precision, Accuracy] = {
    "float32": Accuracy(1e-5, 1 - 1e-9),
    "bfloat16": Accuracy(0.045, 0.999),
    "int8": Accuracy(0.1, 0.995),
}


class FastCLIP(Portable):
    """A CLIP for inference only. `hfclip.optimize` builds it.

    Its features are ordinary float32 tensors without gradient that differ from the model's by at
    most `stated`. Several threads may call it at once. It shares weights with the model where it
    can: build a new one after the model's weights change. It can be copied, pickled and sent to
    another process. Unpickling raises OptimizationError if the processor lacks its instructions.

    Attributes:
        precision: The requested precision: "float32", "bfloat16" or "int8".
        computes_in: The precision of the products in its transformers. It is higher than
            `precision` if the processor has no instructions for that, because it is faster then.
        stated: The largest accepted difference from the model and the lowest accepted cosine.
        measured: The difference and the cosine when it was built, for random images and texts.
        config: The model's configuration.
        context_length: The largest number of tokens in a text.
        logit_scale: The model's `logit_scale`, a 0-dimensional tensor.
    """

    def __init__(self, model: CLIP, precision: Precision, toolbox: Toolbox) -> None:
        self.precision, self.stated = precision, STATED[precision]
        self.computes_in = toolbox.texts.precision
        self.config: ClipConfig = model.config
        self.context_length = model.context_length
        self.logit_scale = model.logit_scale
        self._device = model.logit_scale.device
        self._images = _image_encoder(model, toolbox)
        self._texts = TextEncoder(
            toolbox.texts,
            model.transformer,
            (model.token_embedding.weight, model.positional_embedding),
            (model.ln_final, model.text_projection),
        )
        self.measured = _compare(self, model)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Encodes preprocessed images: (B, 3, S, S) of any float dtype -> (B, D) float32.

        The features are not normalised. B may be any number, 0 included: a large batch is computed
        in parts of the fastest size.

        Raises:
            ShapeError: The images have another shape, dtype or device.
        """
        side = self.config.image_resolution
        if not inputs.are_images(images, side, self._device):
            raise inputs.image_error(images, side, self._device)
        parts = images.tensor_split(max(1, math.ceil(len(images) / self._images.at_once)))
        features = images.new_empty(len(images), self.config.embed_dim, dtype=torch.float32)
        for part, rows in zip(parts, features.tensor_split(len(parts)), strict=True):
            if len(part):
                rows.copy_(self._images(part))
        return features

    @torch.no_grad()
    def encode_text(self, text: Tensor) -> Tensor:
        """Encodes token ids: (T, L) integers -> (T, D) float32, not normalised.

        L may be any number up to `context_length`, and T any number, 0 included. Padding costs no
        time.

        Raises:
            ShapeError: The ids have another shape, dtype or device.
            UnknownTokenError: An id is not in the vocabulary.
        """
        if not inputs.are_texts(text, self.context_length, self._device):
            raise inputs.text_error(text, self.context_length, self._device)
        try:
            return self._texts(text)
        except IndexError as error:
            raise inputs.token_error(text, self.config.vocab_size) from error

    @torch.no_grad()
    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scaled cosine similarities: logits per image (B, T) and per text (T, B), float32.

        Raises:
            ShapeError: The images or the ids have another shape, dtype or device.
        """
        images, texts = normalize(self.encode_image(image)), normalize(self.encode_text(text))
        logits = self.logit_scale.exp() * images @ texts.t()
        return logits, logits.t()

    __call__ = forward

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the features: always torch.float32. Images may have any float dtype."""
        return torch.float32

    def eval(self) -> Self:
        """Returns itself, because it always is in eval mode."""
        return self

    def __repr__(self) -> str:
        computed = "" if self.precision == self.computes_in else f" computed in {self.computes_in}"
        return (
            f"FastCLIP({self.config.describe_image_tower()}; {self.precision}{computed}, "
            f"difference {self.measured.difference:.1e} of at most {self.stated.difference:.1e})"
        )


def optimize(model: CLIP, dtype: Precision = "float32") -> FastCLIP:
    """Builds a CLIP for inference only, several times faster on a CPU than the model.

    It packs the weights once for oneDNN and fuses activations and residuals into the products. It
    folds BatchNorm into the convolutions, computes only the pooled position in the last block, and
    cuts captions at their end token. Plain torch computes what this torch has no operator for.

    On a GPU it uses plain torch in float32 or bfloat16. The speed on a GPU has not been measured.

    Args:
        model: A CLIP without patches, in any dtype. It is not changed, and is treated as if it were
            in eval mode.
        dtype: The precision to compute in. On a CPU without instructions for it, a higher precision
            is faster and is used instead: see `FastCLIP.computes_in`.

            - "float32": differs from the model by rounding, under 1e-5.
            - "bfloat16": has cosines over 0.999 with the model.
            - "int8": has cosines over 0.995. Both transformers multiply in int8; ResNets and the
              layers around the transformers compute in bfloat16. All inputs of a call share one
              scale, so the features of an image depend slightly on the rest of its batch.

    Raises:
        OptimizationError: The model was patched, or the error of its features exceeds the limit.
        ArgumentError: dtype is none of these three, or it is "int8" and the model is on a GPU.
    """
    if dtype not in get_args(Precision):
        raise ArgumentError(
            f"dtype is {dtype!r}; expected one of {', '.join(get_args(Precision))}."
        )
    _check_type(model)
    toolbox = onednn.toolbox(dtype, model.logit_scale.device)
    return _build(model, dtype, toolbox)


@torch.no_grad()
def _build(model: CLIP, precision: Precision, toolbox: Toolbox) -> FastCLIP:
    reference = _reference(model)
    for problem in _patches(model, reference):
        raise OptimizationError(
            f"The model was changed: {problem}. hfclip.optimize would leave out the change. Use "
            "the model itself for inference."
        )
    fast = FastCLIP(reference, precision, toolbox)
    if not fast.measured.is_within(fast.stated):
        found, stated = fast.measured, fast.stated
        raise OptimizationError(
            f"In {precision} the features differ from the model's by {found.difference:.1e}, with "
            f"a cosine of {found.cosine:.6f}; expected at most {stated.difference:.1e} and at "
            f"least {stated.cosine:.6f}. Choose a more precise dtype, or use the model itself."
        )
    return fast


def _image_encoder(model: CLIP, toolbox: Toolbox) -> VisionEncoder | ResNetEncoder:
    if isinstance(model.visual, ModifiedResNet):
        return ResNetEncoder(toolbox.rest, model.visual)
    return VisionEncoder(toolbox.rest, toolbox.images, model.visual)


def _check_type(model: object) -> None:
    # isinstance would accept a subclass, which may compute something else.
    if type(model) is not CLIP:
        raise OptimizationError(
            f"The model is a {type(model).__name__}; expected a hfclip.CLIP, not a subclass or a "
            "wrapper of it. Use the model itself for inference."
        )


def _reference(model: CLIP) -> CLIP:
    """Returns the model in float32 and eval mode. It shares the tensors that are float32."""
    tensors = {
        name: tensor.detach().float() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    try:
        reference = CLIP.from_checkpoint(Checkpoint(Path("the model"), "", model.config, tensors))
    except HfclipError as error:
        raise OptimizationError(
            f"The model's weights do not fit its configuration: {error} Use the model itself."
        ) from error
    return reference.requires_grad_(requires_grad=False).to(model.logit_scale.device)


# The classes of all modules in a CLIP. A class that was patched over one of them is not included.
_MODULE_TYPES = frozenset(
    {
        *(CLIP, VisionTransformer, ModifiedResNet, Transformer, ResidualAttentionBlock),
        *(Bottleneck, AttentionPool2d, LayerNorm, QuickGELU, nn.GELU, nn.MultiheadAttention),
        *(nn.modules.linear.NonDynamicallyQuantizableLinear, nn.Linear, nn.Embedding),
        *(nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AvgPool2d, nn.Identity),
    }
)
# Attributes that do not change the results of inference.
_IGNORED_ATTRIBUTES = frozenset({"training", "inplace", "momentum", "grad_checkpointing"})


def _patches(model: CLIP, reference: CLIP) -> Iterator[str]:
    """Yields the differences between a model and the model of its configuration."""
    modules, expected = dict(model.named_modules()), dict(reference.named_modules())
    for name in modules.keys() ^ expected.keys():
        yield f"{name} is {'added' if name in modules else 'missing'}"
    for name, module in modules.items():
        if name in expected:
            for problem in _differences(module, expected[name]):
                yield f"{name or 'the model'} {problem}"


def _differences(module: nn.Module, reference: nn.Module) -> Iterator[str]:
    if type(module) is not type(reference) or type(module) not in _MODULE_TYPES:
        yield f"is a {type(module).__name__}"
    if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001  # no public way to ask
        yield "has forward hooks"
    found, expected = vars(module), vars(reference)
    for name in found.keys() - expected.keys() - _IGNORED_ATTRIBUTES:
        if hasattr(type(module), name):
            yield f"has its own {name}"
    for name, value in expected.items():
        if name not in _IGNORED_ATTRIBUTES and not _same(found.get(name), value):
            yield f"has {name} changed"


def _same(value: Any, expected: Any) -> bool:
    """Returns whether numbers, strings or masks are equal, and True for any other attribute.

    Parameters and modules are compared elsewhere.
    """
    if isinstance(expected, Tensor):
        return isinstance(value, Tensor) and torch.equal(value.to(expected), expected)
    if expected is None or isinstance(expected, bool | int | float | str | tuple):
        return type(value) is type(expected) and bool(value == expected)
    return True


def _compare(fast: FastCLIP, model: CLIP) -> Accuracy:
    """Returns the worst error of both towers, for random images and texts from a fixed seed."""
    # Every argument is given, because a program may change torch's default device and dtype.
    config, random = fast.config, torch.Generator("cpu").manual_seed(0)
    side, context, end = config.image_resolution, config.context_length, config.vocab_size - 1
    images = torch.randn(2, 3, side, side, generator=random, device="cpu", dtype=torch.float32)
    ids = torch.randint(end, (3, context), generator=random, device="cpu", dtype=torch.int64)
    for row, last in enumerate((context - 1, context // 2, 1)):
        ids[row, last] = end
    images, ids = images.to(fast.logit_scale.device), ids.to(fast.logit_scale.device)
    features = torch.cat([fast.encode_image(images), fast.encode_text(ids)]).double()
    expected = torch.cat([model.encode_image(images), model.encode_text(ids)]).double()
    difference = (features - expected).norm(dim=1) / expected.norm(dim=1)
    cosine = torch.cosine_similarity(features, expected, dim=1)
    return Accuracy(difference.max().item(), cosine.min().item())
