"""Learned prompts: in the text, in the image, in both, and at test time."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..world import World, program

CLASSES = ["cat", "golden retriever", "hand"]
LABELS = torch.tensor([0, 1, 2, 1])


class TextEncoder(nn.Module):
    """CoOp's: the text tower from embeddings on."""

    def __init__(self, clip_model: Any) -> None:
        super().__init__()
        self.transformer = clip_model.transformer
        self.positional_embedding = clip_model.positional_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection
        self.dtype = clip_model.dtype

    def forward(self, prompts: Tensor, tokenized_prompts: Tensor) -> Tensor:
        x = prompts + self.positional_embedding.type(self.dtype)
        x = x.permute(1, 0, 2)
        x = self.transformer(x)
        x = x.permute(1, 0, 2)
        x = self.ln_final(x).type(self.dtype)
        features: Tensor = (
            x[torch.arange(x.shape[0]), tokenized_prompts.argmax(dim=-1)] @ self.text_projection
        )
        return features


class PromptLearner(nn.Module):
    """CoOp's: a context before the class name, the same for all classes or one for each."""

    def __init__(self, clip: Any, clip_model: Any, n_ctx: int, *, own: bool = False) -> None:
        super().__init__()
        dtype = clip_model.dtype
        width = clip_model.ln_final.weight.shape[0]
        shape = (len(CLASSES), n_ctx, width) if own else (n_ctx, width)
        self.ctx = nn.Parameter(torch.randn(shape, dtype=torch.float32).mul(0.02).to(dtype))
        prompts = [" ".join(["X"] * n_ctx) + f" {name}." for name in CLASSES]
        self.tokenized_prompts = torch.cat([clip.tokenize(prompt) for prompt in prompts])
        with torch.no_grad():
            embedding = clip_model.token_embedding(self.tokenized_prompts).type(dtype)
        self.prefix, self.suffix = embedding[:, :1], embedding[:, 1 + n_ctx :]

    def forward(self) -> Tensor:
        ctx = self.ctx if self.ctx.dim() == 3 else self.ctx.expand(len(CLASSES), -1, -1)
        return torch.cat([self.prefix, ctx, self.suffix], dim=1)


class Prompted(nn.Module):
    """CoOp's `CustomCLIP`."""

    def __init__(self, clip: Any, clip_model: Any, *, own: bool = False) -> None:
        super().__init__()
        self.prompt_learner = PromptLearner(clip, clip_model, 4, own=own)
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def text_features(self) -> Tensor:
        learner = self.prompt_learner
        features: Tensor = self.text_encoder(learner(), learner.tokenized_prompts)
        return features / features.norm(dim=-1, keepdim=True)

    def forward(self, image: Tensor) -> Tensor:
        image_features = self.image_encoder(image.type(self.dtype))
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        logits: Tensor = self.logit_scale.exp() * image_features @ self.text_features().t()
        return logits


def frozen(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("prompt_learner" in name)
    return model


@program()
def coop(clip: Any, world: World) -> Any:
    clip_model, preprocess = world.load()
    model = frozen(Prompted(clip, clip_model))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.002)
    images = world.images(preprocess)
    losses = []
    for _ in range(2):
        loss = F.cross_entropy(model(images).float(), LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return losses, [p.grad for p in model.parameters() if p.requires_grad]


@program()
def class_specific_contexts(clip: Any, world: World) -> Any:
    clip_model, preprocess = world.load()
    model = Prompted(clip, clip_model, own=True)
    loss = F.cross_entropy(model(world.images(preprocess)).float(), LABELS)
    loss.backward()
    return loss, model.prompt_learner.ctx.grad


@program()
def cocoop(clip: Any, world: World) -> Any:
    """The context depends on the image."""
    clip_model, preprocess = world.load()
    model = Prompted(clip, clip_model)
    learner, dtype = model.prompt_learner, clip_model.dtype
    meta_net = nn.Sequential(nn.Linear(64, 4), nn.ReLU(inplace=True), nn.Linear(4, 64)).to(dtype)
    image_features = F.normalize(clip_model.encode_image(world.images(preprocess)), dim=-1)
    logits = []
    for feature, bias in zip(image_features, meta_net(image_features), strict=True):
        ctx = (learner.ctx + bias).unsqueeze(0).expand(len(CLASSES), -1, -1)
        prompts = torch.cat([learner.prefix, ctx, learner.suffix], dim=1)
        text_features = F.normalize(model.text_encoder(prompts, learner.tokenized_prompts), dim=-1)
        logits.append(clip_model.logit_scale.exp() * feature @ text_features.t())
    loss = F.cross_entropy(torch.stack(logits).float(), LABELS)
    loss.backward()
    return loss, meta_net[2].weight.grad, learner.ctx.grad


@program()
def test_time_tuning(clip: Any, world: World) -> Any:
    """TPT: one step towards confident views of one image."""
    clip_model, preprocess = world.load()
    model = frozen(Prompted(clip, clip_model))
    image = preprocess(world.pictures()[0])
    views = torch.stack([image.roll(shift, -1) for shift in range(0, 32, 4)])
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=5e-3)
    probabilities = model(views).float().softmax(1)
    entropy = -(probabilities * probabilities.log()).sum(1)
    confident = entropy.argsort()[:3]
    mean = probabilities[confident].mean(0)
    loss = -(mean * mean.log()).sum()
    loss.backward()
    optimizer.step()
    return model(image[None]), confident, loss


@program()
def knowledge_guided(clip: Any, world: World) -> Any:
    """KgCoOp: learned prompts stay near the written ones."""
    clip_model, preprocess = world.load()
    model = Prompted(clip, clip_model)
    written = clip.tokenize([f"a photo of a {name}." for name in CLASSES])
    with torch.no_grad():
        anchors = F.normalize(clip_model.encode_text(written), dim=-1)
    distance = 1 - F.cosine_similarity(model.text_features(), anchors).mean()
    loss = F.cross_entropy(model(world.images(preprocess)).float(), LABELS) + 8 * distance.float()
    loss.backward()
    return loss, model.prompt_learner.ctx.grad


@program(only="vit")
def deep_prompts_in_both_towers(clip: Any, world: World) -> Any:
    """MaPLe: at each block the context is replaced, the image's by a projection of the text's."""
    model, preprocess = world.load()
    contexts = [nn.Parameter(torch.randn(2, 64).mul(0.02).to(model.dtype)) for _ in range(2)]
    project = nn.Linear(64, 128).to(model.dtype)

    def replace(depth: int, *, vision: bool) -> Any:
        def hook(block: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            (x,) = args
            context = project(contexts[depth]) if vision else contexts[depth]
            context = context.unsqueeze(1).expand(-1, x.shape[1], -1)
            if vision:
                rest = x if depth == 0 else x[:-2]
                return (torch.cat([rest, context]),)
            return (torch.cat([x[:1], context, x[3:]]),)

        return hook

    for depth in range(2):
        text_block = model.transformer.resblocks[depth]
        text_block.register_forward_pre_hook(replace(depth, vision=False))
        image_block = model.visual.transformer.resblocks[depth]
        image_block.register_forward_pre_hook(replace(depth, vision=True))
    logits, _ = model(world.images(preprocess), clip.tokenize([f"X X {c}" for c in CLASSES]))
    F.cross_entropy(logits.float(), LABELS).backward()
    return logits, project.weight.grad, [context.grad for context in contexts]


@program(only="vit")
def visual_prompts(clip: Any, world: World) -> Any:
    """VPT, shallow: tokens between the class token and the patches."""
    model, preprocess = world.load()
    visual = model.visual
    prompt = nn.Parameter(torch.randn(1, 5, 128).mul(0.02).to(model.dtype))
    x = visual.conv1(world.images(preprocess).type(model.dtype))
    x = x.reshape(x.shape[0], x.shape[1], -1).permute(0, 2, 1)
    token = visual.class_embedding.to(x.dtype) + torch.zeros(x.shape[0], 1, x.shape[-1]).to(x)
    x = torch.cat([token, x], dim=1) + visual.positional_embedding.to(x.dtype)
    x = torch.cat([x[:, :1], prompt.expand(x.shape[0], -1, -1), x[:, 1:]], dim=1)
    x = visual.transformer(visual.ln_pre(x).permute(1, 0, 2)).permute(1, 0, 2)
    features = visual.ln_post(x[:, 0, :]) @ visual.proj
    features.float().pow(2).sum().backward()
    return features, prompt.grad


@program()
def prompts_in_the_pixels(clip: Any, world: World) -> Any:
    """A learned frame around each image."""
    model, preprocess = world.load()
    frame = nn.Parameter(torch.randn(1, 3, 64, 64) * 0.1)
    mask = torch.ones(1, 1, 64, 64)
    mask[..., 8:-8, 8:-8] = 0
    logits, _ = model(world.images(preprocess) + frame * mask, clip.tokenize(CLASSES))
    F.cross_entropy(logits.float(), LABELS).backward()
    return logits, frame.grad


@program()
def hard_prompts_by_projection(clip: Any, world: World) -> Any:
    """PEZ: a soft prompt, pulled to its nearest words before each step."""
    model, preprocess = world.load()
    table = model.token_embedding.weight.detach()[:500]
    soft = nn.Parameter(table[[10, 20, 30, 40]].clone())
    encoder = TextEncoder(model)
    tokens = clip.tokenize("! ! ! !")
    with torch.no_grad():
        target = F.normalize(model.encode_image(world.images(preprocess)), dim=-1)
    nearest = torch.cdist(soft.detach(), table).argmin(1)
    hard = soft + (table[nearest] - soft).detach()
    embedding = model.token_embedding(tokens).clone()
    embedding[0, 1:5] = hard
    feature = F.normalize(encoder(embedding.type(model.dtype), tokens), dim=-1)
    loss = 1 - (feature @ target.t()).float().mean()
    loss.backward()
    return loss, soft.grad, nearest


@program()
def optimal_transport_of_prompts(clip: Any, world: World) -> Any:
    """PLOT: several prompts a class, matched to several views by Sinkhorn's rounds."""
    model, preprocess = world.load()
    views = [world.images(preprocess).roll(shift, -1) for shift in (0, 8, 16)]
    images = torch.stack([F.normalize(model.encode_image(view), dim=-1) for view in views])
    texts = [clip.tokenize([t.format(c) for c in CLASSES]) for t in ("a {}", "my {}", "no {}")]
    prompts = torch.stack([F.normalize(model.encode_text(text), dim=-1) for text in texts])
    similarity = torch.einsum("mbd,ncd->mnbc", images, prompts).float()
    kernel = (similarity / 0.1).exp()
    left = torch.ones(3, *similarity.shape[2:])
    for _ in range(5):
        right = (1 / 3) / torch.einsum("mnbc,mbc->nbc", kernel, left)
        left = (1 / 3) / torch.einsum("mnbc,nbc->mbc", kernel, right)
    plan = left[:, None] * kernel * right[None]
    return (plan * similarity).sum((0, 1))
