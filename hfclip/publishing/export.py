"""Writes a model in hfclip's layout or in another package's layout, with the same weights."""

from pathlib import Path

from hfclip.atomic import check_free, written_whole
from hfclip.cards.card import About, model_card, public_origin
from hfclip.cards.renewal import is_generated, read_card, renewed, write_card
from hfclip.checkpoints.fit import check_fit
from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.errors import ConfigError
from hfclip.hub.fetch import Access
from hfclip.layouts.files import CARD_FILE, Source
from hfclip.layouts.labels import LABELS_FILE
from hfclip.layouts.write import LAYOUTS, write_layout
from hfclip.releases import BUNDLED, RELEASES
from hfclip.sources.find import find
from hfclip.sources.naming import spelled

EXPORTS = (*LAYOUTS, "onnx")


def export(
    name: str | Path,
    folder: str | Path,
    layout: str,
    *,
    force: bool = False,
    revision: str | None = None,
    namespace: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    base: str | Path | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
) -> Path:
    """Writes a model into a folder in the layout of a package.

    If the export fails, `folder` is unchanged. Weights keep their dtypes: an export to another
    layout and back gives the same bytes. The README.md of a model folder is updated as in
    `hfclip.cards.renewal` and written too. A README.md in `folder` that a person wrote is kept.

    Args:
        name: Any name that `hfclip.load` takes.
        folder: The folder to write. It must be new or empty, unless `force` is True.
        layout: "hfclip", "open_clip", "transformers" (ViTs only), "openai" (a state dict, only for
            models that OpenAI's package loads), or "onnx" (hfclip's layout plus an ONNX graph of
            each tower).
        force: Whether to replace existing files.
        revision: A branch, tag or commit; by default the pinned commit of a release, else main.
        namespace: The account whose copies of the nine releases are used; by default the
            environment variable HFCLIP_NAMESPACE, if set.
        token: A Hub token, True for the stored token, False for none.
        cache_dir: The folder of the Hub's cache; by default HF_HUB_CACHE, else `hub` in HF_HOME.
        local_files_only: If True, makes no request and reads only the cache.
        base: The model that a weight file was fine-tuned from, as in `hfclip.load`.
        subfolder: The folder inside a folder or repository, as in `hfclip.load`.
        variant: The variant of the weights, such as "fp16", as in `hfclip.load`.

    Returns:
        The folder.

    Raises:
        ConfigError: The layout is not known or does not support this model, or the folder is not
            empty.
        HfclipError: The model cannot be loaded: see `hfclip.load`.

    Example:
        >>> hfclip.export("ViT-B/32", "clip-b32", "transformers")
        PosixPath('clip-b32')
    """
    if layout not in EXPORTS:
        raise ConfigError(f"`layout` is {layout!r}; expected one of {', '.join(EXPORTS)}.")
    folder = Path(folder).expanduser()
    check_free(folder, force=force)
    access = Access(token, cache_dir, local_files_only)
    source = find(
        name,
        access,
        revision=revision,
        namespace=namespace,
        base=base,
        subfolder=subfolder,
        variant=variant,
    )
    checkpoint = read_checkpoint(source)
    check_fit(checkpoint)
    with written_whole(folder, replaces=[LABELS_FILE]) as part:
        write_checkpoint(part, checkpoint, layout)
        cards = read_card(folder / CARD_FILE), card_beside(name, source.weights)
        _write_card(part, cards, source, checkpoint, layout)
    return folder


def is_local(name: str | Path) -> bool:
    """Returns whether `sources.find` reads this name as a local path."""
    path, _ = spelled(name)
    return path not in {*RELEASES, *BUNDLED} and Path(path).expanduser().exists()


def card_beside(name: str | Path, weights: Path) -> str | None:
    """Reads the README.md beside the weights if `name` is a local folder; else returns None.

    The README.md beside a weight file is not read: it may belong to a whole project.
    """
    path, _ = spelled(name)
    if not is_local(path) or not Path(path).expanduser().is_dir():
        return None
    return read_card(weights.with_name(CARD_FILE))


def _write_card(
    part: Path,
    cards: tuple[str | None, str | None],
    source: Source,
    checkpoint: Checkpoint,
    layout: str,
) -> None:
    """Writes the card of the source, but keeps a card in the folder that a person wrote.

    Args:
        part: The temporary folder to write to.
        cards: The card in the target folder and the card beside the source, each None if missing.
        source: The model that was exported.
        checkpoint: The model's configuration and tensors.
        layout: The layout of the export.
    """
    there, beside = cards

    def generate(about: About) -> str:
        return str(model_card(part, checkpoint.config, about, layout))

    is_persons = there is not None and not is_generated(there)
    earlier = there if is_persons else beside
    given = {} if is_persons else {"provenance": {"exported from": public_origin(source)}}
    write_card(part / CARD_FILE, renewed(earlier, given, generate, source.weights))


def write_checkpoint(folder: Path, checkpoint: Checkpoint, layout: str) -> None:
    """Writes all files of a layout except the card."""
    is_onnx = layout == "onnx"
    of_files = "hfclip" if is_onnx else layout
    write_layout(folder, checkpoint.config, checkpoint.tensors, of_files, checkpoint.labels)
    if is_onnx:
        from hfclip.onnx.graphs import write_graphs  # noqa: PLC0415  # few exports need it

        write_graphs(folder, checkpoint.config)
