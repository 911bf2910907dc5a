"""The tokenizer as the files that transformers reads.

They spell a byte as a character: itself if it prints in Latin-1, else one from U+0100 on. hfclip
reads none of them; it has the merges in a file of its own.
"""

import json

from hfclip.text.tokenizer import BYTES_BY_ID, FIRST_MERGED_ID, PRINTING_BYTES, merge_pairs

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def byte_characters() -> dict[int, str]:
    """The character that stands for each byte, in the order of the bytes' ids."""
    printing = len(PRINTING_BYTES)
    return {
        byte: chr(byte) if place < printing else chr(256 + place - printing)
        for place, byte in enumerate(BYTES_BY_ID)
    }


def merges() -> list[tuple[str, str]]:
    """The 48,894 pairs that become one token, the first to merge first."""
    spelled = _spelled_tokens()
    return [(spelled[left], spelled[right]) for left, right in merge_pairs()]


def vocabulary() -> dict[str, int]:
    """Every token as it is spelled, with its id from 0 to 49407."""
    return {token: index for index, token in enumerate([*_spelled_tokens(), START, END])}


def tokenizer_files(context_length: int) -> dict[str, str]:
    """What `CLIPTokenizer.from_pretrained` asks for, by file name."""
    lines = [f"{left} {right}" for left, right in merges()]
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "model_max_length": context_length,
    }
    return {
        "merges.txt": "\n".join(["#version: 0.2", *lines, ""]),
        "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
        "vocab.json": json.dumps(vocabulary(), ensure_ascii=False) + "\n",
    }


def _spelled_tokens() -> list[str]:
    """All tokens but the two special ones, by id."""
    spelled = list(byte_characters().values())
    spelled += [character + _WORD_END for character in spelled]
    assert len(spelled) == FIRST_MERGED_ID  # noqa: S101  # an id is a place in this list
    for left, right in merge_pairs():
        spelled.append(spelled[left] + spelled[right])
    return spelled
