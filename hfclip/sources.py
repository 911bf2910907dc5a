"""Where a model's files lie: the one place where a name is given its meaning."""

import difflib
import os
import re
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hfclip import hub, integrity
from hfclip.config import ClipConfig, read_json
from hfclip.errors import ConfigError, ModelNotFoundError, NetworkError, RepositoryError
from hfclip.foreign_configs import (
    config_from_json,
    config_from_open_clip,
    is_transformers_clip,
)
from hfclip.hub import Access, Snapshot
from hfclip.integrity import Digest
from hfclip.releases import BUNDLED, RELEASES, Release

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
OPEN_CLIP_CONFIG_FILE = "open_clip_config.json"
OPEN_CLIP_WEIGHTS_FILE = "open_clip_model.safetensors"
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_HUB_NAME = re.compile(r"(?:hf-hub:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Source:
    """The files of one model, verified where a hash is known.

    Attributes:
        weights: The weight file, of any kind that `hfclip.checkpoint` reads.
        config: Its configuration, or None: then the shapes must tell.
        origin: Where it comes from, in words.
        config_origin: Where the configuration comes from, in words.
        is_base: Whether the configuration is that of the model which the weights were fine-tuned
            from. The sizes that fine-tuning may change are then read off the weights.
        mapped: Whether a safetensors file may be mapped into memory instead of read. Only a file
            that nobody writes in place may be: one of the Hub client's cache, or of hfclip itself.
    """

    weights: Path
    config: ClipConfig | None
    origin: str
    config_origin: str = "its configuration"
    is_base: bool = False
    mapped: bool = False


def find(
    name: str | Path,
    access: Access | None = None,
    *,
    revision: str | None = None,
    namespace: str | None = None,
    download_root: str | Path | None = None,
    base: str | Path | None = None,
) -> Source:
    """Finds the files of a model, fetching from the Hub what is not on this machine.

    Args:
        name: A release, a bundled model, a folder, a file, or a repository on the Hub:
            `org/name`, `hf-hub:org/name`, `org/name@revision`.
        access: How the Hub and its cache are to be used.
        revision: A branch, tag or commit, in place of the pinned one.
        namespace: Whose copies of the releases to use; by default HFCLIP_NAMESPACE.
        download_root: Where OpenAI's own files are looked for; by default ~/.cache/clip.
        base: What a weight file was fine-tuned from: a name, a folder or a repository. Its
            configuration is taken, whatever lies beside the file. The configuration of anything
            else than a weight file must agree with it.

    Raises:
        ModelNotFoundError: The name means nothing; the message suggests the nearest.
        ConfigError: The configuration is refused, or is not that of a fine-tune of `base`.
        HubError: The files cannot be had, or are not what was published.
    """
    access = access or Access()
    if base is None:
        return _find(name, access, revision, namespace, download_root)
    config = base_config(base, access)
    path = Path(name).expanduser()
    if name not in BUNDLED and name not in RELEASES and path.is_file():
        return Source(path, config, f"the file {path}", f"the base {base}", is_base=True)
    source = _find(name, access, revision, namespace, download_root)
    if source.config is not None:
        _check_base(source, config, str(base))
    return source


def _find(
    name: str | Path,
    access: Access,
    revision: str | None,
    namespace: str | None,
    download_root: str | Path | None,
) -> Source:
    if name in BUNDLED:
        source = _folder(Path(__file__).parent / str(name), "bundled with hfclip")
        return replace(source, mapped=True)
    if name in RELEASES:
        namespace = namespace or os.environ.get("HFCLIP_NAMESPACE")
        if namespace:
            return _repository(f"{namespace}/{repository_name(str(name))}", revision, access)
        return _release(RELEASES[str(name)], revision, access, download_root)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, f"the folder {path}")
    if path.is_file():
        return _file(path)
    match = _HUB_NAME.fullmatch(str(name))
    if match is None:
        raise _not_found(str(name))
    try:
        return _repository(match[1], revision or match[2], access)
    except (RepositoryError, NetworkError) as error:
        hint = f" Nor is there a file or folder {name}.{_suggestion(str(name))}"
        raise type(error)(f"{error}{hint}") from None


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
    return Source(weights, release.config, _origin(snapshot), mapped=True)


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
    source = _read_layout(snapshot.digests.keys(), partial(hub.fetch, snapshot), origin)
    return replace(source, mapped=True)


def _folder(path: Path, origin: str) -> Source:
    names = {entry.name for entry in path.iterdir()}
    return _read_layout(names, path.joinpath, origin)


def _read_layout(names: Set[str], get: Callable[[str], Path], origin: str) -> Source:
    """Tells by its files which of three layouts a folder or repository has, and gets them."""
    # First: timm's repositories hold the image tower alone under the other two layouts' names.
    is_open_clip = {OPEN_CLIP_CONFIG_FILE, OPEN_CLIP_WEIGHTS_FILE} <= names
    if not is_open_clip and not {CONFIG_FILE, WEIGHTS_FILE} <= names:
        raise _unreadable(names, origin)
    config_file = OPEN_CLIP_CONFIG_FILE if is_open_clip else CONFIG_FILE
    try:
        config = _read_config(config_file, names, get)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    weights = get(OPEN_CLIP_WEIGHTS_FILE if is_open_clip else WEIGHTS_FILE)
    return Source(weights, config, origin)


def _read_config(file: str, names: Set[str], get: Callable[[str], Path]) -> ClipConfig:
    """Reads a configuration of any layout, with the preprocessor's file where there is one."""
    values = read_json(get(file))
    if file == OPEN_CLIP_CONFIG_FILE:
        return config_from_open_clip(values)
    preprocessors = PREPROCESSOR_FILES if is_transformers_clip(values) else ()
    preprocessor = next((read_json(get(name)) for name in preprocessors if name in names), None)
    return config_from_json(values, preprocessor)


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
    """A weight file that was named itself, with the configuration beside it, if there is one."""
    found = _config_beside(path)
    if found is None:
        return Source(path, None, f"the file {path}")
    file, config = found
    beside = f"the configuration beside it, {path.with_name(file)}"
    return Source(path, config, f"the file {path}", beside)


def _config_beside(path: Path) -> tuple[str, ClipConfig] | None:
    try:
        return _config_in(_known_files(path.parent), path.parent.joinpath, path.name)
    except ConfigError as error:
        raise ConfigError(
            f"{path} lies beside a configuration that cannot be used: {error} Say with base= "
            "(--base) what the weights were fine-tuned from, such as 'ViT-B/32', or move them to "
            "a folder of their own."
        ) from None


def _known_files(folder: Path) -> set[str]:
    """The files of a folder that are part of a configuration."""
    known = (OPEN_CLIP_CONFIG_FILE, CONFIG_FILE, *PREPROCESSOR_FILES)
    return {name for name in known if (folder / name).is_file()}


def _config_in(
    names: Set[str], get: Callable[[str], Path], weights: str = ""
) -> tuple[str, ClipConfig] | None:
    """Chooses the configuration that weights have in a folder or repository.

    A weight file that has the standard name of a layout uses the configuration of that layout. A
    configuration that is not a CLIP's is skipped if the other one is: timm's repositories hold
    both.

    Args:
        names: The files of the folder or repository.
        get: Gives the path of one of them.
        weights: The weight file's name; empty if only the configuration is wanted.

    Returns:
        The configuration and its file's name, or None if there is none.

    Raises:
        ConfigError: No configuration is a CLIP's, or two are and they differ.
    """
    configs: dict[str, ClipConfig] = {}
    refusals: list[str] = []
    for file in (OPEN_CLIP_CONFIG_FILE, CONFIG_FILE):
        if file in names:
            try:
                configs[file] = _read_config(file, names, get)
            except ConfigError as error:
                refusals.append(f"{get(file)}: {error}")
    own = _CONFIG_OF.get(weights)
    if own in configs:
        return own, configs[own]
    if len(set(configs.values())) > 1:
        files = " and ".join(str(get(file)) for file in configs)
        refusals = [f"{files} describe different models, and either may be meant."]
    elif configs:
        return next(iter(configs.items()))
    if refusals:
        raise ConfigError(" ".join(refusals))
    return None


_CONFIG_OF = {OPEN_CLIP_WEIGHTS_FILE: OPEN_CLIP_CONFIG_FILE, WEIGHTS_FILE: CONFIG_FILE}
# What a fine-tune may change; anything else makes another architecture.
_MAY_DIFFER = {"image_resolution", "context_length", "vocab_size", "image_mean", "image_std"}


def base_config(base: str | Path, access: Access | None = None) -> ClipConfig:
    """Returns the configuration of a model that weights were fine-tuned from; fetches no weights.

    Args:
        base: A release or a bundled model, which need no network, a folder, a repository, or a
            weight file with a configuration beside it.
        access: How the Hub and its cache are to be used.

    Raises:
        ConfigError: There is no configuration, or it is refused.
        ModelNotFoundError: The name means nothing.
        HubError: The configuration cannot be had.
    """
    if base in RELEASES:
        return RELEASES[str(base)].config
    path = Path(__file__).parent / str(base) if base in BUNDLED else Path(base).expanduser()
    match = _HUB_NAME.fullmatch(str(base))
    if path.is_dir():
        found = _config_in(_known_files(path), path.joinpath)
    elif path.is_file():
        found = _config_beside(path)
    elif match is not None:
        snapshot = hub.resolve(match[1], match[2], access or Access())
        found = _config_in(snapshot.digests.keys(), partial(hub.fetch, snapshot))
    else:
        raise _not_found(str(base))
    if found is None:
        raise ConfigError(
            f"The base {base} has no configuration: neither {CONFIG_FILE} nor "
            f"{OPEN_CLIP_CONFIG_FILE}. Name one of the models of `hfclip models`, a folder with "
            "its configuration, or a repository."
        )
    return found[1]


def _check_base(source: Source, base: ClipConfig, name: str) -> None:
    """Refuses a model that cannot be a fine-tune of its base."""
    assert source.config is not None  # noqa: S101  # the caller has looked
    theirs, ours = base.to_dict(), source.config.to_dict()
    differing = [key for key in ours if ours[key] != theirs[key] and key not in _MAY_DIFFER]
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{key} is {ours[key]!r} in the configuration of {source.origin}, and "
            f"{theirs[key]!r} in {name}: it is no fine-tune of that. Name the right base, or "
            "correct the configuration."
        )


def _not_found(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"Model {name} not found: no release, file, folder or repository of that name."
        f"{_suggestion(name)} Available models: {', '.join([*RELEASES, *BUNDLED])}."
    )


def _suggestion(name: str) -> str:
    """The nearest name, letters and digits compared: `ViT-B-16` -> `ViT-B/16`."""
    spelled = {_letters(entry): entry for entry in [*RELEASES, *BUNDLED]}
    near = difflib.get_close_matches(_letters(name), spelled, n=1, cutoff=0.6)
    return f" Did you mean {spelled[near[0]]!r}?" if near else ""


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
