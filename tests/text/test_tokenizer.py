"""The tokenizer compared with literal ids, and properties that hold for every text."""

# ruff: noqa: RUF001, S311 - letters that look like others are intended; nothing is secret

import hashlib
import random
import subprocess
import threading
from collections import UserDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import conversion.merges as conversion
import hfclip
from hfclip.errors import HfclipError, TextTooLongError
from hfclip.text import bpe as module
from hfclip.text.bpe import END_TOKEN, START_TOKEN, Tokenizer, shared_tokenizer
from hfclip.text.tokenizer import decode, tokenize

IDS = {
    "a photo of a dog": [320, 1125, 539, 320, 1929],
    "Hello, World!": [3306, 267, 1002, 256],
    "it's 2024 &amp; I\u2019m": [585, 568, 273, 271, 273, 275, 261, 328, 880],
    "don't stop": [847, 713, 1691],
    "o'dell's": [334, 1896, 812, 568],
    "naïve café": [1097, 35689, 563, 15304],
    "cafÃ©": [15304],
    "ＬＯＵＤ": [7464],
    "日本": [39121, 19277, 361],
    "\U0001f469\u200d\U0001f680": [26304, 13542],
    "ΟΣ": [138, 123, 139, 480],
    "  tabs\t\nand\u3000wide  ": [29163, 537, 3184],
    "aaaaaaaa": [6727, 19336],
    "a</w>b": [320, 34308, 342, 285, 321],
    "<|startoftext|>x<|endoftext|>": [START_TOKEN, 343, END_TOKEN],
    "\u017f's": [129, 379, 568],
    "cafe\u0301": [15304],
    "a\x0bb\x7fc": [5334],
    "\x1b[31mréd\x1b[0m": [29106, 323],
    "< &amp;amp;": [283, 261],
    "\u0345": [],
    "\x1c": [],
    "   ": [],
    "": [],
}
MERGES_SHA256 = "3b99edd1a64e51e134f972f7f6d89cc0da7ba11966230ec46bdaeae886a4d9b4"
LONG_WORD_TOKENS = 45_908
# The default alphabet, that of UTF-8, by category: hypothesis would encode every character for it.
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain_text = st.text(st.sampled_from([chr(c) for c in range(32, 127) if chr(c) != "&"]))


class Table:
    """Iterates over its column names, like a pandas.DataFrame."""

    ndim = 2

    def __iter__(self) -> Iterator[str]:
        return iter(["text"])


class Column:
    """Iterates over its values, like a pandas.Series."""

    ndim = 1

    def keys(self) -> list[int]:
        return [7, 9]

    def __iter__(self) -> Iterator[str]:
        return iter(["a dog", "a cat"])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.fixture(scope="module")
def merges() -> dict[int, int]:
    return module._read_merges()


@pytest.fixture
def short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 3)


@pytest.mark.parametrize(("text", "ids"), IDS.items(), ids=ascii)
def test_a_text_has_these_ids(tokenizer: Tokenizer, text: str, ids: list[int]) -> None:
    assert tokenizer.encode(text) == ids


def test_a_row_holds_start_text_end_and_zeros() -> None:
    rows = tokenize(["a photo of a dog", ""], context_length=9)
    assert rows.dtype == torch.int32
    assert rows.tolist() == [
        [START_TOKEN, 320, 1125, 539, 320, 1929, END_TOKEN, 0, 0],
        [START_TOKEN, END_TOKEN, 0, 0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("texts", ["a dog", ["a dog"], ("a dog",), iter(["a dog"])])
def test_one_text_or_any_sequence_of_texts_makes_a_batch_of_width_77(texts: Any) -> None:
    rows = tokenize(texts)
    assert rows.shape == (1, 77)
    assert rows[0, :5].tolist() == [START_TOKEN, 320, 1929, END_TOKEN, 0]


@pytest.mark.parametrize(
    "texts",
    [
        (text for text in ("a dog", "a cat")),
        np.array(["a dog", "a cat"]),
        np.array(["a dog", "a cat"], dtype=object),
        {"a dog": 1, "a cat": 2}.keys(),
        Column(),
    ],
)
def test_any_iterable_of_texts_makes_a_batch(texts: Any) -> None:
    assert torch.equal(tokenize(texts), tokenize(["a dog", "a cat"]))


def test_padding_to_the_longest_leaves_no_column_of_zeros() -> None:
    texts = ["a dog", "", "a photo of a dog"]
    rows = tokenize(texts, padding="longest")
    assert rows.shape == (3, 7)
    assert torch.equal(rows, tokenize(texts)[:, :7])


def test_padding_to_the_longest_never_exceeds_the_context() -> None:
    assert tokenize("dog " * 100, 8, truncate=True, padding="longest").shape == (1, 8)


def test_no_texts_make_an_empty_batch() -> None:
    assert tokenize([]).shape == (0, 77)
    assert tokenize([], padding="longest").shape == (0, 0)
    assert tokenize([]).dtype == torch.int32


def test_a_batch_is_writable_and_independent_of_the_next_one() -> None:
    rows = tokenize("a dog")
    rows.fill_(7)
    assert tokenize("a dog")[0, :4].tolist() == [START_TOKEN, 320, 1929, END_TOKEN]


def test_a_text_of_the_maximum_length_is_kept_whole() -> None:
    assert tokenize("a photo of a dog", 7)[0].tolist()[-2:] == [1929, END_TOKEN]


def test_a_truncated_text_keeps_its_end_token_last() -> None:
    assert tokenize("a photo of a dog", 5, truncate=True).tolist() == [
        [START_TOKEN, 320, 1125, 539, END_TOKEN]
    ]
    assert tokenize("a dog", 2, truncate=True).tolist() == [[START_TOKEN, END_TOKEN]]


def test_a_text_too_long_is_refused_with_its_length_and_the_remedy() -> None:
    with pytest.raises(TextTooLongError) as refusal:
        tokenize(["short", "a photo of a dog"], 6)
    assert str(refusal.value) == (
        "Input a photo of a dog is too long for context length 6: it has 7 tokens, "
        "including the start and end tokens. Pass truncate=True to cut it."
    )
    assert isinstance(refusal.value, RuntimeError)
    assert isinstance(refusal.value, HfclipError)


def test_a_very_long_text_is_cut_in_the_message() -> None:
    with pytest.raises(TextTooLongError, match="too long for context length 77") as refusal:
        tokenize("dog " * 10_000)
    assert len(str(refusal.value)) < 400
    assert "10002 tokens" in str(refusal.value)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (5, "5 of type int"),
        (None, "None of type NoneType"),
        (b"a dog", "b'a dog' of type bytes"),
        (["a dog", 7.5], "texts[1] is 7.5 of type float"),
        ([["a dog"]], "texts[0] is ['a dog'] of type list"),
        (["a dog", "a cat", None], "texts[2] is None of type NoneType"),
        ((text for text in ["a dog", 3]), "texts[1] is 3 of type int"),
        ({"text": ["a dog"]}, "of type dict"),
        (UserDict(text=["a dog"]), "of type UserDict"),
        ({"a dog", "a cat"}, "of type set"),
        (frozenset(["a dog"]), "of type frozenset"),
        (bytearray(b"a dog"), "of type bytearray"),
        (np.array("a dog"), "of type ndarray"),
        (np.array([["a dog"]]), "of type ndarray"),
        (Table(), "of type Table"),
    ],
)
def test_inputs_that_are_not_text_are_refused_and_their_type_is_named(
    texts: Any, found: str
) -> None:
    with pytest.raises(hfclip.ArgumentTypeError) as refusal:
        tokenize(texts)
    assert found in str(refusal.value)


@pytest.mark.parametrize("length", [1, 0, -3])
def test_a_context_length_below_two_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"context_length is {length}"):
        tokenize("a dog", length, truncate=True)


def test_an_unknown_padding_is_refused() -> None:
    unknown: Any = "shortest"
    with pytest.raises(ValueError, match="'shortest', expected 'max_length' or 'longest'"):
        tokenize("a dog", padding=unknown)


def test_ids_decode_to_words_with_a_space_after_each() -> None:
    assert decode([320, 1125, 539, 320, 1929]) == "a photo of a dog "
    assert decode(torch.tensor([3306, 267, 1002, 256])) == "hello , world ! "
    assert decode([]) == ""


def test_a_cut_character_decodes_to_a_replacement() -> None:
    assert decode([39121, 19277]) == "日\ufffd"


def test_special_tokens_are_kept_unless_asked_to_be_skipped() -> None:
    row = tokenize("a dog", 6)[0]
    assert decode(row) == "<|startoftext|>a dog <|endoftext|>!!"
    assert decode(row, skip_special_tokens=True) == "a dog "
    assert decode([320, 1929], skip_special_tokens=True) == "a dog "


@pytest.mark.parametrize("token", [49408, -1])
def test_an_id_beyond_the_vocabulary_is_refused(token: int) -> None:
    with pytest.raises(KeyError, match=f"token id {token} is not in the vocabulary, 0 to 49407"):
        decode([320, token])


def test_a_batch_is_not_decoded_as_one_text() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 77\), expected \(n,\)"):
        decode(tokenize("a dog"))


@settings(deadline=None)
@given(text=plain_text)
@example(text="It's 5 o'clock; we'RE HERE!!")
def test_plain_text_survives_a_round_trip_except_for_case_and_spaces(
    tokenizer: Tokenizer, text: str
) -> None:
    assume("</w>" not in text)
    decoded = tokenizer.decode(tokenizer.encode(text))
    assert "".join(decoded.split()) == "".join(text.lower().split())


@settings(deadline=None)
@given(text=st.text(st.sampled_from("\t\n\v\f\r\x1c\x1f\x7f -az<>#;&"), max_size=12))
def test_full_cleaning_does_not_change_a_plain_text(text: str) -> None:
    if module._is_plain(text):
        assert " ".join(text.lower().split()) == module._cleaner().clean(text)
        assert " ".join(ftfy.fix_text(text).split()) == " ".join(text.split())


@settings(max_examples=500, deadline=None)
@given(
    text=st.text(
        st.one_of(
            st.sampled_from("ÃÂ®©é“”’–°œŁ\x92\u0301\u212a\u037eﬁＡ&;<\n\x1bab 1"), st.characters()
        ),
        max_size=10,
    )
)
@example(text="1\nÃ la")
@example(text="fish &amp;amp; chips")
@example(text="\u2019&amp\u037e")
@example(text="<b> &amp;")
@example(text="cafe\u0301")
@example(text="\x1b[31m\u2019")
def test_the_shortcut_gives_the_same_text_as_ftfy(text: str) -> None:
    assert module._cleaner()._fixed(text) == ftfy.fix_text(text)


def test_a_line_that_ftfy_splits_in_two_is_fixed_in_two_parts() -> None:
    text = "1" * 1_000_000 + "Ã la"
    assert module._cleaner()._fixed(text) == ftfy.fix_text(text) == "1" * 1_000_000 + "à la"


@settings(deadline=None)
@given(texts=st.lists(any_text, max_size=5))
def test_a_text_has_the_same_ids_in_a_batch_and_alone(
    tokenizer: Tokenizer, texts: list[str]
) -> None:
    rows = tokenize(texts, 200).tolist()
    for text, row in zip(texts, rows, strict=True):
        ids = [START_TOKEN, *tokenizer.encode(text), END_TOKEN]
        assert row == ids + [0] * (200 - len(ids))


def merged_in_rounds(symbols: list[int], merges: dict[int, int]) -> list[int]:
    """Reference algorithm: repeats the earliest merge at all its places, from the left."""
    while joinable := [
        merges[pair] for left, right in pairwise(symbols) if (pair := left << 16 | right) in merges
    ]:
        earliest, rest, symbols = min(joinable), symbols, []
        while rest:
            both = len(rest) > 1 and merges.get(rest[0] << 16 | rest[1]) == earliest
            symbols.append(earliest if both else rest[0])
            rest = rest[2:] if both else rest[1:]
    return symbols


@settings(deadline=None)
@given(letters=st.lists(st.sampled_from(list(b"aeinost.!=")), min_size=1, max_size=30))
@example(letters=list(b"a" * 31))
@example(letters=list(b"." * 40))
def test_the_fast_merge_equals_the_reference_merge(
    merges: dict[int, int], letters: list[int]
) -> None:
    symbols = [letter - 33 for letter in letters]
    symbols[-1] += 256
    assert module._merged(symbols, merges) == merged_in_rounds(symbols, merges)


def test_each_merge_gives_a_new_string_with_a_higher_id_than_its_parts(
    merges: dict[int, int],
) -> None:
    strings = module._strings_by_id()
    assert len(set(strings.values())) == len(strings) == 49408
    for pair, joined in merges.items():
        assert max(pair >> 16, pair & 0xFFFF) < joined


def test_a_word_of_a_hundred_thousand_letters_is_merged_quickly(tokenizer: Tokenizer) -> None:
    word = "".join(random.Random(1).choices("etaoinshrdlu", k=100_000))
    ids = tokenizer.encode(word)
    assert tokenizer.decode(ids) == word + " "
    assert len(ids) == LONG_WORD_TOKENS
    assert word not in tokenizer._packed


def test_words_evicted_from_the_cache_are_encoded_again(short_memory: None) -> None:
    tokenizer = Tokenizer()
    for _ in range(2):
        for text, ids in IDS.items():
            assert tokenizer.encode(text) == ids
            assert len(tokenizer._packed) <= 3


def test_threads_that_share_a_tokenizer_get_correct_rows(short_memory: None) -> None:
    texts = [f"{text} {number}" for number in range(20) for text in IDS]
    expected = tokenize(texts)
    shared_tokenizer.cache_clear()
    together = threading.Barrier(4)

    def work(_: int) -> torch.Tensor:
        together.wait()
        return tokenize(texts)

    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(rows, expected) for rows in pool.map(work, range(4)))


def test_plain_text_is_tokenized_without_ftfy_or_regex(python: Path) -> None:
    script = (
        "import sys\n"
        "packages = {'ftfy', 'regex'}\n"
        "for name in [name for name in sys.modules if name.partition('.')[0] in packages]:\n"
        "    del sys.modules[name]  # a fork has them\n"
        "from hfclip.text.tokenizer import tokenize\n"
        "tokenize('a dog, at last!')\n"
        "print(sorted(packages & set(sys.modules)))\n"
        "tokenize('caf\u00c3\u00a9')\n"
        "print(sorted(packages & set(sys.modules)))"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n['ftfy', 'regex']\n"


def test_the_merge_table_equals_the_packed_table() -> None:
    data = module.MERGES_FILE.read_bytes()
    assert len(data) == 4 * 48_894
    assert hashlib.sha256(data).hexdigest() == MERGES_SHA256


def test_the_script_reproduces_the_table_and_detects_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, written = module.MERGES_FILE.read_bytes(), tmp_path / "merges.bin"
    monkeypatch.setattr(conversion, "MERGES_FILE", written)
    assert CliRunner().invoke(conversion.main, ["--check"]).exit_code == 1
    assert CliRunner().invoke(conversion.main, []).exit_code == 0
    assert written.read_bytes() == shipped
    assert CliRunner().invoke(conversion.main, ["--check"]).exit_code == 0
    written.write_bytes(shipped[:-1] + b"\0")
    assert CliRunner().invoke(conversion.main, ["--check"]).exit_code == 1
    assert list(tmp_path.iterdir()) == [written]


def test_the_script_refuses_a_table_that_is_not_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "SOURCE_SHA256", "0" * 64)
    refused = CliRunner().invoke(conversion.main, ["--check"])
    assert refused.exit_code == 1
    assert "expected 000000000000..., that of OpenAI's table" in refused.output
