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
    return _merges(_spelled_tokens())


def vocabulary() -> dict[str, int]:
    """Returns the id, 0 to 49407, of each token as the files write it."""
    return _vocabulary(_spelled_tokens())


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
    merges_text, vocabulary_text = _texts()
    return {
        "merges.txt": merges_text,
        "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
        "vocab.json": vocabulary_text,
    }


@functools.cache
def _texts() -> tuple[str, str]:
    """Returns merges.txt and vocab.json. They are the same for all models."""
    spelled = _spelled_tokens()
    lines = [f"{left} {right}" for left, right in _merges(spelled)]
    text = json.dumps(_vocabulary(spelled), ensure_ascii=False) + "\n"
    return "\n".join(["#version: 0.2", *lines, ""]), text


def _merges(spelled: list[str]) -> list[tuple[str, str]]:
    return [(spelled[left], spelled[right]) for left, right in merge_pairs()]


def _vocabulary(spelled: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate([*spelled, START, END])}


def _spelled_tokens() -> list[str]:
    """Returns all tokens except the two special ones, in the order of their ids."""
    spelled = list(byte_characters().values())
    spelled += [character + _WORD_END for character in spelled]
    assert len(spelled) == FIRST_MERGED_ID  # noqa: S101  # an id is an index into this list
    for left, right in merge_pairs():
        spelled.append(spelled[left] + spelled[right])
    return spelled
