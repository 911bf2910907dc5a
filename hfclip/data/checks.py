"""Reads every picture once: hashes it, and decodes it to find damaged files before training."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from hfclip.data.records import Example, Record, Skipped
from hfclip.data.references import ImageRef
from hfclip.errors import DataError, ImageError
from hfclip.images.reading import core_count, open_picture
from hfclip.text.bpe import shared_tokenizer

# Pictures whose results are awaited at once; more would only use memory.
_AT_ONCE = 1024
_START_AND_END = 2


class Checked(NamedTuple):
    """A record whose picture can be decoded, and the sha256 of the picture's bytes."""

    record: Record
    digest: str


def check_pictures(
    records: Sequence[Record], *, progress: bool
) -> tuple[list[Checked], list[Skipped]]:
    """Reads, hashes and decodes each picture once, in threads. Keeps no bytes.

    Args:
        records: The records. Several may refer to one picture.
        progress: Whether to show a progress bar if standard error is a terminal.

    Returns:
        The records whose picture can be decoded and whose texts are valid, and the others.
    """
    from tqdm import tqdm  # noqa: PLC0415

    names: dict[ImageRef, str] = {}
    for record in records:
        names.setdefault(record.image, record.key)
    disable = None if progress else True
    with tqdm(total=len(names), desc="checking", unit="image", disable=disable) as bar:
        outcomes = {}
        for image, outcome in _outcomes(names.items()):
            outcomes[image] = outcome
            bar.update()
    checked: list[Checked] = []
    skipped: list[Skipped] = []
    for record in records:
        digest, reason = outcomes[record.image]
        reason = reason or _problem_of_texts(record)
        if reason:
            skipped.append(Skipped(record.key, reason))
        else:
            checked.append(Checked(record, digest))
    return checked, skipped


def find_long_captions(
    examples: Iterable[Example], context_length: int
) -> tuple[list[Skipped], str | None]:
    """Finds the captions that the tokenizer will truncate.

    Returns:
        The pictures that have such a caption, with the number of its tokens, and a note; nothing
        and None if there is none.
    """
    tokenizer = shared_tokenizer()
    owned = [(example.key, text) for example in examples for text in example.captions]
    distinct = dict.fromkeys(text for _, text in owned)
    most = context_length - _START_AND_END
    # ASCII without a character reference has at most one token per character.
    unsure = (text for text in distinct if len(text) > most or "&" in text or not text.isascii())
    counts = {text: len(memoryview(tokenizer.pack(text)).cast("i")) for text in unsure}
    long = {text: count for text, count in counts.items() if count > most}
    if not long:
        return [], None
    truncated = [
        Skipped(key, f"truncated: {long[text]} tokens in a caption, of which {most} are used")
        for key, text in owned
        if text in long
    ]
    return truncated, (
        f"{len(long):,} of {len(distinct):,} distinct captions have more than {most} tokens "
        f"(at most {max(long.values()):,}); the rest of each is not used."
    )


class _Outcome(NamedTuple):
    digest: str
    reason: str | None


def _outcomes(names: Iterable[tuple[ImageRef, str]]) -> Iterator[tuple[ImageRef, _Outcome]]:
    remaining = iter(names)
    with ThreadPoolExecutor(core_count()) as pool:
        while block := list(islice(remaining, _AT_ONCE)):
            outcomes = pool.map(lambda item: _outcome(*item), block)
            for (image, _), outcome in zip(block, outcomes, strict=True):
                yield image, outcome


def _outcome(image: ImageRef, name: str) -> _Outcome:
    """Returns the hash of a picture, or why it cannot be used."""
    try:
        content = image.read()
        _decode(content, name)
    except FileNotFoundError:
        return _Outcome("", "no such file")
    except OSError as error:
        return _Outcome("", f"cannot be read ({error.strerror or error})")
    except (ImageError, DataError) as error:
        return _Outcome("", str(error).removeprefix(f"{name}: "))
    return _Outcome(hashlib.sha256(content).hexdigest(), None)


def _decode(content: bytes, name: str) -> None:
    """Decodes a picture. A JPEG is decoded at 1/8 of its size, which still reads all its bytes.

    Raises:
        ImageError: The picture cannot be decoded.
    """
    with open_picture(content, name=name) as image:
        if image.format == "JPEG":
            image.draft("RGB", (1, 1))
        image.load()


def _problem_of_texts(record: Record) -> str | None:
    """Returns why a caption or the label cannot be encoded as UTF-8, or None."""
    for text in (*record.captions, record.label or ""):
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"the text {text!r} has characters that are not Unicode"
    return None
