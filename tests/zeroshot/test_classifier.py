from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.overrides import TorchFunctionMode

import hfclip
from hfclip.zeroshot import classifier as zeroshot
from hfclip.zeroshot.classifier import ZeroShotClassifier, label_features

DIGITS = Path(hfclip.__file__).parent / "digits"


@pytest.fixture(scope="module")
def model() -> hfclip.CLIP:
    return hfclip.load("digits", device="cpu")[0]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def test_one_template_gives_the_probabilities_of_the_models_logits(
    model: hfclip.CLIP, images: Tensor
) -> None:
    classifier = ZeroShotClassifier(model, ["one", "two", "three"], ["the digit {}"])
    logits, _ = model(
        images, hfclip.tokenize(["the digit one", "the digit two", "the digit three"])
    )
    assert torch.allclose(classifier.probabilities(images), logits.softmax(dim=-1), atol=1e-5)


@torch.no_grad()
def test_several_templates_are_averaged_and_normalised(model: hfclip.CLIP, images: Tensor) -> None:
    classifier = ZeroShotClassifier(model, ["one", "two"], ["a {}", "{} {}"])
    features = model.encode_text(hfclip.tokenize(["a two", "two two"]))
    features /= features.norm(dim=-1, keepdim=True)
    mean = features.sum(dim=0)
    assert torch.allclose(classifier.weights[:, 1], mean / mean.norm(), atol=1e-6)


def test_labels_encoded_in_batches_give_the_same_probabilities(
    model: hfclip.CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, templates = ["one", "two", "three", "four"], ["a {}", "the digit {}", "{}"]
    together = ZeroShotClassifier(model, labels, templates)
    monkeypatch.setattr(zeroshot, "CAPTIONS", 5)
    apart = ZeroShotClassifier(model, labels, templates)
    assert together.weights.shape == (64, 4)
    assert torch.allclose(apart.weights, together.weights, atol=1e-6)


def test_an_optimized_model_gives_the_same_probabilities(
    model: hfclip.CLIP, images: Tensor
) -> None:
    labels, templates = ["one", "two", "three"], ["a {}", "the digit {}"]
    own = ZeroShotClassifier(model, labels, templates).probabilities(images)
    fast = ZeroShotClassifier(hfclip.optimize(model), labels, templates).probabilities(images)
    assert torch.allclose(fast, own, atol=1e-5)


def test_labels_are_ranked_best_first(model: hfclip.CLIP, images: Tensor) -> None:
    classifier = ZeroShotClassifier(model, ["one", "two", "three"])
    probabilities = classifier.probabilities(images)
    for row, guesses in zip(probabilities.tolist(), classifier.rank(images), strict=True):
        assert [guess.probability for guess in guesses] == sorted(row, reverse=True)
        assert all(row[classifier.labels.index(label)] == p for label, p in guesses)
    assert [len(guesses) for guesses in classifier.rank(images, top=2)] == [2, 2, 2]
    assert [len(guesses) for guesses in classifier.rank(images, top=9)] == [3, 3, 3]


def test_braces_in_a_label_are_kept(model: hfclip.CLIP) -> None:
    braces = ZeroShotClassifier(model, ["{0} and {x}"], ["a {}"])
    with torch.no_grad():
        expected = model.encode_text(hfclip.tokenize(["a {0} and {x}"]))[0]
    assert torch.allclose(braces.weights[:, 0], expected / expected.norm(), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        ([], ["a {}"], "Give at least one"),
        (["cat", " "], ["a {}"], "no empty label"),
        (["cat", "dog", "cat"], ["a {}"], "more than once: cat"),
        (["cat"], ["a photo"], "each with {} in place of the label"),
        (["cat"], [], "each with {}"),
        ("cat", ["a {}"], "expected a list of strings"),
    ],
)
def test_invalid_labels_are_refused(
    model: hfclip.CLIP, labels: list[str], templates: list[str], message: str
) -> None:
    with pytest.raises(hfclip.LabelError) as caught:
        ZeroShotClassifier(model, labels, templates)
    assert message in str(caught.value)


@pytest.fixture
def pictures() -> list[Image.Image]:
    files = [(DIGITS / f"{word}.png").read_bytes() for word in ("seven", "two", "nine")]
    return [Image.open(BytesIO(file)) for file in files]


@pytest.fixture(scope="module")
def classifier(model: hfclip.CLIP) -> ZeroShotClassifier:
    return ZeroShotClassifier(model, ["two", "seven", "nine"], ["a handwritten {}"])


def test_functions_may_be_templates(model: hfclip.CLIP) -> None:
    strings = ZeroShotClassifier(model, ["one", "two"], ["a {}", "the digit {}"])
    functions = ZeroShotClassifier(
        model, ["one", "two"], [lambda c: f"a {c}", lambda c: f"the digit {c}"]
    )
    mixed = ZeroShotClassifier(model, ["one", "two"], ("a {}", lambda c: f"the digit {c}"))
    assert torch.equal(functions.weights, strings.weights)
    assert torch.equal(mixed.weights, strings.weights)


def test_iterables_of_labels_and_templates_are_read_once(model: hfclip.CLIP) -> None:
    lists = ZeroShotClassifier(model, ["one", "two"], ["a {}", "{}"])
    once = ZeroShotClassifier(model, iter(np.array(["one", "two"])), iter(["a {}", "{}"]))
    assert once.labels == ("one", "two")
    assert torch.equal(once.weights, lists.weights)


class Recorder:
    """Encodes each text as a row of two numbers, and records the batch sizes."""

    context_length = 77
    logit_scale = torch.tensor(0.0)

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def encode_text(self, text: Tensor, /) -> Tensor:
        self.sizes.append(len(text))
        return torch.stack([text.count_nonzero(dim=1), text.argmax(dim=1) + 1], dim=1).float()

    def encode_image(self, image: Tensor, /) -> Tensor:
        return image.flatten(1)[:, :2] + 1


class Largest(TorchFunctionMode):
    """Records the number of elements of the largest tensor that an operation returns."""

    elements = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_the_features_of_all_captions_are_never_in_memory_at_once() -> None:
    recorder = Recorder()
    labels = [f"label {number}" for number in range(2_000)]
    with Largest() as largest:
        classifier = ZeroShotClassifier(recorder, labels, [f"{{}} {n}" for n in range(80)])
    assert classifier.weights.shape == (2, 2_000)
    assert sum(recorder.sizes) == 160_000
    assert max(recorder.sizes) == 240  # the captions of three labels
    assert largest.elements < 10_000  # the features of all captions are 320,000 numbers


def test_a_label_with_more_captions_than_fit_is_encoded_in_parts() -> None:
    recorder = Recorder()
    ZeroShotClassifier(recorder, ["a", "b"], [f"{{}} {n}" for n in range(600)])
    assert recorder.sizes == [256, 256, 88] * 2


def test_progress_is_counted_in_captions(model: hfclip.CLIP) -> None:
    told: list[int] = []
    labels = [f"label {number}" for number in range(200)]
    rows = label_features(model, labels, ["a {}", "{}", "the {}"], on_progress=told.append)
    assert told == [255, 255, 90]
    assert torch.equal(
        rows.t(), ZeroShotClassifier(model, labels, ["a {}", "{}", "the {}"]).weights
    )


def test_cached_features_give_the_same_probabilities(model: hfclip.CLIP, images: Tensor) -> None:
    labels = ["one", "two", "three"]
    rows = label_features(model, labels)
    kept = ZeroShotClassifier(model, labels, features=rows)
    new = ZeroShotClassifier(model, labels)
    assert torch.equal(kept.probabilities(images), new.probabilities(images))
    with pytest.raises(hfclip.ShapeError, match=r"float32 \(3, 64\) on cpu; .* each of the 2"):
        ZeroShotClassifier(model, ["one", "two"], features=rows)


def as_files(pictures: list[Image.Image], folder: Path) -> list[Path]:
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    return sorted(folder.iterdir())


KINDS: dict[str, Callable[[list[Image.Image], Path], Any]] = {
    "PIL images": lambda pictures, folder: pictures,
    "paths": as_files,
    "names": lambda pictures, folder: [str(path) for path in as_files(pictures, folder)],
    "bytes": lambda pictures, folder: [p.read_bytes() for p in as_files(pictures, folder)],
    "a tuple of several": lambda pictures, folder: (pictures[0], *as_files(pictures, folder)[1:]),
    "a generator": lambda pictures, folder: (picture for picture in pictures),
    "names in NumPy": lambda pictures, folder: np.array(list(map(str, as_files(pictures, folder)))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_every_type_are_ranked_like_their_pixels(
    classifier: ZeroShotClassifier, pictures: list[Image.Image], tmp_path: Path, kind: str
) -> None:
    _, preprocess = hfclip.load("digits", device="cpu")
    pixels = torch.stack([preprocess(picture) for picture in pictures])
    given = KINDS[kind](pictures, tmp_path)
    ranked = classifier.rank(given, top=2)
    assert [guesses[0].label for guesses in ranked] == ["seven", "two", "nine"]
    assert ranked == classifier.rank(pixels, top=2)


@pytest.mark.parametrize("kind", ["PIL images", "paths", "names", "bytes"])
def test_one_picture_is_a_batch_of_one(
    classifier: ZeroShotClassifier, pictures: list[Image.Image], tmp_path: Path, kind: str
) -> None:
    one = KINDS[kind](pictures, tmp_path)[0]
    assert classifier.rank(one) == classifier.rank([one])
    assert classifier.probabilities(one).shape == (1, 3)
    assert classifier.rank(one)[0][0].label == "seven"


def test_many_pictures_are_read_in_batches(
    classifier: ZeroShotClassifier, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    encode = hfclip.CLIP.encode_image

    def counted(model: hfclip.CLIP, image: Tensor) -> Tensor:
        sizes.append(len(image))
        return encode(model, image)

    monkeypatch.setattr(hfclip.CLIP, "encode_image", counted)
    ranked = classifier.rank(pictures[i % 3] for i in range(150))
    assert sizes == [64, 64, 22]
    assert [guesses[0].label for guesses in ranked] == ["seven", "two", "nine"] * 50


def test_no_pictures_give_no_rows(classifier: ZeroShotClassifier) -> None:
    assert classifier.probabilities([]).shape == (0, 3)
    assert classifier.probabilities([]).dtype == torch.float32
    assert classifier.rank([]) == []


def test_a_picture_that_cannot_be_read_is_an_error_that_names_it(
    classifier: ZeroShotClassifier, pictures: list[Image.Image], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(hfclip.ImageError, match=r"broken\.png: not a picture"):
        classifier.rank([pictures[0], tmp_path / "broken.png"])
    with pytest.raises(hfclip.ImageError, match=r"missing\.png: no such file"):
        classifier.rank("missing.png")


def test_pictures_are_prepared_by_the_given_preprocess(
    model: hfclip.CLIP, pictures: list[Image.Image]
) -> None:
    dark = ZeroShotClassifier(model, ["two", "seven"], preprocess=lambda _: torch.zeros(3, 32, 32))
    expected = dark.probabilities(torch.zeros(1, 3, 32, 32))
    assert torch.equal(dark.probabilities(pictures[0]), expected)


def test_a_model_without_a_configuration_needs_a_preprocess_for_pictures(
    pictures: list[Image.Image],
) -> None:
    classifier = ZeroShotClassifier(Recorder(), ["two", "seven"])
    assert classifier.probabilities(torch.zeros(2, 3, 5, 5)).shape == (2, 2)
    with pytest.raises(hfclip.ArgumentError, match="Pass `preprocess` to the classifier"):
        classifier.rank(pictures)
    with pytest.raises(hfclip.ShapeError, match=r"floating-point torch\.Tensor \(B, 3, S, S\)"):
        classifier.rank(torch.zeros(3, 5, 5))


@pytest.mark.parametrize("optimized", [False, True], ids=["model", "optimized"])
@pytest.mark.parametrize(
    ("images", "found"),
    [
        (torch.zeros(3, 32, 32), "float32 (3, 32, 32) on cpu"),
        (torch.zeros(2, 3, 224, 224), "float32 (2, 3, 224, 224) on cpu"),
        (torch.zeros(2, 1, 32, 32), "float32 (2, 1, 32, 32) on cpu"),
        (torch.zeros(2, 32, 32, 3), "float32 (2, 32, 32, 3) on cpu"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "uint8 (2, 3, 32, 32) on cpu"),
        (torch.zeros(()), "float32 () on cpu"),
        (np.zeros((2, 3, 32, 32), np.float32), "a ndarray of shape (2, 3, 32, 32)"),
        ([np.zeros((3, 32, 32))], "a list of a ndarray of shape (3, 32, 32)"),
        ([torch.zeros(3, 32, 32)], "a list of float32 (3, 32, 32) on cpu"),
        (None, "a NoneType"),
        (7, "a int"),
        ([None], "a list of a NoneType"),
        ({0.5: "x.png"}.keys(), "a dict_keys of a float"),
        ([str(DIGITS / "one.png"), np.zeros(3)], "a list of a ndarray of shape (3,)"),
    ],
)
def test_images_with_a_wrong_shape_or_dtype_are_refused(
    model: hfclip.CLIP, images: Any, found: str, optimized: bool
) -> None:
    encoder = hfclip.optimize(model) if optimized else model
    classifier = ZeroShotClassifier(encoder, ["one", "two"])
    with pytest.raises(hfclip.ShapeError) as caught:
        classifier.rank(images)
    expected = "expected a floating-point torch.Tensor (B, 3, 32, 32)"
    assert f"The images are {found}; {expected}" in str(caught.value)


def test_an_error_for_an_image_without_a_batch_dimension_says_so(
    classifier: ZeroShotClassifier,
) -> None:
    with pytest.raises(hfclip.ShapeError, match=r"image\.unsqueeze\(0\)"):
        classifier.rank(torch.zeros(3, 32, 32))


@pytest.mark.parametrize("top", [0, -1])
def test_fewer_than_one_label_is_refused(
    classifier: ZeroShotClassifier, images: Tensor, top: int
) -> None:
    with pytest.raises(hfclip.ArgumentError, match=f"`top` is {top}; expected at least 1"):
        classifier.rank(images, top)
