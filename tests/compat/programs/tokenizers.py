"""The byte-pair tokenizer, its tables, and changes of them."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

import copy
import pickle
from typing import Any

import regex

from ..world import CAPTIONS, Table, World, program

TEXTS = [
    *CAPTIONS,
    "Café &amp; naïve — don't  panic",
    "日本語 😀 ½",
    "",
    "<|startoftext|>x",
    "it's 42",
]


@program(only="vit", half=False)
def encoded_and_decoded(clip: Any, world: World) -> Any:
    tokenizer = clip.simple_tokenizer.SimpleTokenizer()
    ids = [tokenizer.encode(text) for text in TEXTS]
    # The second time after an access to its tables, which may use another code path.
    tables = len(tokenizer.encoder), len(tokenizer.decoder), len(tokenizer.bpe_ranks)
    again = [tokenizer.encode(text) for text in TEXTS]
    assert ids == again
    return ids, tables, [tokenizer.decode(row) for row in ids]


@program(only="vit", half=False)
def tables(clip: Any, world: World) -> Any:
    tokenizer = clip.simple_tokenizer.SimpleTokenizer()
    return (
        Table(list(tokenizer.encoder.items())),
        Table(list(tokenizer.decoder.items())),
        Table(list(tokenizer.bpe_ranks.items())),
        list(tokenizer.byte_encoder.items()),
        list(tokenizer.byte_decoder.items()),
        list(tokenizer.cache.items()),
        tokenizer.pat.pattern,
        tokenizer.pat.findall("it's 42 cats, no?"),
    )


@program(only="vit", half=False)
def pieces(clip: Any, world: World) -> Any:
    module = clip.simple_tokenizer
    tokenizer = module.SimpleTokenizer()
    words = ["hello", "a", "antidisestablishmentarianism", "aaaaaaaa", "Ã©"]
    return (
        [tokenizer.bpe(word) for word in words],
        sorted(tokenizer.cache.items()),
        sorted(module.get_pairs(("a", "b", "a", "b"))),
        [module.basic_clean(text) for text in (*TEXTS, " &lt;b&gt; ")],
        module.whitespace_clean(" a \n\t b\u3000c "),
        list(module.bytes_to_unicode().items()),
    )


@program(only="vit", half=False)
def batches(clip: Any, world: World) -> Any:
    end = clip.clip._tokenizer.encoder["<|endoftext|>"]
    start = clip.clip._tokenizer.encoder["<|startoftext|>"]
    long = "one two three four five"
    try:
        clip.tokenize(long, context_length=5)
    except RuntimeError as error:
        refusal = str(error).split(":")[0][:50]
    return (
        (start, end, refusal),
        clip.tokenize(TEXTS).long(),
        clip.tokenize(long, context_length=5, truncate=True).long(),
        clip.tokenize("one text", 12).long(),
    )


@program(only="vit", half=False)
def merges_from_a_file(clip: Any, world: World) -> Any:
    path = clip.simple_tokenizer.default_bpe()
    tokenizer = clip.simple_tokenizer.SimpleTokenizer(bpe_path=path)
    return [tokenizer.encode(text) for text in TEXTS], len(tokenizer.encoder)


@program(only="vit", half=False)
def words_added_by_a_subclass(clip: Any, world: World) -> Any:
    """Placeholders that are one token: textual inversion, referring expressions, masks."""

    class Extended(clip.simple_tokenizer.SimpleTokenizer):
        pat: Any

        def __init__(self, words: list[str]) -> None:
            super().__init__()
            for word in words:
                self.encoder[word] = len(self.encoder)
                self.cache[word] = word
            self.decoder = {index: token for token, index in self.encoder.items()}
            added = "|".join(map(regex.escape, words))
            self.pat = regex.compile(f"{added}|{self.pat.pattern}", regex.IGNORECASE)

    tokenizer = Extended(["<mask>", "<sks>"])
    clip.clip._tokenizer = tokenizer
    ids = tokenizer.encode("a photo of <sks> and a <mask>!")
    return ids, tokenizer.decode(ids), clip.tokenize(["<sks> again", "none"], 10).long()


@program(only="vit", half=False)
def edited_in_place(clip: Any, world: World) -> Any:
    """Tables changed on the tokenizer that `tokenize` uses, and on copies of it."""
    tokenizer = clip.simple_tokenizer.SimpleTokenizer()
    clip.clip._tokenizer = tokenizer
    tokenizer.encoder["cat</w>"] = 7
    tokenizer.cache["dog"] = "do g</w>"
    first = clip.tokenize("a cat and a dog", 12).long()
    twins = [copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer.encoder))]
    tokenizer.bpe_ranks.clear()
    return first, twins[0].encode("cat dog"), twins[1]["cat</w>"], tokenizer.encode("catch")


@program(only="vit", half=False)
def steps_replaced(clip: Any, world: World) -> Any:
    """The cleaning of the module and a method of the class replaced."""
    clip.simple_tokenizer.basic_clean = lambda text: text.replace("&", " and ").strip()
    tokenizer = clip.simple_tokenizer.SimpleTokenizer()
    first = tokenizer.encode("salt & pepper &amp; more")
    original = clip.simple_tokenizer.SimpleTokenizer.bpe
    clip.simple_tokenizer.SimpleTokenizer.bpe = lambda self, token: original(self, token[::-1])
    return (
        first,
        clip.simple_tokenizer.SimpleTokenizer().encode("stressed"),
        clip.tokenize("abc")[0, :6].long(),
    )
