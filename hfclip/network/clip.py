"""The network of CLIP: an image tower and a text tower with embeddings in one space.

`hfclip.CLIP` is this network with the methods that load, save and publish it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hfclip.config import OPENAI_MEAN, OPENAI_STD, Activation, ClipConfig, Triple
from hfclip.config.resizing import Interpolation, ResizeMode
from hfclip.network.inputs import INPUT_ERRORS, check_images, check_texts
from hfclip.network.layers import (
    LayerNorm,
    ResidualAttentionBlock,
    Transformer,
    mlp_options,
)
from hfclip.network.resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from hfclip.network.vit import VisionTransformer


class CLIP(nn.Module):
    """Encodes images and texts so that an image and its caption have similar embeddings.

    The arguments, the sub-modules and the state-dict keys are those of OpenAI's release.
    `hfclip.config.ClipConfig` describes the keyword-only arguments.

    Shapes: images (B, 3, S, S) and texts (T, L) -> logits (B, T) and (T, B), where S is
    `image_resolution` in pixels and L is at most `context_length` tokens.

    Raises:
        ConfigError: The arguments do not describe a valid model. No memory is allocated then.
    """

    visual: VisionTransformer | ModifiedResNet

    def __init__(
        self,
        embed_dim: int,
        image_resolution: int,
        vision_layers: int | tuple[int, int, int, int],
        vision_width: int,
        vision_patch_size: int | None,
        context_length: int,
        vocab_size: int,
        transformer_width: int,
        transformer_heads: int,
        transformer_layers: int,
        *,
        activation: Activation = "quick_gelu",
        vision_head_width: int = 64,
        vision_mlp_width: int | None = None,
        transformer_mlp_width: int | None = None,
        image_mean: Triple = OPENAI_MEAN,
        image_std: Triple = OPENAI_STD,
        resize_mode: ResizeMode = "shortest",
        interpolation: Interpolation = "bicubic",
        resize_resolution: int | None = None,
        fill_color: int = 0,
    ) -> None:
        super().__init__()
        self.config = config = ClipConfig(
            embed_dim,
            image_resolution,
            vision_layers,
            vision_width,
            vision_patch_size,
            context_length,
            vocab_size,
            transformer_width,
            transformer_heads,
            transformer_layers,
            activation=activation,
            vision_head_width=vision_head_width,
            vision_mlp_width=vision_mlp_width,
            transformer_mlp_width=transformer_mlp_width,
            image_mean=image_mean,
            image_std=image_std,
            resize_mode=resize_mode,
            interpolation=interpolation,
            resize_resolution=resize_resolution,
            fill_color=fill_color,
        )
        self.context_length = config.context_length
        self.vocab_size = config.vocab_size
        self.visual = _image_tower(config)
        self.transformer = Transformer(
            config.transformer_width,
            config.transformer_layers,
            config.transformer_heads,
            self.build_attention_mask(),
            **mlp_options(config.transformer_mlp_width),
        )
        self.token_embedding = nn.Embedding(config.vocab_size, config.transformer_width)
        self.positional_embedding = nn.Parameter(
            torch.empty(config.context_length, config.transformer_width)
        )
        self.ln_final = LayerNorm(config.transformer_width)
        self.text_projection = nn.Parameter(torch.empty(config.transformer_width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
        if config.activation == "gelu":
            _use_gelu(self)
        self.initialize_parameters()

    def initialize_parameters(self) -> None:
        """Draws the weights for training from scratch, with OpenAI's standard deviations."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        for name, parameter in self.visual.named_parameters():
            if name.endswith("bn3.weight") and name.startswith("layer"):
                nn.init.zeros_(parameter)
        pool = getattr(self.visual, "attnpool", None)
        if isinstance(pool, AttentionPool2d):
            pool.initialize_parameters()
        for block in self.transformer.resblocks:
            _draw_block(block, self.transformer.width, self.transformer.layers)
        nn.init.normal_(self.text_projection, std=self.transformer.width**-0.5)

    def build_attention_mask(self) -> Tensor:
        """Returns the causal mask, (context_length, context_length): -inf above the diagonal.

        It is on the default device. If that is the meta device, it is on the CPU instead, because a
        state dict does not contain the mask.
        """
        shape = (self.context_length, self.context_length)
        mask = torch.full(shape, float("-inf"))
        if mask.is_meta:
            mask = torch.full(shape, float("-inf"), device="cpu")
        return mask.triu(1)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which both towers compute: that of `visual.conv1.weight`."""
        weight: Tensor = self.visual.conv1.weight
        return weight.dtype

    def encode_image(self, image: Tensor) -> Tensor:
        """Encodes preprocessed images: (B, 3, S, S) -> (B, D) in `dtype`, not normalised.

        Raises:
            ShapeError: The images have another shape, dtype or device.
        """
        try:
            if not image.is_floating_point() and type(self.visual) in _TOWERS:
                check_images(self.visual, image)
            features: Tensor = self.visual(image.type(self.dtype))
        except INPUT_ERRORS as error:
            check_images(self.visual, image, error)
            raise
        return features

    def encode_text(self, text: Tensor) -> Tensor:
        """Encodes token ids: (T, L) integers -> (T, D) in `dtype`, not normalised.

        L may be any number up to `context_length`. The mask is causal, so padding that is cut after
        the longest text changes the features by rounding only.

        Raises:
            ShapeError: The ids have another shape, dtype or device.
            UnknownTokenError: An id is not in the vocabulary.
        """
        try:
            x = self.token_embedding(text).type(self.dtype)  # (T, L, W)
            x = x + self.positional_embedding[: text.shape[-1]].type(self.dtype)
            x = self.transformer(x.permute(1, 0, 2))  # (L, T, W)
            x = self.ln_final(x.permute(1, 0, 2)).type(self.dtype)  # (T, L, W)
            # argmax finds the end token, which has the highest id.
            rows = torch.arange(x.shape[0], device=x.device)
            features: Tensor = x[rows, text.argmax(dim=-1)] @ self.text_projection
        except INPUT_ERRORS as error:
            check_texts(self, text, error)
            if len(text) == 0:  # L is 0 too, as in tokenize([], padding="longest")
                return self.text_projection.new_zeros(0, self.text_projection.shape[1])
            raise
        return features  # (T, D)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scaled cosine similarities: logits per image (B, T) and per text (T, B)."""
        image_features = self.encode_image(image)
        text_features = self.encode_text(text)
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        logits_per_image = self.logit_scale.exp() * image_features @ text_features.t()
        return logits_per_image, logits_per_image.t()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Saves memory in training, at the cost of time, in both towers.

        The blocks keep no activations. The backward pass recomputes them. Gradients differ by
        rounding at most. Names, weights and results of the model do not change.

        Args:
            enable: Whether to recompute. It is off in a new model.
        """
        for module in self.modules():
            if isinstance(module, ResidualAttentionBlock | Bottleneck):
                module.grad_checkpointing = enable


# Image towers that expect float images. A module that replaces one may accept other dtypes.
_TOWERS = (VisionTransformer, ModifiedResNet)


def _image_tower(config: ClipConfig) -> VisionTransformer | ModifiedResNet:
    if isinstance(config.vision_layers, tuple):
        return ModifiedResNet(
            layers=config.vision_layers,
            output_dim=config.embed_dim,
            heads=config.vision_heads,
            input_resolution=config.image_resolution,
            width=config.vision_width,
        )
    assert config.vision_patch_size is not None  # noqa: S101  # ClipConfig has checked it
    return VisionTransformer(
        input_resolution=config.image_resolution,
        patch_size=config.vision_patch_size,
        width=config.vision_width,
        layers=config.vision_layers,
        heads=config.vision_heads,
        output_dim=config.embed_dim,
        **mlp_options(config.vision_mlp_width),
    )


def _use_gelu(model: CLIP) -> None:
    """Replaces QuickGELU with the exact GELU in all blocks."""
    for module in model.modules():
        if isinstance(module, ResidualAttentionBlock):
            module.mlp.add_module("gelu", nn.GELU())


def _draw_block(block: Any, width: int, layers: int) -> None:
    """Draws the weights of a text block, which may be a module that replaced hfclip's."""
    nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
    nn.init.normal_(block.attn.out_proj.weight, std=(2 * width * layers) ** -0.5)
    nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(block.mlp.c_proj.weight, std=(2 * width * layers) ** -0.5)


def convert_weights(model: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Casts a model to mixed precision in place, as in OpenAI's releases.

    Convolutions, linear layers, attention and the two projections get `dtype`. LayerNorm,
    BatchNorm, embeddings and logit_scale lose too much in half precision: they get float32, or
    float64 if `dtype` is float64.
    """
    rest = torch.promote_types(dtype, torch.float32)
    for module in model.modules():
        computes = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear | nn.MultiheadAttention)
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in own:
            if tensor.is_floating_point():
                half = computes or name in {"text_projection", "proj"}
                tensor.data = tensor.data.to(dtype if half else rest)
