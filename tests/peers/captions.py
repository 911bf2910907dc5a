"""20,000 reproducible captions: half are plain, half have text that breaks tokenizers."""

# ruff: noqa: RUF001 - letters that look like others are intended

import random
from collections.abc import Callable

CAPTIONS = 20_000

_VOCABULARY = (
    "a photo of the dog running through tall grass near lake at sunset with two children and "
    "their red kite over sandy beach while an old man in blue coat reads newspaper on wooden "
    "bench Beautiful vintage poster illustration Black White portrait woman holding umbrella "
    "street New York skyline night stock image close-up macro shot delicious homemade pizza "
    "tomato basil cheese recipe best ideas home decor living room interior design modern kitchen "
    "Mountain landscape snow winter forest river waterfall bird flying cat sleeping window "
    "football player stadium crowd concert stage lights guitar singer 2019 1080p HD wallpaper"
)
_WORDS = _VOCABULARY.split()
_PUNCTUATION = [".", ",", "!", "?", "...", " - ", ":", ";", "(", ")", '"', "/", "#", "@", "$", "%"]
_SCRIPTS = (
    "Привет мир",
    "ελληνικά ΟΔΥΣΣΕΥΣ",
    "日本語の写真",
    "中国的长城",
    "한국어 사진",
    "العربية جميلة",
    "עברית",
    "हिन्दी भाषा",
    "ภาษาไทย",
    "தமிழ்",
    "ქართული",
    "Հայերեն",
    "አማርኛ",
    "Việt Nam phở",
    "Łódź Žižkov",
    "İstanbul ıİ",
    "STRASSE Straße ẞ",
    "naïve café Ångström",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒮𝒸𝓇𝒾𝓅𝓉",
    "①②③ ½ Ⅷ ٣٤٥ ²³",
    "ſ 'ſ \u212a \u2126 \u0345",
)
_ENTITIES = (
    "&amp;",
    "salt & pepper",
    "R&B",
    "AT&T;",
    "&lt;b&gt;bold&lt;/b&gt;",
    "<b>&amp;</b>",
    "&amp;amp;quot;",
    "&eacute;t&EACUTE;",
    "&eacute",
    "&#39;s",
    "&#x1F600;",
    "&#128;",
    "&#28;",
    "&#xD800;",
    "&nbsp;",
    "&hellip;",
    "&notanentity;",
    "&",
    "&&",
    "&;",
    "&#;",
    "&amp;lt;",
    "&\tx",
    "fish&chips",
)
_EMOJI = (
    "😀",
    "👨\u200d👩\u200d👧\u200d👦",
    "👩🏽\u200d🚀",
    "🏳\ufe0f\u200d🌈",
    "❤\ufe0f",
    "🇫🇷",
    "1\ufe0f\u20e3",
    "🏴\U000e0067\U000e0062\U000e007f",
)
_CONTRACTIONS = (
    "it's",
    "I'M",
    "you're",
    "they'll",
    "don't",
    "we've",
    "he'd",
    "dogs'",
    "'tis",
    "it\u2019s",
    "don\u2018t",
    "\u201cwe\u2019ve\u201d",
    "rock'n'roll",
    "'s's",
    "o'dell's",
)
_MOJIBAKE = (
    "cafÃ©",
    "Itâ€™s",
    "â€œquotedâ€\x9d",
    "â€œlossyâ€�",
    "Ã la mode",
    "ðŸ˜€",
    "Ð¿Ñ€Ð¸Ð²ÐµÑ‚",
    "NaÃƒÂ¯ve",
    "l\x92humanit\xe9",
    "\x85 and \x93so\x94",
    "ã\x83\x84",
)
_WIDTHS = ("ＬＯＵＤ　ＮＯＩＳＥＳ", "Ｕﾀｰﾝ", "１２３％", "＆ａｍｐ；", "ﾊﾟﾋﾟ")
_LIGATURES = ("ﬂuﬃeﬆ", "ﬁne", "Ǆ ǆ", "ŉ", "œuvre Æsop", "Ĳssel")
_MARKS = ("e\u0301clair", "a\u030a", "Z\u0351\u036b\u0343algo\u0321\u031e", "\u0301", "n\u0303o")
_SPACES = (
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u200b",
    "\u2028",
    "\u2029",
    "\u1680",
    "\u202f",
    "\u205f",
    "\ufeff",
    "\u180e",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x1f",
    "\x85",
    "   ",
)
_SPECIALS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|EndOfText|>",
    "!<|endoftext|>",
    "x<|startoftext|>y",
    "<|endoftext|",
    "</w>",
    "a</w>b",
)
_BROKEN = ("\ud83d", "\ude00", "\ud83d\ude00", "\ude00\ud83d", "\ufffd", "\ufffe", "\U0010ffff")
_ESCAPES = ("\x1b[31mred\x1b[0m", "\\n", "%20", "\x00", "\x07", "\x7f", "b\x08a", "c\x0bd")


def captions(count: int = CAPTIONS) -> list[str]:
    """Returns the first captions, of 0 to about 1,500 characters each."""
    rng = random.Random(20_000)  # noqa: S311 - not for secrets
    kinds = [_plain] * len(_UNUSUAL) + list(_UNUSUAL)
    return [kinds[number % len(kinds)](rng) for number in range(count)]


def _plain(rng: random.Random) -> str:
    words = rng.choices(_WORDS, k=rng.randint(3, 16))
    if rng.random() < 0.5:
        words.insert(rng.randrange(len(words)), _name(rng))
    if rng.random() < 0.3:
        words.insert(rng.randrange(len(words)), str(rng.randrange(10_000)))
    place = rng.randrange(len(words))
    words[place] += rng.choice(_PUNCTUATION)
    return " ".join(words)


def _name(rng: random.Random) -> str:
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    return "".join(rng.choices(letters, k=rng.randint(2, 12))).title()


def _with(ingredients: tuple[str, ...]) -> Callable[[random.Random], str]:
    def caption(rng: random.Random) -> str:
        words = _plain(rng).split(" ")
        for ingredient in rng.choices(ingredients, k=rng.randint(1, 3)):
            # Half of the pieces have no space around them, because most bugs occur at the joins.
            glue = rng.choice(["", " "])
            words.insert(rng.randrange(len(words) + 1), glue + ingredient + glue)
        return rng.choice(["", " "]).join(words)

    return caption


def _anything(rng: random.Random) -> str:
    planes = rng.choice([0x80, 0x100, 0x3000, 0x10000, 0x110000])
    return "".join(chr(rng.randrange(planes)) for _ in range(rng.randint(0, 20)))


def _blank(rng: random.Random) -> str:
    return "".join(rng.choices(_SPACES, k=rng.randint(0, 3)))


def _long(rng: random.Random) -> str:
    word = "".join(rng.choices("abctheing", k=rng.randint(60, 100)))
    return " ".join([word, *(_plain(rng) for _ in range(rng.randint(6, 20)))])


_EVERYTHING = (
    *_SCRIPTS,
    *_ENTITIES,
    *_EMOJI,
    *_CONTRACTIONS,
    *_MOJIBAKE,
    *_WIDTHS,
    *_LIGATURES,
    *_MARKS,
    *_SPACES,
    *_SPECIALS,
    *_BROKEN,
    *_ESCAPES,
)
_UNUSUAL = (
    _with(_SCRIPTS),
    _with(_ENTITIES),
    _with(_EMOJI),
    _with(_CONTRACTIONS),
    _with(_MOJIBAKE),
    _with(_WIDTHS),
    _with(_LIGATURES),
    _with(_MARKS),
    _with(_SPACES),
    _with(_SPECIALS),
    _with(_BROKEN),
    _with(_ESCAPES),
    _with(_EVERYTHING),
    _anything,
    _blank,
    _long,
)
