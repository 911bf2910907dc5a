"""Hashes the local files of models again: `verify` and `verify_all`. Imports no torch."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hfclip.errors import ArgumentError, CacheError, HfclipError, IntegrityError, NetworkError
from hfclip.hub import fetch as hub
from hfclip.hub import integrity
from hfclip.hub.fetch import Access
from hfclip.hub.integrity import Digest
from hfclip.layouts.files import WEIGHTS_FILE
from hfclip.releases import BUNDLED, RELEASES, bundled_folder
from hfclip.sources import cached as cached_models
from hfclip.sources import naming
from hfclip.sources.cached import CachedModel
from hfclip.sources.find import find, original_file, repository_of
from hfclip.sources.folder import Part


@dataclass(frozen=True)
class Verification:
    """A model whose files all have the published hashes.

    Attributes:
        name: The name that `verify` was called with.
        origin: The repository and commit, or the file or folder, in words.
        path: The weight file, or the index of the shards.
        digest: The hash of this file.
        files: The hash of each verified file, `path` first.
    """

    name: str
    origin: str
    path: Path
    digest: Digest
    files: Mapping[Path, Digest]


def verify(
    name: str | Path,
    *,
    repair: bool = False,
    revision: str | None = None,
    namespace: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
) -> Verification:
    """Hashes all cached files of a model again and compares the hashes with the published ones.

    Results of earlier verifications are not used. Without `repair`, makes no request.

    Args:
        name: A release, a repository ("org/name" or "org/name@revision"), the bundled "digits",
            or a file or folder with the published weights of one of OpenAI's nine models.
        repair: Whether to download damaged files again.
        revision: A branch, tag or commit; by default the pinned commit of a release, else main.
        namespace: The account whose copies of the nine releases are used; by default the
            environment variable HFCLIP_NAMESPACE, if set.
        token: A Hub token, True for the stored token, False for none; used only with `repair`.
        cache_dir: The folder of the Hub's cache; by default HF_HUB_CACHE, else `hub` in HF_HOME.
        subfolder: The folder in the repository whose model must be complete.
        variant: The variant of the weights that must be complete, such as "fp16".

    Returns:
        The verified files and their hashes.

    Raises:
        CacheError: A file cannot be read.
        IntegrityError: A file is damaged, or no hash is published for it.
        NetworkError: The model is not in the cache, or a damaged file cannot be downloaded.
        ModelNotFoundError: The name is not a release, repository, file or folder.
        ArgumentError: A revision, subfolder or variant is given, but the name is not a repository.

    Example:
        >>> hfclip.verify("digits").digest.kind
        'sha256'
    """
    part = Part.of(subfolder, variant)
    repository = repository_of(name, revision=revision, namespace=namespace)
    if repository is None:
        for option, value in {"revision": revision, **part._asdict()}.items():
            if value:
                raise ArgumentError(
                    f"{name} has no {option} {value!r}: it is not a repository. Omit `{option}`."
                )
        return _verify_bundled(str(name)) if name in BUNDLED else _verify_local(name)
    access = Access(token, cache_dir, local_files_only=True, hash_again=True)
    is_any_part = name not in RELEASES and not any(part)
    model = cached_models.find_cached(*repository, access, None if is_any_part else part)
    if model and (model.config is None or not model.missing):
        return _verify_cached(str(name), model, access, repair=repair)
    if revision is None and not any(part) and _is_original(str(name), repository[0]):
        return _verify_original(str(name))
    options = {"revision": revision, "namespace": namespace, **part._asdict()}
    raise _not_cached(str(name), model, options, access)


def verify_all(
    *, repair: bool = False, cache_dir: str | Path | None = None
) -> Iterator[tuple[str, Verification | HfclipError]]:
    """Verifies every CLIP model in the Hub's cache and OpenAI's files in the folder of `clip`.

    Verifies every cached commit of a repository, but skips commits whose weights are not cached.

    Args:
        repair: Whether to download damaged files again.
        cache_dir: The folder of the Hub's cache; by default HF_HUB_CACHE, else `hub` in HF_HOME.

    Yields:
        A name for `verify`, and either the result or the error.
    """
    access = Access(cache_dir=cache_dir, local_files_only=True, hash_again=True)
    seen = set()
    for model in cached_models.scan(access):
        is_new = (model.repo_id, model.commit) not in seen  # all files of a commit are verified
        if is_new and (model.config is None or model.weights):
            seen.add((model.repo_id, model.commit))
            yield model.name, _attempt(_verify_cached, model.name, model, access, repair=repair)
    for name, release in RELEASES.items():
        path = original_file(release)
        if path.is_file():
            yield str(path), _attempt(_verify_original, name)


def _attempt(
    check: Callable[..., Verification], *arguments: object, **options: object
) -> Verification | HfclipError:
    try:
        return check(*arguments, **options)
    except HfclipError as error:
        return error


def _verify_cached(name: str, model: CachedModel, access: Access, *, repair: bool) -> Verification:
    """Verifies all cached files of a commit, including those that hfclip does not read."""
    snapshot = dataclasses.replace(
        model.snapshot, access=dataclasses.replace(access, local_files_only=not repair)
    )
    pinned = model.pinned
    verified: dict[Path, Digest] = {}
    errors: list[HfclipError] = []
    for filename in sorted(model.files, key=lambda filename: filename != model.needed[0]):
        try:
            path = hub.fetch(snapshot, filename, pinned.get(filename))
            verified[path] = _digest(path)
        except OSError as error:
            errors.append(_unreadable(model.files[filename], error))
        except HfclipError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])("\n".join(map(str, errors)))
    path, digest = next(iter(verified.items()))
    return Verification(name, model.origin, path, digest, verified)


def _verify_bundled(name: str) -> Verification:
    folder = bundled_folder(name)
    verified = {}
    for filename, published in BUNDLED[name].items():
        digest = Digest("sha256", published)
        verified[folder / filename] = digest
        if _sha256(folder / filename) != digest:
            raise IntegrityError(
                f"{folder / filename} has sha256 {_sha256(folder / filename).value}; hfclip "
                f"publishes {published}. Reinstall hfclip."
            )
    path, digest = next(iter(verified.items()))
    return Verification(name, "bundled with hfclip", path, digest, verified)


def _verify_original(name: str) -> Verification:
    """Verifies the file that OpenAI's `clip` downloaded for a release."""
    original = RELEASES[name].original
    path = original_file(RELEASES[name])
    digest = _sha256(path)
    if digest.value != original.sha256:
        raise IntegrityError(
            f"{path} has sha256 {digest.value}; OpenAI publishes {original.sha256}. "
            f"`hfclip.load` does not use it. Remove it and run `hfclip download {name}`."
        )
    return Verification(name, f"OpenAI's own file {path}", path, digest, {path: digest})


def _verify_local(name: str | Path) -> Verification:
    """Compares a file or folder with the published weights of the nine releases."""
    source = find(name, Access(local_files_only=True))
    digest = _sha256(source.weights)
    published = _published_weights().get(digest.value)
    if published:
        origin = f"{source.origin}, the published weights of {published}"
        return Verification(str(name), origin, source.weights, digest, {source.weights: digest})
    raise IntegrityError(
        f"{source.weights} has sha256 {digest.value}. No hash is published for it: it is a local "
        "file and its weights are not those of a release. Compare the hash with the one at the "
        "source of the file."
    )


def _published_weights() -> dict[str | None, str]:
    """Returns the model's name for the sha256 of each weight file that hfclip knows."""
    known: dict[str | None, str] = {}
    for name, release in RELEASES.items():
        known |= {release.original.sha256: name, release.hub.sha256: name}
    for name, files in BUNDLED.items():
        known[files[WEIGHTS_FILE]] = name
    return known


def _is_original(name: str, repo_id: str) -> bool:
    """Returns whether `name` is a release whose file OpenAI's `clip` has downloaded."""
    release = RELEASES.get(name)
    return (
        release is not None and release.hub.repo_id == repo_id and original_file(release).is_file()
    )


def _not_cached(
    name: str, model: CachedModel | None, options: Mapping[str, str | None], access: Access
) -> NetworkError:
    found = f"{name} is not in the cache at {access.cache}"
    if model:
        found = f"{name} is only partly in the cache: {', '.join(model.missing)} is missing"
    command = f"hfclip download {name}"
    for option, value in options.items():
        command += f" --{option} {value}" if value else ""
    hint = "" if model or name in RELEASES else naming.suggestion(name)
    return NetworkError(f"{found}. There is nothing to verify.{hint} Download it with `{command}`.")


def _digest(path: Path) -> Digest:
    """Returns the hash that a file has just been verified against."""
    record = integrity.recall(path)
    return record.digest if record else _sha256(path)  # no record where HF_HOME is read-only


def _sha256(path: Path) -> Digest:
    try:
        return Digest("sha256", integrity.compute(path, "sha256"))
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> CacheError:
    return CacheError(f"{path} cannot be read: {error.strerror or error}. Check its permissions.")
