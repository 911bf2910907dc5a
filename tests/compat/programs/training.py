"""Training, and the other parts of a training script."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

import copy
import io
import math
import pickle
import warnings
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from ..world import World, program


def contrastive(logits_per_image: Tensor, logits_per_text: Tensor) -> Tensor:
    labels = torch.arange(len(logits_per_image))
    return (
        F.cross_entropy(logits_per_image.float(), labels)
        + F.cross_entropy(logits_per_text.float(), labels)
    ) / 2


def some(tensors: Any) -> list[Tensor]:
    """A few numbers of each tensor: the tables of words are large."""
    return [tensor.detach().flatten()[:500] for tensor in tensors]


@program(half=False)
def full_precision_steps(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, betas=(0.9, 0.98), eps=1e-3)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = contrastive(*model(world.images(preprocess), world.tokens()))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss)
    return losses, some(model.state_dict().values())


@program(half=False, mixed=True)
def mixed_precision_step(clip: Any, world: World) -> Any:
    """The common loop: forward in float16, step in float32, back to float16."""
    model, preprocess = world.load()
    clip.model.convert_weights(model)

    def convert_models_to_fp32(model: Any) -> None:
        for parameter in model.parameters():
            parameter.data = parameter.data.float()
            parameter.grad.data = parameter.grad.data.float()

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-5, eps=1e-3, weight_decay=0.2)
    for _ in range(2):
        optimizer.zero_grad()
        loss = contrastive(*model(world.images(preprocess), world.tokens()))
        loss.backward()
        convert_models_to_fp32(model)
        optimizer.step()
        clip.model.convert_weights(model)
    names = [str(parameter.dtype) for parameter in model.parameters()]
    return loss, names, [tensor.float() for tensor in some(model.parameters())]


@program(half=False)
def autocast(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image, text = model(world.images(preprocess), world.tokens())
        features = model.encode_image(world.images(preprocess))
    loss = contrastive(image, text)
    loss.backward()
    return image, features, some(parameter.grad for parameter in model.parameters())


@program()
def checkpointed_blocks(clip: Any, world: World) -> Any:
    """Gradient checkpointing, block by block and in segments."""
    model, _ = world.load()
    whole = model.transformer.resblocks

    def run(x: Tensor) -> Tensor:
        for block in whole:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    model.transformer.forward = run
    one = model.encode_text(world.tokens())
    one.float().sum().backward()
    gradients = some(p.grad.clone() for p in whole.parameters())
    model.zero_grad()
    model.transformer.forward = lambda x: checkpoint_sequential(whole, 2, x, use_reentrant=False)
    two = model.encode_text(world.tokens())
    two.float().sum().backward()
    return one, gradients, two, some(p.grad for p in whole.parameters())


@program()
def data_parallel(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    parallel = nn.DataParallel(model)
    images, texts = parallel(world.images(preprocess), world.tokens())
    state = parallel.state_dict()
    assert all(name.startswith("module.") for name in state)
    return images, texts, parallel.module.encode_text(world.tokens()), len(state)


@program(half=False)
def deep_copies_and_pickles(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    images, tokens = world.images(preprocess), world.tokens()
    model(images, tokens)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    twins = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ]
    model.logit_scale.data.add_(1)
    transform = pickle.loads(pickle.dumps(preprocess))
    return [twin(images, tokens)[0] for twin in twins], transform(world.pictures()[1])


@program()
def functional_calls(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    parameters = {name: value.detach() * 1.01 for name, value in model.named_parameters()}
    arguments = (world.images(preprocess), world.tokens())
    return torch.func.functional_call(model, parameters, arguments)[0]


@program(half=False)
def gradients_of_single_samples(clip: Any, world: World) -> Any:
    """torch.func: gradients of the text projection, for each caption alone."""
    model, _ = world.load()
    name = "text_projection"

    def loss(projection: Tensor, tokens: Tensor) -> Tensor:
        model_of = {name: projection}
        out: Tensor = torch.func.functional_call(
            TextOnly(model), {f"model.{k}": v for k, v in model_of.items()}, (tokens[None],)
        )
        return out.pow(2).sum()

    gradient = torch.func.grad(loss)
    return [gradient(model.text_projection.detach(), row) for row in world.tokens()]


class TextOnly(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        features: Tensor = self.model.encode_text(tokens)
        return features


@program(half=False)
def traced(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    images, tokens = world.images(preprocess), world.tokens()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        whole = torch.jit.trace(model, (images, tokens), check_trace=False)
        visual = torch.jit.trace(model.visual, images, check_trace=False)
    return whole(images.flip(0), tokens.flip(0)), visual(images.flip(0))


@program(half=False)
def jit_loaded(clip: Any, world: World) -> Any:
    """Archives of TorchScript, as OpenAI's, loaded both ways."""
    model, preprocess = world.load()
    images, tokens = world.images(preprocess), world.tokens()
    path = world.folder / "archive.pt"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, (images, tokens), check_trace=False).save(path)
        again, _ = clip.load(str(path), device="cpu", jit=False)
    return again(images, tokens)[0]


@program()
def frozen_but_for_the_last_blocks(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    last = len(model.transformer.resblocks) - 1
    trained = []
    for name, parameter in model.named_parameters():
        if name.startswith((f"transformer.resblocks.{last}", "ln_final", "text_projection")):
            trained.append(name)
        else:
            parameter.requires_grad = False
    contrastive(*model(world.images(preprocess), world.tokens())).backward()
    return trained, [model.get_parameter(name).grad for name in trained]


@program()
def layerwise_learning_rates(clip: Any, world: World) -> Any:
    """Groups by the parameters' names: their order is what optimizers go by."""
    model, preprocess = world.load()
    gain_or_bias = [n for n, p in model.named_parameters() if p.ndim < 2 or "ln_" in n]
    groups = [
        {"params": [p for n, p in model.named_parameters() if (n in gain_or_bias) == norm], "lr": r}
        for norm, r in ((True, 0.01), (False, 0.001))
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    contrastive(*model(world.images(preprocess), world.tokens())).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return gain_or_bias, norm, some(model.parameters())


@program()
def accumulated_gradients(clip: Any, world: World) -> Any:
    """OpenCLIP's: features first without gradients, then each part again with them."""
    model, preprocess = world.load()
    images, tokens = world.images(preprocess), world.tokens()
    with torch.no_grad():
        parts = [(model.encode_image(i), model.encode_text(t)) for i, t in _halves(images, tokens)]
    for index, (image, text) in enumerate(_halves(images, tokens)):
        kept_images, kept_texts = ([part[k] for part in parts] for k in (0, 1))
        kept_images[index], kept_texts[index] = model.encode_image(image), model.encode_text(text)
        a, b = (F.normalize(torch.cat(kept), dim=-1) for kept in (kept_images, kept_texts))
        logits = model.logit_scale.exp() * a @ b.t()
        contrastive(logits, logits.t()).backward()
    return some(parameter.grad for parameter in model.parameters())


def _halves(images: Tensor, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(images[:2], tokens[:2]), (images[2:], tokens[2:])]


@program(half=False)
def trained_from_nothing(clip: Any, world: World) -> Any:
    """A small new model: the same seed draws the same weights."""
    numbers = (32, 32, 2, 64, 8, 16, 300, 128, 2, 2)
    if world.kind == "resnet":
        numbers = (32, 32, (1, 1, 1, 1), 8, None, 16, 300, 128, 2, 2)  # type: ignore[assignment]
    torch.manual_seed(11)
    model = clip.model.CLIP(*numbers)
    initial = some(model.parameters())
    tokens = torch.randint(1, 299, (4, 16))
    tokens[:, 9] = 299
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images = torch.randn(4, 3, 32, 32)
    for _ in range(2):
        optimizer.zero_grad()
        loss = contrastive(*model(images, tokens))
        loss.backward()
        optimizer.step()
    return initial, loss, some(model.parameters())


@program(half=False)
def by_keywords(clip: Any, world: World) -> Any:
    """Configurations that name every argument, and towers without a CLIP around them."""
    torch.manual_seed(5)
    if world.kind == "vit":
        tower = clip.model.VisionTransformer(
            input_resolution=32, patch_size=8, width=64, layers=2, heads=4, output_dim=24
        )
    else:
        tower = clip.model.ModifiedResNet(
            layers=(1, 1, 1, 1), output_dim=24, heads=8, input_resolution=32, width=8
        )
        pool = clip.model.AttentionPool2d(spacial_dim=2, embed_dim=16, num_heads=4, output_dim=6)
        return tower(torch.randn(3, 3, 32, 32)), pool(torch.randn(3, 16, 2, 2))
    text = clip.model.Transformer(width=32, layers=2, heads=4, attn_mask=torch.ones(9, 9).tril())
    return tower(torch.randn(3, 3, 32, 32)), text(torch.randn(9, 2, 32))


@program()
def distilled(clip: Any, world: World) -> Any:
    """A sliced copy learns the whole one's features and similarities."""
    model, preprocess = world.load()
    student = copy.deepcopy(model)
    student.transformer.resblocks = student.transformer.resblocks[:1]
    images, tokens = world.images(preprocess), world.tokens()
    with torch.no_grad():
        target = model(images, tokens)[0].float().softmax(-1)
    loss = F.kl_div(
        student(images, tokens)[0].float().log_softmax(-1), target, reduction="batchmean"
    )
    loss.backward()
    return loss, some(p.grad for p in student.transformer.parameters())
