"""Token ids and decoded texts equal those of clip-anytorch."""

# ruff: noqa: RUF001, S311 - letters that look like others are intended; nothing is secret

import functools
import random
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import ftfy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hfclip.text import bpe
from hfclip.text.bpe import VOCAB_SIZE, Tokenizer, shared_tokenizer
from hfclip.text.tokenizer import tokenize

from .captions import CAPTIONS, captions

# Includes surrogates, and adjacent letters that ftfy takes for an encoding error.
BROKEN = "ÃÂâ€™“”Ø®×²œŠЕ‚Äß°É£½\x92\x85�\u0301\u212a"
any_text = st.text(st.characters(exclude_categories=()), max_size=30)
broken_text = st.text(
    st.one_of(st.sampled_from(BROKEN), st.sampled_from("ab c.'&;<1"), st.characters()), max_size=12
)
references = st.lists(
    st.sampled_from(["&amp;", "&", "amp;", "lt;", "#39;", "&eacute", "<", "é", " ", "x", "&#x1f;"]),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def theirs(clip: ModuleType) -> Iterator[Any]:
    """Returns clip's tokenizer, which encodes each text once. `clip.tokenize` uses it too.

    Both packages clean a text with ftfy, which also does so once for each text.
    """
    tokenizer = clip.clip._tokenizer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "encode", functools.cache(tokenizer.encode))
        patch.setattr(ftfy, "fix_text", functools.cache(ftfy.fix_text))
        bpe._cleaner.cache_clear()  # a cleaner keeps the function that it found
        yield tokenizer
    bpe._cleaner.cache_clear()


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    """Returns the tokenizer of `tokenize`, which merges each word once."""
    return shared_tokenizer()


@pytest.fixture(scope="module")
def every_caption() -> list[str]:
    return captions()


def test_twenty_thousand_captions_have_the_same_ids_and_decode_to_the_same_text(
    theirs: Any, ours: Tokenizer, every_caption: list[str]
) -> None:
    assert len(every_caption) == CAPTIONS == 20_000
    different = []
    for caption in every_caption:
        ids = theirs.encode(caption)
        if ours.encode(caption) != ids or ours.decode(ids) != theirs.decode(ids):
            different.append(caption)
    assert different == []


@pytest.mark.usefixtures("theirs")
def test_twenty_thousand_captions_make_the_same_batch(
    clip: ModuleType, every_caption: list[str]
) -> None:
    batch = tokenize(every_caption, truncate=True)
    assert batch.shape == (20_000, 77)
    assert torch.equal(batch.long(), clip.tokenize(every_caption, truncate=True))


@pytest.mark.usefixtures("theirs")
def test_a_batch_cut_at_another_length_is_the_same(
    clip: ModuleType, every_caption: list[str]
) -> None:
    texts = every_caption[:2_000]
    ours = tokenize(texts, 9, True)
    assert torch.equal(ours.long(), clip.tokenize(texts, 9, True))


@settings(max_examples=1_000, deadline=None)
@given(text=st.one_of(any_text, broken_text, references))
def test_any_text_has_the_same_ids(theirs: Any, ours: Tokenizer, text: str) -> None:
    assert ours.encode(text) == theirs.encode(text)


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=20))
def test_any_ids_decode_to_the_same_text(theirs: Any, ours: Tokenizer, ids: list[int]) -> None:
    assert ours.decode(ids) == theirs.decode(ids)


@settings(max_examples=300, deadline=None)
@given(word=st.text(st.sampled_from("aeinost"), min_size=1, max_size=60))
def test_words_with_many_repeats_merge_the_same(theirs: Any, ours: Tokenizer, word: str) -> None:
    assert ours.encode(word) == theirs.encode(word)


def test_a_word_of_three_thousand_letters_merges_the_same(theirs: Any, ours: Tokenizer) -> None:
    word = "".join(random.Random(7).choices("etaoinshrdlu", k=3_000))
    assert ours.encode(word) == theirs.encode(word)


def test_a_text_that_is_too_long_raises_the_same_error(clip: ModuleType) -> None:
    text = "one two three four"
    with pytest.raises(RuntimeError) as their_refusal:
        clip.tokenize(text, 4)
    with pytest.raises(RuntimeError) as our_refusal:
        tokenize(text, 4)
    assert str(our_refusal.value).startswith(str(their_refusal.value))
