"""Small trained modules in or on a frozen model."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..world import World, program

LABELS = torch.tensor([0, 1, 2, 3])


def train_step(model: Any, parameters: list[Any], images: Tensor, tokens: Tensor) -> list[Any]:
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    logits, _ = model(images, tokens)
    loss = F.cross_entropy(logits.float(), LABELS)
    loss.backward()
    optimizer.step()
    return [loss, [parameter.grad for parameter in parameters], model(images, tokens)[0]]


@program()
def clip_adapter(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    adapter = nn.Sequential(
        nn.Linear(64, 16, bias=False), nn.ReLU(), nn.Linear(16, 64, bias=False), nn.ReLU()
    ).to(model.dtype)
    image = model.encode_image(world.images(preprocess).type(model.dtype))
    image = 0.2 * adapter(image) + 0.8 * image
    image = image / image.norm(dim=-1, keepdim=True)
    text = F.normalize(model.encode_text(world.tokens()), dim=-1)
    logits = model.logit_scale.exp() * image @ text.t()
    F.cross_entropy(logits.float(), LABELS).backward()
    return logits, adapter[0].weight.grad


def cache_model(clip: Any, world: World) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    model, preprocess = world.load()
    with torch.no_grad():
        images = world.images(preprocess)
        keys = sum(model.encode_image(images.roll(shift, -1)) for shift in range(3)) / 3
        keys = (keys / keys.norm(dim=-1, keepdim=True)).t()
        test = F.normalize(model.encode_image(images.flip(-1)), dim=-1)
        weights = F.normalize(model.encode_text(world.tokens()), dim=-1).t()
    return keys, F.one_hot(LABELS).to(keys.dtype), test, 100.0 * test @ weights


@program()
def tip_adapter(clip: Any, world: World) -> Any:
    keys, values, test, logits = cache_model(clip, world)
    affinity = test @ keys
    return logits + 1.17 * (-(5.5 - 5.5 * affinity)).exp() @ values


@program()
def tip_adapter_trained(clip: Any, world: World) -> Any:
    keys, values, test, logits = cache_model(clip, world)
    adapter = nn.Linear(keys.shape[0], keys.shape[1], bias=False).to(keys.dtype)
    adapter.weight = nn.Parameter(keys.t().clone())
    cached = (-(5.5 - 5.5 * adapter(test))).exp() @ values
    F.cross_entropy((logits + 1.17 * cached).float(), LABELS).backward()
    return cached, adapter.weight.grad


class LowRank(nn.Module):
    """A linear layer and its low-rank update."""

    def __init__(self, linear: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.linear = linear
        a = torch.randn(rank, linear.in_features) / math.sqrt(rank)
        self.a = nn.Parameter(a.to(linear.weight.dtype))
        self.b = nn.Parameter(torch.full_like(linear.weight[:, :rank], 0.01))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) + x @ self.a.t() @ self.b.t()
        return out


def lora_parameters(model: nn.Module) -> list[Any]:
    return [
        parameter
        for module in model.modules()
        if isinstance(module, LowRank)
        for parameter in (module.a, module.b)
    ]


@program()
def lora_in_the_mlp(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if name.endswith("mlp"):
            module.c_fc = LowRank(module.c_fc)
            module.c_proj = LowRank(module.c_proj)
    return train_step(model, lora_parameters(model), world.images(preprocess), world.tokens())


class LowRankAttention(nn.Module):
    """CLIP-LoRA's: the packed projection in three, each with its update."""

    def __init__(self, attn: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, width = attn.num_heads, attn.embed_dim
        self.parts = nn.ModuleList()
        assert attn.in_proj_weight is not None
        for weight, bias in zip(
            attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3), strict=True
        ):
            linear = nn.Linear(width, width)
            linear.weight, linear.bias = nn.Parameter(weight.data), nn.Parameter(bias.data)
            self.parts.append(LowRank(linear.requires_grad_(False)))
        self.out_proj = LowRank(attn.out_proj)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).permute(1, 2, 0, 3)
            for part, x in zip(self.parts, (query, key, value), strict=True)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(mixed.permute(2, 0, 1, 3).flatten(2)), None


@program()
def lora_in_the_attention(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    model.requires_grad_(False)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MultiheadAttention):
                setattr(module, name, LowRankAttention(child))
    return train_step(model, lora_parameters(model), world.images(preprocess), world.tokens())


class WithAdapter(nn.Module):
    """A block followed by a bottleneck, as AdaptFormer's."""

    def __init__(self, block: nn.Module, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.block = block
        self.down, self.up = nn.Linear(width, 8).to(dtype), nn.Linear(8, width).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x) + 0.1 * self.up(self.down(x).relu())
        return out


@program()
def wrapped_blocks(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    blocks = model.transformer.resblocks
    model.transformer.resblocks = nn.Sequential(
        *(WithAdapter(block, 64, model.dtype) for block in blocks)
    )
    parameters = [block.up.weight for block in model.transformer.resblocks]
    return train_step(model, parameters, world.images(preprocess), world.tokens())


@program()
def biases_only(clip: Any, world: World) -> Any:
    """BitFit."""
    model, preprocess = world.load()
    names = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    model.requires_grad_(False)
    parameters = [model.get_parameter(name).requires_grad_() for name in names]
    used = [p for name, p in zip(names, parameters, strict=True) if "k_proj" not in name]
    return names, train_step(model, used, world.images(preprocess), world.tokens())


@program()
def norms_only(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    model.requires_grad_(False)
    parameters = [
        parameter.requires_grad_()
        for module in model.modules()
        if isinstance(module, clip.model.LayerNorm)
        for parameter in module.parameters()
    ]
    assert parameters
    return train_step(model, parameters, world.images(preprocess), world.tokens())


@program()
def scaled_and_shifted_features(clip: Any, world: World) -> Any:
    """SSF, by hooks."""
    model, preprocess = world.load()
    model.requires_grad_(False)
    parameters: list[nn.Parameter] = []

    def insert(module: nn.Module) -> None:
        scale = nn.Parameter(torch.ones(64, dtype=model.dtype))
        shift = nn.Parameter(torch.zeros(64, dtype=model.dtype))
        parameters.extend([scale, shift])
        module.register_forward_hook(lambda m, args, output: output * scale + shift)

    for block in model.transformer.resblocks:
        insert(block.ln_1)
        insert(block.ln_2)
    return train_step(model, parameters, world.images(preprocess), world.tokens())


@program()
def ladder_beside_the_blocks(clip: Any, world: World) -> Any:
    """Side tuning: a narrow tower reads the frozen one's states."""
    model, _ = world.load()
    states: list[Tensor] = []
    for block in model.transformer.resblocks:
        block.register_forward_hook(lambda b, args, output: states.append(output.detach().float()))
    with torch.no_grad():
        model.encode_text(world.tokens())
    side, downs = torch.zeros(()), [nn.Linear(64, 8) for _ in states]
    for down, state in zip(downs, states, strict=True):
        side = torch.tanh(down(state) + side)
    return nn.Linear(8, 4)(side.mean(0))


@program()
def prior_of_gaussians(clip: Any, world: World) -> Any:
    """A Gaussian discriminant over features, added to the text logits."""
    keys, _, test, logits = cache_model(clip, world)
    features = keys.t().float()
    covariance = (features - features.mean(0)).t() @ (features - features.mean(0)) / 4
    precision = torch.linalg.inv(covariance + 0.1 * torch.eye(64))
    weights = precision @ features.t()
    bias = -0.5 * (features.t() * weights).sum(0)
    return logits.float() + test.float() @ weights + bias
