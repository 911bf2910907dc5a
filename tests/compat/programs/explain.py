"""Explanations of a model: attention, gradients, masks and decomposed features."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..world import World, program


def keep_attention(block: Any) -> None:
    """Makes a block record its attention, (B, heads, L, L), as Chefer's fork does."""

    def attention(x: Tensor) -> Tensor:
        heads = block.attn.num_heads
        q, k, v = (
            part.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)
            for part in F.linear(x, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
        )
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if block.attn_mask is not None:
            scores = scores + block.attn_mask.to(dtype=x.dtype)
        block.probabilities = scores.softmax(-1)
        block.probabilities.retain_grad()
        mixed = (block.probabilities @ v).permute(2, 0, 1, 3).flatten(2)
        out: Tensor = block.attn.out_proj(mixed)
        return out

    block.attention = attention


@program(only="vit")
def attention_rollout(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    blocks = model.visual.transformer.resblocks
    for block in blocks:
        keep_attention(block)
    features = model.encode_image(world.images(preprocess))
    rolled = torch.eye(17).expand(4, -1, -1)
    for block in blocks:
        weights = block.probabilities.float().mean(1) + torch.eye(17)
        rolled = weights / weights.sum(-1, keepdim=True) @ rolled
    return features, rolled[:, 0, 1:].unflatten(-1, (4, 4))


@program(only="vit")
def relevance_through_both_towers(clip: Any, world: World) -> Any:
    """Chefer et al.: attention weighed by its gradient, multiplied up the blocks."""
    model, preprocess = world.load()
    towers = [model.visual.transformer.resblocks, model.transformer.resblocks]
    for tower in towers:
        for block in tower:
            keep_attention(block)
    logits, _ = model(world.images(preprocess), world.tokens())
    logits.diagonal().sum().backward()
    relevances = []
    for tower in towers:
        size = tower[0].probabilities.shape[-1]
        relevance = torch.eye(size).expand(4, -1, -1)
        for block in tower:
            cam = (block.probabilities.grad * block.probabilities).clamp(min=0).float().mean(1)
            relevance = relevance + cam @ relevance
        relevances.append(relevance)
    return relevances[0][:, 0, 1:], relevances[1][:, :8, :8]


@program(only="resnet")
def grad_cam(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    kept: dict[str, Tensor] = {}

    def keep(module: Any, args: Any, output: Tensor) -> None:
        kept["activation"] = output
        output.register_hook(lambda gradient: kept.update(gradient=gradient))

    model.visual.layer4.register_forward_hook(keep)
    model(world.images(preprocess), world.tokens())[0].diagonal().sum().backward()
    weights = kept["gradient"].mean(dim=(2, 3), keepdim=True)
    cam = (kept["activation"] * weights).sum(1, keepdim=True)
    return cam, F.interpolate(cam.float(), (64, 64), mode="bicubic")


@program()
def saliency(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    images = world.images(preprocess).requires_grad_()
    logits, _ = model(images, world.tokens())
    (gradient,) = torch.autograd.grad(logits.diagonal().sum(), images)
    return gradient, gradient.abs().amax(1)


@program()
def integrated_gradients(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    image, token = world.images(preprocess)[:1], world.tokens()[:1]
    total = torch.zeros_like(image)
    for step in range(1, 5):
        point = (image * step / 4).requires_grad_()
        model(point, token)[0].sum().backward()
        assert point.grad is not None
        total += point.grad
    return image * total / 4


@program()
def occlusion_by_random_masks(clip: Any, world: World) -> Any:
    """RISE."""
    model, preprocess = world.load()
    masks = F.interpolate((torch.rand(8, 1, 4, 4) > 0.5).float(), (64, 64), mode="bilinear")
    with torch.inference_mode():
        scores = model(world.images(preprocess)[:1] * masks, world.tokens()[:1])[0].float()
    return (scores[:, :, None, None] * masks).mean(0)


@program(only="vit")
def logit_lens(clip: Any, world: World) -> Any:
    """Logits from the class token after each block."""
    model, preprocess = world.load()
    states: list[Tensor] = []
    for block in model.visual.transformer.resblocks:
        block.register_forward_hook(lambda b, args, output: states.append(output[0]))
    model.encode_image(world.images(preprocess))
    texts = F.normalize(model.encode_text(world.tokens()), dim=-1)
    lens = [F.normalize(model.visual.ln_post(s) @ model.visual.proj, dim=-1) for s in states]
    return torch.stack(lens) @ texts.t()


@program(only="vit")
def heads_taken_apart(clip: Any, world: World) -> Any:
    """TextSpan: each head's share of the class token."""
    model, preprocess = world.load()
    kept: list[Tensor] = []
    block = model.visual.transformer.resblocks[-1]
    block.attn.register_forward_pre_hook(lambda m, args: kept.append(args[0]))
    with torch.no_grad():
        model.encode_image(world.images(preprocess))
        qkv = F.linear(kept[0], block.attn.in_proj_weight, block.attn.in_proj_bias)
        q, k, v = (p.unflatten(-1, (2, 64)).permute(1, 2, 0, 3) for p in qkv.chunk(3, -1))
        share = (q[:, :, :1] @ k.mT / 8).softmax(-1) @ v
        weight = block.attn.out_proj.weight.unflatten(1, (2, 64))
        return torch.einsum("bhld,whd->bhlw", share, weight)


@program()
def ablated_channels(clip: Any, world: World) -> Any:
    """Multimodal neurons: a hook that gives another output silences some."""
    model, preprocess = world.load()
    is_vit = world.kind == "vit"
    target = model.visual.transformer.resblocks[1].mlp.gelu if is_vit else model.visual.layer3
    axis = -1 if is_vit else 1
    images = world.images(preprocess)
    before = model.encode_image(images)

    def silence(module: Any, args: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output.narrow(axis, 0, 20).zero_()
        return output

    handle = target.register_forward_hook(silence)
    during = model.encode_image(images)
    handle.remove()
    return before, during, model.encode_image(images)


@program()
def sparse_concepts(clip: Any, world: World) -> Any:
    """SpLiCE: an image's feature as a sum of few words, by proximal steps."""
    model, preprocess = world.load()
    with torch.no_grad():
        words = clip.tokenize(["red", "dog", "snow", "hand", "noise", "slope"])
        dictionary = F.normalize(model.encode_text(words).float(), dim=-1)
        image = F.normalize(model.encode_image(world.images(preprocess)).float(), dim=-1)
    weights = torch.zeros(4, 6)
    for _ in range(10):
        gradient = (weights @ dictionary - image) @ dictionary.t()
        weights = weights - 0.1 * gradient
        weights = weights.sign() * (weights.abs() - 1e-4).clamp(min=0)
    return weights


@program()
def gradients_of_every_module(clip: Any, world: World) -> Any:
    """Full backward hooks on all leaves, as layer-wise analyses set them."""
    model, preprocess = world.load()
    norms: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and "attn" not in name:
            module.register_full_backward_hook(
                lambda m, gi, go, name=name: norms.update({name: go[0].float().norm()})
            )
    # The images require gradients, because the backward hook of the first layer needs them.
    model(world.images(preprocess).requires_grad_(), world.tokens())[0].sum().backward()
    return sorted(norms), norms
