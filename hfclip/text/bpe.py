"""The byte-pair tokenizer: encodes text as token ids and back, with exactly OpenAI's results.

It is fast for three reasons:

- OpenAI's cleaning changes printable ASCII without a character reference only in case and white
  space. Such text skips the cleaning.
- A token never contains white space, so the ids of a word depend on the word alone. They are
  computed once and kept.
- The ids are kept as packed int32. One `bytes.join` makes a row, without Python integers.

benchmarks/RESULTS.md ("Tokenize") counts captions per second: 39,010 the first time and 145,419
with the same captions again. clip reaches 11,541 and 14,719, and the Rust library tokenizers
13,787 and 13,391.
"""

import html
import re
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from heapq import heapify, heappop, heappush
from itertools import chain, count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import is_normalized

from hfclip.errors import ArgumentError, ArgumentTypeError, UnknownTokenError

if TYPE_CHECKING:
    import torch

_K = TypeVar("_K")
_V = TypeVar("_V")

START_TOKEN = 49406
END_TOKEN = 49407
VOCAB_SIZE = 49408

# The 256 bytes in the order of their ids. Bytes that are printable in Latin-1 come first. A byte at
# the end of a word has its id plus 256. The merges follow after these 512 ids.
PRINTING_BYTES = bytes(b for b in range(256) if chr(b).isprintable() and b != 0x20)
BYTES_BY_ID = PRINTING_BYTES + bytes(b for b in range(256) if b not in PRINTING_BYTES)
FIRST_MERGED_ID = 512
MERGES_FILE = Path(__file__).with_name("merges.bin")

_ID_OF_BYTE = bytes(BYTES_BY_ID.index(b) for b in range(256))
_WORD_END = b"</w>"
_SPECIAL = {"<|startoftext|>": START_TOKEN, "<|endoftext|>": END_TOKEN}

_MOST_KEPT = 2**18  # words in a cache, about 50 MB; a full cache is cleared
_LONGEST_KEPT_WORD = 64
_LONGEST_LINE = 10_000  # ftfy splits much longer lines
_LONGEST_QUOTE = 200

_printable_ascii = re.compile(r"[\t\n\f\r -~]*").fullmatch
# Matches the beginning of every character reference that ftfy or html replaces.
_maybe_reference = re.compile(r"&[^\t\n\f <&;]").search
# ftfy splits a text at line ends, and deletes the sequence that an escape character begins.
_needs_context = re.compile(r"[\n\x1b]").search
_MARKS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
_ascii_pieces = re.compile(_MARKS + r"|[a-z]+|[0-9]|[^a-z0-9]+").findall


class Tokenizer:
    """Encodes text as token ids and decodes ids, exactly as OpenAI's `SimpleTokenizer`.

    Ids are 0 to 49407. The last two are the start and the end token, which `tokenize` adds and
    `encode` does not. Threads may share a tokenizer.
    """

    def __init__(self) -> None:
        self._packed = _PackedWords(_read_merges())

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without start and end token.

        Args:
            text: Any string. Case, white space and broken encoding are normalised.

        Returns:
            The token ids. An empty text has none.

        Raises:
            ArgumentTypeError: `text` is not a string.
        """
        return memoryview(self.pack(text)).cast("i").tolist()

    def pack(self, text: str) -> bytes:
        """Returns the ids of `encode`, packed as int32 in the machine's byte order.

        Raises:
            ArgumentTypeError: `text` is not a string.
        """
        if not isinstance(text, str):
            raise ArgumentTypeError(f"a text to tokenize must be a str, not {described(text)}")
        return b"".join(map(self._packed.__getitem__, _words(text)))

    def decode(
        self, tokens: "Sequence[int] | torch.Tensor", *, skip_special_tokens: bool = False
    ) -> str:
        """Returns the text of ids, in lower case, with a space after each word and mark.

        Args:
            tokens: The ids, as a sequence or as a tensor of shape (n,) with an integer dtype.
            skip_special_tokens: Whether to omit the start token and everything from the first end
                token on. Otherwise padding appears as '!'.

        Raises:
            UnknownTokenError: An id is not in the vocabulary.
            ArgumentError: `tokens` is a tensor that does not have one dimension.
        """
        ids = _row_of_ids(tokens)
        if skip_special_tokens:
            ids = ids[: ids.index(END_TOKEN)] if END_TOKEN in ids else ids
            ids = [token for token in ids if token != START_TOKEN]
        strings = _strings_by_id()
        unknown = next((token for token in ids if token not in strings), None)
        if unknown is not None:
            raise UnknownTokenError(
                f"token id {unknown!r} is not in the vocabulary, 0 to {VOCAB_SIZE - 1}"
            )
        text = b"".join(map(strings.__getitem__, ids)).decode(errors="replace")
        return text.replace(_WORD_END.decode(), " ")


def _words(text: str) -> list[str]:
    """Splits a text into lower-case words after OpenAI's cleaning."""
    if _is_plain(text):
        return text.lower().split()
    return _cleaner().clean(text).split(" ")


def _is_plain(text: str) -> bool:
    """Returns whether OpenAI's cleaning changes only the case and white space of a text."""
    return bool(_printable_ascii(text)) and not ("&" in text and _maybe_reference(text))


class _Cleaner:
    """Cleans any text as OpenAI does, and splits words that are not ASCII into pieces."""

    def __init__(self) -> None:
        # Imported here because most texts do not need them.
        import ftfy  # noqa: PLC0415
        import regex  # noqa: PLC0415
        from ftfy.badness import is_bad  # noqa: PLC0415
        from ftfy.fixes import unescape_html  # noqa: PLC0415

        pieces = _MARKS + r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
        self.pieces: Callable[[str], list[str]] = regex.compile(pieces, regex.IGNORECASE).findall
        self._squeeze: Callable[[str, str], str] = regex.compile(r"\s+").sub
        self._fix_text: Callable[[str], str] = ftfy.fix_text
        self._is_mojibake: Callable[[str], bool] = is_bad
        self._unescape: Callable[[str], str] = unescape_html
        self._fixed_alone = _FixedAlone(ftfy.fix_text)

    def clean(self, text: str) -> str:
        # These are OpenAI's steps in OpenAI's order. `\s` of regex, str.strip and str.split differ
        # in what is white space, so none can replace another.
        text = html.unescape(html.unescape(self._fixed(text))).strip()
        return self._squeeze(" ", text).strip().lower()

    def _fixed(self, text: str) -> str:
        """Returns `ftfy.fix_text(text)`, in half the time for most texts.

        For each line ftfy repeats these steps until nothing changes: it replaces character
        references, repairs mojibake, fixes characters one by one (terminal escapes aside) and
        composes them. The fast path is for lines that are final after at most one round.
        """
        if len(text) <= _LONGEST_LINE and not _needs_context(text):
            unescaped = text if "<" in text else self._unescape(text)
            if unescaped.isascii() or not self._is_mojibake(unescaped):
                fixed = unescaped.translate(self._fixed_alone)
                if _is_plain(fixed) or (text == unescaped == fixed and is_normalized("NFC", text)):
                    return fixed
        return self._fix_text(text)


class _FixedAlone(dict[int, str]):
    """Maps the code of a character to ftfy's result for that character alone."""

    def __init__(self, fix_text: Callable[[str], str]) -> None:
        self._fix_text = fix_text

    def __missing__(self, code: int) -> str:
        fixed = self._fix_text(chr(code))
        _keep(self, code, fixed)
        return fixed


@cache
def _cleaner() -> _Cleaner:
    return _Cleaner()


class _PackedWords(dict[str, bytes]):
    """Maps a word to its ids, packed as int32, which it computes at the first access.

    Two threads may compute a new word at once. Both get the same ids, so no lock is needed.
    """

    def __init__(self, merges: dict[int, int]) -> None:
        self._merges = merges

    def __missing__(self, word: str) -> bytes:
        pieces = _ascii_pieces(word) if word.isascii() else _cleaner().pieces(word)
        packed = array("i", chain.from_iterable(map(self._ids, pieces))).tobytes()
        if len(word) <= _LONGEST_KEPT_WORD:
            _keep(self, word, packed)
        return packed

    def _ids(self, piece: str) -> list[int]:
        if piece in _SPECIAL:
            return [_SPECIAL[piece]]
        symbols = list(piece.encode().translate(_ID_OF_BYTE))
        symbols[-1] += 256
        return _merged(symbols, self._merges)


def _keep(known: dict[_K, _V], key: _K, value: _V) -> None:
    if len(known) >= _MOST_KEPT:
        known.clear()
    known[key] = value


def _merged(symbols: list[int], merges: dict[int, int]) -> list[int]:
    """Merges neighbours: the earliest merge first, and for one merge the leftmost place first.

    The queue avoids a search of the whole word for each merge. OpenAI's rounds have the same
    result: only later merges use the symbol that a merge makes, and no other merge makes it.
    Therefore a merge never creates a place for itself or for an earlier merge.
    """
    queue = [
        joined << 32 | left
        for left, (first, second) in enumerate(pairwise(symbols))
        if (joined := merges.get(first << 16 | second))
    ]
    heapify(queue)
    ids = [*symbols, -1]  # -1 is next to the last and the first symbol; no merge contains it
    after = list(range(1, len(ids) + 1))
    before = list(range(-1, len(ids) - 1))
    while queue:
        joined, left = divmod(heappop(queue), 1 << 32)
        right = after[left]
        if merges.get(ids[left] << 16 | ids[right]) != joined:
            continue  # an earlier merge has used one of the two
        ids[left], ids[right] = joined, -1
        after[left] = following = after[right]
        before[following] = left
        for place, neighbour in ((before[left], left), (left, following)):
            if joined := merges.get(ids[place] << 16 | ids[neighbour], 0):
                heappush(queue, joined << 32 | place)
    return [token for token in ids if token >= 0]


@cache
def shared_tokenizer() -> Tokenizer:
    """Returns the tokenizer that all of hfclip uses: a new one reads the merges again."""
    return Tokenizer()


def _read_merges() -> dict[int, int]:
    """Returns the id of each merge by its two ids, as `left << 16 | right`."""
    data = MERGES_FILE.read_bytes()
    half = len(data) // 2
    left, right = data[:half], data[half:]
    keys = bytearray(2 * half)  # little-endian, the right id in the lower bytes
    keys[0::4], keys[1::4] = right[0::2], right[1::2]
    keys[2::4], keys[3::4] = left[0::2], left[1::2]
    return dict(zip(struct.unpack(f"<{half // 2}I", keys), count(FIRST_MERGED_ID), strict=False))


def merge_pairs() -> Iterable[tuple[int, int]]:
    """Reads the two ids of each merge. The first merge makes the id `FIRST_MERGED_ID`."""
    data = MERGES_FILE.read_bytes()
    numbers = struct.unpack(f"<{len(data) // 2}H", data)
    return zip(numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :], strict=True)


@cache
def _strings_by_id() -> dict[int, bytes]:
    strings = [bytes([byte]) for byte in BYTES_BY_ID]
    strings += [string + _WORD_END for string in strings]
    for left, right in merge_pairs():
        strings.append(strings[left] + strings[right])
    return dict(enumerate([*strings, *map(str.encode, _SPECIAL)]))


def _row_of_ids(tokens: Any) -> list[int]:
    if hasattr(tokens, "tolist"):  # a tensor, without an import of torch
        if tokens.ndim != 1:
            raise ArgumentError(
                f"tokens has shape {tuple(tokens.shape)}, expected (n,): decode row by row"
            )
        ids: list[int] = tokens.tolist()
        return ids
    return list(tokens)


def described(found: object) -> str:
    """Returns the value and type of an argument for a message."""
    return f"{shortened(repr(found))} of type {type(found).__name__}"


def shortened(text: str) -> str:
    """Returns a text for a message, cut if it is long."""
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."
