import json

import pytest

import hfclip
from hfclip.text.vocabulary import byte_characters, merges, tokenizer_files, vocabulary


def test_bytes_have_the_characters_of_openais_tokenizer() -> None:
    spelled = byte_characters()
    assert (spelled[ord("a")], spelled[ord(" ")], spelled[0]) == ("a", "Ġ", "Ā")
    assert len(set(spelled.values())) == 256


def test_the_vocabulary_has_openais_ids() -> None:
    ids = vocabulary()
    assert len(ids) == 49_408
    assert (ids["!"], ids["!</w>"], ids["cat</w>"]) == (0, 256, 2368)
    assert (ids["<|startoftext|>"], ids["<|endoftext|>"]) == (49_406, 49_407)
    assert hfclip.tokenize("cat")[0, 1] == ids["cat</w>"]


def test_the_first_merges_equal_openais() -> None:
    table = merges()
    assert len(table) == 48_894
    assert table[:3] == [("i", "n"), ("t", "h"), ("a", "n")]
    assert vocabulary()["".join(table[0])] == 512


@pytest.mark.parametrize("text", ["a photo of a cat's dinner, 42!", "été ☺ naïve", "TWO  words\n"])
def test_transformers_reads_the_files_and_gives_the_same_ids(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    for name, content in tokenizer_files(77).items():
        (folder / name).write_text(content, encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    assert ids == hfclip.tokenize(text, padding="longest")[0].tolist()
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == 77
