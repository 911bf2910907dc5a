"""Publishes a Space: a page on the Hub to try a published model.

The Space has an app.py that opens the page of `hfclip app` for the model at one commit. Files that
a person wrote in the Space are never replaced unasked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hfclip.checkpoints.fit import check_fit
from hfclip.checkpoints.read import read_checkpoint
from hfclip.errors import PublishError
from hfclip.hub import fetch as hub
from hfclip.hub import push as pushing
from hfclip.hub.fetch import Access
from hfclip.hub.push import Repository
from hfclip.layouts.files import CARD_FILE
from hfclip.publishing.export import is_local
from hfclip.publishing.outcome import Published
from hfclip.publishing.space_files import FILES, SpaceModel, hashes_in, write_space
from hfclip.publishing.space_install import Install, choose_install, requirements
from hfclip.releases import RELEASES
from hfclip.sources.find import find, repository_of
from hfclip.sources.naming import spelled

# The file that the Hub writes into every new repository.
_OF_THE_HUB = ".gitattributes"


@dataclass(frozen=True)
class Space:
    """A Space that may be written, before anything is sent.

    Attributes:
        repository: The repository of the Space, with its present commit.
        install: Where the Space installs hfclip from.
        removed: Files of an earlier hfclip in the Space that would be deleted.
    """

    repository: Repository
    install: Install
    removed: Sequence[str] = ()

    def describe(self, model: str, needs_token: bool = False) -> dict[str, Any]:
        """Returns the plan in JSON types.

        Args:
            model: The model, in words.
            needs_token: Whether the model is private or gated.
        """
        wheel = [self.install.wheel.name] if self.install.wheel else []
        plan: dict[str, Any] = {
            "space": self.repository.repo_id,
            "page": self.repository.url,
            "current_commit": self.repository.head or "not created yet",
            "model": model,
            "requirements": requirements(self.install, self.repository).splitlines(),
            "files": [*FILES, *wheel],
        }
        if needs_token:
            plan["secret"] = (
                "HF_TOKEN, a token that can read the model, because the model is private or gated: "
                f"add it at {self.repository.url}/settings"
            )
        return plan | ({"removed": list(self.removed)} if self.removed else {})


def publish_space(
    model: str,
    repo_id: str,
    *,
    namespace: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    hfclip_from: str | Path | None = None,
    replace: bool = False,
    private: bool | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
    token: str | bool | None = None,
) -> Published:
    """Publishes a Space: a page on the Hub to try a model, like `hfclip app --push`.

    The Space has an app.py, a requirements.txt with the versions of this machine, and a README.md.
    The page loads the model at the commit that the name has now. The files go in one commit.

    Args:
        model: The model on the Hub: `org/name`, `org/name@revision`, a release or a bundled model.
        repo_id: The Space: `org/name`, or a name in your own namespace.
        namespace: The account whose copies of the nine releases are used.
        subfolder: The folder inside the repository that holds the model, as in `hfclip.load`.
        variant: The variant of the weights, such as "fp16", as in `hfclip.load`.
        hfclip_from: Where the Space installs hfclip from: an address that begins with https:// or
            git+https://, or a wheel on this machine, which is sent with the Space. By default the
            package index or the address that this hfclip was installed from.
        replace: Whether to replace files of the Space that hfclip did not write, or that were
            edited.
        private: Whether a new Space is private.
        create_pr: If True, opens a pull request instead of committing.
        dry_run: If True, checks everything and sends nothing.
        token: A Hub token that may write; by default the stored token.

    Raises:
        PublishError: The model is not on the Hub, the Space has files that hfclip did not write, or
            a Space cannot install this hfclip.
        ArgumentError: `hfclip_from` is neither an address nor a wheel.
        DataError: gradio is not installed.
        HubError: The Space cannot be written to. It is unchanged.
        HfclipError: The model cannot be loaded: see `hfclip.load`.

    Example:
        >>> hfclip.publish_space("ViT-B/32", "me/try-clip", dry_run=True).status
        'dry run'
    """
    space = find_space(
        repo_id,
        hfclip_from=hfclip_from,
        replace=replace,
        private=private,
        create_pr=create_pr,
        token=token,
    )
    shown = resolve_model(model, namespace, subfolder, variant, token)
    plan = space.describe(described(shown), needs_token(shown, token))
    if dry_run:
        return Published.dry(plan)
    return send_space(space, shown, plan, private=private, create_pr=create_pr, token=token)


def find_space(
    repo_id: str,
    *,
    hfclip_from: str | Path | None = None,
    replace: bool = False,
    private: bool | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> Space:
    """Checks that a Space may be written. Sends nothing.

    See `publish_space` for the arguments and errors.
    """
    install = choose_install(hfclip_from)
    repository = pushing.find_repository(repo_id, token=token, create_pr=create_pr, kind="space")
    if install.wheel and (repository.is_private or (repository.head is None and private)):
        raise PublishError(
            f"{repository.title} is private, so it cannot install a wheel from its own files. Give "
            "the address of hfclip with --hfclip-from (hfclip_from= in Python), or make the Space "
            "public."
        )
    written = _written_by_hfclip(repository, token)
    if written is None and not replace:
        raise PublishError(
            f"{repository.title} exists, and has files that hfclip did not write or that were "
            "edited. Name another Space, or replace its "
            f"{', '.join(FILES[:-1])} and {FILES[-1]} with --replace-space (replace=True in "
            "Python)."
        )
    files = {*FILES, *([install.wheel.name] if install.wheel else [])}
    removed = sorted(set(written or ()) - files)
    requirements(install, repository)  # raises if a package is missing
    return Space(repository, install, removed)


def send_space(
    space: Space,
    model: SpaceModel,
    plan: dict[str, Any],
    *,
    private: bool | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> Published:
    """Writes the files of a Space and sends them in one commit.

    Raises:
        HubError: The push failed; the Space is unchanged.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_space(folder, space.repository, model, space.install)
        pushed = pushing.push(
            sorted(folder.iterdir()),
            space.repository,
            delete=space.removed,
            message=f"A page to try {model.name}, with hfclip",
            private=private,
            create_pr=create_pr,
            token=token,
        )
    return Published.of(plan, pushed)


def resolve_model(
    name: str,
    namespace: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
) -> SpaceModel:
    """Returns a model on the Hub at its present commit. Checks that it loads.

    Raises:
        PublishError: The model is on this machine only.
        HfclipError: The model cannot be loaded: see `hfclip.load`.
    """
    if is_local(name):
        raise PublishError(
            f"{name} is on this machine only; a Space shows a model on the Hub. Publish both: "
            f"hfclip publish {name} me/my-clip --space me/my-demo"
        )
    access = Access(token)
    place = repository_of(name, namespace=namespace)
    found = find(name, access, namespace=namespace, subfolder=subfolder, variant=variant)
    check_fit(read_checkpoint(found))
    if place is None:
        return SpaceModel(str(spelled(name).name), None, None)
    repo_id, revision = place
    if name in RELEASES and repo_id == RELEASES[name].hub.repo_id and revision:
        return SpaceModel(name, repo_id, revision)
    commit = hub.resolve(repo_id, revision, access).commit
    return SpaceModel(repo_id, repo_id, commit, subfolder, variant)


def described(model: SpaceModel) -> str:
    """Returns a model in words for a plan."""
    if model.commit is None:
        return f"{model.name}, which is part of hfclip"
    return f"{model.name} at {model.commit}"


def needs_token(model: SpaceModel, token: str | bool | None = None) -> bool:
    """Returns whether a Space needs a token to read its model.

    Raises:
        HubError: The Hub cannot be asked.
    """
    return model.repo_id is not None and pushing.is_private(model.repo_id, token=token)


def _written_by_hfclip(space: Repository, token: str | bool | None) -> list[str] | None:
    """Returns the files that hfclip wrote in a Space, or None if a person wrote or edited some.

    Other files beside those of hfclip, such as example pictures, do not count.
    """
    files = space.files.keys() - {_OF_THE_HUB}
    if not files:
        return []
    if CARD_FILE not in files:
        return None
    card = pushing.read_file(space, CARD_FILE, token=token).decode("utf-8", "replace")
    hashes = hashes_in(card)
    if hashes is None:
        return None
    if any(space.files.get(name) not in known for name, known in hashes.items()):
        return None
    return [CARD_FILE, *hashes]
