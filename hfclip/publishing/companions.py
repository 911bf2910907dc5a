"""The files that `hfclip finetune` writes beside a model, and that are published with it."""

import logging
import shutil
from pathlib import Path

from hfclip.cards.card import file_row
from hfclip.config import read_json
from hfclip.errors import ConfigError
from hfclip.publishing.export import is_local

logger = logging.getLogger(__name__)

FINETUNE_FILE = "finetune.json"
LOG_FILE = "log.jsonl"
CURVES_FILE = "curves.png"
_COMPANIONS = (FINETUNE_FILE, LOG_FILE, CURVES_FILE)


def copy_companions(source: str | Path, weights: Path, folder: Path) -> None:
    """Copies the report of a fine-tune from the folder of the model, if it describes the weights.

    Other files, such as checkpoints and the list of skipped pictures, are not copied.

    Args:
        source: The model to publish. Only a local folder has a report.
        weights: The weight file of the model.
        folder: The folder of the files to send.
    """
    if not is_local(source) or not Path(source).expanduser().is_dir():
        return
    report = weights.with_name(FINETUNE_FILE)
    if not report.is_file():
        return
    if _described(report) != file_row(weights)["sha256"]:
        logger.warning(
            "%s describes other weights than %s, so it is not published, nor are the log and the "
            "curves.",
            report,
            weights.name,
        )
        return
    for name in _COMPANIONS:
        if weights.with_name(name).is_file():
            shutil.copyfile(weights.with_name(name), folder / name)


def _described(report: Path) -> str | None:
    """Returns the sha256 of the weights that a report describes, or None if it names none."""
    try:
        digest = read_json(report)["weights"]["sha256"]
    except (ConfigError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) else None
