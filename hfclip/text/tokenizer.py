"""Makes batches of token ids from texts, and texts from token ids."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from hfclip.errors import ArgumentError, ArgumentTypeError, NeedsTorchError, TextTooLongError
from hfclip.text.bpe import END_TOKEN, START_TOKEN, described, shared_tokenizer, shortened

if TYPE_CHECKING:
    import torch

TokenIds: TypeAlias = "np.ndarray[Any, np.dtype[np.int32]]"

_ID_BYTES = array("i").itemsize
_START = array("i", [START_TOKEN]).tobytes()
_END = array("i", [END_TOKEN]).tobytes()


def tokenize(
    texts: str | Iterable[str],
    context_length: int = 77,
    truncate: bool = False,
    *,
    padding: Literal["max_length", "longest"] = "max_length",
) -> "torch.Tensor":
    """Encodes texts as a batch of token ids.

    A row has a start token, the text, an end token, and zeros as padding.

    Args:
        texts: One text, or any iterable of texts: a list, a generator, an array or a column.
        context_length: The largest number of tokens in a row. It is 77 for every OpenAI model.
        truncate: Whether to cut a text that is too long. The end token stays last.
        padding: "max_length" pads rows to `context_length`, "longest" to the longest row.

    Returns:
        An int32 tensor of shape (n, width).

    Raises:
        TextTooLongError: A text has too many tokens and `truncate` is False.
        ArgumentTypeError: A text is not a string, or `texts` is a mapping, a set, a table or bytes.
        ArgumentError: `context_length` is below 2, or `padding` has another value.
        NeedsTorchError: torch is not installed.
    """
    ids = token_ids(texts, context_length, truncate, padding=padding)
    try:
        import torch  # noqa: PLC0415  # `token_ids` needs no torch
    except ModuleNotFoundError as error:
        raise NeedsTorchError(
            "hfclip.tokenize needs torch: pip install torch torchvision. hfclip.light.tokenize "
            "returns an array of NumPy."
        ) from error
    return torch.from_numpy(ids)


def token_ids(
    texts: str | Iterable[str],
    context_length: int = 77,
    truncate: bool = False,
    *,
    padding: Literal["max_length", "longest"] = "max_length",
) -> TokenIds:
    """Encodes texts as `tokenize` does, without torch: int32 (n, width)."""
    if context_length < 2:
        raise ArgumentError(
            f"context_length is {context_length}: a row needs 2 for its start and end tokens"
        )
    if padding not in ("max_length", "longest"):
        raise ArgumentError(f"padding is {padding!r}, expected 'max_length' or 'longest'")
    rows: list[bytes] = []
    for text in _batch(texts):
        if not isinstance(text, str):
            raise ArgumentTypeError(
                f"texts[{len(rows)}] is {described(text)}; every text must be a str"
            )
        rows.append(_row(text, context_length, truncate))
    longest = max(map(len, rows), default=0) // _ID_BYTES
    return _stack(rows, context_length if padding == "max_length" else longest)


def decode(tokens: "Sequence[int] | torch.Tensor", *, skip_special_tokens: bool = False) -> str:
    """Returns the text of ids, see `Tokenizer.decode`."""
    return shared_tokenizer().decode(tokens, skip_special_tokens=skip_special_tokens)


def _batch(texts: object) -> Iterable[object]:
    if isinstance(texts, str):
        return [texts]
    # Iteration over a mapping or a table yields keys, over bytes integers. A set has no order.
    is_table = getattr(texts, "ndim", 1) != 1
    if isinstance(texts, Iterable) and not is_table and not isinstance(texts, _NO_TEXTS):
        return texts
    raise ArgumentTypeError(
        f"texts must be a str or a sequence of str, not {described(texts)}. Pass the list or the "
        "column of texts."
    )


_NO_TEXTS = (Mapping, set, frozenset, bytes, bytearray, memoryview)


def _row(text: str, context_length: int, truncate: bool) -> bytes:
    packed = shared_tokenizer().pack(text)
    limit = (context_length - 2) * _ID_BYTES
    if len(packed) > limit:
        if not truncate:
            raise TextTooLongError(
                f"Input {shortened(text)} is too long for context length {context_length}: "
                f"it has {len(packed) // _ID_BYTES + 2} tokens, including the start and end "
                "tokens. Pass truncate=True to cut it."
            )
        packed = packed[:limit]
    return _START + packed + _END


def _stack(rows: list[bytes], width: int) -> TokenIds:
    if not rows:
        return np.zeros((0, width), np.int32)
    stride = width * _ID_BYTES
    flat = bytearray(len(rows) * stride)
    for begin, row in zip(range(0, len(flat), stride), rows, strict=True):
        flat[begin : begin + len(row)] = row
    return np.frombuffer(flat, np.int32).reshape(len(rows), width)
