"""Classifies pictures, and compares them with captions. The results do not depend on the page."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hfclip.app.demo import Demo
from hfclip.app.limits import check_count, check_picture, read_captions, read_labels, read_templates
from hfclip.app.times import Watch
from hfclip.errors import ImageError
from hfclip.images.reading import open_picture
from hfclip.network.layers import normalize
from hfclip.zeroshot.classifier import ZeroShotClassifier, label_features

if TYPE_CHECKING:
    from torch import Tensor

    from hfclip.zeroshot.labels import Guess

# Pictures per batch.
_BATCH = 16
# The beginning of a cell that a spreadsheet takes for a formula. Negative numbers are none.
_FORMULA = re.compile(r"[=+@\t\r]|-(?!\d+\.\d+$)")


class Classified(NamedTuple):
    """A picture with its ranked labels, or the error why it has none.

    Attributes:
        name: The name of the file.
        outcome: The labels, most probable first, or the error.
    """

    name: str
    outcome: "list[Guess] | ImageError"


class Comparison(NamedTuple):
    """The cosine similarities of pictures and captions.

    Attributes:
        names: The names of the P pictures that could be read.
        paths: Their files.
        captions: The C captions.
        cosines: The similarities (P, C), float32.
        errors: The errors of the other pictures.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    captions: tuple[str, ...]
    cosines: NDArray[np.float32]
    errors: tuple[ImageError, ...]


def classify(
    demo: Demo, paths: Sequence[str], labels: str, templates: str, watch: Watch
) -> list[Classified]:
    """Ranks labels for pictures. A picture that cannot be read does not stop the others.

    Args:
        demo: The model.
        paths: The files of the pictures.
        labels: The labels, one a line.
        templates: The templates, one a line.
        watch: Measures the steps.

    Raises:
        ImageError: There is no picture, or there are too many.
        LabelError: The labels or templates are missing, too long or too many.
        TextTooLongError: A caption has more tokens than the model reads.
    """
    check_count(len(paths), demo.limits)
    chosen = read_labels(labels, demo.limits)
    forms = read_templates(templates, len(chosen), demo.limits)
    model = demo.loaded.model
    with watch.step("encoding the labels"):
        features = demo.label_features.get(
            (chosen, forms), lambda: label_features(model, chosen, forms)
        )
    classifier = ZeroShotClassifier(model, chosen, features=features)
    found: list[Classified] = []
    for begin in range(0, len(paths), _BATCH):
        names, pixels = _read(demo, paths[begin : begin + _BATCH], watch)
        with watch.step("encoding the pictures"):
            ranked = iter(classifier.rank(torch.stack(_good(pixels))) if _good(pixels) else [])
        found += [
            Classified(name, one if isinstance(one, ImageError) else next(ranked))
            for name, one in zip(names, pixels, strict=True)
        ]
    return found


@torch.no_grad()
def compare(demo: Demo, paths: Sequence[str], captions: str, watch: Watch) -> Comparison:
    """Computes the cosine similarity of each picture and each caption.

    Args:
        demo: The model.
        paths: The files of the pictures.
        captions: The captions, one a line. They are used as they are.
        watch: Measures the steps.

    Raises:
        ImageError: There is no picture, there are too many, or none can be read.
        LabelError: The captions are missing, too long or too many.
        TextTooLongError: A caption has more tokens than the model reads.
    """
    check_count(len(paths), demo.limits)
    texts = read_captions(captions, demo.limits)
    model = demo.loaded.model
    with watch.step("encoding the captions"):
        columns = demo.label_features.get(
            (texts, ("{}",)), lambda: label_features(model, texts, ("{}",))
        )
    rows: list[Tensor] = []
    outcomes: list[str | ImageError] = []
    for begin in range(0, len(paths), _BATCH):
        names, pixels = _read(demo, paths[begin : begin + _BATCH], watch)
        outcomes += [
            one if isinstance(one, ImageError) else name
            for name, one in zip(names, pixels, strict=True)
        ]
        if good := _good(pixels):
            with watch.step("encoding the pictures"):
                batch = torch.stack(good).to(model.logit_scale.device)
                rows.append(normalize(model.encode_image(batch)))
    errors = tuple(one for one in outcomes if isinstance(one, ImageError))
    if not rows:
        first = errors[0]
        raise first
    cosines = (torch.cat(rows).float() @ columns.float().t()).cpu().numpy()
    named = [(one, path) for one, path in zip(outcomes, paths, strict=True) if isinstance(one, str)]
    read, files = zip(*named, strict=True)
    return Comparison(read, files, texts, cosines, errors)


def table_of(found: Sequence[Classified]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of a table of labels: one row for each picture."""
    rows = []
    for name, outcome in found:
        if isinstance(outcome, ImageError):
            rows.append([name, "", "", str(outcome)])
        else:
            others = ", ".join(f"{label} {chance:.1%}" for label, chance in outcome[1:4])
            rows.append([name, outcome[0].label, f"{outcome[0].probability:.1%}", others])
    return ["picture", "label", "probability", "next labels"], rows


def csv_of_labels(found: Sequence[Classified]) -> str:
    """Returns a CSV file with a row for each picture and label."""
    rows: list[Sequence[Any]] = [("picture", "label", "probability", "error")]
    for name, outcome in found:
        if isinstance(outcome, ImageError):
            rows.append((name, "", "", str(outcome)))
        else:
            rows += [(name, label, f"{chance:.6f}", "") for label, chance in outcome]
    return _csv(rows)


def csv_of_cosines(comparison: Comparison) -> str:
    """Returns a CSV file with a row for each picture and a column for each caption."""
    rows: list[Sequence[Any]] = [("picture", *comparison.captions)]
    rows += [
        (name, *(f"{cosine:.6f}" for cosine in cosines))
        for name, cosines in zip(comparison.names, comparison.cosines.tolist(), strict=True)
    ]
    return _csv(rows)


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([[_plain(cell) for cell in row] for row in rows])
    return text.getvalue()


def _plain(cell: Any) -> str:
    """Returns a cell that spreadsheets do not run as a formula."""
    text = str(cell)
    return f"'{text}" if _FORMULA.match(text) else text


def _good(pixels: "Sequence[Tensor | ImageError]") -> "list[Tensor]":
    return [one for one in pixels if not isinstance(one, ImageError)]


def _read(
    demo: Demo, paths: Sequence[str], watch: Watch
) -> "tuple[list[str], list[Tensor | ImageError]]":
    """Returns the names of pictures, and the pixels (3, S, S) or the error of each."""
    names = [Path(path).name for path in paths]
    with watch.step("reading"):
        return names, [_pixels(demo, path, name) for path, name in zip(paths, names, strict=True)]


def _pixels(demo: Demo, path: str, name: str) -> "Tensor | ImageError":
    try:
        check_picture(path, name, demo.limits, demo.resized)
        with open_picture(path, name=name) as image:
            pixels: Tensor = demo.preprocess(image)
            return pixels
    except ImageError as error:
        return error
    except MemoryError:
        return ImageError(f"{name}: too large for the memory of this machine.")
