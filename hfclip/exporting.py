"""Writes a model in another package's layout, or in hfclip's own, bit for bit."""

from pathlib import Path

from hfclip import sources
from hfclip.cards import About, model_card
from hfclip.checkpoint import Checkpoint, read_checkpoint
from hfclip.errors import ConfigError
from hfclip.folders import CARD_FILE, LAYOUTS, check_free, write_layout, written_whole
from hfclip.hub import Access
from hfclip.model import CLIP, check_fit

EXPORTS = (*LAYOUTS, "onnx")


def export(
    name: str | Path,
    folder: str | Path,
    layout: str,
    *,
    force: bool = False,
    access: Access | None = None,
    revision: str | None = None,
    base: str | Path | None = None,
) -> Path:
    """Writes a model into a folder in the layout of some package, whole or not at all.

    Weights are written in the types that they were stored in: going there and back gives the same
    bytes.

    Args:
        name: Whatever `hfclip.load` takes.
        folder: Where to; new or empty, unless `force`.
        layout: "hfclip", "open_clip", "transformers" (ViTs only), "openai" (a state dict, of
            models that need no configuration), or "onnx" (hfclip's with a graph of each tower).
        force: Whether to replace files that are there.
        access: How the Hub is used.
        revision: A branch, tag or commit.
        base: What a weight file was fine-tuned from, as in `hfclip.load`.

    Returns:
        The folder.

    Raises:
        ConfigError: The layout is not known, cannot hold this model, or the folder is taken.
        HfclipError: As `hfclip.load`.
    """
    if layout not in EXPORTS:
        raise ConfigError(f"layout is {layout!r}; known are {', '.join(EXPORTS)}.")
    folder = Path(folder)
    check_free(folder, force=force)
    source = sources.find(name, access, revision=revision, base=base)
    checkpoint = read_checkpoint(source)
    check_fit(checkpoint)
    about = About(provenance={"exported from": source.origin})
    with written_whole(folder) as part:
        write_checkpoint(part, checkpoint, layout)
        if not (folder / CARD_FILE).exists():
            model_card(part, checkpoint.config, about, layout).save(part / CARD_FILE)
    return folder


def write_checkpoint(folder: Path, checkpoint: Checkpoint, layout: str) -> None:
    """Writes all but the card."""
    is_onnx = layout == "onnx"
    write_layout(folder, checkpoint.config, checkpoint.tensors, "hfclip" if is_onnx else layout)
    if is_onnx:
        from hfclip.onnx_graphs import write_graphs  # noqa: PLC0415  # torch.onnx is slow to import

        write_graphs(folder, CLIP.from_checkpoint(checkpoint))
