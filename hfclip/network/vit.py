"""The image tower of the ViT models."""

import torch
from torch import Tensor, nn

from hfclip.network.inputs import has_other_size, image_error
from hfclip.network.layers import LayerNorm, Transformer, mlp_options, normal_parameter


class VisionTransformer(nn.Module):
    """Encodes an image as patches with a transformer and projects the class token.

    Shapes: (B, 3, S, S) -> (B, D), where S is the image side in pixels, G = S // patch_size the
    number of patches per side, W the width of the tower and D the width of the embedding. If `proj`
    is set to None, the result is (B, W). `mlp_width` is the number of hidden units in the MLP of
    each block; by default four times W.
    """

    def __init__(
        self,
        input_resolution: int,
        patch_size: int,
        width: int,
        layers: int,
        heads: int,
        output_dim: int,
        *,
        mlp_width: int | None = None,
    ) -> None:
        super().__init__()
        self.input_resolution = input_resolution
        self.output_dim = output_dim
        grid = input_resolution // patch_size
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size, bias=False)
        std = width**-0.5
        self.class_embedding = normal_parameter(width, std=std)
        self.positional_embedding = normal_parameter(grid**2 + 1, width, std=std)
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, None, **mlp_options(mlp_width))
        self.ln_post = LayerNorm(width)
        self.proj: nn.Parameter | None = normal_parameter(width, output_dim, std=std)

    def forward(self, x: Tensor) -> Tensor:
        """Encodes images: (B, 3, S, S) -> (B, D).

        Raises:
            ShapeError: The images do not have the size S that the positions are for.
        """
        if has_other_size(x, self.input_resolution):
            self._check_positions(x)
        x = self.conv1(x)  # (B, W, G, G)
        x = x.flatten(2).permute(0, 2, 1)  # (B, G*G, W)
        class_token = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([class_token, x], dim=1)  # (B, 1 + G*G, W)
        x = self.ln_pre(x + self.positional_embedding.to(x.dtype))
        x = self.transformer(x.permute(1, 0, 2))  # (1 + G*G, B, W)
        x = self.ln_post(x.permute(1, 0, 2)[:, 0, :])  # (B, W)
        return x if self.proj is None else x @ self.proj

    def _check_positions(self, x: Tensor) -> None:
        """Raises ShapeError, unless the positions or the patches were changed for another size."""
        side, patches = self.input_resolution, self.conv1
        expected = isinstance(side, int) and isinstance(patches, nn.Conv2d)
        if not expected or patches.stride != patches.kernel_size:
            return
        if len(self.positional_embedding) == (side // patches.stride[0]) ** 2 + 1:
            raise image_error(x, side, patches.weight.device)
