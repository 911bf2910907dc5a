"""Finds files in the cache of the Hub's client, without an import of the client.

The import of the client takes longer than the rest of many commands. The layout of the cache is
documented: models--ORG--NAME/snapshots/COMMIT/FILE. The tests compare with the client.
"""

import os
import re
from pathlib import Path, PureWindowsPath

from hfclip.errors import RepositoryError

# Like the client, os.path reports a file that cannot be examined as missing; pathlib raises.
# ruff: noqa: PTH110, PTH113, PTH208

_NAME = re.compile(r"\w(?:[\w.-]{0,94}\w)?", re.ASCII)


def repository_folder(repo_id: str) -> str:
    """Returns the name of a repository's folder in the cache: models--org--name."""
    return "--".join(["models", *repo_id.split("/")])


def cached_file(folder: Path, commit: str, filename: str) -> Path | None:
    """Returns the path of a file of a commit, or None if it is not in the cache.

    Args:
        folder: The repository's folder in the cache.
        commit: The full commit.
        filename: The name of the file in the repository, with / between folders.

    Raises:
        OSError: The folder of the snapshots cannot be listed.
        RepositoryError: The name leads out of the repository.
    """
    if _leads_out(filename):
        raise RepositoryError(
            f"The repository lists the file {filename!r}, which leads out of its folder. Ask its "
            "owner to rename the file."
        )
    snapshots = folder / "snapshots"
    if os.path.isfile(folder / ".no_exist" / commit / filename) or not os.path.exists(snapshots):
        return None
    if commit not in os.listdir(snapshots):
        return None
    path = snapshots / commit / filename
    return path if os.path.isfile(path) else None


def _leads_out(filename: str) -> bool:
    """Returns whether a name is an absolute path or goes up, on any operating system."""
    parts = filename.split("/")
    is_anchored = filename.startswith("/") or any(PureWindowsPath(part).anchor for part in parts)
    return is_anchored or any(".." in part.split("\\") for part in parts)


def is_repository_name(repo_id: str) -> bool:
    """Returns whether the Hub allows a name for a repository: `name` or `org/name`."""
    parts = repo_id.split("/")
    return (
        len(parts) <= 2
        and all(_NAME.fullmatch(part) for part in parts)
        and "--" not in repo_id
        and ".." not in repo_id
        and not repo_id.endswith(".git")
    )
