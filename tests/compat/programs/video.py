"""Video models: pooled frames, subclassed blocks, tokens that exchange data over time."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..world import World, program

FRAMES = 4


def clips(world: World, preprocess: Any) -> Tensor:
    """Two videos, (2, T, 3, 64, 64)."""
    images = world.images(preprocess)
    return torch.stack([images, images.flip(-1)])


def frame_features(model: Any, videos: Tensor) -> Tensor:
    features: Tensor = model.encode_image(videos.flatten(0, 1)).unflatten(0, videos.shape[:2])
    return features


@program()
def mean_of_frames(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    video = F.normalize(frame_features(model, clips(world, preprocess)).mean(1), dim=-1)
    return video @ F.normalize(model.encode_text(world.tokens()), dim=-1).t()


@program()
def temporal_transformer(clip: Any, world: World) -> Any:
    """ActionCLIP's, CLIP4Clip's: clip's own blocks over the frames."""
    model, preprocess = world.load()
    features = frame_features(model, clips(world, preprocess)).float()
    positions = nn.Embedding(FRAMES, 64)
    transformer = clip.model.Transformer(64, 2, 1)
    x = (features + positions(torch.arange(FRAMES))).permute(1, 0, 2)
    x = transformer(x).permute(1, 0, 2) + features
    pooled = x.mean(1)
    pooled.pow(2).sum().backward()
    return pooled, [block.mlp.c_fc.weight.grad for block in transformer.resblocks]


@program()
def blocks_subclassed(clip: Any, world: World) -> Any:
    """A block with a drop path and one more argument."""

    class Block(clip.model.ResidualAttentionBlock):
        def __init__(self, d_model: int, n_head: int, attn_mask: Any = None, scale: float = 1.0):
            super().__init__(d_model, n_head, attn_mask)
            self.scale = scale

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.scale * self.attention(self.ln_1(x))
            return x + self.scale * self.mlp(self.ln_2(x))

    model, _ = world.load()
    mask = model.build_attention_mask()
    blocks = [Block(64, 1, mask, 0.5) for _ in model.transformer.resblocks]
    for block, old in zip(blocks, model.transformer.resblocks, strict=True):
        block.load_state_dict({k: v.float() for k, v in old.state_dict().items()})
        block.to(model.dtype)
        block.ln_1.float()
        block.ln_2.float()
    model.transformer.resblocks = nn.Sequential(*blocks)
    return model.encode_text(world.tokens())


@program(only="vit", half=False)
def image_tower_subclassed(clip: Any, world: World) -> Any:
    """X-CLIP: a tower of its own with positional arguments; a message token between the frames."""
    model, preprocess = world.load()

    class CrossFrameTower(clip.model.VisionTransformer):
        def __init__(
            self, res: int, patch: int, width: int, layers: int, heads: int, out: int, t: int
        ) -> None:
            super().__init__(res, patch, width, layers, heads, out)
            self.frames = t
            self.message = nn.Linear(width, width)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x).flatten(2).permute(0, 2, 1)
            token = self.class_embedding + torch.zeros(x.shape[0], 1, x.shape[-1])
            x = self.ln_pre(torch.cat([token, x], 1) + self.positional_embedding)
            for block in self.transformer.resblocks:
                message = self.message(x[:, 0]).unflatten(0, (-1, self.frames))
                message = message.mean(1).repeat_interleave(self.frames, 0)[:, None]
                x = torch.cat([x, message], 1).permute(1, 0, 2)
                x = block(x).permute(1, 0, 2)[:, :-1]
            out: Tensor = self.ln_post(x[:, 0]) @ self.proj
            return out

    torch.manual_seed(1)
    tower = CrossFrameTower(64, 16, 128, 3, 2, 64, FRAMES).eval()
    nn.init.eye_(tower.message.weight)
    nn.init.zeros_(tower.message.bias)
    missing, _ = tower.load_state_dict(model.visual.state_dict(), strict=False)
    model.visual = tower
    return missing, frame_features(model, clips(world, preprocess))


@program(half=False)
def model_subclassed(clip: Any, world: World) -> Any:
    """X-CLIP's constructor: all of CLIP's arguments by place, and more behind them."""
    state = torch.load(world.weights)

    class VideoCLIP(clip.model.CLIP):
        def __init__(
            self,
            embed_dim: int,
            image_resolution: int,
            vision_layers: Any,
            vision_width: int,
            vision_patch_size: Any,
            context_length: int,
            vocab_size: int,
            transformer_width: int,
            transformer_heads: int,
            transformer_layers: int,
            T: int = 8,  # noqa: N803
            droppath: float = 0.0,
            head: Any = None,
        ) -> None:
            super().__init__(
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
            )
            self.frames, self.droppath, self.head = T, droppath, head
            self.temporal = clip.model.Transformer(embed_dim, 1, embed_dim // 64)
            self.initialize_parameters()

        def encode_video(self, videos: Tensor) -> Tensor:
            x = frame_features(self, videos)
            x = x + self.temporal(x.permute(1, 0, 2)).permute(1, 0, 2)
            out: Tensor = self.head(x.mean(1))
            return out

    numbers = {
        "vit": (64, 64, 3, 128, 16, 77, 49408, 64, 1, 2),
        "resnet": (64, 64, [1, 2, 1, 1], 8, None, 77, 49408, 64, 1, 2),
    }[world.kind]
    torch.manual_seed(0)
    head = nn.Linear(64, 5)
    model = VideoCLIP(*numbers, FRAMES, 0.1, head=head)
    missing, unexpected = model.load_state_dict(state, strict=False)
    _, preprocess = world.load()
    return missing, unexpected, model.eval().encode_video(clips(world, preprocess))


@program(only="vit")
def adapters_over_time(clip: Any, world: World) -> Any:
    """ST-Adapter: a depth-wise convolution over time before each block's attention."""
    model, preprocess = world.load()

    class Adapter(nn.Module):
        def __init__(self, block: Any) -> None:
            super().__init__()
            self.block = block
            self.down = nn.Linear(128, 16).to(model.dtype)
            self.conv = nn.Conv1d(16, 16, 3, padding=1, groups=16).to(model.dtype)
            self.up = nn.Linear(16, 128).to(model.dtype)

        def forward(self, x: Tensor) -> Tensor:
            y = self.down(x).unflatten(1, (-1, FRAMES))  # (L, B, T, 16)
            y = self.conv(y.flatten(0, 1).mT).mT.unflatten(0, (x.shape[0], -1))
            out: Tensor = self.block(x + self.up(y.flatten(1, 2)))
            return out

    blocks = model.visual.transformer.resblocks
    for index in range(len(blocks)):
        blocks[index] = Adapter(blocks[index])
    features = frame_features(model, clips(world, preprocess)).mean(1)
    features.float().sum().backward()
    return features, blocks[0].conv.weight.grad


@program()
def attended_by_the_text(clip: Any, world: World) -> Any:
    """X-Pool: frames weighted by their relevance to the text."""
    model, preprocess = world.load()
    frames = F.normalize(frame_features(model, clips(world, preprocess)), dim=-1)
    texts = F.normalize(model.encode_text(world.tokens()), dim=-1)
    weights = (frames @ texts.t() / 0.01).float().softmax(1).to(frames.dtype)
    pooled = torch.einsum("btn,btd->bnd", weights, frames)
    return torch.einsum("bnd,nd->bn", F.normalize(pooled, dim=-1), texts)


@program(only="vit")
def decoder_over_all_layers(clip: Any, world: World) -> Any:
    """EVL: a query reads each frozen block's output."""
    model, preprocess = world.load()
    states: list[Tensor] = []
    for block in model.visual.transformer.resblocks:
        block.register_forward_hook(lambda b, args, out: states.append(out.detach().float()))
    with torch.no_grad():
        frame_features(model, clips(world, preprocess))
    query = nn.Parameter(torch.randn(1, 2, 128))
    attend = nn.MultiheadAttention(128, 2)
    x: Tensor = query
    for state in states:
        memory = state.unflatten(1, (2, FRAMES)).permute(0, 2, 1, 3).flatten(0, 1)
        x = x + attend(x, memory, memory)[0]
    x.sum().backward()
    return x, query.grad


@program()
def projections_of_video_and_text(clip: Any, world: World) -> Any:
    """A contrastive step over videos and texts with new heads, as CLIP4Clip's."""
    model, preprocess = world.load()
    heads = nn.ModuleDict(
        OrderedDict(video=nn.Linear(64, 32, bias=False), text=nn.Linear(64, 32, bias=False))
    )
    video = F.normalize(
        heads["video"](frame_features(model, clips(world, preprocess)).float().mean(1)), dim=-1
    )
    text = F.normalize(heads["text"](model.encode_text(world.tokens()[:2]).float()), dim=-1)
    logits = model.logit_scale.exp() * video @ text.t()
    labels = torch.arange(2)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2
    loss.backward()
    return loss, heads["video"].weight.grad, model.text_projection.grad
