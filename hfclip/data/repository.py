"""Downloads a dataset repository of the Hub at one commit, and verifies its files.

Only files are downloaded: a loading script in a repository is not executed.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from hfclip.errors import DataError, IntegrityError
from hfclip.hub import integrity
from hfclip.hub.ask import ask
from hfclip.hub.fetch import Access
from hfclip.hub.integrity import digest_named
from hfclip.hub.missing import NotCachedError

PREFIX = "hf:"


@dataclass(frozen=True)
class DownloadedData:
    """A dataset repository in the cache.

    Attributes:
        repo_id: The repository.
        commit: The commit of all files.
        path: The file or folder in the cache.
        folder: The folder of the repository in the cache.
    """

    repo_id: str
    commit: str
    path: Path
    folder: Path


def download_data(name: str, access: Access) -> DownloadedData:
    """Downloads "hf:org/name", "hf:org/name@revision" or "hf:org/name/folder@revision".

    Raises:
        DataError: The name is malformed, or the folder does not exist in the repository.
        HubError: The files cannot be downloaded, or a file does not have the published hash.
    """
    body, _, revision = name.removeprefix(PREFIX).partition("@")
    parts = PurePosixPath(body).parts
    if len(parts) < 2 or ".." in parts or "/" in parts:
        raise DataError(
            f"{name!r} names no dataset; expected hf:org/name, with @revision at the end for a "
            "branch, tag or commit, and /folder after the name for a part of it."
        )
    repo_id, inside = "/".join(parts[:2]), "/".join(parts[2:])
    folder = _snapshot(repo_id, revision or None, inside, access)
    path = folder / inside
    if not path.exists():
        raise DataError(f"The dataset {repo_id} has no file or folder {inside}.")
    _verify(folder, path)
    return DownloadedData(repo_id, folder.name, path, folder)


def _snapshot(repo_id: str, revision: str | None, inside: str, access: Access) -> Path:
    patterns = [inside, f"{inside}/*"] if inside else None

    def download(*, cached: bool) -> str:
        return snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=revision,
            cache_dir=access.cache,
            token=access.token,
            allow_patterns=patterns,
            local_files_only=cached,
            force_download=access.force_download,
        )

    what = f"The dataset {repo_id}" + (f" at {revision}" if revision else "")
    if not access.offline:
        return Path(ask(lambda: download(cached=False), what))
    try:
        return Path(download(cached=True))
    except LocalEntryNotFoundError:
        raise NotCachedError(
            f"{what} is not complete in the cache at {access.cache}, and local_files_only or "
            "HF_HUB_OFFLINE forbids requests. Read it once while online."
        ) from None


def _verify(folder: Path, path: Path) -> None:
    """Compares each file with the hash in the name of its blob in the cache."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    linked = [file for file in files if file.is_symlink()]
    with ThreadPoolExecutor() as pool:
        for file, is_right in zip(linked, pool.map(_has_its_hash, linked), strict=True):
            if not is_right:
                raise IntegrityError(
                    f"{file.relative_to(folder)} in {folder} does not have the published hash: it "
                    f"was damaged or replaced. Delete {file.resolve()}, then run again."
                )


def _has_its_hash(file: Path) -> bool:
    digest = digest_named(file.readlink().name)
    return digest is None or integrity.compute(file, digest.kind) == digest.value
