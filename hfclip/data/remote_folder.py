"""Reads and writes the files of a folder at a URL, such as `s3://bucket/collection`.

A file is written by one upload of its whole content. Object storage shows it when the upload is
complete. Requests are repeated with growing pauses, so a server may restart in the meantime.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hfclip.data.asking import OBJECT_STORAGE, asked, system_of
from hfclip.data.remote import changed_at, version_of
from hfclip.data.urls import check_url, protocol_of
from hfclip.errors import DataError

_T = TypeVar("_T")

# Protocols whose folders are made with their first file. `mkdir` could make a bucket there.
_WITHOUT_FOLDERS = OBJECT_STORAGE | {"memory"}
_READ_ONLY = {
    "hf": "Each file of a repository takes a commit. Embed to a local folder and upload that.",
    "http": "A web server takes no files. Embed to a local folder.",
    "https": "A web server takes no files. Embed to a local folder.",
}


class RemoteFile(NamedTuple):
    """What a listing says about a file.

    Attributes:
        size: The size in bytes, or None.
        changed: The time of the last change in seconds since 1970, by the clock of the server, or
            None.
        version: A text that changes with the file.
    """

    size: int | None
    changed: float | None
    version: str


class RemoteFolder:
    """A folder at a URL. Its files are named by paths relative to it.

    Attributes:
        url: The URL, without a slash at the end.
    """

    def __init__(self, url: str) -> None:
        """Checks the URL. Makes no request.

        Raises:
            DataError: The URL has a password or a token in it, or chains several protocols.
        """
        check_url(url)
        protocol, _, path = url.partition("://")
        self.url = f"{protocol.lower()}://{path.rstrip('/')}"

    def url_of(self, name: str) -> str:
        """Returns the URL of a file or folder in this folder; of the folder itself for ""."""
        return f"{self.url}/{name}" if name else self.url

    def check_writable(self) -> None:
        """Checks that files can be written by this protocol.

        Raises:
            DataError: They cannot.
        """
        reason = _READ_ONLY.get(str(protocol_of(self.url)))
        if reason is not None:
            raise DataError(f"{self.url} cannot be written. {reason}")

    def names(self, folder: str = "") -> list[str]:
        """Returns the names of the files and folders in a folder; none if it does not exist.

        Raises:
            DataError: The request fails.
        """
        return list(self._listed(folder))

    def files(self, folder: str = "") -> dict[str, RemoteFile]:
        """Returns the files in a folder by their names; none if it does not exist.

        Raises:
            DataError: The request fails.
        """
        return {
            name: _file(details)
            for name, details in self._listed(folder).items()
            if details["type"] != "directory"
        }

    def file(self, name: str) -> RemoteFile | None:
        """Returns what is known about a file, or None if it does not exist.

        Raises:
            DataError: The request fails.
        """

        def asks(system: Any, path: str) -> RemoteFile | None:
            system.invalidate_cache()
            try:
                details = system.info(path)
            except FileNotFoundError:
                return None
            return None if details["type"] == "directory" else _file(details)

        return self._asked(name, asks)

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file, or None if it does not exist.

        Raises:
            DataError: The request fails.
        """

        def reads(system: Any, path: str) -> bytes | None:
            try:
                return bytes(system.cat_file(path))
            except FileNotFoundError:
                return None

        return self._asked(name, reads)

    def download(self, name: str, path: Path) -> bool:
        """Copies a file to this machine and returns whether it exists.

        Raises:
            DataError: The request fails.
            OSError: The local file cannot be written.
        """

        def downloads(system: Any, source: str) -> bool:
            try:
                system.get_file(source, str(path))
            except FileNotFoundError:
                return False
            return True

        return self._asked(name, downloads)

    def write(self, name: str, content: bytes | Path) -> None:
        """Writes a file by one upload.

        Args:
            name: The name of the file.
            content: Its content, or a local file with it.

        Raises:
            DataError: The request fails, the bucket does not exist, or the protocol cannot write.
        """
        in_memory = protocol_of(self.url) == "memory"  # it shows files while they are copied

        def writes(system: Any, path: str) -> None:
            if isinstance(content, bytes):
                system.pipe_file(path, content)
            elif in_memory:
                system.pipe_file(path, content.read_bytes())
            else:
                system.put_file(os.fspath(content), path)

        def makes_folder_and_writes(system: Any, path: str) -> None:
            try:
                writes(system, path)
            except FileNotFoundError:
                if protocol_of(self.url) in _WITHOUT_FOLDERS:
                    raise DataError(
                        f"{self.url_of(name)} cannot be written: the bucket does not exist."
                    ) from None
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
                writes(system, path)

        self.check_writable()
        self._asked(name, makes_folder_and_writes, "written")

    def remove(self, name: str) -> None:
        """Removes a file. Does nothing if it does not exist.

        Raises:
            DataError: The request fails.
        """

        def removes(system: Any, path: str) -> None:
            try:
                system.rm_file(path)
            except FileNotFoundError:
                return

        self._asked(name, removes, "removed")

    def _listed(self, folder: str) -> dict[str, dict[str, Any]]:
        def lists(system: Any, path: str) -> dict[str, dict[str, Any]]:
            system.invalidate_cache()
            try:
                found = system.ls(path, detail=True)
            except FileNotFoundError:
                return {}
            system.invalidate_cache()  # it would keep every listing in memory
            return {
                name: details
                for details in found
                if (name := details["name"].rstrip("/").rpartition("/")[2])
                and details["name"].strip("/") != path.strip("/")  # S3 lists a marker of the folder
            }

        return self._asked(folder, lists)

    def _asked(self, name: str, request: Callable[[Any, str], _T], action: str = "read") -> _T:
        url = self.url_of(name)
        return asked(url, lambda: request(*system_of(url)), patient=True, action=action)


def _file(details: dict[str, Any]) -> RemoteFile:
    size = details.get("size")
    return RemoteFile(
        size if isinstance(size, int) else None, changed_at(details), version_of(details)
    )
