"""Finds the code blocks of a Markdown page and runs them in order, as a reader does."""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_RUN = ("python", "sh")

# Runs the blocks of a page in one process, so that later blocks can use earlier names.
_DRIVER = """
import json, subprocess, sys
names = {"__name__": "__main__"}
for language, place, code in json.loads(sys.stdin.read()):
    print("running", place, flush=True)
    if language == "sh":
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
    else:
        exec(compile("\\n" * (int(place.rpartition(":")[2]) - 1) + code, place, "exec"), names)
"""


class Block(NamedTuple):
    """One fenced block of code.

    Attributes:
        language: The word after the fence.
        line: The number of the first line of code in the page.
        code: The code.
        reason: Why the block is not run; None for a block that is run.
    """

    language: str
    line: int
    code: str
    reason: str | None


def blocks_of(page: Path) -> list[Block]:
    """Returns the Python and shell blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            match["language"],
            text.count("\n", 0, match.start("code")) + 1,
            match["code"],
            match["reason"],
        )
        for match in _BLOCK.finditer(text)
        if match["language"] in _RUN
    ]


def run_blocks(
    page: Path,
    blocks: Sequence[Block],
    folder: Path,
    environment: Mapping[str, str],
    python: Path,
) -> subprocess.CompletedProcess[str]:
    """Runs blocks in a new process of `python` with `folder` as the working directory.

    The commands `python` and `hfclip` of shell blocks are those beside `python`.
    """
    steps = [(block.language, f"{page.name}:{block.line}", block.code) for block in blocks]
    path = os.pathsep.join([str(python.parent), environment.get("PATH", "")])
    return subprocess.run(
        [python, "-c", _DRIVER],
        input=json.dumps(steps),
        cwd=folder,
        env={**environment, "PATH": path},
        check=False,
        capture_output=True,
        text=True,
    )
