"""Trains `digits`, the small CLIP that ships with hfclip, on real handwritten digits.

The pictures are the 1,797 of the UCI collection that scikit-learn carries (8 x 8 pixels, 43
writers); every fifth is held out and never trained on. The captions name the digit in the wordings
below; other wordings are held out too. Rows of the token embedding that no training caption
touches are zero, so that the file packs small.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from tqdm import trange

from hfclip.config import ClipConfig
from hfclip.images.preprocess import image_transform
from hfclip.model import CLIP
from hfclip.text.tokenizer import tokenize
from hfclip.zeroshot.classifier import ZeroShotClassifier

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

# What the card tells; `python -m conversion cards` reads it.
ACCURACY_FILE = Path(__file__).with_name("digits_accuracy.json")

SEED = 7
STEPS = 2000
BATCH = 128
PEAK_LEARNING_RATE = 1.5e-3
WARM_UP_STEPS = 150


@dataclass(frozen=True)
class Split:
    """Pictures (n, 3, 32, 32) with values in [0, 1], their digits (n,), and the raw (n, 64)."""

    images: Tensor
    digits: Tensor
    pixels: np.ndarray


def load_split() -> tuple[Split, Split]:
    """The training pictures and the held-out ones: every fifth, beginning with the fifth."""
    collection = load_digits()
    # Through the model's own transform, less its normalisation, which follows augmentation.
    resize = image_transform(CONFIG.image_resolution, mean=(0, 0, 0), std=(1, 1, 1))
    images = torch.stack([resize(_picture(pixels)) for pixels in collection.images])
    digits = torch.from_numpy(collection.target)
    held_out = np.arange(len(digits)) % 5 == 4
    parts = (Split(images[p], digits[p], collection.data[p]) for p in (~held_out, held_out))
    train, test = parts
    return train, test


def _picture(pixels: np.ndarray) -> Image.Image:
    """8 x 8 values from 0 to 16 -> a grey picture, white on black."""
    return Image.fromarray((pixels * 255 / 16).round().astype(np.uint8))


def normalise(images: Tensor) -> Tensor:
    """What the preprocess does last, for a batch (B, 3, S, S)."""
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (CONFIG.image_mean, CONFIG.image_std))
    return (images - mean) / std


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Rotates, scales and shifts each picture a little, and turns half of them black on white."""
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
    """Tokens (10, captions of each digit, L) of every wording with word and numeral."""
    texts = [
        wording.replace("{}", form)
        for digit in range(10)
        for wording in wordings
        for form in (WORDS[digit], NUMERALS[digit])
    ]
    return tokenize(texts, padding="longest").view(10, 2 * len(wordings), -1)


def draw_embeddings(model: CLIP, seen: Tensor) -> None:
    """Draws the rows of the tokens that captions use, and zeroes the rest for good.

    Larger than OpenAI draws them: with a handful of words and a shallow tower, captions would
    otherwise begin all but equal, and hundreds of steps pass before they part.
    """
    rows = torch.unique(seen).long()
    with torch.no_grad():
        model.token_embedding.weight.zero_()
        model.token_embedding.weight[rows] = torch.randn(len(rows), CONFIG.transformer_width)


def contrastive_loss(logits: Tensor, digits: Tensor) -> Tensor:
    """Of logits (B, 10), one caption a digit: each image to its caption, each caption to its own.

    A caption has as many right images as the batch holds of its digit, and wants them equally.
    """
    own = F.one_hot(digits, 10).float()  # (B, 10)
    present = own.sum(dim=0) > 0
    wanted = (own / own.sum(dim=0).clamp(min=1)).t()[present]  # (digits present, B)
    return (F.cross_entropy(logits, digits) + F.cross_entropy(logits.t()[present], wanted)) / 2


def train(split: Split, steps: int) -> CLIP:
    """Trains from nothing; the same seed gives the same model on the same machine."""
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
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=np.log(100))
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def accuracy(model: CLIP, split: Split, forms: tuple[str, ...], wordings: tuple[str, ...]) -> float:
    """Share of pictures whose own digit ranks first, zero-shot, the wordings averaged."""
    classifier = ZeroShotClassifier(model, forms, wordings)
    guesses = classifier.probabilities(normalise(split.images)).argmax(dim=-1)
    return (guesses == split.digits).double().mean().item()


def report(model: CLIP, train_split: Split, test_split: Split) -> dict[str, float]:
    """Held-out accuracies, next to a logistic regression on the same pixels."""
    regression = LogisticRegression(max_iter=5000)
    regression.fit(train_split.pixels, train_split.digits.numpy())
    results = {}
    for title, wordings in (("trained", TRAINED_WORDINGS), ("unseen", HELD_OUT_WORDINGS)):
        for forms_title, forms in (("words", WORDS), ("numerals", NUMERALS)):
            single = [accuracy(model, test_split, forms, (wording,)) for wording in wordings]
            results[f"{title} wordings, {forms_title}, mean"] = float(np.mean(single))
            results[f"{title} wordings, {forms_title}, worst"] = min(single)
            ensemble = accuracy(model, test_split, forms, wordings)
            results[f"{title} wordings, {forms_title}, ensemble"] = ensemble
    results["logistic regression on the pixels"] = float(
        regression.score(test_split.pixels, test_split.digits.numpy())
    )
    return results


def save(model: CLIP, folder: Path) -> None:
    """Writes config.json and float16 weights, each under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, config = folder / "model.safetensors", folder / "config.json"
    halves = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    save_file(halves, weights.with_suffix(".part"), metadata={"format": "pt"})
    config.with_suffix(".part").write_text(
        json.dumps(model.config.to_dict(), indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    for path in (weights, config):
        path.with_suffix(".part").chmod(0o644)  # safetensors leaves a file to its owner alone
        path.with_suffix(".part").replace(path)


def save_examples(folder: Path) -> None:
    """Writes the first held-out picture of each digit as a PNG of its 8 x 8 pixels."""
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
    help="Where to write the accuracies that the card tells.",
)
def main(folder: Path, steps: int, accuracy_file: Path) -> None:
    """Train the bundled model into FOLDER and print its held-out accuracy."""
    train_split, test_split = load_split()
    model = train(train_split, steps)
    save(model, folder)
    save_examples(folder)
    saved = CLIP.from_pretrained(folder)  # judged as it ships, after rounding to float16
    accuracies = report(saved, train_split, test_split)
    accuracy_file.write_text(json.dumps(accuracies, indent=2) + "\n", encoding="utf-8")
    for name, value in accuracies.items():
        click.echo(f"{value:7.2%}  {name}")
    click.echo(f"{(folder / 'model.safetensors').stat().st_size:,} bytes of weights")


if __name__ == "__main__":
    main()
