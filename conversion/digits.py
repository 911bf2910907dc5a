"""Trains `digits`, the small CLIP model that ships with hfclip, on handwritten digits.

The dataset is scikit-learn's copy of the UCI collection: 1,797 pictures of 8 x 8 pixels by 43
writers. Every fifth picture is held out for testing. The captions name the digit in the wordings
below; some wordings are held out too. The rows of the token embedding that no training caption uses
are zero, so that the file compresses well.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from tqdm import trange

from hfclip.config import ClipConfig
from hfclip.images.preprocess import image_transform
from hfclip.model import CLIP
from hfclip.network.layers import normalize
from hfclip.text.tokenizer import tokenize
from hfclip.zeroshot.classifier import ZeroShotClassifier, label_features

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMERALS = tuple("0123456789")

TRAINED_WORDINGS = (
    "{}",
    "a {}",
    "{}.",
    "the digit {}",
    "the number {}",
    "number {}, written by hand",
    "a handwritten {}",
    "a handwritten digit {}",
    "handwriting: {}",
    "a photo of a {}",
    "a photo of the number {}",
    "a picture of a handwritten {}",
    "a picture of {} in black ink",
    "a scan of the digit {}, written by hand",
    "a scan of {}",
    "someone wrote the number {} on paper",
    "someone wrote {}",
    "on this paper there is a {}",
    "it is a {}",
    "here you see the digit {}, small and grey",
    "what is written here is the number {}",
    "my favourite number is {}",
    "i can read a {} in this picture",
    "{} as a child would write it",
)
HELD_OUT_WORDINGS = (
    "an image of the figure {}",
    "this is a {}",
    "somebody's drawing of the numeral {}",
    "a blurry {} in pen",
    "the digit is {}.",
)

CONFIG = ClipConfig(
    embed_dim=64,
    image_resolution=32,
    vision_layers=4,
    vision_width=128,
    vision_patch_size=8,
    context_length=77,
    vocab_size=49408,
    transformer_width=64,
    transformer_heads=1,
    transformer_layers=2,
)

# `python -m conversion cards` writes these accuracies into the card.
ACCURACY_FILE = Path(__file__).with_name("digits_accuracy.json")

SEED = 7
STEPS = 2000
BATCH = 128
PEAK_LEARNING_RATE = 1.5e-3
WARM_UP_STEPS = 150


@dataclass(frozen=True)
class Split:
    """A part of the dataset.

    Attributes:
        images: The pictures (n, 3, 32, 32), float32 in [0, 1].
        digits: The digits (n,), int64 from 0 to 9.
        pixels: The original pixels (n, 64), from 0 to 16.
    """

    images: Tensor
    digits: Tensor
    pixels: np.ndarray


def load_split() -> tuple[Split, Split]:
    """Returns the training pictures and the held-out ones: the 5th, the 10th, and so on."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  # takes a second

    collection = load_digits()
    # The model's preprocess without its normalisation, which is applied after augmentation.
    resize = image_transform(CONFIG.image_resolution, mean=(0, 0, 0), std=(1, 1, 1))
    images = torch.stack([resize(_picture(pixels)) for pixels in collection.images])
    digits = torch.from_numpy(collection.target)
    held_out = np.arange(len(digits)) % 5 == 4
    parts = (Split(images[p], digits[p], collection.data[p]) for p in (~held_out, held_out))
    train, test = parts
    return train, test


def _picture(pixels: np.ndarray) -> Image.Image:
    """Converts 8 x 8 values from 0 to 16 to a grey image, white on black."""
    return Image.fromarray((pixels * 255 / 16).round().astype(np.uint8))


def normalise(images: Tensor) -> Tensor:
    """Normalises a batch (B, 3, S, S) like the last step of the preprocess."""
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (CONFIG.image_mean, CONFIG.image_std))
    return (images - mean) / std


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Rotates, scales and shifts each image (B, 3, S, S) slightly, and inverts half of them."""
    count = len(images)
    uniform = torch.rand(count, 5, generator=random) * 2 - 1
    angle = uniform[:, 0] * 0.25
    scale = 1 + uniform[:, 1] * 0.15
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [cos, -sin, uniform[:, 2] * 0.15, sin, cos, uniform[:, 3] * 0.15]
    grid = F.affine_grid(
        torch.stack(rows, dim=1).view(count, 2, 3), list(images.shape), align_corners=False
    )
    moved = F.grid_sample(images, grid, align_corners=False)
    inverted = (uniform[:, 4] > 0).view(count, 1, 1, 1)
    return torch.where(inverted, 1 - moved, moved)


def all_captions(wordings: tuple[str, ...]) -> Tensor:
    """Returns tokens (10, 2 * wordings, L): each wording with the digit as word and as numeral."""
    texts = [
        wording.replace("{}", form)
        for digit in range(10)
        for wording in wordings
        for form in (WORDS[digit], NUMERALS[digit])
    ]
    return tokenize(texts, padding="longest").view(10, 2 * len(wordings), -1)


def draw_embeddings(model: CLIP, seen: Tensor) -> None:
    """Initialises the embeddings of the tokens in `seen` and sets all others to zero.

    The standard deviation is 1, larger than OpenAI's. With few words and a shallow tower, smaller
    embeddings make all captions nearly equal at first, and hundreds of steps are needed to
    separate them.
    """
    rows = torch.unique(seen).long()
    with torch.no_grad():
        model.token_embedding.weight.zero_()
        model.token_embedding.weight[rows] = torch.randn(len(rows), CONFIG.transformer_width)


def contrastive_loss(logits: Tensor, digits: Tensor) -> Tensor:
    """Returns the mean of the image-to-text and text-to-image losses of logits (B, 10).

    There is one caption for each digit. In the text-to-image loss, the target of a caption is
    uniform over the images of its digit in the batch.
    """
    own = F.one_hot(digits, 10).float()  # (B, 10)
    present = own.sum(dim=0) > 0
    wanted = (own / own.sum(dim=0).clamp(min=1)).t()[present]  # (digits present, B)
    return (F.cross_entropy(logits, digits) + F.cross_entropy(logits.t()[present], wanted)) / 2


def train(split: Split, steps: int) -> CLIP:
    """Trains a new model. The result is reproducible on the same machine."""
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    model = CLIP(**CONFIG.to_dict())
    captions = all_captions(TRAINED_WORDINGS)
    draw_embeddings(model, captions)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.05, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=WARM_UP_STEPS / STEPS
    )
    progress = trange(steps, desc="training digits", unit="step", mininterval=1)
    for _ in progress:
        rows = torch.randint(len(split.digits), (BATCH,), generator=random)
        wordings = torch.randint(captions.shape[1], (10,), generator=random)
        images = normalise(augment(split.images[rows], random))
        logits, _ = model(images, captions[torch.arange(10), wordings])
        loss = contrastive_loss(logits, split.digits[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=np.log(100))
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def accuracy(model: CLIP, split: Split, forms: tuple[str, ...], wordings: tuple[str, ...]) -> float:
    """Returns the zero-shot accuracy in [0, 1], with the wordings averaged."""
    classifier = ZeroShotClassifier(model, forms, wordings)
    guesses = classifier.probabilities(normalise(split.images)).argmax(dim=-1)
    return (guesses == split.digits).double().mean().item()


@torch.no_grad()
def accuracies(
    model: CLIP, split: Split, forms: tuple[str, ...], ensembles: Iterable[tuple[str, ...]]
) -> list[float]:
    """Returns the `accuracy` of each ensemble of wordings. Encodes the images once."""
    features = normalize(model.encode_image(normalise(split.images)))
    found = []
    for wordings in ensembles:
        guesses = (features @ label_features(model, forms, wordings).t()).argmax(dim=-1)
        found.append((guesses == split.digits).double().mean().item())
    return found


def report(model: CLIP, train_split: Split, test_split: Split) -> dict[str, float]:
    """Returns the held-out accuracies of the model, and of a logistic regression on the pixels."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # takes a second

    regression = LogisticRegression(max_iter=5000)
    regression.fit(train_split.pixels, train_split.digits.numpy())
    results = {}
    for title, wordings in (("trained", TRAINED_WORDINGS), ("unseen", HELD_OUT_WORDINGS)):
        for forms_title, forms in (("words", WORDS), ("numerals", NUMERALS)):
            ensembles = [*((wording,) for wording in wordings), wordings]
            *single, ensemble = accuracies(model, test_split, forms, ensembles)
            results[f"{title} wordings, {forms_title}, mean"] = float(np.mean(single))
            results[f"{title} wordings, {forms_title}, worst"] = min(single)
            results[f"{title} wordings, {forms_title}, ensemble"] = ensemble
    results["logistic regression on the pixels"] = float(
        regression.score(test_split.pixels, test_split.digits.numpy())
    )
    return results


def save(model: CLIP, folder: Path) -> None:
    """Writes config.json and the weights in float16, each under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, config = folder / "model.safetensors", folder / "config.json"
    halves = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    save_file(halves, weights.with_suffix(".part"), metadata={"format": "pt"})
    config.with_suffix(".part").write_text(
        json.dumps(model.config.to_dict(), indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    for path in (weights, config):
        path.with_suffix(".part").chmod(
            0o644
        )  # safetensors writes files that only the owner can read
        path.with_suffix(".part").replace(path)


def save_examples(folder: Path) -> None:
    """Writes the first held-out picture of each digit as a PNG of its 8 x 8 pixels."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  # takes a second

    collection = load_digits()
    for digit, word in enumerate(WORDS):
        index = next(
            i for i in range(4, len(collection.target), 5) if collection.target[i] == digit
        )
        _picture(collection.images[index]).save(folder / f"{word}.png")


@click.command(epilog="Example: python -m conversion train-digits hfclip/digits")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--steps", default=STEPS, show_default=True, help="Optimizer steps.")
@click.option(
    "--accuracy-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=ACCURACY_FILE,
    help="JSON file to write the accuracies to. The model card shows them.",
)
def main(folder: Path, steps: int, accuracy_file: Path) -> None:
    """Train the bundled model `digits`, write it to FOLDER and print its held-out accuracy."""
    train_split, test_split = load_split()
    model = train(train_split, steps)
    save(model, folder)
    save_examples(folder)
    saved = CLIP.from_pretrained(folder)  # measured after rounding to float16
    accuracies = report(saved, train_split, test_split)
    accuracy_file.write_text(json.dumps(accuracies, indent=2) + "\n", encoding="utf-8")
    for name, value in accuracies.items():
        click.echo(f"{value:7.2%}  {name}")
    click.echo(f"{(folder / 'model.safetensors').stat().st_size:,} bytes of weights")


if __name__ == "__main__":
    main()
