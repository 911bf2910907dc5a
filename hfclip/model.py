"""CLIP: the network with `from_pretrained`, `save_pretrained` and `push_to_hub`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from huggingface_hub import ModelCard, PyTorchModelHubMixin

from hfclip.atomic import written_whole
from hfclip.cards.card import About, model_card
from hfclip.cards.renewal import check_given, fetch_card, read_card, renewed, write_card
from hfclip.checkpoints.comparing import compare
from hfclip.checkpoints.finite import check_finite
from hfclip.checkpoints.fit import check_fit
from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.checkpoints.shapes import adapted
from hfclip.config import ClipConfig
from hfclip.devices import Device, choose_device
from hfclip.hub import push as pushing
from hfclip.hub.fetch import Access
from hfclip.layouts.files import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from hfclip.layouts.labels import LABELS_FILE, LabelSet
from hfclip.layouts.write import write_layout
from hfclip.network import clip as network
from hfclip.network.initialization import NoInitialization
from hfclip.sources.find import find


class CLIP(
    network.CLIP,
    PyTorchModelHubMixin,
    library_name="hfclip",
    pipeline_tag="zero-shot-image-classification",
    tags=["clip", "hfclip"],
):
    """Encodes images and texts so that an image and its caption have similar embeddings.

    The arguments, the sub-modules and the state-dict keys are those of OpenAI's release.
    `hfclip.config.ClipConfig` describes the keyword-only arguments.

    Shapes: images (B, 3, S, S) and texts (T, L) -> logits (B, T) and (T, B), where S is
    `image_resolution` in pixels and L is at most `context_length` tokens.

    Attributes:
        labels: The labels that the model was fine-tuned for, or None.
        templates: The templates of their captions, or None. `ZeroShotClassifier(model,
            model.labels, model.templates)` ranks these labels.

    The class keeps the signatures of huggingface_hub's mixin and replaces its methods. Those draw
    weights and discard them, ignore missing weights, fall back to a pickle, and may mix the files
    of two commits. These load strictly, from one commit, and write a folder or a commit as a whole
    or not at all.

    Raises:
        ConfigError: The arguments do not describe a valid model. No memory is allocated then.
    """

    labels: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, **overrides: Any) -> Self:
        """Builds a model with existing tensors as its parameters, in eval mode.

        It draws no weights and copies no tensor.

        Args:
            checkpoint: The configuration and the tensors.
            overrides: Constructor arguments that replace those of the configuration.

        Raises:
            WeightsMismatchError: A tensor is missing, unexpected or of another shape or kind.
        """
        with NoInitialization():
            model = cls(**{**checkpoint.config.to_dict(), **overrides})
        compare(model.state_dict(), checkpoint)
        model.load_state_dict(dict(checkpoint.tensors), strict=True, assign=True)
        if checkpoint.labels is not None:
            model.labels, model.templates = checkpoint.labels.labels, checkpoint.labels.templates
        return model.eval()

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
        subfolder: str | None = None,
        variant: str | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Loads a model in float32 and strictly. `hfclip.load` also returns the preprocess.

        Args:
            pretrained_model_name_or_path: A name, folder or file, as in `hfclip.load`.
            force_download: Whether to download files that are in the cache again.
            token: A Hub token. True selects the stored token, False none.
            cache_dir: The folder of the Hub's cache.
            local_files_only: Whether to make no request.
            revision: A branch, tag or commit.
            map_location: The device of the model. None selects the CPU.
            base: The model that a weight file was fine-tuned from, as in `hfclip.load`.
            subfolder: The folder inside a folder or repository, as in `hfclip.load`.
            variant: The variant of the weights, such as "fp16", as in `hfclip.load`.
            model_kwargs: Constructor arguments that replace those of the configuration.

        Raises:
            HfclipError: The model cannot be found or loaded. `hfclip.load` lists the causes.
        """
        target = choose_device("cpu" if map_location is None else map_location)
        access = Access(token, cache_dir, local_files_only, force_download)
        source = find(
            pretrained_model_name_or_path,
            access,
            revision=revision,
            base=base,
            subfolder=subfolder,
            variant=variant,
        )
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
        """Writes a folder for `load` and `from_pretrained`, as a whole or not at all.

        The folder has config.json, model.safetensors in the dtypes of the model,
        preprocessor_config.json, the tokenizer and a model card. If the model has labels, it has
        labels.json too; else an existing labels.json is removed. An existing README.md is updated
        and keeps the text that a person wrote: see `hfclip.cards.renewal`.

        Args:
            save_directory: The folder. It is created if it does not exist. `~` is your home folder.
            config: Not used, because the model has its configuration.
            repo_id: The repository to push to, by default the name of the folder.
            push_to_hub: Whether to push the folder after it is written.
            model_card_kwargs: Fields of `hfclip.cards.About` for the model card.
            push_to_hub_kwargs: Arguments of `push_to_hub`.

        Returns:
            The URL of the commit if the folder was pushed, else None.

        Raises:
            ArgumentError: A field of the card is unknown, or the Hub does not know the licence.
            ConfigError: The existing README.md cannot be read, or the labels are not valid.
        """
        folder = Path(save_directory).expanduser()
        given = {"repo_id": repo_id, **(model_card_kwargs or {})}
        check_given(given)
        with written_whole(folder, replaces=[LABELS_FILE]) as part:
            self._save_pretrained(part)
            self._write_card(part, read_card(folder / CARD_FILE), given)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        """Writes all files except the card. The mixin calls this method."""
        tensors = self.state_dict()
        config = adapted(self.config, tensors)
        others = type(self) is not CLIP  # a subclass may have a head
        check_fit(Checkpoint(save_directory, "model", config, tensors), allow_others=others)
        write_layout(save_directory, config, tensors, labels=self._label_set())

    def _label_set(self) -> LabelSet | None:
        """Returns the labels as they are written; checks them, because a user may set them."""
        if self.labels is None:
            return None
        return LabelSet(self.labels, self.templates or ())

    def _write_card(self, folder: Path, earlier: str | None, given: dict[str, Any]) -> None:
        """Writes the card for the files in a folder and replaces an earlier card."""

        def generate(about: About) -> str:
            return str(self.generate_model_card(folder, about))

        text = renewed(earlier, given, generate, folder / WEIGHTS_FILE)
        write_card(folder / CARD_FILE, text)

    def generate_model_card(self, folder: Path, about: About | None = None) -> ModelCard:
        """Returns the card of a model that was saved to a folder: see `cards.card.model_card`."""
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
        """Publishes the files of `save_pretrained` in one commit.

        A README.md in the repository is updated as `save_pretrained` updates one in a folder. If
        the model has no labels, the labels of an earlier model are deleted.

        Args:
            repo_id: `org/name`, or a name in your namespace. The repository is created if it does
                not exist.
            config: Not used, because the model has its configuration.
            commit_message: The title of the commit.
            private: Whether a new repository is private.
            token: A Hub token with write access, by default the stored one.
            branch: The branch of the commit, by default main.
            create_pr: Whether to open a pull request instead.
            allow_patterns: Patterns of files to send. Other files are not sent.
            ignore_patterns: Patterns of files not to send.
            delete_patterns: Patterns of files to delete from the repository.
            model_card_kwargs: Fields of `hfclip.cards.About` for the model card.

        Returns:
            The URL of the commit or of the pull request.

        Raises:
            PublishError: A weight is NaN or infinite.
            ArgumentError: A field of the card is unknown, or the Hub does not know the licence.
            HubError: The Hub refuses the commit or cannot be reached. The repository does not
                change.
        """
        check_given(model_card_kwargs or {})
        check_finite(self.state_dict())
        repository = pushing.find_repository(
            repo_id, token=token, branch=branch, create_pr=bool(create_pr)
        )
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            card = fetch_card(repository, token=token)
            if card is not None:
                write_card(folder / CARD_FILE, card)
            given = {"repo_id": repository.repo_id, **(model_card_kwargs or {})}
            self.save_pretrained(folder, model_card_kwargs=given)
            paths = pushing.choose_files(folder, repository, "replace")
            names = pushing.matching([path.name for path in paths], allow_patterns, ignore_patterns)
            stale = pushing.stale_labels(repository, folder, token=token)
            deleted = {
                *pushing.matching(repository.files, delete_patterns or []),
                *pushing.matching(stale, allow_patterns, ignore_patterns),
            }
            pushed = pushing.push(
                [folder / name for name in names],
                repository,
                delete=sorted(deleted),
                message=commit_message,
                token=token,
                private=private,
                branch=branch,
                create_pr=bool(create_pr),
            )
        return pushed.url
