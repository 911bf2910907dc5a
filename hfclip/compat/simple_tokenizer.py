"""Replaces `clip.simple_tokenizer`: the byte-pair tokenizer with its tables as attributes.

`encode` and `decode` call `hfclip.text` as long as no table was accessed. The first access to
a table builds them all. From then on, and in subclasses, the tables are used, so edits take effect.
"""

import gzip
import html
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import ftfy
import regex as re
from huggingface_hub import constants

from hfclip.text import vocabulary as tokenizer_files
from hfclip.text.bpe import VOCAB_SIZE, shared_tokenizer
from hfclip.text.vocabulary import END, START

_WORD_END = "</w>"
_MERGES = VOCAB_SIZE - 512 - 2  # merges to read; the file may contain more
_TABLES = frozenset(
    {"bpe_ranks", "byte_decoder", "byte_encoder", "cache", "decoder", "encoder", "pat"}
)


@cache
def default_bpe() -> str:
    """Returns the path of OpenAI's merges file: gzip, a title line, then one pair per line.

    The first call writes the file to `hfclip` in the Hub's home folder, or to a temporary folder if
    that is not writable.
    """
    lines = ["#version: 0.2", *map(" ".join, tokenizer_files.merges()), ""]
    content = gzip.compress("\n".join(lines).encode(), mtime=0)
    try:
        return _written(Path(constants.HF_HOME) / "hfclip", content)
    except OSError:  # the home folder is read-only
        return _written(Path(tempfile.mkdtemp(prefix="hfclip-")), content)


def _written(folder: Path, content: bytes) -> str:
    path = folder / "bpe_simple_vocab_16e6.txt.gz"
    if not path.is_file() or path.read_bytes() != content:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as unfinished:
            unfinished.write(content)
        Path(unfinished.name).replace(path)
    return str(path)


@cache
def bytes_to_unicode() -> dict[int, str]:
    """Returns the character for each byte: the Latin-1 character if it is printable."""
    return tokenizer_files.byte_characters()


def get_pairs(word: Sequence[str]) -> set[tuple[str, str]]:
    """Returns the pairs of adjacent symbols of a word."""
    return set(pairwise(word))


def basic_clean(text: str) -> str:
    """Fixes encoding errors, resolves HTML character references, and strips the text."""
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def whitespace_clean(text: str) -> str:
    """Replaces each run of white space with one space, and strips the text."""
    squeezed: str = re.sub(r"\s+", " ", text)
    return squeezed.strip()


class SimpleTokenizer:
    """Converts text to token ids and back, with tables that code may read and edit.

    Args:
        bpe_path: A gzip file of merges: a title line, then one pair per line. By default OpenAI's.

    Attributes:
        encoder: Token -> id.
        decoder: Id -> token.
        bpe_ranks: Pair of symbols -> rank of the merge. The lowest rank merges first.
        byte_encoder: Byte -> character that represents it.
        byte_decoder: Character -> byte.
        cache: Word, in the characters of `byte_encoder` -> its tokens, joined by spaces.
        pat: Pattern that matches the words of a text.
    """

    encoder: dict[str, int]
    decoder: dict[int, str]
    bpe_ranks: dict[tuple[str, str], int]
    byte_encoder: dict[int, str]
    byte_decoder: dict[str, int]
    cache: dict[str, str]
    pat: Any

    def __init__(self, bpe_path: str | Path | None = None) -> None:
        if bpe_path is not None:
            vars(self).update(_tables(_read_merges(Path(bpe_path).expanduser())))

    def __getattr__(self, name: str) -> Any:
        if name not in _TABLES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        for table, value in _tables(tokenizer_files.merges()).items():
            vars(self).setdefault(table, value)
        return vars(self)[name]

    def is_untouched(self) -> bool:
        """Returns whether no table was accessed and no method or function was replaced."""
        return type(self) is SimpleTokenizer and not vars(self) and _steps() == _own_steps

    def bpe(self, token: str) -> str:
        """Returns the tokens of a word in the characters of `byte_encoder`, joined by spaces."""
        if token in self.cache:
            return self.cache[token]
        word = [*token[:-1], token[-1] + _WORD_END]
        if len(word) == 1:
            return token + _WORD_END
        while len(word) > 1:
            pair = min(get_pairs(word), key=lambda pair: self.bpe_ranks.get(pair, float("inf")))
            if pair not in self.bpe_ranks:
                break
            word = _merged(word, pair)
        self.cache[token] = " ".join(word)
        return self.cache[token]

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text, without the start and end tokens."""
        if self.is_untouched():
            return shared_tokenizer().encode(text)
        ids: list[int] = []
        for piece in re.findall(self.pat, whitespace_clean(basic_clean(text)).lower()):
            spelled = "".join(self.byte_encoder[byte] for byte in piece.encode())
            ids.extend(self.encoder[token] for token in self.bpe(spelled).split(" "))
        return ids

    def decode(self, tokens: Iterable[int]) -> str:
        """Returns the text of token ids: lower case, with a space after each word."""
        if self.is_untouched():
            return shared_tokenizer().decode(list(tokens))
        spelled = "".join(self.decoder[token] for token in tokens)
        text = bytes(self.byte_decoder[character] for character in spelled)
        return text.decode(errors="replace").replace(_WORD_END, " ")


def _merged(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Merges each occurrence of the pair, from left to right."""
    merged: list[str] = []
    place = 0
    while place < len(word):
        size = 2 if tuple(word[place : place + 2]) == pair else 1
        merged.append("".join(word[place : place + size]))
        place += size
    return merged


def _read_merges(path: Path) -> list[tuple[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")[1 : 1 + _MERGES]
    return [(left, right) for left, right in (line.split() for line in lines if line.strip())]


def _tables(merges: Sequence[tuple[str, str]]) -> dict[str, Any]:
    characters = list(bytes_to_unicode().values())
    words = [character + _WORD_END for character in characters]
    tokens = [*characters, *words, *map("".join, merges), START, END]
    return {
        "encoder": {token: index for index, token in enumerate(tokens)},
        "decoder": dict(enumerate(tokens)),
        "bpe_ranks": {pair: rank for rank, pair in enumerate(merges)},
        "byte_encoder": bytes_to_unicode(),
        "byte_decoder": {character: byte for byte, character in bytes_to_unicode().items()},
        "cache": {START: START, END: END},
        "pat": re.compile(
            r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
            r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
            re.IGNORECASE,
        ),
    }


def _steps() -> tuple[object, ...]:
    """Returns the methods and functions that code may replace to change the tokenizer."""
    own = (SimpleTokenizer.bpe, SimpleTokenizer.encode, SimpleTokenizer.decode)
    return (*own, SimpleTokenizer.__init__, basic_clean, whitespace_clean, get_pairs)


_own_steps = _steps()
