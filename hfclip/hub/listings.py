"""Reads and writes records of the files that a repository has at a commit.

A file that is not in the cache may still be in the repository. Three records prove its absence:
hfclip's own listing, the listing that `snapshot_download` writes to the cache, and the `.no_exist`
folder of the cache, where the Hub's client records each file that the Hub reported as missing.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import constants

from hfclip.hub import integrity
from hfclip.hub.cache import repository_folder
from hfclip.hub.integrity import Digest, digest_named

Listing = Mapping[str, Digest | None]

# The only supported version of the client's listing format.
_TREE_VERSION = 1


def read_listing(repo_id: str, commit: str, repository_cache: Path) -> Listing | None:
    """Returns all files of a commit with their hashes, or None if there is no listing.

    Args:
        repo_id: The repository.
        commit: The full commit, whose files cannot change.
        repository_cache: The repository's folder in the Hub's cache.
    """
    try:
        listing = json.loads(_listing_file(repo_id, commit).read_text())
        return {name: entry and Digest(*entry) for name, entry in listing.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return _read_tree(repository_cache / "trees" / f"{commit}.json")


def remember_listing(repo_id: str, commit: str, listing: Listing) -> None:
    """Writes the Hub's listing of a commit."""
    integrity.note(_listing_file(repo_id, commit), json.dumps(listing))


def is_proven_absent(repository_cache: Path, commit: str, filename: str) -> bool:
    """Returns whether the client has recorded that a commit does not have a file."""
    return (repository_cache / ".no_exist" / commit / filename).is_file()


def _read_tree(path: Path) -> Listing | None:
    """Reads a listing of `snapshot_download`, or returns None if it is missing or invalid."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["format_version"] != _TREE_VERSION:
            return None
        return {
            name: digest_named(entry.get("lfs_sha256") or entry["blob_id"])
            for name, entry in tree["files"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _listing_file(repo_id: str, commit: str) -> Path:
    folder = Path(constants.HF_HOME) / "hfclip" / "listings" / repository_folder(repo_id)
    return folder / f"{commit}.json"
