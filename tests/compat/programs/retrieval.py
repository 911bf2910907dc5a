"""Frozen features: zero-shot classifiers, probes, search, and scores made of cosines."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..world import World, program

TEMPLATES = ["a photo of a {}.", "a blurry photo of the {}.", "a sketch of {}", "itap of my {}."]
CLASSES = ["cat", "snow-covered dog", "hand"]


def features(clip: Any, world: World) -> tuple[Tensor, Tensor]:
    model, preprocess = world.load()
    with torch.no_grad():
        image = model.encode_image(world.images(preprocess)).float()
        text = model.encode_text(clip.tokenize(["a cat", "a dog", "a house", "Paris"])).float()
    return F.normalize(image, dim=-1), F.normalize(text, dim=-1)


@program()
def zero_shot(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    image = preprocess(world.pictures()[1]).unsqueeze(0)
    text = clip.tokenize(["a diagram", "a dog", "a cat"])
    with torch.no_grad():
        logits_per_image, logits_per_text = model(image, text)
        probs = logits_per_image.softmax(dim=-1)
    return probs, logits_per_text, model.encode_image(image), model.encode_text(text)


@program()
def prompt_ensemble(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    columns = []
    with torch.no_grad():
        for name in CLASSES:
            texts = clip.tokenize([template.format(name) for template in TEMPLATES])
            embeddings = model.encode_text(texts)
            embeddings /= embeddings.norm(dim=-1, keepdim=True)
            mean = embeddings.mean(dim=0)
            mean /= mean.norm()
            columns.append(mean)
        classifier = torch.stack(columns, dim=1)
        images = model.encode_image(world.images(preprocess))
        images /= images.norm(dim=-1, keepdim=True)
        logits = 100.0 * images @ classifier
    return logits, logits.topk(2, 1, True, True)[1].t()


@program()
def recall_at_k(clip: Any, world: World) -> Any:
    images, texts = features(clip, world)
    scores = texts @ images.t()
    ranks = (scores.argsort(dim=1, descending=True) == torch.arange(4)[:, None]).nonzero()[:, 1]
    return scores, ranks, [(ranks < k).float().mean().item() for k in (1, 2, 3)]


@program()
def clip_score(clip: Any, world: World) -> Any:
    images, texts = features(clip, world)
    score = 2.5 * (images * texts).sum(dim=1).clamp(min=0)
    reference = (texts @ texts.roll(1, 0).t()).max(dim=1).values
    harmonic = 2 * (score + 1e-3) * reference / (score + reference + 1e-3)
    return score + images.sum(1), harmonic


@program()
def rerank_generated_images(clip: Any, world: World) -> Any:
    """As DALL-E's authors chose among samples."""
    model, preprocess = world.load()
    candidates = torch.cat([world.images(preprocess), world.images(preprocess).flip(-1)])
    text = clip.tokenize(["an armchair in the shape of an avocado"] * len(candidates))
    logits = [
        model(image[None], line[None])[0] for image, line in zip(candidates, text, strict=True)
    ]
    scores = torch.cat(logits).squeeze(1)
    return scores, scores.argsort(descending=True)


@program()
def linear_probe(clip: Any, world: World) -> Any:
    images, _ = features(clip, world)
    head = nn.Linear(images.shape[1], 2)
    optimizer = torch.optim.LBFGS(head.parameters(), lr=0.1, max_iter=5)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(head(images), torch.tensor([0, 1, 1, 0]))
        value.backward()
        return value

    optimizer.step(loss)
    return head(images), head.weight


@program()
def nearest_neighbours_in_a_half_precision_index(clip: Any, world: World) -> Any:
    images, texts = features(clip, world)
    index = torch.cat([images, texts]).half()
    scores = (texts.half() @ index.t()).float()
    return scores, scores.topk(3).indices


@program()
def aesthetic_predictor(clip: Any, world: World) -> Any:
    """An MLP over image features, as LAION's."""
    images, _ = features(clip, world)
    layers = [nn.Linear(64, 16), nn.Dropout(0.2), nn.Linear(16, 4), nn.Linear(4, 1)]
    return nn.Sequential(*layers).eval()(images)


@program(half=False)
def multilingual_student(clip: Any, world: World) -> Any:
    """A text encoder learns to meet the frozen one, as M-CLIP's."""
    model, _ = world.load()
    with torch.no_grad():
        teacher = model.encode_text(world.tokens()).float()
    student = nn.Sequential(nn.EmbeddingBag(49408, 32), nn.Linear(32, 64))
    loss = F.mse_loss(student(world.tokens()), teacher)
    loss.backward()
    return loss, student[1].weight.grad


@program()
def debiased_by_projection(clip: Any, world: World) -> Any:
    images, texts = features(clip, world)
    direction = F.normalize(texts[0] - texts[1], dim=0)
    clean = images - (images @ direction)[:, None] * direction
    return F.normalize(clean, dim=-1) @ texts.t()


@program()
def composed_query(clip: Any, world: World) -> Any:
    """Image plus text, along the arc between them."""
    images, texts = features(clip, world)
    angle = (images * texts).sum(1, keepdim=True).acos()
    query = ((0.3 * angle).sin() * texts + (0.7 * angle).sin() * images) / angle.sin()
    return query @ images.t()


@program()
def caption_by_prefix(clip: Any, world: World) -> Any:
    """ClipCap: a mapping of the image feature to the embeddings of a language model."""
    model, preprocess = world.load()
    with torch.no_grad():
        prefix = model.encode_image(world.images(preprocess)).to(torch.float32)
    mapping = nn.Sequential(nn.Linear(64, 96), nn.Tanh(), nn.Linear(96, 4 * 32))
    return mapping(prefix).view(-1, 4, 32)
