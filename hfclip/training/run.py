"""Fine-tunes a model: from the names of a base and a data set to a folder to publish."""

import json
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from hfclip.data.examples import read_dataset
from hfclip.data.records import Dataset
from hfclip.data.skipped import write_skipped
from hfclip.devices import Device
from hfclip.errors import TrainingError
from hfclip.images.exact import Recipe
from hfclip.images.preprocess import transform_of
from hfclip.model import CLIP
from hfclip.publishing.companions import FINETUNE_FILE, LOG_FILE
from hfclip.training.base import find_base, load_base, weights_digest
from hfclip.training.batches import Batches
from hfclip.training.checkpoints import State, newest_checkpoint, read_state, restore
from hfclip.training.exam import Exam, conclude
from hfclip.training.folder import CHECKPOINTS, finish, opened
from hfclip.training.inputs import check_labels_fit, data_digest, limited
from hfclip.training.log import Log
from hfclip.training.loop import Training
from hfclip.training.optimizer import choose_parameters, make_optimizer
from hfclip.training.outcome import Outcome, describe_device, versions, write_outcome
from hfclip.training.precision import choose_precision
from hfclip.training.processes import Processes, join_processes
from hfclip.training.results import BaseModel, DataCounts, Epoch, Results, Scores
from hfclip.training.settings import Plan, Settings

# Pictures or captions that a CPU encodes at once; more are not faster.
_CPU_CHUNK = 64


@dataclass(frozen=True)
class Finetuned:
    """The outcome of `finetune`.

    Attributes:
        status: "trained", or "already finished" if the folder held the result before.
        folder: The folder to publish.
        results: The numbers of finetune.json.
        is_first: Whether this process writes and reports: one of several.
    """

    status: Literal["trained", "already finished"]
    folder: Path
    results: Results
    is_first: bool = True


@dataclass(frozen=True)
class Request:
    """What `finetune` is asked for, beside the settings.

    Attributes:
        data: The data set: a path, or "hf:org/name".
        base: The model to start from.
        folder: The folder to write.
        keep: The data that must not be forgotten, or None.
        image_column: The column of the pictures, or None to find it.
        caption_column: The column of the captions, or None to find it.
        label_column: The column of the labels, or None to find it.
        revision: The commit, branch or tag of the base, or None.
        namespace: The account whose copies of the releases are used, or None.
        progress: Whether to print what happens on standard error.
    """

    data: str
    base: str
    folder: Path
    keep: str | None
    image_column: str | None
    caption_column: str | None
    label_column: str | None
    revision: str | None
    namespace: str | None
    progress: bool


def finetune(
    data: str | Path,
    base: str | Path,
    out: str | Path,
    *,
    keep: str | Path | None = None,
    device: Device = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    namespace: str | None = None,
    progress: bool = False,
    **settings: Any,
) -> Finetuned:
    """Fine-tunes a CLIP on pictures with labels or captions, and writes a folder to publish.

    The same call again goes on where the last one ended, to the bit, and does nothing if the folder
    holds the result. Several processes, started by `torchrun`, train one model: `batch_size`
    counts their pictures together, and their number changes the result only by rounding.

    Args:
        data: The data set: a folder, a table, tars, or "hf:org/name": see
            `hfclip.data.examples.read_dataset`.
        base: The model to start from: a name, folder, file or repository, as in `hfclip.load`.
        out: The folder to write. Checkpoints are in `checkpoints` in it until the end.
        keep: A data set that measures what is forgotten. All its splits count.
        device: The device, by default the GPU if there is one, else the CPU.
        image_column: The column of the pictures in a table.
        caption_column: The column of the captions.
        label_column: The column of the labels.
        revision: A branch, tag or commit of the base.
        namespace: The account whose copies of the nine releases are used.
        progress: Whether to print what happens on standard error, with a progress bar.
        settings: The fields of `hfclip.training.settings.Settings`, such as lr=1e-5.

    Returns:
        The folder and the results.

    Raises:
        ArgumentError: A setting is unknown or out of range.
        DataError: The data set cannot be used.
        TrainingError: The folder holds something else, another process trains in it, or the loss is
            not a number.
        KeyboardInterrupt: Ctrl-C. A checkpoint was written after the step.
    """
    request = Request(
        str(data),
        str(base),
        Path(out).expanduser(),
        None if keep is None else str(keep),
        image_column,
        caption_column,
        label_column,
        revision,
        namespace,
        progress,
    )
    chosen = Settings.from_dict(settings)
    processes = join_processes(device)
    try:
        return _Run(request, chosen, processes).finetune()
    finally:
        processes.end()


class _Run:
    """One call of `finetune`, in one process."""

    def __init__(self, request: Request, settings: Settings, processes: Processes) -> None:
        self.request, self.processes = request, processes
        precision = choose_precision(settings.precision, processes.device)
        self.settings = replace(settings, precision=precision)

    def finetune(self) -> Finetuned:
        """Reads everything, trains, and writes the result in the process 0."""
        self._say(f"{self.processes.describe()}, {self.settings.precision}")
        data, keep = self._read_data()
        source = find_base(
            self.request.base, revision=self.request.revision, namespace=self.request.namespace
        )
        model = load_base(source)
        base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        identity = {
            "base": weights_digest(model.config, base),
            "data": data_digest(data),
            "keep": None if keep is None else data_digest(keep),
            "settings": self.settings.deciding(),
        }
        self.processes.check_same("data", json.dumps(identity, sort_keys=True))
        plan = Plan.of(self.settings, len(data.train))
        check_labels_fit(data, self.settings.template, model.context_length)
        with ExitStack() as stack:
            is_finished = self.processes.on_first(
                lambda: stack.enter_context(opened(self.request.folder, identity))
            )
            if is_finished:
                return self._already_finished()
            if self.processes.is_first and (listed := data.skipped + data.truncated):
                write_skipped(self.request.folder / "skipped.csv", listed)
            training = self._begin(model, identity, data, plan)
            if training.log is not None:
                stack.enter_context(closing(training.log))
            preprocess = transform_of(training.batches.recipe)
            exam = Exam(data, keep, preprocess, self.settings.template)
            self._train(training, exam)
            results = self.processes.on_first(lambda: self._conclude(training, exam, base))
        return Finetuned("trained", self.request.folder, results, self.processes.is_first)

    def _read_data(self) -> tuple[Dataset, Dataset | None]:
        request, settings = self.request, self.settings
        shown = request.progress and self.processes.is_first
        data = read_dataset(
            request.data,
            image_column=request.image_column,
            caption_column=request.caption_column,
            label_column=request.label_column,
            validation=settings.validation,
            seed=settings.seed,
            max_skipped=settings.max_skipped,
            progress=shown,
        )
        keep = None
        if request.keep is not None:
            keep = read_dataset(
                request.keep,
                validation=0.0,
                seed=settings.seed,
                max_skipped=settings.max_skipped,
                progress=shown,
            )
        for note in (*data.notes, *(keep.notes if keep else ())):
            self._say(note)
        if not data.validation:
            raise TrainingError(
                "The data has no validation split, which measures the training and chooses the "
                "mixture. Hold out a part of it with --validation 0.1 (validation=0.1)."
            )
        return limited(data, settings.limit, settings.seed), keep

    def _begin(self, model: CLIP, identity: dict[str, Any], data: Dataset, plan: Plan) -> Training:
        """Prepares the training, from the newest checkpoint if there is one."""
        request, settings, processes = self.request, self.settings, self.processes
        model = model.to(processes.device)
        parameters = choose_parameters(model, settings.train)
        optimizer = make_optimizer(model, parameters, settings)
        recipe, context_length = Recipe.of(model.config), model.config.context_length
        batches = Batches(data.train, settings, plan, processes, recipe, context_length)

        def find() -> tuple[Path | None, State]:
            path = newest_checkpoint(request.folder / CHECKPOINTS)
            on_cpu = processes.device.type == "cpu"
            chunk = settings.chunk or (min(_CPU_CHUNK, plan.batch) if on_cpu else plan.batch)
            return path, State(identity, chunk=chunk) if path is None else read_state(path)

        path, state = processes.on_first(find)
        if path is not None:
            own = path if processes.is_first else None
            tensors = restore(own, model, parameters, optimizer, state.step)
            processes.copy_from_first(tensors)
            self._say(f"goes on after step {state.step} of {plan.steps}")
        log = None
        if processes.is_first:
            log = Log(request.folder / LOG_FILE, state.step, plan, shown=request.progress)
        return Training(model, parameters, optimizer, batches, state, request.folder, log)

    def _train(self, training: Training, exam: Exam) -> None:
        """Trains and measures the model, before the first step too."""
        state = training.state

        def evaluate() -> None:
            number = -(-state.step // training.batches.plan.steps_per_epoch)
            scores = self.processes.on_first(lambda: exam.validation(training.model))
            state.evaluations.append(
                {"number": number, "step": state.step, "scores": scores.to_dict()}
            )
            if training.log is not None:
                training.log.write(**state.evaluations[-1])
                training.log.say(_describe(number, scores))

        if not state.evaluations:
            evaluate()
        training.run(evaluate)

    def _conclude(self, training: Training, exam: Exam, base: dict[str, Tensor]) -> Results:
        """Chooses the mixture, measures it, and writes the folder."""
        request, state = self.request, training.state
        epochs = [
            Epoch(each["number"], each["step"], Scores.from_dict(each["scores"]))
            for each in state.evaluations
        ]
        known = {0.0: epochs[0].scores, 1.0: epochs[-1].scores}
        final = conclude(training.model, base, exam, known, mix=self.settings.mix)
        kept = exam.keep
        keep = len(kept.train) + len(kept.validation) + len(kept.test) if kept else 0
        results = Results(
            base=BaseModel.of(request.base, revision=request.revision),
            settings=self.settings.to_dict(),
            data=DataCounts.of(exam.data, request.data, keep),
            labels=exam.data.labels,
            split=exam.last_split,
            before=final.before,
            tuned=final.tuned,
            mixed=final.mixed,
            epochs=epochs,
            alphas=final.alphas,
            alpha=final.alpha,
            seconds=state.seconds,
            processes=self.processes.count,
            device=describe_device(self.processes.device),
            versions=versions(),
        )
        write_outcome(request.folder, Outcome(training.model.config, final.weights, results))
        finish(request.folder, state.identity)
        return results

    def _already_finished(self) -> Finetuned:
        def read() -> Results:
            path = self.request.folder / FINETUNE_FILE
            try:
                return Results.from_dict(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise TrainingError(
                    f"The training in {self.request.folder} is finished, but {path.name} cannot be "
                    f"read ({error}). Name another folder to train again."
                ) from error

        results = self.processes.on_first(read)
        self._say(f"{self.request.folder} holds the result of this training: nothing to do")
        folder, is_first = self.request.folder, self.processes.is_first
        return Finetuned("already finished", folder, results, is_first)

    def _say(self, text: str) -> None:
        if self.request.progress and self.processes.is_first:
            sys.stderr.write(f"{text}\n")


def _describe(epoch: int, scores: Scores) -> str:
    """Returns the scores after an epoch in a line."""
    name, value = scores.own.headline
    when = f"after epoch {epoch}" if epoch else "before training"
    kept = ""
    if scores.keep is not None:
        kept = f", not to forget: {scores.keep.headline.name} {scores.keep.headline.value:.2%}"
    return f"{when}: {name} {value:.2%}{kept}"
