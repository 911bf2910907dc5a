"""Classes, modules, attributes and functions of `clip` replaced, before loading and after."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from ..world import World, program


def both(model: Any, preprocess: Any, world: World) -> Any:
    with torch.no_grad():
        images = model.encode_image(world.images(preprocess))
        return images, model.encode_text(world.tokens())


@program(half=False)
def layer_norm_replaced_before_load(clip: Any, world: World) -> Any:
    """A common conversion to float32 for training."""
    clip.model.LayerNorm = nn.LayerNorm
    model, preprocess = world.load()
    kinds = [type(m).__name__ for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert not any(
        type(m) is not nn.LayerNorm
        for m in model.modules()
        if hasattr(m, "eps") and isinstance(m, nn.LayerNorm)
    )
    return len(kinds), type(model.ln_final) is nn.LayerNorm, both(model, preprocess, world)


@program()
def norm_with_another_epsilon(clip: Any, world: World) -> Any:
    original = clip.model.LayerNorm

    class LayerNorm(original):
        def __init__(self, width: int) -> None:
            super().__init__(width, eps=0.1)

    clip.model.LayerNorm = LayerNorm
    model, preprocess = world.load()
    return both(model, preprocess, world)


@program(half=False)
def conversion_switched_off_before_load(clip: Any, world: World) -> Any:
    clip.model.convert_weights = lambda model: None
    model = clip.model.build_model(torch.load(world.weights))
    _, preprocess = world.load()
    types = [str(parameter.dtype) for parameter in model.parameters()]
    return types, both(model, preprocess, world)


@program(half=False)
def conversion_of_ones_own(clip: Any, world: World) -> Any:
    """Conversions that leave the image tower unchanged."""
    original = clip.model.convert_weights
    clip.model.convert_weights = lambda model: original(model.transformer)
    model = clip.model.build_model(torch.load(world.weights))
    return [str(parameter.dtype) for parameter in model.parameters()]


@program(half=False)
def activation_replaced_before_load(clip: Any, world: World) -> Any:
    clip.model.QuickGELU = nn.GELU
    model, preprocess = world.load()
    return both(model, preprocess, world)


@program()
def attention_of_every_block(clip: Any, world: World) -> Any:
    """Patched in the class: with averaged weights noted, and half of it."""
    notes: list[Tensor] = []

    def attention(self: Any, x: Tensor) -> Tensor:
        mask = self.attn_mask.to(x.dtype) if self.attn_mask is not None else None
        out, weights = self.attn(x, x, x, need_weights=True, attn_mask=mask)
        notes.append(weights)
        return 0.5 * out

    clip.model.ResidualAttentionBlock.attention = attention
    model, preprocess = world.load()
    return both(model, preprocess, world), notes


@program()
def forward_of_every_block(clip: Any, world: World) -> Any:
    """Parallel attention and MLP."""

    def forward(self: Any, x: Tensor) -> Tensor:
        out: Tensor = x + self.attention(self.ln_1(x)) + 0.5 * self.mlp(self.ln_2(x))
        return out

    clip.model.ResidualAttentionBlock.forward = forward
    model, preprocess = world.load()
    return both(model, preprocess, world)


@program()
def block_class_replaced_before_load(clip: Any, world: World) -> Any:
    """A custom class with the original arguments of a block."""
    original = clip.model.ResidualAttentionBlock

    class Block(nn.Module):
        def __init__(self, d_model: int, n_head: int, attn_mask: Any = None) -> None:
            super().__init__()
            inner = original(d_model, n_head, attn_mask)
            self.attn, self.ln_1, self.mlp, self.ln_2 = (
                inner.attn, inner.ln_1, inner.mlp, inner.ln_2
            )  # fmt: skip
            self.attn_mask = attn_mask

        def forward(self, x: Tensor) -> Tensor:
            y = self.ln_1(x)
            mask = self.attn_mask if self.attn_mask is None else self.attn_mask.to(x.dtype)
            x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
            out: Tensor = x + 0.9 * self.mlp(self.ln_2(x))
            return out

    clip.model.ResidualAttentionBlock = Block
    model, preprocess = world.load()
    return both(model, preprocess, world)


@program(only="vit")
def image_tower_replaced_before_load(clip: Any, world: World) -> Any:
    original = clip.model.VisionTransformer

    class Tower(original):
        def __init__(self, input_resolution, patch_size, width, layers, heads, output_dim):  # type: ignore[no-untyped-def]
            super().__init__(input_resolution, patch_size, width, layers, heads, output_dim)

        def forward(self, x: Tensor) -> Tensor:
            feature: Tensor = super().forward(x.flip(-1))
            return feature

    clip.model.VisionTransformer = Tower
    model, preprocess = world.load()
    return both(model, preprocess, world), type(model.visual).__name__


@program(only="resnet")
def residual_parts_replaced_before_load(clip: Any, world: World) -> Any:
    class Bottleneck(clip.model.Bottleneck):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x) * 0.9
            return out

    class Pool(clip.model.AttentionPool2d):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x.mT)
            return out

    clip.model.Bottleneck, clip.model.AttentionPool2d = Bottleneck, Pool
    model, preprocess = world.load()
    return both(model, preprocess, world)


@program(only="resnet", half=False)
def stages_of_a_subclass(clip: Any, world: World) -> Any:
    """A fifth stage made by the parent's own method; the last stride taken out."""

    class Tower(clip.model.ModifiedResNet):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.layer5 = self._make_layer(8, 2, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            self.attnpool = nn.Identity()
            out: Tensor = self.layer5(super().forward(x))
            return out

    torch.manual_seed(2)
    tower = Tower((1, 1, 1, 1), 32, 8, 64, width=8).eval()
    names = [name for name, _ in tower.named_parameters() if "layer5" in name]
    return names, tower(torch.randn(2, 3, 64, 64)).sum((2, 3))


@program(half=False)
def model_class_replaced_before_load(clip: Any, world: World) -> Any:
    class CLIP(clip.model.CLIP):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.bias = nn.Parameter(torch.zeros(()))

        def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
            return super().load_state_dict({**state, "bias": torch.tensor(3.0)}, *args, **kwargs)

        def forward(self, image: Tensor, text: Tensor) -> Any:
            images, texts = super().forward(image, text)
            return images + self.bias, texts + self.bias

    clip.model.CLIP = CLIP
    model, preprocess = world.load()
    return model(world.images(preprocess), world.tokens())


@program()
def encoders_of_an_instance(clip: Any, world: World) -> Any:
    """`forward` goes through the methods, also those of an instance."""
    model, preprocess = world.load()
    encode = model.encode_text
    model.encode_text = lambda text: encode(text).roll(1, -1)
    return model(world.images(preprocess), world.tokens())


@program(only="vit")
def projection_removed(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    model.visual.proj = None
    return model.encode_image(world.images(preprocess))


@program(only="resnet")
def pooling_removed(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    model.visual.attnpool = nn.Identity()
    return model.encode_image(world.images(preprocess))


@program()
def towers_deleted(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    del model.transformer, model.token_embedding, model.ln_final
    image = model.encode_image(world.images(preprocess))
    model, _ = world.load()
    dtype = model.dtype
    visual, model.visual = model.visual, nn.Module()
    model.visual.conv1 = visual.conv1  # `dtype` is read from it
    return image, str(dtype), model.encode_text(world.tokens())


@program()
def blocks_sliced_and_reordered(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    blocks = model.transformer.resblocks
    model.transformer.resblocks = nn.Sequential(*blocks[1:], *blocks[:1], blocks[-1])
    first = both(model, preprocess, world)
    model.transformer.resblocks = blocks[:1]
    return first, both(model, preprocess, world)


@program()
def longer_contexts(clip: Any, world: World) -> Any:
    """Long-CLIP: the first rows stay, the others are stretched; the mask is made anew."""
    model, _ = world.load()
    old = model.positional_embedding.data
    stretched = F.interpolate(old[20:].T[None].float(), scale_factor=2, mode="linear")[0].T
    model.positional_embedding = nn.Parameter(torch.cat([old[:20], stretched.to(old.dtype)]))
    model.context_length = len(model.positional_embedding)
    for block in model.transformer.resblocks:
        block.attn_mask = model.build_attention_mask()
    tokens = clip.tokenize(["a very long story " * 30], context_length=134)
    features = model.encode_text(tokens)
    return features, tokens, model.context_length


@program()
def shorter_texts(clip: Any, world: World) -> Any:
    """Truncated rows of tokens."""
    model, _ = world.load()
    return model.encode_text(world.tokens()[:, :20]), model.encode_text(world.tokens()[:, :12])


@program()
def masks_replaced(clip: Any, world: World) -> Any:
    """No mask, a partly bidirectional mask, and one mask per head, also for cut rows."""
    model, _ = world.load()
    tokens, results = world.tokens(), []
    prefix = model.build_attention_mask()
    prefix[:40, :40] = 0.0
    prefix[60:, 60:] = -1.0
    for mask in (None, prefix, torch.randn(4, 77, 77)):
        for block in model.transformer.resblocks:
            block.attn_mask = mask
        results.append(model.encode_text(tokens))
    for block in model.transformer.resblocks:
        block.attn_mask = prefix
    return results, model.encode_text(tokens[:, :30])


@program()
def larger_vocabulary(clip: Any, world: World) -> Any:
    model, _ = world.load()
    old = model.token_embedding
    new = nn.Embedding(old.num_embeddings + 2, old.embedding_dim)
    new.weight.data[:-2] = old.weight.data
    model.token_embedding, model.vocab_size = new, old.num_embeddings + 2
    tokens = world.tokens()
    tokens[:, 2] = 5
    tokens[tokens == 49407] = 49409  # pooling goes by the largest id
    tokens[:, 3] = 49408
    return model.encode_text(tokens)


@program()
def positions_and_projections_reassigned(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    model.positional_embedding = nn.Parameter(model.positional_embedding.flip(0))
    model.text_projection = nn.Parameter(model.text_projection[:, :16].clone())
    model.logit_scale = nn.Parameter(torch.tensor(1.0))
    head = nn.Linear(64, 16).to(model.dtype)
    visual = model.visual
    model.encode_image = lambda image: head(visual(image.type(model.dtype)))
    return model(world.images(preprocess), world.tokens())


@program(only="vit")
def fewer_patches(clip: Any, world: World) -> Any:
    """FLIP's and EVA's: half of the patches dropped behind the positions."""
    model, preprocess = world.load()

    def drop(module: Any, args: Any, output: Tensor) -> Tensor:
        return torch.cat([output[:, :1], output[:, 1::2]], dim=1)

    model.visual.ln_pre.register_forward_hook(drop)
    return model.encode_image(world.images(preprocess))


@program(only="vit")
def tokens_merged(clip: Any, world: World) -> Any:
    """ToMe: blocks of another class in place, fewer tokens after each."""

    class Merging(clip.model.ResidualAttentionBlock):
        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attention(self.ln_1(x))
            pairs = x[1:5].unflatten(0, (2, 2)).mean(1)
            x = torch.cat([x[:1], pairs, x[5:]])
            out: Tensor = x + self.mlp(self.ln_2(x))
            return out

    model, preprocess = world.load()
    for block in model.visual.transformer.resblocks:
        block.__class__ = Merging
    return model.encode_image(world.images(preprocess))


@program()
def quantised_or_pruned_layers(clip: Any, world: World) -> Any:
    """Linear layers walked by type and name, their weights rounded and masked."""
    from torch.nn.utils import prune

    model, preprocess = world.load()
    walked = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(("c_fc", "c_proj")):
            scale = module.weight.data.abs().max() / 127
            module.weight.data = (module.weight.data / scale).round() * scale
            prune.l1_unstructured(module, "weight", amount=0.3)
            walked.append(name)
    return walked, both(model, preprocess, world)


@program(half=False)
def transform_replaced_before_load(clip: Any, world: World) -> Any:
    """Another filter, another conversion to RGB, and another transform."""
    clip.clip.BICUBIC = InterpolationMode.NEAREST
    _, nearest = world.load()
    clip.clip._convert_image_to_rgb = lambda image: image.convert("L").convert("RGB")
    _, grey = world.load()
    results = [world.images(nearest), world.images(grey)]
    clip.clip._transform = lambda n_px: clip.clip.Compose(
        [clip.clip.Resize((n_px, n_px), interpolation=Image.Resampling.BOX), clip.clip.ToTensor()]
    )
    _, own = world.load()
    return results, own(world.pictures()[0]), [type(step).__name__ for step in nearest.transforms]


@program(half=False)
def builder_replaced_before_load(clip: Any, world: World) -> Any:
    original = clip.clip.build_model

    def build_model(state_dict: Any) -> Any:
        state_dict["logit_scale"] = torch.tensor(1.5)
        return original(state_dict)

    clip.clip.build_model = build_model
    model, preprocess = world.load()
    return model(world.images(preprocess), world.tokens())


@program(half=False, mixed=True)
def built_of_a_state_dict(clip: Any, world: World) -> Any:
    """CoOp's `load_clip_to_cpu`, from the state dict on."""
    state_dict = torch.load(world.weights, map_location="cpu")
    model = clip.model.build_model(dict(state_dict))
    types = [str(parameter.dtype) for parameter in model.parameters()]
    numbers = model.context_length, model.vocab_size, model.visual.input_resolution
    _, preprocess = world.load()
    images, texts = both(model, preprocess, world)
    return types, numbers, model.training, images.float(), texts.float()


@program(half=False)
def models_table_edited(clip: Any, world: World) -> Any:
    """A new name, a removed name, and a new table of models."""
    asked = []

    def download(url: str, root: str) -> str:
        asked.append(url)
        return world.weights

    clip.clip._download = download
    clip.clip._MODELS["My/Model"] = "https://example.org/aa/model.pt"
    names = clip.available_models()
    first, preprocess = clip.load("My/Model", device="cpu")
    clip.clip._MODELS = {"Other": "https://example.org/bb/other.pt"}
    second, _ = clip.load("Other", device="cpu")
    try:
        clip.load("RN50", device="cpu")
    except RuntimeError as error:
        refusal = str(error)[:20]
    return names, clip.available_models(), asked, refusal, [
        both(model, preprocess, world) for model in (first, second)
    ]  # fmt: skip


@program()
def pooled_with_a_patched_function(clip: Any, world: World) -> Any:
    """The mask of the text tower made by a patched method."""

    def build_attention_mask(self: Any) -> Tensor:
        return torch.full((self.context_length, self.context_length), -5.0).triu(1)

    clip.model.CLIP.build_attention_mask = build_attention_mask
    model, preprocess = world.load()
    return both(model, preprocess, world)
