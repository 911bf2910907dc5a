"""Checks that a cache with a part of a repository is enough to load the model."""

import logging

from hfclip.config import read_json
from hfclip.errors import NetworkError
from hfclip.hub import fetch as hub
from hfclip.hub.fetch import Snapshot
from hfclip.layouts.detect import is_transformers_clip
from hfclip.layouts.files import (
    CONFIG_FILE,
    OPEN_CLIP_CONFIG_FILE,
    OPEN_CLIP_WEIGHTS_FILE,
    PREPROCESSOR_FILES,
    WEIGHTS_FILE,
)
from hfclip.layouts.native import is_hfclip

logger = logging.getLogger(__name__)


def check_layout_is_known(snapshot: Snapshot) -> None:
    """Raises an error if files that are not cached may change the loaded model.

    Raises:
        NetworkError: A file that determines the layout or the preprocess is not cached, and there
            is no proof that the repository does not have it.
    """
    cached = snapshot.digests.keys()
    open_clip = (OPEN_CLIP_CONFIG_FILE, OPEN_CLIP_WEIGHTS_FILE)
    if cached >= set(open_clip):
        return
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in cached and hub.may_have(snapshot, name):
            raise _unknown(snapshot, name)
    values = read_json(hub.fetch(snapshot, CONFIG_FILE)) if CONFIG_FILE in cached else {}
    if all(hub.may_have(snapshot, name) for name in open_clip):
        unknown = next(name for name in open_clip if name not in cached)
        # timm uses the same two file names for an image tower without a text tower.
        is_whole = is_transformers_clip(values) or is_hfclip(values)
        if WEIGHTS_FILE not in cached or not is_whole:
            raise _unknown(snapshot, unknown)
        logger.warning(
            "%s Loading the model that %s describes.", _unknown(snapshot, unknown), CONFIG_FILE
        )
    if WEIGHTS_FILE in cached and is_transformers_clip(values):
        for name in PREPROCESSOR_FILES:
            if name in cached:
                return
            if hub.may_have(snapshot, name):
                raise _unknown(snapshot, name)


def _unknown(snapshot: Snapshot, name: str) -> NetworkError:
    return NetworkError(
        f"It is unknown whether {snapshot.repo_id} at {snapshot.commit[:12]} has a file {name}: "
        f"the cache at {snapshot.access.cache} does not hold it, and has no record that it does "
        "not exist. Fetch the missing files while online: `hfclip download "
        f"{snapshot.repo_id}@{snapshot.commit}`."
    )
