"""Finds the code blocks of a Markdown page and runs them in order, as a reader does."""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from forks import forking_python

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_RUN = ("python", "sh")
# Imported once for all programs of all pages. They read the environment when they are imported.
_MODULES = ("hfclip.cli", "hfclip.loading", "hfclip.publishing.finetune")
# A page that sets one of the variables has programs with different environments.
_VARIABLE = re.compile(r"\b(HF|HFCLIP)_[A-Z_]+=")

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


def have_one_environment(blocks: Sequence[Block]) -> bool:
    """Returns whether no block runs a program with other variables for hfclip."""
    return not any(_VARIABLE.search(block.code) for block in blocks)


def python_with_hfclip(
    folder: Path, python: Path, environment: Mapping[str, str]
) -> AbstractContextManager[Path]:
    """Starts another fork server, in `folder`, whose programs share the imports of hfclip.

    All of them need this environment. The block gets the path of the command.
    """
    return forking_python(folder, *_MODULES, python=str(python), environment=environment)


def run_blocks(
    page: Path,
    blocks: Sequence[Block],
    folder: Path,
    environment: Mapping[str, str],
    python: Path,
) -> subprocess.CompletedProcess[str]:
    """Runs blocks in a new process with `folder` as the working directory.

    The commands `python` and `hfclip` of shell blocks are those of the fork server of `python`.
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
