"""The loop of a training: one step after the other, with what may happen between two steps."""

import json
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hfclip.atomic import write_text
from hfclip.errors import TrainingError
from hfclip.interruption import stop_request
from hfclip.model import CLIP
from hfclip.training.batches import Batches
from hfclip.training.checkpoints import State, write_checkpoint
from hfclip.training.log import Log
from hfclip.training.memory import kept_memory
from hfclip.training.optimizer import clamp_logit_scale
from hfclip.training.step import Gradients, compute_gradients

STOPPED_FILE = "stopped.json"
# Pictures that the message of an error names.
_SHOWN = 5


@dataclass
class Training:
    """A training in one process.

    Attributes:
        model: The model, in float32 and eval mode.
        parameters: The parameters to train, by name.
        optimizer: Their optimizer.
        batches: The batches, with the settings, the plan and the processes.
        state: The completed steps and what was measured.
        folder: The folder of the training, in which the process 0 writes.
        log: The log of the process 0, else None.
    """

    model: CLIP
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    batches: Batches
    state: State
    folder: Path
    log: Log | None

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    def run(self, evaluate: Callable[[], None]) -> None:
        """Takes the steps that are left.

        Args:
            evaluate: Measures the model after each epoch. It is called in all processes.

        Raises:
            TrainingError: The loss or the gradient is not a finite number.
            KeyboardInterrupt: A process was asked to stop. A checkpoint is written first.
        """
        state, settings, plan = self.state, self.batches.settings, self.batches.plan
        processes, parameters = self.batches.processes, list(self.parameters.values())
        saved = since = time.monotonic()
        with (
            kept_memory(),
            stop_request() as stop,
            closing(self.batches.from_step(state.step)) as batches,
        ):
            for batch in batches:
                lr = settings.lr * plan.lr_share(state.step)
                for group in self.optimizer.param_groups:
                    group["lr"] = lr
                result = compute_gradients(
                    self.model,
                    parameters,
                    batch,
                    processes,
                    state.chunk,
                    bf16=settings.precision == "bf16",
                )
                norm = float(nn.utils.clip_grad_norm_(parameters, settings.clip))
                if not (math.isfinite(result.excess) and math.isfinite(norm)):
                    raise self._not_finite(batch.rows, result, norm)
                self.optimizer.step()
                clamp_logit_scale(self.model)
                state.step, state.chunk = state.step + 1, result.chunk
                now = time.monotonic()
                state.seconds += now - since
                self._report(result, lr, norm, plan.batch / (now - since))
                if state.step % plan.steps_per_epoch == 0 or state.step == plan.steps:
                    evaluate()
                is_due = processes.is_first and now - saved >= 60 * settings.checkpoint_minutes
                stopped, due = processes.any(stop.is_set(), is_due)
                if stopped or due or state.step == plan.steps:
                    self.save()
                    saved = time.monotonic()
                if stopped:
                    raise KeyboardInterrupt(f"stopped after step {state.step}")
                since = time.monotonic()

    def save(self) -> None:
        """Writes a checkpoint in the process 0."""
        if self.batches.processes.is_first:
            write_checkpoint(
                self.checkpoints, self.model, self.parameters, self.optimizer, self.state
            )

    def _report(self, result: Gradients, lr: float, norm: float, speed: float) -> None:
        if self.log is None:
            return
        self.log.write(
            step=self.state.step,
            loss=result.excess,
            floor=result.floor,
            lr=lr,
            scale=float(self.model.logit_scale.detach().exp()),
            gradient_norm=norm,
            pictures_per_second=round(speed, 2),
        )
        self.log.advance(result.excess)

    def _not_finite(self, rows: tuple[int, ...], result: Gradients, norm: float) -> TrainingError:
        """Writes the pictures of the batch to a file, the suspicious ones first."""
        odd = [self.batches.examples[rows[place]].key for place in result.odd]
        keys = odd + [key for row in rows if (key := self.batches.examples[row].key) not in odd]
        number = self.state.step + 1
        path = self.folder / STOPPED_FILE
        if self.batches.processes.is_first:
            facts = {"step": number, "loss": result.excess, "gradient_norm": norm}
            text = {name: str(value) for name, value in facts.items()} | {
                "features_not_finite": odd,
                "pictures": keys,
            }
            write_text(path, json.dumps(text, indent=2, ensure_ascii=False) + "\n")
        shown = ", ".join(keys[:_SHOWN])
        more = f" and {len(keys) - _SHOWN} more, listed in {path}" if len(keys) > _SHOWN else ""
        return TrainingError(
            f"Step {number}: the loss is {result.excess:g} and the norm of the gradient {norm:g}. "
            f"The batch has {shown}{more}. The weights were not changed by this step. Train with a "
            "lower --lr in a new folder, or remove pictures that are damaged."
        )
