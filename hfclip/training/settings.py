"""The settings of a fine-tune, with their defaults, and the number of steps that follows."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

from hfclip.errors import ArgumentError, ArgumentTypeError
from hfclip.zeroshot.labels import DEFAULT_TEMPLATE

Towers: TypeAlias = Literal["both", "image", "text"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]

# Without `epochs` and `steps`, training takes this many epochs, and at least this many steps.
DEFAULT_EPOCHS = 10
LEAST_STEPS = 500
# Without `warmup`, the learning rate rises during this share of the steps, up to a limit.
WARMUP_SHARE = 0.1
LONGEST_WARMUP = 500


def _free(default: Any) -> Any:
    """Returns a field that may differ when training goes on: it changes rounding at most.

    What `max_skipped` lets pass is in the digest of the data.
    """
    return field(default=default, metadata={"free": True})


@dataclass(frozen=True)
class Settings:
    """All settings of a fine-tune. The defaults and their sources are in docs/finetune.md.

    Attributes:
        train: The towers to train: "both", "image" or "text". logit_scale is always trained.
        lr: The highest learning rate. It rises during the warm-up, then falls to 0 as a cosine.
        epochs: The number of passes through the training data. None: see `steps`.
        steps: The number of optimizer steps, instead of `epochs`. If both are None, there are 10
            epochs, and at least 500 steps.
        batch_size: The number of pictures in a step, over all processes.
        template: A caption with {} for the label. It is used for pictures that have a label and no
            caption, and to measure accuracy.
        mix: Whether to mix the trained weights with those of the base, by a share that is chosen
            on the validation split.
        seed: The seed of the split, the order and the augmentation.
        validation: The share of the pictures that is held out if the data has no validation split.
        max_skipped: The largest share of pictures or rows that may be skipped, because they cannot
            be used.
        limit: The largest number of training pictures, for a trial. None uses all.
        weight_decay: The weight decay of tensors with two or more dimensions.
        warmup: The number of warm-up steps. None: 10 % of the steps, at most 500.
        clip: The largest norm of the gradient.
        crop: The smallest share of a picture's area that a random crop keeps. 1 turns it off.
        precision: The dtype of the computation: "fp32", "bf16" (autocast), or "auto" for bf16
            where the hardware is faster with it. The weights are always float32.
        chunk: The number of pictures or captions that a process encodes at once. None: the whole
            batch on a GPU, 64 on a CPU. The chunk is halved when memory runs out.
        workers: The number of threads that read pictures. None: one for each core.
        checkpoint_minutes: The time between two checkpoints. 0 writes one after each step.

    Raises:
        ArgumentError: A value is out of range, or both `epochs` and `steps` are given.
        ArgumentTypeError: A value has the wrong type.
    """

    train: Towers = "both"
    lr: float = 1e-5
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 256
    template: str = DEFAULT_TEMPLATE
    mix: bool = True
    seed: int = 0
    validation: float = 0.1
    max_skipped: float = _free(0.05)
    limit: int | None = None
    weight_decay: float = 0.1
    warmup: int | None = None
    clip: float = 1.0
    crop: float = 0.9
    precision: Precision = "auto"
    chunk: int | None = _free(None)
    workers: int | None = _free(None)
    checkpoint_minutes: float = _free(10.0)

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            _check_kind(name, getattr(self, name), kind)
        for name, (low, high, words) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ArgumentError(f"{name} is {value}; expected {words}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ArgumentError(
                    f"{name} is {getattr(self, name)!r}; expected {', '.join(choices)}."
                )
        if self.epochs is not None and self.steps is not None:
            raise ArgumentError("Give epochs or steps, not both: each sets the length of training.")
        if "{}" not in self.template:
            raise ArgumentError(
                f"template is {self.template!r}; expected a caption with {{}} for the label, as in "
                f"{DEFAULT_TEMPLATE!r}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns all settings in JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Returns the settings that `to_dict` described.

        Raises:
            ArgumentError: A name is unknown, or a value is out of range.
        """
        unknown = sorted(values.keys() - {each.name for each in fields(cls)})
        if unknown:
            raise ArgumentError(
                f"The setting {unknown[0]!r} is unknown; expected "
                f"{', '.join(each.name for each in fields(cls))}."
            )
        return cls(**values)

    def deciding(self) -> dict[str, Any]:
        """Returns the settings that decide the result, without those that change only rounding."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if not each.metadata.get("free")
        }


@dataclass(frozen=True)
class Plan:
    """The numbers of a training that follow from the settings and the number of pictures.

    Attributes:
        batch: The number of pictures in a step: `batch_size`, or all pictures if there are fewer.
        steps_per_epoch: The number of full batches in an epoch. The pictures that are left over
            differ in each epoch.
        steps: The number of optimizer steps.
        warmup: The number of steps in which the learning rate rises, smaller than `steps`.
    """

    batch: int
    steps_per_epoch: int
    steps: int
    warmup: int

    @classmethod
    def of(cls, settings: Settings, count: int) -> "Plan":
        """Returns the plan for a training split of `count` pictures.

        Raises:
            ArgumentError: There are fewer than two pictures, or the warm-up takes all the steps.
        """
        if count < 2:
            raise ArgumentError(
                f"The training split has {count} pictures; training compares at least two."
            )
        batch = min(settings.batch_size, count)
        per_epoch = count // batch
        steps = settings.steps
        if steps is None:
            least = LEAST_STEPS if settings.epochs is None else 1
            steps = max(per_epoch * (settings.epochs or DEFAULT_EPOCHS), least)
        warmup = settings.warmup
        if warmup is None:
            warmup = min(LONGEST_WARMUP, int(WARMUP_SHARE * steps))
        if warmup >= steps:
            raise ArgumentError(
                f"The warm-up has {warmup} steps and the training {steps}: the learning rate would "
                "never fall. Give a shorter warm-up, or more epochs or steps."
            )
        return cls(batch, per_epoch, steps, warmup)

    def lr_share(self, step: int) -> float:
        """Returns the learning rate of step 0, 1, ... as a share of the highest."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / (self.steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * done))

    @property
    def epochs(self) -> int:
        """The number of epochs. The last may be incomplete."""
        return math.ceil(self.steps / self.steps_per_epoch)


_KINDS: dict[str, type] = {
    "train": str,
    "lr": float,
    "epochs": int,
    "steps": int,
    "batch_size": int,
    "template": str,
    "mix": bool,
    "seed": int,
    "validation": float,
    "max_skipped": float,
    "limit": int,
    "weight_decay": float,
    "warmup": int,
    "clip": float,
    "crop": float,
    "precision": str,
    "chunk": int,
    "workers": int,
    "checkpoint_minutes": float,
}
_INFINITE = math.inf
# The lowest and the highest value that is accepted, and both in words.
_RANGES: dict[str, tuple[float, float, str]] = {
    "lr": (1e-12, 1.0, "a number above 0, at most 1"),
    "epochs": (1, _INFINITE, "at least 1"),
    "steps": (1, _INFINITE, "at least 1"),
    "batch_size": (2, _INFINITE, "at least 2: the loss compares pictures"),
    "seed": (0, 2**32 - 1, "0 to 2**32 - 1"),
    "validation": (0.0, 0.5, "a share of the pictures from 0 to 0.5"),
    "max_skipped": (0.0, 1.0, "a share of the pictures from 0 to 1"),
    "limit": (2, _INFINITE, "at least 2"),
    "weight_decay": (0.0, 10.0, "0 to 10"),
    "warmup": (0, _INFINITE, "at least 0"),
    "clip": (1e-6, _INFINITE, "a number above 0"),
    "crop": (0.05, 1.0, "a share of the area from 0.05 to 1"),
    "chunk": (1, _INFINITE, "at least 1"),
    "workers": (1, 1024, "1 to 1024"),
    "checkpoint_minutes": (0.0, _INFINITE, "at least 0"),
}
_CHOICES: dict[str, tuple[str, ...]] = {"train": get_args(Towers), "precision": get_args(Precision)}
# The settings that may be None.
_OPTIONAL = {each.name for each in fields(Settings) if each.default is None}


def _check_kind(name: str, value: Any, kind: type) -> None:
    """Raises ArgumentTypeError unless the value has the type; an int is also a float."""
    if value is None and name in _OPTIONAL:
        return
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ArgumentTypeError(
            f"{name} is {value!r}, of type {type(value).__name__}; expected {kind.__name__}."
        )
