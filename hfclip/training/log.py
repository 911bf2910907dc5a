"""The log of a training: a line of JSON for each step and evaluation, and a progress bar."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hfclip.training.settings import Plan


class Log:
    """Writes log.jsonl and shows a progress bar with the loss and the time that is left.

    Args:
        path: The file. Lines of steps after `step` are removed: they are computed again.
        step: The number of completed steps.
        plan: The number of steps.
        shown: Whether to print on standard error. The bar is shown in a terminal only.
    """

    def __init__(self, path: Path, step: int, plan: Plan, *, shown: bool) -> None:
        lines = list(_lines_until(path, step))
        self._file = path.open("w", encoding="utf-8")
        self._file.writelines(lines)
        self._file.flush()
        self._shown = shown
        self._bar = tqdm(
            desc="fine-tuning",
            total=plan.steps,
            initial=step,
            unit="step",
            mininterval=0.5,
            disable=None if shown else True,
        )

    def write(self, **values: Any) -> None:
        """Adds a line."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def advance(self, excess: float) -> None:
        """Moves the bar by one step and shows the loss less its floor."""
        self._bar.set_postfix(loss=f"{excess:.3f}", refresh=False)
        self._bar.update()

    def say(self, text: str) -> None:
        """Prints a line on standard error, above the bar."""
        if self._shown:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Closes the file and the bar."""
        self._file.close()
        self._bar.close()


def _lines_until(path: Path, step: int) -> Iterator[str]:
    """Yields the complete lines of a log up to a step."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # the process ended while it wrote this line
            continue
        if values["step"] <= step:
            yield line + "\n"
