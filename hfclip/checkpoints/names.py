"""Finds a CLIP among the tensor names of a checkpoint, and describes the names outside it.

Wrappers put a prefix before each name: `module.` (DataParallel), `_orig_mod.` (torch.compile), or
`model.` or any other name (a trainer's module around the CLIP), in any nesting. The names of a CLIP
are known, so the text before them is the prefix.
"""

from collections.abc import Collection, Iterable, Iterator, Set
from typing import NamedTuple

from hfclip.errors import WeightsMismatchError

# Names that every CLIP has, in OpenAI's and in transformers' layout. The image tower's is first.
_OPENAI = (
    "visual.conv1.weight",
    "token_embedding.weight",
    "ln_final.weight",
    "text_projection",
    "logit_scale",
)
_TRANSFORMERS = (
    "vision_model.embeddings.patch_embedding.weight",
    "text_model.embeddings.token_embedding.weight",
    "text_model.final_layer_norm.weight",
    "text_projection.weight",
    "logit_scale",
)
_TRANSFORMERS_TOWERS = ("vision_model.", "text_model.")
# The beginnings of all names of a CLIP in OpenAI's layout.
_BEGINNINGS = (
    *("visual.", "transformer.", "token_embedding.", "positional_embedding", "ln_final."),
    *("text_projection", "logit_scale"),
)
# OpenAI's archives hold these values beside the weights.
NOT_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size"})
# torch.optim.swa_utils.AveragedModel holds this counter beside the model that it wraps.
_COUNTER = "n_averaged"
_SHOWN = 3  # names, or groups of names, in a message
_MAX_SHOWN_NAME = 80


class Naming(NamedTuple):
    """The prefix and the layout of a CLIP's tensor names in a checkpoint.

    Attributes:
        prefix: The text before each name: empty, or with a dot at its end.
        by_transformers: Whether the names are in transformers' layout instead of OpenAI's.
    """

    prefix: str
    by_transformers: bool

    def own_names(self, names: Iterable[str]) -> dict[str, str]:
        """Maps each name without the prefix to the name with it, in the order of the file."""
        own = {name[len(self.prefix) :]: name for name in names if name.startswith(self.prefix)}
        return {short: name for short, name in own.items() if short not in NOT_WEIGHTS}


def find_naming(names: Collection[str], origin: object) -> Naming:
    """Finds the prefix and the layout of a CLIP's names.

    If no name is a CLIP's, the prefix is empty. Missing names are reported later.

    Args:
        names: The names of all tensors of a checkpoint.
        origin: The file, for error messages.

    Raises:
        WeightsMismatchError: There are several CLIPs, or tensors outside the CLIP's prefix.
    """
    found, held = _candidates(names), frozenset(names)
    whole = [naming for naming in found if _is_whole(naming, held)]
    if len(whole) > 1 or (len(found) > 1 and not whole):
        kind = "whole CLIPs" if whole else "incomplete CLIPs"
        prefixes = " and ".join(_place(naming.prefix) for naming in (whole or found)[:_SHOWN])
        raise WeightsMismatchError(
            f"{origin} holds {len(whole or found)} {kind}, {prefixes}, and a single CLIP is "
            "expected. Save the weights of one: torch.save(clip.state_dict(), ...)."
        )
    if not found:
        return Naming("", any(name.startswith(_TRANSFORMERS_TOWERS) for name in names))
    naming = (whole or found)[0]
    outside = [name for name in names if not _belongs(name, naming.prefix)]
    if outside:
        raise WeightsMismatchError(
            f"{origin} holds {describe_foreign(outside, [naming.prefix])}. The CLIP's own names "
            f"begin with {naming.prefix!r}. Save only its weights: "
            "torch.save(clip.state_dict(), ...)."
        )
    return naming


def find_foreign(names: Iterable[str]) -> list[str]:
    """Returns the names that do not begin like a name of OpenAI's layout."""
    return [name for name in names if not name.startswith(_BEGINNINGS)]


def describe_foreign(foreign: Iterable[str], known: Iterable[str]) -> str:
    """Describes names in groups of the same prefix, for an error message.

    Args:
        foreign: The names.
        known: Names of the CLIP. The prefix of a group is the shortest that no known name has.

    Returns:
        A text such as "2 tensors under 'head.' that are not part of a CLIP: head.weight,
        head.bias".
    """
    groups = _grouped(foreign, known)
    texts = []
    for prefix, names in list(groups.items())[:_SHOWN]:
        many = len(names) > 1
        under = f" under {_cut(prefix)!r}" if prefix else ""
        texts.append(
            f"{len(names)} tensor{'s' * many}{under} that {'are' if many else 'is'} not part of a "
            f"CLIP: {list_names(names)}"
        )
    return "; ".join(texts) + _rest(len(groups), "such prefix", "such prefixes")


def describe_misfit(found: Collection[str], expected: Collection[str]) -> str:
    """Describes which names are missing and which are unexpected.

    Returns:
        An empty text if there are none, else a text such as "missing visual.proj; unexpected
        head.weight, head.bias (2 tensors under 'head.')".
    """
    held, wanted = set(found), set(expected)
    missing = [name for name in expected if name not in held]
    unexpected = [name for name in found if name not in wanted]
    if not missing and not unexpected:
        return ""
    groups = _grouped(unexpected, expected)
    texts = [_described_group(prefix, names) for prefix, names in list(groups.items())[:_SHOWN]]
    others = ", ".join(texts) + _rest(len(groups), "other prefix", "other prefixes")
    return f"missing {list_names(missing) or 'nothing'}; unexpected {others or 'nothing'}"


def list_names(names: Collection[str]) -> str:
    """Lists the first three names and the number of the others."""
    shown = [_cut(name) for name in list(names)[:_SHOWN]]
    return ", ".join(shown) + _rest(len(names), "more", "more")


def _candidates(names: Collection[str]) -> list[Naming]:
    """Returns a naming for each image tower, or for each text tower if there is no image tower."""
    for tower in (0, 1):
        theirs = _prefixes(names, _TRANSFORMERS[tower])
        inner = {f"{prefix}text_model.embeddings." for prefix in theirs}
        ours = _prefixes(names, _OPENAI[tower]) - inner
        found = [(prefix, True) for prefix in theirs] + [(prefix, False) for prefix in ours]
        if found:
            return [Naming(*place) for place in sorted(found)]
    return []


def _prefixes(names: Iterable[str], ending: str) -> set[str]:
    return {
        name.removesuffix(ending) for name in names if name == ending or name.endswith(f".{ending}")
    }


def _is_whole(naming: Naming, held: Set[str]) -> bool:
    landmarks = _TRANSFORMERS if naming.by_transformers else _OPENAI
    return all(f"{naming.prefix}{name}" in held for name in landmarks)


def _belongs(name: str, prefix: str) -> bool:
    """Returns whether a name has the prefix, or is the counter of an outer wrapper."""
    outer = name.removesuffix(_COUNTER)
    return name.startswith(prefix) or (outer != name and prefix.startswith(outer))


def _grouped(foreign: Iterable[str], known: Iterable[str]) -> dict[str, list[str]]:
    """Groups names by their shortest dotted prefix that no known name has, or by "" without one."""
    taken = {""}
    for name in known:
        taken.update(_dotted_prefixes(name))
    groups: dict[str, list[str]] = {}
    for name in foreign:
        own = next((prefix for prefix in _dotted_prefixes(name) if prefix not in taken), "")
        groups.setdefault(own, []).append(name)
    return groups


def _dotted_prefixes(name: str) -> Iterator[str]:
    """Yields the beginnings of a name that end with a dot, the shortest first."""
    end = name.find(".")
    while end >= 0:
        yield name[: end + 1]
        end = name.find(".", end + 1)


def _described_group(prefix: str, names: list[str]) -> str:
    if not prefix:
        return list_names(names)
    count = f"{len(names)} tensor{'s' * (len(names) > 1)}"
    return f"{list_names(names)} ({count} under {_cut(prefix)!r})"


def _place(prefix: str) -> str:
    return f"one under {_cut(prefix)!r}" if prefix else "one without a prefix"


def _rest(count: int, one: str, many: str) -> str:
    left = count - _SHOWN
    return f" and {left} {one if left == 1 else many}" if left > 0 else ""


def _cut(name: str) -> str:
    return name if len(name) <= _MAX_SHOWN_NAME else f"{name[: _MAX_SHOWN_NAME - 3]}..."
