"""Checks that a cache with a part of a repository is enough to load the model."""

import logging
from collections.abc import Iterable

from hfclip.config import read_json
from hfclip.errors import NetworkError
from hfclip.hub import fetch as hub
from hfclip.hub.fetch import Snapshot
from hfclip.layouts.detect import is_transformers_clip
from hfclip.layouts.files import CONFIG_FILE, OPEN_CLIP_CONFIG_FILE, PREPROCESSOR_FILES
from hfclip.layouts.native import is_hfclip
from hfclip.layouts.weight_files import Choice, choices, is_index
from hfclip.sources.folder import Part

logger = logging.getLogger(__name__)


def check_shards_are_cached(snapshot: Snapshot, part: Part, shards: Iterable[str]) -> None:
    """Raises an error before the first shard is read, if others cannot be fetched.

    Raises:
        NetworkError: Shards are not cached, and no request may be made or the Hub does not answer.
    """
    access = snapshot.access
    if snapshot.is_listed and not access.offline:
        return
    names = [part.name(shard) for shard in shards]
    missing = [
        name
        for name in names
        if (not snapshot.is_listed or name in snapshot.digests)
        and not hub.cached(snapshot.repo_id, name, snapshot.commit, access)
    ]
    if missing:
        raise NetworkError(
            f"{snapshot.repo_id} at {snapshot.commit[:12]} is only partly in the cache at "
            f"{access.cache}: {len(missing)} of {len(names)} shards are missing, "
            f"{', '.join(missing[:5])}. {_remedy(snapshot, part)}"
        )


def check_layout_is_known(snapshot: Snapshot, part: Part) -> None:
    """Raises an error if files that are not cached may change the loaded model.

    Raises:
        NetworkError: A file that determines the layout, the weights or the preprocess is not
            cached, and there is no proof that the repository does not have it.
    """
    cached = part.names_in(snapshot.digests)
    chosen, doubtful = _possible_choices(snapshot, part)
    if chosen is None:
        if doubtful:
            fewest = min(doubtful, key=lambda choice: len(_uncached(choice, cached)))
            raise _unknown(snapshot, part, part.name(_uncached(fewest, cached)[0]))
        return
    values = {}
    if chosen.config == CONFIG_FILE:
        values = read_json(hub.fetch(snapshot, part.name(CONFIG_FILE)))
    for choice in doubtful:
        if not _is_improbable(choice, chosen) or not _is_whole(chosen, values):
            raise _unknown(snapshot, part, part.name(_uncached(choice, cached)[0]))
    if doubtful:
        logger.warning(
            "%s Loading the model that %s describes.",
            _unknown(snapshot, part, part.name(_uncached(doubtful[0], cached)[0])),
            chosen.config,
        )
    if is_transformers_clip(values):
        _check_preprocessor_is_known(snapshot, part)


def _check_preprocessor_is_known(snapshot: Snapshot, part: Part) -> None:
    for name in map(part.name, PREPROCESSOR_FILES):
        if name in snapshot.digests:
            return
        if hub.may_have(snapshot, name):
            raise _unknown(snapshot, part, name)


def _possible_choices(snapshot: Snapshot, part: Part) -> tuple[Choice | None, list[Choice]]:
    """Returns the first choice that is cached, and the preferred ones that may exist."""
    doubtful: list[Choice] = []
    for choice in choices(part.variant):
        uncached = _uncached(choice, part.names_in(snapshot.digests))
        if not uncached:
            return choice, doubtful
        if all(hub.may_have(snapshot, part.name(name)) for name in choice):
            doubtful.append(choice)
    return None, doubtful


def _uncached(choice: Choice, cached: set[str]) -> list[str]:
    return [name for name in choice if name not in cached]


def _is_improbable(choice: Choice, chosen: Choice) -> bool:
    """Returns whether a model may be loaded, with a warning, although another choice may exist.

    Other packages do not look for the files of the other layout, or for open_clip's shards, so
    their caches never prove that these are absent.
    """
    is_open_clip = choice.config == OPEN_CLIP_CONFIG_FILE
    return choice.config != chosen.config or (is_open_clip and is_index(choice.weights))


def _is_whole(chosen: Choice, values: dict[str, object]) -> bool:
    """Returns whether a choice is a CLIP with both towers: timm has image towers of these names."""
    if chosen.config == OPEN_CLIP_CONFIG_FILE:
        return True
    return is_transformers_clip(values) or is_hfclip(values)


def _unknown(snapshot: Snapshot, part: Part, name: str) -> NetworkError:
    return NetworkError(
        f"It is unknown whether {snapshot.repo_id} at {snapshot.commit[:12]} has a file {name}: "
        f"the cache at {snapshot.access.cache} does not hold it, and has no record that it does "
        f"not exist. {_remedy(snapshot, part)}"
    )


def _remedy(snapshot: Snapshot, part: Part) -> str:
    command = f"hfclip download {snapshot.repo_id}@{snapshot.commit}"
    command += f" --subfolder {part.subfolder}" if part.subfolder else ""
    command += f" --variant {part.variant}" if part.variant else ""
    return f"Fetch the missing files while online: `{command}`."
