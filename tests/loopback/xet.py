"""Xet storage for the loopback Hub: the store that hf_xet simulates in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

from .repository import Content

# Runs in a separate process, because hf_xet leaves threads and a log in the user's cache.
PUT = """
import sys, hf_xet
store, path, sha256 = sys.argv[1:]
with hf_xet.XetSession().new_upload_commit(endpoint=store) as commit:
    upload = commit.start_upload_file(path, sha256=sha256)
print(upload.result().xet_info.hash)
"""


class XetStore:
    """Files in chunks, identified by hash. Clients read them from the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def url(self) -> str:
        return f"local://{self.folder}"

    def put(self, content: Content, sha256: str) -> str:
        """Stores a file and returns its hash, which clients use to request it."""
        if isinstance(content.source, Path):
            return self._put_file(content.source, sha256)
        with NamedTemporaryFile() as file:
            file.write(content.source)
            file.flush()
            return self._put_file(Path(file.name), sha256)

    def _put_file(self, path: Path, sha256: str) -> str:
        command = [sys.executable, "-c", PUT, self.url, str(path), sha256]
        environment = {**os.environ, "HF_HOME": str(self.folder)}
        child = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return child.stdout.strip()
