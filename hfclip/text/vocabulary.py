"""Makes the tokenizer files of transformers.

These files write a byte as one character: itself if it is printable in Latin-1, else a character
from U+0100 on. hfclip does not read them. Its merges are in merges.bin.
"""

import functools
import json

from hfclip.text.bpe import BYTES_BY_ID, FIRST_MERGED_ID, PRINTING_BYTES, merge_pairs

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def byte_characters() -> dict[int, str]:
    """Returns the character that represents each byte, in the order of the bytes' ids."""
    printing = len(PRINTING_BYTES)
    return {
        byte: chr(byte) if place < printing else chr(256 + place - printing)
        for place, byte in enumerate(BYTES_BY_ID)
    }


def merges() -> list[tuple[str, str]]:
    """Returns the 48,894 pairs that merge into one token, in their order of priority."""
    spelled = _spelled_tokens()
    return [(spelled[left], spelled[right]) for left, right in merge_pairs()]


def vocabulary() -> dict[str, int]:
    """Returns the id, 0 to 49407, of each token as the files write it."""
    return {token: index for index, token in enumerate([*_spelled_tokens(), START, END])}


def words() -> list[str]:
    """Returns the tokens that are whole words of letters, the most frequent first."""
    spelled = [token.removesuffix(_WORD_END) for token in _spelled_tokens() if _WORD_END in token]
    return [word for word in spelled if word.isalpha()]


def tokenizer_files(context_length: int) -> dict[str, str]:
    """Returns the text of each file that `CLIPTokenizer.from_pretrained` reads, by file name."""
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "model_max_length": context_length,
    }
    return {
        "merges.txt": _merges_text(),
        "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
        "vocab.json": _vocabulary_text(),
    }


# The two texts are the same for all models and take a tenth of a second.
@functools.cache
def _merges_text() -> str:
    lines = [f"{left} {right}" for left, right in merges()]
    return "\n".join(["#version: 0.2", *lines, ""])


@functools.cache
def _vocabulary_text() -> str:
    return json.dumps(vocabulary(), ensure_ascii=False) + "\n"


@functools.cache
def _spelled_tokens() -> tuple[str, ...]:
    """Returns all tokens except the two special ones, in the order of their ids."""
    spelled = list(byte_characters().values())
    spelled += [character + _WORD_END for character in spelled]
    assert len(spelled) == FIRST_MERGED_ID  # noqa: S101  # an id is an index into this list
    for left, right in merge_pairs():
        spelled.append(spelled[left] + spelled[right])
    return tuple(spelled)
