"""What the Hub adds to a model: `from_pretrained`, `save_pretrained`, `push_to_hub`."""

from abc import abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import nn

from hfclip.cards.card import About, model_card
from hfclip.cards.renewal import check_given, read_card, renewed, write_card
from hfclip.checkpoints.read import Checkpoint, adapted, read_checkpoint
from hfclip.config import ClipConfig
from hfclip.devices import Device, choose_device
from hfclip.hub import push as pushing
from hfclip.hub.fetch import Access
from hfclip.layouts.files import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from hfclip.layouts.write import check_finite, write_layout, written_whole
from hfclip.sources.find import find


class HubModel(nn.Module, PyTorchModelHubMixin):
    """The mixin of huggingface_hub with its signatures, but strict, whole and without waste.

    The mixin's own would draw weights and throw them away, pass over missing ones, fall back to a
    pickle, and mix two commits.
    """

    config: ClipConfig

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, **overrides: Any) -> Self:
        """Builds the model around tensors that exist."""

    @abstractmethod
    def _check_fit(self, checkpoint: Checkpoint) -> None:
        """Refuses tensors that do not make the model of their configuration."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: Device = "cpu",
        base: str | Path | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Loads a model in float32, strictly; `hfclip.load` also gives the preprocess.

        Args:
            pretrained_model_name_or_path: Whatever `hfclip.load` takes.
            force_download: Whether to fetch again what is cached.
            token: A Hub token, True for the stored one, False for none.
            cache_dir: The Hub cache's folder.
            local_files_only: Whether to make no request.
            revision: A branch, tag or commit.
            map_location: The device of the model; None stands for the CPU.
            base: What a weight file was fine-tuned from, as in `hfclip.load`.
            model_kwargs: Constructor arguments that take the place of the configuration's.

        Raises:
            HfclipError: As `hfclip.load` does.
        """
        target = choose_device("cpu" if map_location is None else map_location)
        access = Access(token, cache_dir, local_files_only, force_download)
        source = find(pretrained_model_name_or_path, access, revision=revision, base=base)
        model = cls.from_checkpoint(read_checkpoint(source), **model_kwargs)
        return model.float().to(target)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,  # noqa: ARG002  # the mixin's
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Writes a folder that `load` and `from_pretrained` take, whole or not at all.

        It holds config.json, model.safetensors in the types that the model has, a
        preprocessor_config.json, the tokenizer and a card. `hfclip.cards.renewal` says how a
        README.md that is there is renewed: the text of a person stays.

        Args:
            save_directory: The folder; made if it is not there. `~` is your home.
            config: Not used: the configuration is the model's own.
            repo_id: Where to push; by default the folder's name.
            push_to_hub: Whether to push as well.
            model_card_kwargs: Fields of `hfclip.cards.card.About`, for the card.
            push_to_hub_kwargs: As in `push_to_hub`.

        Returns:
            The page of the commit if pushed, else None.

        Raises:
            ArgumentError: A field of the card is not known, or the Hub does not know the licence.
            ConfigError: The README.md that is there cannot be read.
        """
        folder = Path(save_directory).expanduser()
        given = {"repo_id": repo_id, **(model_card_kwargs or {})}
        check_given(given)
        with written_whole(folder) as part:
            self._save_pretrained(part)
            self._write_card(part, read_card(folder / CARD_FILE), given)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        """Writes all but the card; the mixin's hook."""
        tensors = self.state_dict()
        config = adapted(self.config, tensors)
        self._check_fit(Checkpoint(save_directory, "model", config, tensors))
        write_layout(save_directory, config, tensors)

    def _write_card(self, folder: Path, earlier: str | None, given: dict[str, Any]) -> None:
        """Writes the card of the files in a folder, in place of an earlier one."""

        def generate(about: About) -> str:
            return str(self.generate_model_card(folder, about))

        text = renewed(earlier, given, generate, folder / WEIGHTS_FILE)
        write_card(folder / CARD_FILE, text)

    def generate_model_card(self, folder: Path, about: About | None = None) -> ModelCard:
        """Describes the model that was saved to a folder; `publishing.cards` does it."""
        return model_card(folder, ClipConfig.from_json(folder / CONFIG_FILE), about)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        config: Any = None,  # noqa: ARG002  # the mixin's
        commit_message: str = "Push model using hfclip.",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        delete_patterns: list[str] | str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Publishes what `save_pretrained` writes, in one commit.

        A README.md in the repository is renewed as `save_pretrained` renews one in a folder.

        Args:
            repo_id: `org/name`, or a name in your own namespace; made if it is not there.
            config: Not used: the configuration is the model's own.
            commit_message: The commit's title.
            private: Whether a repository that is made is private.
            token: A Hub token that may write; by default the stored one.
            branch: The branch to commit to, by default main.
            create_pr: Whether to open a pull request instead.
            allow_patterns: Only files that match one of these are sent.
            ignore_patterns: Files that match one of these are not.
            delete_patterns: Files of the repository that match one of these are deleted.
            model_card_kwargs: Fields of `hfclip.cards.card.About`, for the card.

        Returns:
            The page of the commit, or of the pull request.

        Raises:
            PublishError: A weight is NaN or infinite.
            ArgumentError: A field of the card is not known, or the Hub does not know the licence.
            HubError: The Hub refuses or cannot be reached; the repository is as it was.
        """
        check_given(model_card_kwargs or {})
        check_finite(self.state_dict())
        repository = pushing.find_repository(
            repo_id, token=token, branch=branch, create_pr=bool(create_pr)
        )
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            card = pushing.read_card(repository, token=token)
            if card is not None:
                write_card(folder / CARD_FILE, card)
            given = {"repo_id": repository.repo_id, **(model_card_kwargs or {})}
            self.save_pretrained(folder, model_card_kwargs=given)
            paths = pushing.choose_files(folder, repository, "replace")
            names = pushing.matching([path.name for path in paths], allow_patterns, ignore_patterns)
            pushed = pushing.push(
                [folder / name for name in names],
                repository,
                delete=pushing.matching(repository.files, delete_patterns or []),
                message=commit_message,
                token=token,
                private=private,
                branch=branch,
                create_pr=bool(create_pr),
            )
        return pushed.url
