"""`optimize`: a CLIP for inference only, as fast as its processor allows, checked when it is built.

`onednn` and `kernels` have the operators, `encoders` what they are applied to.
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
from hfclip.network.layers import LayerNorm, QuickGELU, ResidualAttentionBlock, Transformer
from hfclip.network.resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from hfclip.network.vit import VisionTransformer


class Accuracy(NamedTuple):
    """How far features are from the model's own in float32, at worst of some inputs.

    Attributes:
        difference: Norm of the difference over the norm of the model's features.
        cosine: Of the angle between both.
    """

    difference: float
    cosine: float

    def is_within(self, stated: "Accuracy") -> bool:
        """Whether both are as good as stated; what is no number is not."""
        return self.difference <= stated.difference and self.cosine >= stated.cosine


# Of each precision the worst that is let pass.
STATED: dict[Precision, Accuracy] = {
    "float32": Accuracy(1e-5, 1 - 1e-9),
    "bfloat16": Accuracy(0.045, 0.999),
    "int8": Accuracy(0.1, 0.995),
}


class FastCLIP(Portable):
    """A CLIP for inference only: `hfclip.optimize` makes one.

    It gives the model's features within `stated`, as ordinary float32 tensors without gradient,
    and may be called from several threads at once. It keeps what it can share of the model's
    weights; after these have changed, make another. It can be copied and pickled, and sent to
    another process. To unpickle it where the processor lacks its instructions raises
    OptimizationError.

    Attributes:
        precision: What was asked for: "float32", "bfloat16" or "int8".
        computes_in: What its transformers multiply in, the same or more precise: where a processor
            has no instructions for `precision`, the next is faster.
        stated: The largest difference from the model, and the lowest cosine, that are allowed.
        measured: Both as found when it was built, for pictures and texts of random numbers.
        config: The model's configuration.
        context_length: Tokens in a text at most.
        logit_scale: The model's, a number in a tensor.
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
        """Encodes preprocessed images: (B, 3, S, S) of any float type -> (B, D) float32.

        They are not normalised. B may be anything, 0 too: as many are computed at once as is
        fastest.

        Raises:
            ShapeError: The images have another shape, type or device.
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

        L may be anything up to `context_length`, and T anything, 0 too. Padding costs nothing.

        Raises:
            ShapeError: The ids have another shape, type or device.
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
        """Scaled cosine similarities: logits per image (B, T) and per text (T, B), float32.

        Raises:
            ShapeError: The images or the ids have another shape, type or device.
        """
        images, texts = _unit(self.encode_image(image)), _unit(self.encode_text(text))
        logits = self.logit_scale.exp() * images @ texts.t()
        return logits, logits.t()

    __call__ = forward

    @property
    def dtype(self) -> torch.dtype:
        """The type of the features: always torch.float32. Images of any float type are taken."""
        return torch.float32

    def eval(self) -> Self:
        """Returns itself, because it always computes as in eval mode."""
        return self

    def __repr__(self) -> str:
        computed = "" if self.precision == self.computes_in else f" computed in {self.computes_in}"
        return (
            f"FastCLIP({self.config.describe_image_tower()}; {self.precision}{computed}, "
            f"difference {self.measured.difference:.1e} of at most {self.stated.difference:.1e})"
        )


def optimize(model: CLIP, dtype: Precision = "float32") -> FastCLIP:
    """Makes a CLIP for inference only, several times faster on a CPU than the model.

    Weights are packed once for oneDNN's products of matrices, with activation and residual fused;
    BatchNorm goes into the convolutions; of the last block only the pooled position is computed;
    captions are cut at their end and computed without padding. Where this torch lacks an operator,
    plain torch takes its place.

    On a GPU the same is done in plain torch, in float32 or bfloat16; that has not been measured.

    Args:
        model: Any CLIP that nothing was patched into, in any type. It is left as it is, and as in
            eval mode is what it is taken for.
        dtype: What to compute in. "float32" differs from the model by rounding (under 1e-5);
            "bfloat16" has cosines over 0.999; "int8" has over 0.995. In "int8" the products of
            both transformers are of eight-bit integers, with one scale for all inputs of a call,
            so that a picture's features depend a little on its neighbours; a ResNet computes in
            bfloat16, as does what surrounds the transformers. On a CPU without instructions for
            a type, what is more precise is also faster and takes its place: see
            `FastCLIP.computes_in`.

    Raises:
        OptimizationError: The model was patched, or its features come out worse than stated.
        ArgumentError: dtype is none of the three, or is "int8" on a GPU.
    """
    if dtype not in get_args(Precision):
        raise ArgumentError(
            f"dtype is {dtype!r}; expected is one of {', '.join(get_args(Precision))}"
        )
    _check_type(model)
    toolbox = onednn.toolbox(dtype, model.logit_scale.device)
    return _build(model, dtype, toolbox)


@torch.no_grad()
def _build(model: CLIP, precision: Precision, toolbox: Toolbox) -> FastCLIP:
    twin = _twin(model)
    for problem in _patches(model, twin):
        raise OptimizationError(
            f"This model was changed: {problem}. What was changed would be left out; use the "
            "model itself for inference."
        )
    fast = FastCLIP(twin, precision, toolbox)
    if not fast.measured.is_within(fast.stated):
        found, stated = fast.measured, fast.stated
        raise OptimizationError(
            f"In {precision} the features differ from the model's by {found.difference:.1e} with "
            f"a cosine of {found.cosine:.6f}; stated are {stated.difference:.1e} and "
            f"{stated.cosine:.6f}. Choose a dtype that is more precise, or use the model itself."
        )
    return fast


def _image_encoder(model: CLIP, toolbox: Toolbox) -> VisionEncoder | ResNetEncoder:
    if isinstance(model.visual, ModifiedResNet):
        return ResNetEncoder(toolbox.rest, model.visual)
    return VisionEncoder(toolbox.rest, toolbox.images, model.visual)


def _check_type(model: object) -> None:
    # Exactly: a subclass may compute something else.
    if type(model) is not CLIP:
        raise OptimizationError(
            f"A {type(model).__name__} was given; expected is a hfclip.CLIP, and neither a "
            "subclass nor a wrapper of one. Use the model itself for inference."
        )


def _twin(model: CLIP) -> CLIP:
    """The model in float32 and eval mode, with the same tensors where they are float32."""
    tensors = {
        name: tensor.detach().float() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    try:
        twin = CLIP.from_checkpoint(Checkpoint(Path("the model"), "", model.config, tensors))
    except HfclipError as error:
        raise OptimizationError(
            f"This model's weights do not make its configuration: {error} Use the model itself."
        ) from error
    return twin.requires_grad_(requires_grad=False).to(model.logit_scale.device)


# All that a CLIP is made of. A class that took the place of one of these is not among them.
_KINDS = frozenset(
    {
        *(CLIP, VisionTransformer, ModifiedResNet, Transformer, ResidualAttentionBlock),
        *(Bottleneck, AttentionPool2d, LayerNorm, QuickGELU, nn.GELU, nn.MultiheadAttention),
        *(nn.modules.linear.NonDynamicallyQuantizableLinear, nn.Linear, nn.Embedding),
        *(nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AvgPool2d, nn.Identity),
    }
)
# What may differ without a difference to the results.
_IDLE = frozenset({"training", "inplace", "momentum", "grad_checkpointing"})


def _patches(model: CLIP, twin: CLIP) -> Iterator[str]:
    """What a model has beyond or instead of what its configuration makes."""
    modules, expected = dict(model.named_modules()), dict(twin.named_modules())
    for name in modules.keys() ^ expected.keys():
        yield f"{name} is {'added' if name in modules else 'missing'}"
    for name, module in modules.items():
        if name in expected:
            for problem in _differences(module, expected[name]):
                yield f"{name or 'the model'} {problem}"


def _differences(module: nn.Module, twin: nn.Module) -> Iterator[str]:
    if type(module) is not type(twin) or type(module) not in _KINDS:
        yield f"is a {type(module).__name__}"
    if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001  # no public way to ask
        yield "has forward hooks"
    own, usual = vars(module), vars(twin)
    for name in own.keys() - usual.keys() - _IDLE:
        if hasattr(type(module), name):
            yield f"has its own {name}"
    for name, value in usual.items():
        if name not in _IDLE and not _same(own.get(name), value):
            yield f"has {name} changed"


def _same(value: Any, usual: Any) -> bool:
    """Whether numbers, names and masks agree; parameters and modules are compared elsewhere."""
    if isinstance(usual, Tensor):
        return isinstance(value, Tensor) and torch.equal(value.to(usual), usual)
    if usual is None or isinstance(usual, bool | int | float | str | tuple):
        return type(value) is type(usual) and bool(value == usual)
    return True


def _compare(fast: FastCLIP, model: CLIP) -> Accuracy:
    """The worse of both towers, on pictures and texts of random numbers, always the same."""
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


def _unit(features: Tensor) -> Tensor:
    unit: Tensor = features / features.norm(dim=-1, keepdim=True)
    return unit
