"""Where a model's files lie: the one place where a name is given its meaning."""

import difflib
import logging
import os
import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hfclip import hub, integrity
from hfclip.config import ClipConfig, read_json
from hfclip.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConfigError,
    ModelNotFoundError,
    NetworkError,
    RepositoryError,
)
from hfclip.foreign_configs import (
    config_from_json,
    config_from_open_clip,
    is_hfclip,
    is_transformers_clip,
)
from hfclip.hub import Access, Snapshot
from hfclip.hub_errors import MissingRepositoryError, NotCachedError
from hfclip.integrity import Digest
from hfclip.releases import BUNDLED, RELEASES, Release

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
OPEN_CLIP_CONFIG_FILE = "open_clip_config.json"
OPEN_CLIP_WEIGHTS_FILE = "open_clip_model.safetensors"
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_WEIGHT_SUFFIXES = (*_PICKLES, ".safetensors")
_HUB_NAME = re.compile(r"(?:hf-hub:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Source:
    """The files of one model, verified where a hash is known.

    Attributes:
        weights: The weight file, of any kind that `hfclip.checkpoint` reads.
        config: Its configuration, or None: then the shapes must tell.
        origin: Where it comes from, in words.
        named_by_transformers: Whether the weights bear transformers' names instead of OpenAI's.
    """

    weights: Path
    config: ClipConfig | None
    origin: str
    named_by_transformers: bool = False


def find(
    name: str | Path,
    access: Access | None = None,
    *,
    revision: str | None = None,
    namespace: str | None = None,
    download_root: str | Path | None = None,
) -> Source:
    """Finds the files of a model, fetching from the Hub what is not on this machine.

    Args:
        name: A release, a bundled model, a folder, a file, or a repository on the Hub:
            `org/name`, `hf-hub:org/name`, `org/name@revision`.
        access: How the Hub and its cache are to be used.
        revision: A branch, tag or commit, in place of the pinned one.
        namespace: Whose copies of the releases to use; by default HFCLIP_NAMESPACE.
        download_root: Where OpenAI's own files are looked for; by default ~/.cache/clip.

    Raises:
        ModelNotFoundError: The name is empty, means nothing (the message suggests the nearest), or
            is a path that does not exist.
        ArgumentError: `revision` or `namespace` does not apply to that name.
        HubError: The files cannot be had, or are not what was published.
    """
    access = access or Access()
    _check_is_name(name)
    if name in BUNDLED:
        _refuse_options(f"{name} is bundled with hfclip", revision=revision, namespace=namespace)
        return _folder(Path(__file__).parent / str(name), "bundled with hfclip")
    if name in RELEASES:
        namespace = namespace or os.environ.get("HFCLIP_NAMESPACE")
        if namespace:
            return _repository(f"{namespace}/{repository_name(str(name))}", revision, access)
        return _release(RELEASES[str(name)], revision, access, download_root)
    path = _local_path(name)
    if path is not None:
        _refuse_options(f"{name} is a local path", revision=revision, namespace=namespace)
        return _folder(path, f"the folder {path}") if path.is_dir() else _file(path)
    repo_id, named_revision = _parse_repository(str(name))
    _refuse_options(f"{name} names its own account", namespace=namespace)
    if revision and named_revision and revision != named_revision:
        raise ArgumentError(f"{name} names another revision than revision={revision!r}. Give one.")
    try:
        return _repository(repo_id, revision or named_revision, access)
    except (MissingRepositoryError, NotCachedError) as error:
        hint = f" Nor is there a file or folder {name}.{_suggestion(str(name))}"
        kind = NetworkError if isinstance(error, NotCachedError) else RepositoryError
        raise kind(f"{error}{hint}") from None


def repository_name(release: str) -> str:
    """A release's name as a repository's: `ViT-L/14@336px` -> `ViT-L-14-336px`."""
    return release.replace("/", "-").replace("@", "-")


def release_digest(release: Release) -> Digest | None:
    """What the release's weights on the Hub must hash to, as far as it is known here."""
    return Digest("sha256", release.hub.sha256) if release.hub.sha256 else None


def _release(
    release: Release, revision: str | None, access: Access, download_root: str | Path | None
) -> Source:
    """The Hub's copy if it is cached, else OpenAI's own file if it is here, else the Hub's."""
    file = release.hub
    pinned = file.revision if revision is None else None
    in_cache = pinned and hub.cached(file.repo_id, file.file, pinned, access)
    if revision is None and not in_cache and not access.force_download:
        original = _original(release, download_root, access)
        if original is not None:
            return Source(original, release.config, f"OpenAI's own file {original}")
    digest = release_digest(release) if pinned else None
    if pinned and in_cache and digest:
        snapshot = Snapshot(file.repo_id, pinned, {file.file: digest}, access)
    else:
        snapshot = hub.resolve(file.repo_id, revision or pinned, access)
    weights = hub.fetch(snapshot, file.file, digest)
    return Source(weights, release.config, _origin(snapshot))


def _original(release: Release, download_root: str | Path | None, access: Access) -> Path | None:
    """OpenAI's file where `clip` put it, if it is whole."""
    root = Path(download_root) if download_root else Path("~/.cache/clip").expanduser()
    path, published = root / release.original.file, release.original
    if not path.is_file() or path.stat().st_size != published.size:
        return None
    digest = Digest("sha256", published.sha256)
    return path if integrity.matches(path, digest, again=access.hash_again) else None


def _repository(repo_id: str, revision: str | None, access: Access) -> Source:
    snapshot = hub.resolve(repo_id, revision, access)
    origin = _origin(snapshot)
    if not snapshot.is_listed:
        _check_layout_is_known(snapshot)
    return _read_layout(snapshot.digests.keys(), partial(hub.fetch, snapshot), origin)


def _check_layout_is_known(snapshot: Snapshot) -> None:
    """Refuses a cache that holds a part of a repository, if the rest may change what is loaded.

    Raises:
        NetworkError: A file that tells the layout or the preprocess is not cached, and nothing
            proves that the repository does not have it.
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
        # Other packages keep an image tower alone in the same two files.
        if not (is_transformers_clip(values) or is_hfclip(values)):
            raise _unknown(snapshot, unknown)
        logger.warning(
            "%s Loading the model that %s describes.", _unknown(snapshot, unknown), CONFIG_FILE
        )
    if is_transformers_clip(values):
        for name in PREPROCESSOR_FILES:
            if name in cached:
                return
            if hub.may_have(snapshot, name):
                raise _unknown(snapshot, name)


def _unknown(snapshot: Snapshot, name: str) -> NetworkError:
    return NetworkError(
        f"Whether {_origin(snapshot)} has a file {name} is unknown: the cache at "
        f"{snapshot.access.cache} does not hold it, and has no record that it does not exist. "
        f"Fetch what is missing with a network: `hfclip download "
        f"{snapshot.repo_id}@{snapshot.commit}`."
    )


def _folder(path: Path, origin: str) -> Source:
    names = {entry.name for entry in path.iterdir()}
    return _read_layout(names, path.joinpath, origin)


def _read_layout(names: Set[str], get: Callable[[str], Path], origin: str) -> Source:
    """Tells by its files which of three layouts a folder or repository has, and gets them."""
    # First: timm's repositories hold the image tower alone under the other two layouts' names.
    is_open_clip = {OPEN_CLIP_CONFIG_FILE, OPEN_CLIP_WEIGHTS_FILE} <= names
    if not is_open_clip and not {CONFIG_FILE, WEIGHTS_FILE} <= names:
        raise _unreadable(names, origin)
    values = read_json(get(OPEN_CLIP_CONFIG_FILE if is_open_clip else CONFIG_FILE))
    is_transformers = not is_open_clip and is_transformers_clip(values)
    preprocessors = PREPROCESSOR_FILES if is_transformers else ()
    preprocessor = next((read_json(get(name)) for name in preprocessors if name in names), None)
    try:
        config = (
            config_from_open_clip(values)
            if is_open_clip
            else config_from_json(values, preprocessor)
        )
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    weights = get(OPEN_CLIP_WEIGHTS_FILE if is_open_clip else WEIGHTS_FILE)
    return Source(weights, config, origin, named_by_transformers=is_transformers)


def _unreadable(names: Set[str], origin: str) -> RepositoryError:
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    if pickles:
        return RepositoryError(
            f"{origin} holds its weights as pickles alone ({', '.join(pickles[:3])}), which can "
            "run code and are not fetched. Ask its owner for safetensors; or download the file "
            "yourself and give its path, if it is a state dict."
        )
    return RepositoryError(
        f"{origin} holds no CLIP in a known layout: there is neither {CONFIG_FILE} with "
        f"{WEIGHTS_FILE}, nor {OPEN_CLIP_CONFIG_FILE} with {OPEN_CLIP_WEIGHTS_FILE}; "
        f"there is {', '.join(sorted(names)[:5]) or 'nothing'}."
    )


def _origin(snapshot: Snapshot) -> str:
    return f"{snapshot.repo_id} at {snapshot.commit[:12]}"


def _file(path: Path) -> Source:
    # The weights of a model folder, named themselves, still belong to its configuration.
    if path.name == WEIGHTS_FILE and path.with_name(CONFIG_FILE).is_file():
        return _folder(path.parent, f"the file {path}")
    return Source(path, None, f"the file {path}")


def _check_is_name(name: str | Path) -> None:
    if not isinstance(name, str | os.PathLike):
        raise ArgumentTypeError(f"A model's name is text or a path, not {type(name).__name__}.")
    if not os.fspath(name).strip() or (isinstance(name, Path) and not name.parts):
        # Python does not tell Path("") from Path(".").
        raise ModelNotFoundError(
            f"The model's name is empty ({name!r}). Give a release, repository, file or folder; "
            'the current folder is "." as text, or Path.cwd().'
        )


def _refuse_options(what: str, **options: str | None) -> None:
    """Refuses options that mean nothing for a name, instead of ignoring them.

    Raises:
        ArgumentError: An option is given.
    """
    for option, value in options.items():
        if value:
            raise ArgumentError(f"{what}: {option}={value!r} does not apply to it. Leave it out.")


def _local_path(name: str | Path) -> Path | None:
    """Returns the file or folder of that name, or None if there is none.

    Raises:
        ModelNotFoundError: The system refuses to look, or finds something else, such as a pipe.
    """
    try:
        path = Path(name).expanduser()
        if path.is_dir() or path.is_file():
            return path
        is_special = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no right, no such user, too long
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelNotFoundError(f"Model {name} not found: {reason}.") from None
    if is_special:
        raise ModelNotFoundError(f"{name} is neither a file nor a folder; save it as a file first.")
    return None


def _parse_repository(name: str) -> tuple[str, str | None]:
    """Splits `hf-hub:org/name@revision`.

    Returns:
        The repository's id, and the revision or None.

    Raises:
        ModelNotFoundError: The name is a path that does not exist, or no repository can have it.
    """
    if _is_path(name):
        raise ModelNotFoundError(
            f"Model {name} not found: there is no such file or folder. A relative path starts at "
            f"{Path.cwd()}."
        )
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise _not_found(name)
    if not hub.can_be_repository(match[1]):
        raise ModelNotFoundError(
            f"Model {name} not found: there is no such file or folder, and no repository can have "
            "that name: it has letters, digits, '-', '_' and '.', no '--' or '..', at most 96."
        )
    return match[1], match[2]


def _is_path(name: str) -> bool:
    """Whether a name can only be meant as a path; `hf-hub:` before a name says it is none."""
    if name.startswith("hf-hub:") or "://" in name:
        return False
    place = name.partition("@")[0]
    return (
        name.startswith((".", "/", "~"))
        or "\\" in name
        or name.endswith("/")
        or place.count("/") > 1
        or name.lower().endswith(_WEIGHT_SUFFIXES)
    )


def _not_found(name: str) -> ModelNotFoundError:
    advice = " Give a repository as org/name, without its address." if "://" in name else ""
    return ModelNotFoundError(
        f"Model {name} not found: no release, file, folder or repository of that name."
        f"{advice}{_suggestion(name)} Available models: {', '.join([*RELEASES, *BUNDLED])}."
    )


def _suggestion(name: str) -> str:
    """The nearest name, letters and digits compared: `ViT-B-16` -> `ViT-B/16`."""
    spelled = {_letters(entry): entry for entry in [*RELEASES, *BUNDLED]}
    near = difflib.get_close_matches(_letters(name), spelled, n=1, cutoff=0.6)
    return f" Did you mean {spelled[near[0]]!r}?" if near else ""


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
