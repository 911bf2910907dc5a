"""Reads the address of a page on the Hub, as a browser shows it."""

import re
from typing import NamedTuple
from urllib.parse import unquote

from huggingface_hub import constants

from hfclip.errors import ModelNotFoundError

_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co")
# Pages of a repository that have a revision in their address; True for those of one file.
_PAGES = {
    "tree": False,
    "commit": False,
    "commits": False,
    "blob": True,
    "resolve": True,
    "raw": True,
    "blame": True,
}
_OTHER_KINDS = {"datasets": "a data set", "spaces": "a Space", "collections": "a collection"}
_REVISION = re.compile(r"(refs/[\w.-]+/[\w.-]+|[^/]+)(?:/(.+))?")


class Address(NamedTuple):
    """A page of a model's repository.

    Attributes:
        repo_id: The repository, `org/name`.
        revision: The branch, tag or commit, or None.
        file: The name of the file at the repository's root, or None.
    """

    repo_id: str
    revision: str | None = None
    file: str | None = None


def is_address(name: str) -> bool:
    """Returns whether a name is an address, of the Hub or of another host."""
    return "://" in name or _on_hub(name) is not None


def parse_address(name: str) -> Address:
    """Reads the address of a repository, a revision or a file at the root of a repository.

    The Hub is at huggingface.co, at hf.co, and at HF_ENDPOINT. A query and a fragment are ignored.

    Raises:
        ModelNotFoundError: The address is not one of a model's repository.
    """
    path = _on_hub(name)
    if path is None:
        raise _refusal(name, f"it is not an address of the Hub at {_endpoint()}")
    parts = [unquote(part) for part in path.split("/") if part]
    if parts and parts[0] in _OTHER_KINDS:
        raise _refusal(name, f"it is the address of {_OTHER_KINDS[parts[0]]}, not of a model")
    if len(parts) < 2:
        raise _refusal(name, "the address names no repository")
    repo_id, page, rest = "/".join(parts[:2]), parts[2:3], "/".join(parts[3:])
    if not page:
        return Address(repo_id)
    found = _REVISION.fullmatch(rest)
    if page[0] not in _PAGES or found is None:
        raise _refusal(name, f"its page {'/'.join(parts[2:])!r} names no revision", repo_id)
    revision, below = found[1], found[2]
    is_file = _PAGES[page[0]]
    folder = below if below and not is_file else (below or "").rpartition("/")[0]
    if folder:
        raise ModelNotFoundError(
            f"Model {name} not found: the address names the folder {folder!r} of a repository. "
            f"Give {f'{repo_id}@{revision}'!r} and subfolder={folder!r} (--subfolder {folder})."
        )
    return Address(repo_id, revision, below if is_file else None)


def _on_hub(name: str) -> str | None:
    """Returns the path of an address of the Hub, or None for any other text."""
    before, mark, after = name.partition("://")
    if mark and before.lower() not in {"http", "https"}:
        return None
    rest = re.split(r"[?#]", after if mark else name, maxsplit=1)[0]
    bases = [*_HOSTS, _endpoint().rpartition("://")[2]]
    for base in bases:
        if rest.lower() == base or rest.lower().startswith(f"{base}/"):
            return rest[len(base) :]
    return None


def _endpoint() -> str:
    """Returns HF_ENDPOINT in small letters, without a user, a password or a slash at the end."""
    scheme, mark, rest = constants.ENDPOINT.lower().rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2].rstrip('/')}"


def _refusal(name: str, reason: str, repository: str = "org/name") -> ModelNotFoundError:
    return ModelNotFoundError(
        f"Model {name} not found: {reason}. Give a repository as {repository!r}, or download a "
        "file and give its path."
    )
