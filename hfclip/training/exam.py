"""The measurements of a fine-tune: on its own data, and on the data that it must not forget."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from hfclip.data.records import Dataset
from hfclip.model import CLIP
from hfclip.training.evaluation import Preprocess, evaluate
from hfclip.training.metrics import Metrics
from hfclip.training.mix import choose_alpha, mixed, score_alphas
from hfclip.training.results import Scores


@dataclass(frozen=True)
class Exam:
    """What a model is measured on.

    Attributes:
        data: The data set. Its validation split has a picture.
        keep: The data that must not be forgotten, or None. All its splits count.
        preprocess: The transform of the model.
        template: The caption of a label, with {}.
    """

    data: Dataset
    keep: Dataset | None
    preprocess: Preprocess
    template: str

    def validation(self, model: CLIP) -> Scores:
        """Measures a model on the validation split, for every choice."""
        return self._scores(model, "validation")

    def last(self, model: CLIP, validation: Scores | None = None) -> Scores:
        """Measures a model on the test split if there is one, else on the validation split.

        Args:
            model: The model.
            validation: The result of `validation` for the same weights, or None. What it holds is
                not measured again.
        """
        if validation is None:
            return self._scores(model, self.last_split)
        if self.last_split == "validation":
            return validation
        return Scores(self._own(model, self.last_split), validation.keep)

    @property
    def last_split(self) -> str:
        """The split that `last` measures."""
        return "test" if self.data.test else "validation"

    def _scores(self, model: CLIP, split: str) -> Scores:
        own = self._own(model, split)
        if self.keep is None:
            return Scores(own)
        kept = (*self.keep.train, *self.keep.validation, *self.keep.test)
        return Scores(own, evaluate(model, self.preprocess, kept, self.keep.labels, self.template))

    def _own(self, model: CLIP, split: str) -> Metrics:
        examples = self.data.test if split == "test" else self.data.validation
        return evaluate(model, self.preprocess, examples, self.data.labels, self.template)


@dataclass(frozen=True)
class Final:
    """The weights to publish, and what was measured for them.

    Attributes:
        weights: The weights by OpenAI's names.
        alpha: The share of the trained weights in them.
        alphas: The scores of the mixtures on the validation split; empty without mixing.
        before: The last scores of the base.
        tuned: The last scores of the trained weights.
        mixed: The last scores of the weights to publish.
    """

    weights: Mapping[str, Tensor]
    alpha: float
    alphas: Mapping[float, Scores]
    before: Scores
    tuned: Scores
    mixed: Scores


def conclude(
    model: CLIP,
    base: Mapping[str, Tensor],
    exam: Exam,
    known: Mapping[float, Scores],
    *,
    mix: bool,
) -> Final:
    """Chooses the mixture of a trained model and its base, and measures all three.

    Args:
        model: The trained model. It gets the weights to publish.
        base: The state dict of the base.
        exam: The measurements.
        known: What `exam.validation` has returned for the base, by 0, and the trained model, by 1.
            Neither is measured again on the same pictures.
        mix: Whether to mix. Without, the trained weights are published.
    """
    trained = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    alphas, alpha = {}, 1.0
    if mix:
        alphas = score_alphas(model, base, exam.validation, known)
        alpha = choose_alpha({share: scores.own for share, scores in alphas.items()})
    weights = mixed(base, trained, alpha)
    found = {}
    for share, tensors in ((0.0, base), (1.0, trained), (alpha, weights)):
        model.load_state_dict(tensors)
        if share not in found:
            found[share] = exam.last(model, {**alphas, **known}.get(share))
    return Final(weights, alpha, alphas, found[0.0], found[1.0], found[alpha])
