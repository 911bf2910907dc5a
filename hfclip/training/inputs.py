"""The data set of a training: its digest, a part of it, and whether its captions fit."""

import json
from dataclasses import replace
from hashlib import sha256

import numpy as np

from hfclip.data.records import Dataset
from hfclip.text.tokenizer import tokenize
from hfclip.zeroshot.labels import make_caption


def data_digest(data: Dataset) -> str:
    """Returns the sha256 of all pictures, captions and labels by split, in hexadecimal.

    It is the same for the same data in another format.
    """
    found = sha256(json.dumps(data.labels).encode())
    for split in (data.train, data.validation, data.test):
        found.update(f"{len(split)}\n".encode())
        for example in split:
            row = (example.digest, example.captions, example.label)
            found.update(f"{json.dumps(row)}\n".encode())
    return found.hexdigest()


def limited(data: Dataset, limit: int | None, seed: int) -> Dataset:
    """Returns a data set with at most `limit` training pictures, drawn by the seed."""
    if limit is None or limit >= len(data.train):
        return data
    order = np.random.default_rng(seed).permutation(len(data.train))
    rows = sorted(order[:limit].tolist())
    return replace(data, train=tuple(data.train[row] for row in rows))


def check_labels_fit(data: Dataset, template: str, context_length: int) -> None:
    """Raises an error if a label in the template is too long for the model.

    A caption of the data that is too long is cut; `read_dataset` notes it.

    Raises:
        TextTooLongError: A label in the template has more tokens than the context length.
    """
    tokenize([make_caption(template, label) for label in data.labels or ()], context_length)
