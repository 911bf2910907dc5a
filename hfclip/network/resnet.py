"""The image tower of the RN models: a ResNet with a deeper stem and attention pooling."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from hfclip.network.inputs import has_other_size, image_error
from hfclip.network.layers import normal_parameter, recomputed, recomputes


class Bottleneck(nn.Module):
    """Adds 1x1, 3x3 and 1x1 convolutions to a shortcut. A stride is an average pool after the 3x3.

    Shapes: (B, inplanes, H, H) -> (B, 4 * planes, H // stride, H // stride).
    """

    expansion = 4
    # See `hfclip.network.layers.ResidualAttentionBlock`.
    grad_checkpointing = False

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu3 = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        self.stride = stride
        if stride > 1 or inplanes != out:
            self.downsample = _shortcut(inplanes, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the result of the three convolutions to the shortcut."""
        if self.grad_checkpointing and recomputes():
            return recomputed(self._step, x, context_fn=self._contexts)
        return self._step(x)

    def _step(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.avgpool(out)))
        out += x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.relu3(out)
        return activated

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Returns the contexts of the first computation and of the recomputation."""
        return nullcontext(), _constant_statistics(self)


@contextmanager
def _constant_statistics(module: nn.Module) -> Iterator[None]:
    """Keeps BatchNorm in training mode from updating its running statistics."""
    norms = [
        part
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001  # SyncBatchNorm too
    ]
    usual = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, usual, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def _shortcut(inplanes: int, out: int, stride: int) -> nn.Sequential:
    # These names are in the released checkpoints. The pool has no weights, so it could be "-1".
    return nn.Sequential(
        OrderedDict(
            [
                ("-1", nn.AvgPool2d(stride)),
                ("0", nn.Conv2d(inplanes, out, 1, bias=False)),
                ("1", nn.BatchNorm2d(out)),
            ]
        )
    )


class AttentionPool2d(nn.Module):
    """Pools a grid by attention with one query, the mean of the grid.

    The keys and values are the mean and the grid.

    Shapes: (B, W, G, G) -> (B, D), with G = `spacial_dim`, W = `embed_dim` and D = `output_dim`.
    """

    def __init__(
        self, spacial_dim: int, embed_dim: int, num_heads: int, output_dim: int | None = None
    ) -> None:
        super().__init__()
        self.positional_embedding = normal_parameter(
            spacial_dim**2 + 1, embed_dim, std=embed_dim**-0.5
        )
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.c_proj = nn.Linear(embed_dim, output_dim or embed_dim)
        self.num_heads = num_heads

    def initialize_parameters(self) -> None:
        """Draws the weights of the projections with a standard deviation of embed_dim**-0.5."""
        std = self.c_proj.in_features**-0.5
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(projection.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        """Pools the grid: (B, W, G, G) -> (B, D)."""
        x = x.flatten(2).permute(2, 0, 1)  # (G*G, B, W)
        x = torch.cat([x.mean(dim=0, keepdim=True), x])  # (1 + G*G, B, W)
        x = x + self.positional_embedding[:, None, :].to(x.dtype)
        pooled, _ = F.multi_head_attention_forward(
            query=x[:1],
            key=x,
            value=x,
            embed_dim_to_check=x.shape[-1],
            num_heads=self.num_heads,
            in_proj_weight=None,
            in_proj_bias=torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.c_proj.weight,
            out_proj_bias=self.c_proj.bias,
            training=self.training,
            need_weights=False,
            use_separate_proj_weight=True,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
        )
        return pooled.squeeze(0)  # (B, D)


class ModifiedResNet(nn.Module):
    """Encodes images with a stem of three convolutions, four stages and attention pooling.

    Shapes: (B, 3, S, S) -> (B, D), where S is the image side in pixels and D is `output_dim`. The
    pooled grid has the shape (B, 32 * `width`, S // 32, S // 32).
    """

    def __init__(
        self,
        layers: Sequence[int],
        output_dim: int,
        heads: int,
        input_resolution: int = 224,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.output_dim = output_dim
        self.input_resolution = input_resolution
        self.conv1 = nn.Conv2d(3, width // 2, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width // 2, width // 2, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width // 2, width, kernel_size=3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu3 = nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(2)
        self._inplanes = width  # number of input channels of the next stage
        self.layer1 = self._make_layer(width, layers[0])
        self.layer2 = self._make_layer(width * 2, layers[1], stride=2)
        self.layer3 = self._make_layer(width * 4, layers[2], stride=2)
        self.layer4 = self._make_layer(width * 8, layers[3], stride=2)
        self.attnpool = AttentionPool2d(input_resolution // 32, width * 32, heads, output_dim)

    def _make_layer(self, planes: int, blocks: int, stride: int = 1) -> nn.Sequential:
        """Builds the next stage. Subclasses use this method, as they do with torchvision's."""
        layers = [Bottleneck(self._inplanes, planes, stride)]
        self._inplanes = planes * Bottleneck.expansion
        layers += [Bottleneck(self._inplanes, planes) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def stem(self, x: Tensor) -> Tensor:
        """Reduces an image to a quarter of its side: (B, 3, S, S) -> (B, width, S/4, S/4)."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.relu3(self.bn3(self.conv3(x)))
        pooled: Tensor = self.avgpool(x)
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        """Encodes images: (B, 3, S, S) -> (B, D).

        Raises:
            ShapeError: The images do not have the size S that the positions are for.
        """
        if has_other_size(x, self.input_resolution):
            self._check_positions(x)
        x = self.stem(x.type(self.conv1.weight.dtype))
        x = self.layer1(x)  # (B, 4 * width, S/4, S/4)
        x = self.layer2(x)  # (B, 8 * width, S/8, S/8)
        x = self.layer3(x)  # (B, 16 * width, S/16, S/16)
        x = self.layer4(x)  # (B, 32 * width, S/32, S/32)
        pooled: Tensor = self.attnpool(x)
        return pooled

    def _check_positions(self, x: Tensor) -> None:
        """Raises ShapeError, unless the positions or the pooling were changed for another size."""
        side, pool = self.input_resolution, self.attnpool
        expected = isinstance(side, int) and isinstance(pool, AttentionPool2d)
        if expected and len(pool.positional_embedding) == (side // 32) ** 2 + 1:
            raise image_error(x, side, self.conv1.weight.device)
