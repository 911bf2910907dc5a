"""A feature for each position: segmentation, detection and local attention."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..world import World, program


def embed(visual: Any, images: Tensor) -> Tensor:
    """A ViT's tokens before the first block, (L, B, W)."""
    x = visual.conv1(images)
    x = x.reshape(x.shape[0], x.shape[1], -1).permute(0, 2, 1)
    token = visual.class_embedding.to(x.dtype) + torch.zeros(x.shape[0], 1, x.shape[-1]).to(x)
    x = torch.cat([token, x], dim=1) + visual.positional_embedding.to(x.dtype)
    out: Tensor = visual.ln_pre(x).permute(1, 0, 2)
    return out


def stages(visual: Any, x: Tensor) -> list[Tensor]:
    """A ResNet's four maps."""
    for number in (1, 2, 3):
        conv, bn = getattr(visual, f"conv{number}"), getattr(visual, f"bn{number}")
        x = getattr(visual, f"relu{number}")(bn(conv(x)))
    x = visual.avgpool(x)
    maps = []
    for number in (1, 2, 3, 4):
        x = getattr(visual, f"layer{number}")(x)
        maps.append(x)
    return maps


@program(only="vit")
def values_of_the_last_block(clip: Any, world: World) -> Any:
    """MaskCLIP: the last block's values, projected, without its attention."""
    model, preprocess = world.load()
    visual = model.visual
    x = embed(visual, world.images(preprocess).type(model.dtype))
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    block = visual.transformer.resblocks[-1]
    y = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    y = block.attn.out_proj(y.chunk(3, dim=-1)[-1]) + x
    y = y + block.mlp(block.ln_2(y))
    patches = visual.ln_post(y.permute(1, 0, 2)[:, 1:]) @ visual.proj
    texts = F.normalize(model.encode_text(world.tokens()), dim=-1)
    masks = F.normalize(patches, dim=-1) @ texts.t()
    return masks, F.interpolate(masks.float().mT.unflatten(-1, (4, 4)), scale_factor=4)


@program(only="resnet")
def pooling_as_convolutions(clip: Any, world: World) -> Any:
    """MaskCLIP: attention pooling's value and output projections as 1x1 convolutions."""
    model, preprocess = world.load()
    pool = model.visual.attnpool
    grid = stages(model.visual, world.images(preprocess).type(model.dtype))[-1]
    values = F.conv2d(grid, pool.v_proj.weight[:, :, None, None], pool.v_proj.bias)
    dense = F.conv2d(values, pool.c_proj.weight[:, :, None, None], pool.c_proj.bias)
    text = F.normalize(model.encode_text(world.tokens()), dim=-1)
    return F.conv2d(F.normalize(dense, dim=1), text[:, :, None, None])


@program(only="vit")
def decoder_over_activations(clip: Any, world: World) -> Any:
    """CLIPSeg: activations of several blocks, conditioned on a text, decoded to a mask."""
    model, preprocess = world.load()
    activations = []
    for depth in (0, 2):
        model.visual.transformer.resblocks[depth].register_forward_hook(
            lambda block, args, output: activations.append(output)
        )
    model.encode_image(world.images(preprocess))
    condition = model.encode_text(world.tokens()).float()
    film_mul, film_add, reduce = nn.Linear(64, 32), nn.Linear(64, 32), nn.Linear(128, 32)
    decode = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0)
    a = torch.zeros(())
    for activation in activations[::-1]:
        a = reduce(activation.float()) + a
        a = decode(film_mul(condition) * a + film_add(condition))
    mask = nn.ConvTranspose2d(32, 1, 4, stride=4)(a[1:].permute(1, 2, 0).unflatten(-1, (4, 4)))
    mask.mean().backward()
    return mask, reduce.weight.grad


@program(only="vit")
def larger_images_by_interpolated_positions(clip: Any, world: World) -> Any:
    """DenseCLIP, TTL: larger images than the model was trained on."""
    model, _ = world.load()
    positions = model.visual.positional_embedding
    grid = positions[1:].T.reshape(1, 128, 4, 4).float()
    grid = F.interpolate(grid, size=(6, 6), mode="bicubic", align_corners=False)
    stretched = torch.cat([positions[:1].float(), grid.flatten(2)[0].T])
    model.visual.positional_embedding = nn.Parameter(stretched.to(positions.dtype))
    model.visual.input_resolution = 96
    transform = clip.clip._transform(96)
    images = torch.stack([transform(picture) for picture in world.pictures()])
    return model.encode_image(images)


@program(only="resnet")
def larger_grids_by_interpolated_positions(clip: Any, world: World) -> Any:
    model, _ = world.load()
    pool = model.visual.attnpool
    grid = pool.positional_embedding[1:].float().T.reshape(1, -1, 2, 2)
    grid = F.interpolate(grid, size=(3, 4), mode="bilinear").flatten(2)[0].T
    rows = torch.cat([pool.positional_embedding[:1].float(), grid])
    pool.positional_embedding = nn.Parameter(rows.to(pool.positional_embedding.dtype))
    return model.encode_image(torch.randn(2, 3, 96, 128))


@program(only="resnet")
def pooled_regions(clip: Any, world: World) -> Any:
    """RegionCLIP: boxes of the third stage go through the fourth and the pooling."""
    from torchvision.ops import roi_align

    model, preprocess = world.load()
    grid = stages(model.visual, world.images(preprocess).type(model.dtype))[2]
    boxes = torch.tensor([[0.0, 4, 4, 40, 60], [2.0, 0, 10, 64, 50], [3.0, 20, 20, 44, 44]])
    crops = roi_align(grid.float(), boxes, 4, spatial_scale=1 / 16, aligned=True)
    regions = model.visual.attnpool(model.visual.layer4(crops.to(grid.dtype)))
    return F.normalize(regions, dim=-1) @ F.normalize(model.encode_text(world.tokens()), dim=-1).t()


@program()
def crops_and_backgrounds(clip: Any, world: World) -> Any:
    """ViLD: each proposal is cut out, widened by half, encoded, and compared with the texts."""
    model, preprocess = world.load()
    picture = world.pictures()[3]
    boxes = [(10, 10, 60, 70), (90, 0, 150, 40)]
    wider = [(l - 10, t - 10, r + 10, b + 10) for l, t, r, b in boxes]  # noqa: E741
    crops = torch.stack([preprocess(picture.crop(box)) for box in (*boxes, *wider)])
    one, more = F.normalize(model.encode_image(crops), dim=-1).chunk(2)
    background = nn.Parameter(torch.randn(1, 64).to(one.dtype))
    texts = torch.cat([F.normalize(model.encode_text(world.tokens()), dim=-1), background])
    return (100 * (one + more) @ texts.t()).softmax(-1)


class ValueAttention(nn.Module):
    """CLIP Surgery's: values attend to values; the old path runs beside the new one."""

    def __init__(self, attn: Any) -> None:
        super().__init__()
        self.attn, self.heads = attn, attn.num_heads

    def forward(self, x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        qkv = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias)
        v = qkv.chunk(3, -1)[2].unflatten(-1, (self.heads, -1)).permute(1, 2, 0, 3)
        weights = (v @ v.mT * v.shape[-1] ** -0.5).softmax(-1)
        mixed = (weights @ v).permute(2, 0, 1, 3).flatten(2)
        return self.attn.out_proj(mixed), None


@program(only="vit")
def surgery_of_attention(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    for block in model.visual.transformer.resblocks[-2:]:
        block.attn = ValueAttention(block.attn)
    x = embed(model.visual, world.images(preprocess).type(model.dtype))
    x = model.visual.transformer(x).permute(1, 0, 2)
    dense = F.normalize(model.visual.ln_post(x) @ model.visual.proj, dim=-1)
    texts = F.normalize(model.encode_text(world.tokens()), dim=-1)
    redundant = (dense @ texts.t()).mean(-1, keepdim=True)
    return dense @ texts.t() - redundant, model.encode_image(world.images(preprocess))


@program(only="vit")
def attention_of_a_patch_to_its_like(clip: Any, world: World) -> Any:
    """SCLIP: in the last block, queries attend to queries and keys to keys."""
    model, preprocess = world.load()

    def attention(block: Any, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (2, -1)).permute(1, 2, 0, 3)
            for part in F.linear(x, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
        )
        scale = q.shape[-1] ** -0.5
        weights = (q @ q.mT * scale).softmax(-1) + (k @ k.mT * scale).softmax(-1)
        out: Tensor = block.attn.out_proj((weights @ v).permute(2, 0, 1, 3).flatten(2))
        return out

    last = model.visual.transformer.resblocks[-1]
    last.attention = lambda x: attention(last, x)
    return model.encode_image(world.images(preprocess))


@program(only="vit")
def all_tokens_without_projection(clip: Any, world: World) -> Any:
    """Open-vocabulary detectors take the patches: `proj` is None, `ln_post` sees them all."""
    model, preprocess = world.load()
    model.visual.proj = None
    model.visual.ln_post = nn.Identity()
    tokens: list[Tensor] = []
    model.visual.transformer.register_forward_hook(lambda m, a, out: tokens.append(out))
    pooled = model.encode_image(world.images(preprocess))
    boxes = nn.Sequential(nn.Linear(128, 32), nn.GELU(), nn.Linear(32, 4))
    return pooled, boxes(tokens[0][1:].permute(1, 0, 2).float()).sigmoid()


@program(only="resnet")
def pyramid_of_stages(clip: Any, world: World) -> Any:
    """DenseCLIP: the maps of all stages, the last beside its scores for the words."""
    model, preprocess = world.load()
    maps = stages(model.visual, world.images(preprocess).type(model.dtype))
    texts = F.normalize(model.encode_text(world.tokens()), dim=-1)
    project = nn.Conv2d(256, 64, 1).to(model.dtype)
    score = torch.einsum("bdhw,cd->bchw", F.normalize(project(maps[-1]), dim=1), texts)
    return [*maps, torch.cat([maps[-1], score], dim=1)]
