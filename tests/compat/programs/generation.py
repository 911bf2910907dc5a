"""Pictures that follow words: gradients go through the image tower to pixels and latents."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torchvision import transforms

from ..world import World, program

NORMALIZE = transforms.Normalize(
    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)


def text_target(clip: Any, model: Any, text: str) -> Tensor:
    with torch.no_grad():
        feature: Tensor = model.encode_text(clip.tokenize(text)).float()
    return F.normalize(feature, dim=-1)


class Generator(nn.Module):
    """From 16 numbers to a picture in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(16, 8 * 64), nn.Unflatten(1, (8, 8, 8)), nn.Upsample(scale_factor=8)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8, 3, 3, padding=1), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        picture: Tensor = self.layers(z)
        return picture


def spherical_distance(x: Tensor, y: Tensor) -> Tensor:
    return (F.normalize(x, dim=-1) - F.normalize(y, dim=-1)).norm(dim=-1).div(2).arcsin().pow(2) * 2


@program()
def deep_dream(clip: Any, world: World) -> Any:
    """Gradient ascent of the pixels on a unit of an inner layer."""
    model, preprocess = world.load()
    kept: list[Tensor] = []
    is_vit = world.kind == "vit"
    layer = model.visual.transformer.resblocks[1].mlp.c_fc if is_vit else model.visual.layer3
    layer.register_forward_hook(lambda m, args, output: kept.append(output))
    pixels = world.images(preprocess)[:1].clone().requires_grad_()
    for _ in range(3):
        model.encode_image(pixels)
        kept.pop().float()[0].norm().backward()
        with torch.no_grad():
            assert pixels.grad is not None
            pixels += 0.1 * pixels.grad / pixels.grad.abs().mean()
            pixels.grad = None
    return pixels


@program()
def cutouts_of_a_generated_picture(clip: Any, world: World) -> Any:
    """VQGAN+CLIP: many crops of one picture, one distance."""
    model, _ = world.load()
    target = text_target(clip, model, "a fantasy landscape, trending on artstation")
    generator, z = Generator(), nn.Parameter(torch.randn(1, 16))
    optimizer = torch.optim.Adam([z], lr=0.1)
    losses = []
    for _ in range(2):
        picture = generator(z)
        crops = [picture[..., i : i + 40, j : j + 40] for i in (0, 12, 24) for j in (0, 24)]
        batch = torch.cat([F.adaptive_avg_pool2d(crop, (64, 64)) for crop in crops])
        loss = spherical_distance(model.encode_image(NORMALIZE(batch)).float(), target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return losses, generator(z)


@program()
def latent_optimised_near_its_start(clip: Any, world: World) -> Any:
    """StyleCLIP: CLIPLoss with its upsampling and pooling, as its optimiser calls it."""

    class CLIPLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.preprocess = world.load()
            self.upsample = nn.Upsample(scale_factor=7)
            self.avg_pool = nn.AvgPool2d(kernel_size=7)

        def forward(self, image: Tensor, text: Tensor) -> Tensor:
            image = self.avg_pool(self.upsample(image))
            loss: Tensor = 1 - self.model(image, text)[0] / 100
            return loss

    clip_loss = CLIPLoss()
    generator, start = Generator(), torch.randn(1, 16)
    latent = start.clone().requires_grad_()
    loss = clip_loss(generator(latent), clip.tokenize(["a person with purple hair"])).float().mean()
    loss = loss + 0.008 * ((start - latent) ** 2).sum()
    loss.backward()
    return loss, latent.grad


@program()
def directional_loss(clip: Any, world: World) -> Any:
    """StyleGAN-NADA, DiffusionCLIP: the image feature changes in the direction of the text."""
    model, _ = world.load()
    direction = text_target(clip, model, "a sketch") - text_target(clip, model, "a photo")
    direction = F.normalize(direction, dim=-1)
    frozen, trained = Generator().requires_grad_(False), Generator()
    z = torch.randn(3, 16)
    source = model.encode_image(NORMALIZE(frozen(z))).float()
    target = model.encode_image(NORMALIZE(trained(z))).float()
    edit = F.normalize(target - source, dim=-1)
    loss = (1 - (edit * direction).sum(-1)).mean()
    loss.backward()
    return loss, [parameter.grad for parameter in trained.parameters()]


@program()
def guided_diffusion(clip: Any, world: World) -> Any:
    """The conditioning function of CLIP-guided diffusion."""
    model, _ = world.load()
    target = text_target(clip, model, "a lighthouse")
    denoise = nn.Conv2d(3, 3, 3, padding=1)
    x = torch.randn(2, 3, 64, 64)

    def condition(x: Tensor, t: float) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = denoise(x) * (1 - t) + x * t
            feature = model.encode_image(NORMALIZE(clean.add(1).div(2))).float()
            loss = spherical_distance(feature, target).sum() * 1000
            loss = loss + (clean - clean.clamp(-1, 1)).pow(2).mean()
            return -torch.autograd.grad(loss, x)[0]

    with torch.no_grad():
        for t in (0.8, 0.5):
            x = x + 0.01 * condition(x, t) + 0.1 * torch.randn_like(x)
    return x


@program(half=False)
def textual_inversion(clip: Any, world: World) -> Any:
    """A new word's embedding learned from pictures; all other rows stay."""
    model, preprocess = world.load()
    table = model.token_embedding.weight
    (word,) = clip.simple_tokenizer.SimpleTokenizer().encode("sks")[:1]
    before = table.detach().clone()
    target = model.encode_image(world.images(preprocess)).detach().float().mean(0)
    optimizer = torch.optim.AdamW([table], lr=0.01)
    tokens = clip.tokenize(["a photo of sks", "a rendering of sks"])
    for _ in range(2):
        loss = 1 - F.cosine_similarity(model.encode_text(tokens).float(), target[None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            keep = torch.ones(len(table), dtype=torch.bool)
            keep[word] = False
            table[keep] = before[keep]
    return loss, table[word], word


@program()
def strokes_that_resemble(clip: Any, world: World) -> Any:
    """CLIPasso: distances between inner maps of a sketch and a picture."""
    model, preprocess = world.load()
    is_vit = world.kind == "vit"
    tower = (
        model.visual.transformer.resblocks if is_vit else [model.visual.layer2, model.visual.layer3]
    )
    kept: list[Tensor] = []
    for layer in tower:
        layer.register_forward_hook(lambda m, args, output: kept.append(output.float()))
    points = nn.Parameter(torch.rand(12, 2))
    grid = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 64)] * 2, indexing="ij"), -1)
    ink = (-(grid[None] - points[:, None, None]).pow(2).sum(-1) * 400).exp().sum(0).clamp(max=1)
    model.encode_image(NORMALIZE(1 - ink.expand(1, 3, -1, -1)))
    drawn = list(kept)
    kept.clear()
    with torch.no_grad():
        model.encode_image(world.images(preprocess)[:1])
    loss = torch.stack([F.mse_loss(a, b) for a, b in zip(drawn, kept, strict=True)]).sum()
    loss.backward()
    return loss, points.grad


@program()
def sequence_for_a_diffuser(clip: Any, world: World) -> Any:
    """Stable Diffusion's condition: all positions after ln_final, and the one before the last."""
    model, _ = world.load()
    tokens = world.tokens()
    x = model.token_embedding(tokens).type(model.dtype)
    x = x + model.positional_embedding.type(model.dtype)
    x = x.permute(1, 0, 2)
    for block in model.transformer.resblocks[:-1]:
        x = block(x)
    penultimate = model.ln_final(x.permute(1, 0, 2))
    last = model.ln_final(model.transformer.resblocks[-1](x).permute(1, 0, 2))
    return penultimate, last


@program()
def adversarial_pictures(clip: Any, world: World) -> Any:
    """Projected gradient steps on the logits."""
    model, preprocess = world.load()
    images, tokens = world.images(preprocess), world.tokens()
    noise = torch.zeros_like(images).requires_grad_()
    for _ in range(2):
        loss = F.cross_entropy(model(images + noise, tokens)[0].float(), torch.arange(4))
        (gradient,) = torch.autograd.grad(loss, noise)
        # Not the sign of the gradient: a rounding difference would change a whole step.
        step = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        noise = (noise + step).clamp(-0.1, 0.1).detach().requires_grad_()
    return noise, model(images + noise, tokens)[0]
