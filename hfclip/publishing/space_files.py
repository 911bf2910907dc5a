"""Writes the files of a Space: app.py, requirements.txt, README.md and perhaps a wheel."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData, constants

from hfclip.cards import marks
from hfclip.cards.renewal import write_card
from hfclip.hub import integrity
from hfclip.hub.push import Repository
from hfclip.layouts.files import CARD_FILE
from hfclip.publishing.space_install import Install, requirements, version_of
from hfclip.version import __version__

APP_FILE = "app.py"
REQUIREMENTS_FILE = "requirements.txt"
FILES = (CARD_FILE, APP_FILE, REQUIREMENTS_FILE)
"""The files of every Space that hfclip writes."""

_CARD = Path(__file__).with_name("space_card.md.jinja")
_APP = '''\
"""A page to try {name}, a CLIP model. hfclip wrote this file."""

from hfclip.app.demo import open_demo
from hfclip.app.space import serve_space

serve_space(open_demo({arguments}))
'''


@dataclass(frozen=True)
class SpaceModel:
    """The model of a Space.

    Attributes:
        name: The name of a repository, a release or a bundled model.
        repo_id: The repository on the Hub, or None for a bundled model.
        commit: The commit of the repository, or None for a bundled model.
        subfolder: The folder inside the repository.
        variant: The variant of the weights.
    """

    name: str
    repo_id: str | None
    commit: str | None
    subfolder: str | None = None
    variant: str | None = None

    @property
    def place(self) -> str:
        """The name with which `hfclip.load` finds these weights. A release is pinned by hfclip."""
        return f"{self.name}@{self.commit}" if self.name == self.repo_id else self.name

    @property
    def link(self) -> str:
        """The model in Markdown."""
        if self.repo_id is None:
            return f"`{self.name}`, a model inside the package hfclip"
        return f"[{self.name}]({constants.ENDPOINT}/{self.repo_id})"


def write_space(folder: Path, space: Repository, model: SpaceModel, install: Install) -> None:
    """Writes the files of a Space into a folder.

    The seal of README.md holds the hashes of the other files, so that `is_unedited` recognises
    them.
    """
    (folder / APP_FILE).write_text(_app(model), encoding="utf-8", newline="\n")
    lines = requirements(install, space)
    (folder / REQUIREMENTS_FILE).write_text(lines, encoding="utf-8", newline="\n")
    if install.wheel is not None:
        shutil.copyfile(install.wheel, folder / install.wheel.name)
    hashes = {path.name: _hashes(path) for path in sorted(folder.iterdir())}
    card = marks.seal(_card(space, model), {"files": hashes})
    write_card(folder / CARD_FILE, card)


def hashes_in(card: str) -> dict[str, list[str]] | None:
    """Returns the hashes that the README.md of a Space has of the other files.

    Returns:
        The git blob id and the sha256 of each file that hfclip wrote, by name, or None if the text
        is not a README.md of hfclip or was edited.
    """
    is_whole, values = marks.unseal(card)
    hashes = (values or {}).get("files") if is_whole else None
    return hashes if isinstance(hashes, dict) else None


def _hashes(path: Path) -> list[str]:
    return [integrity.compute(path, "git"), integrity.compute(path, "sha256")]


def _app(model: SpaceModel) -> str:
    options = {"subfolder": model.subfolder, "variant": model.variant}
    arguments = [_quoted(model.place)]
    arguments += [f"{name}={_quoted(value)}" for name, value in options.items() if value]
    return _APP.format(name=model.name, arguments=", ".join(arguments))


def _quoted(text: str) -> str:
    """Returns a string literal of Python, in the usual double quotes where it can have them."""
    literal = repr(text)
    return f'"{literal[1:-1]}"' if literal.startswith("'") and '"' not in literal else literal


def _card(space: Repository, model: SpaceModel) -> str:
    title = space.repo_id.split("/")[-1]
    data = SpaceCardData(
        title=title,
        emoji="🔎",
        colorFrom="blue",
        colorTo="indigo",
        sdk="gradio",
        sdk_version=version_of("gradio"),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file=APP_FILE,
        models=[model.repo_id] if model.repo_id else None,
        tags=["clip", "hfclip"],
        short_description="Rank labels and captions for pictures",
    )
    card = SpaceCard.from_template(
        data,
        template_path=str(_CARD),
        name=title,
        model=model.link,
        commit=model.commit,
        version=__version__,
    )
    return str(card)
