"""Kills a training again and again, until it is finished: a program for test_kill.py.

Usage: killed.py DATA BASE FOLDER PROCESSES KILLS

The processes are forks of this one, which has imported everything, so that a life takes a fraction
of a second. Half of the lives end at a random time, the others at a random operation on files while
a checkpoint is written. A training that ends before all kills is followed by another. Prints the
hashes of the weights, of the uninterrupted training first, how many kills left an unfinished
checkpoint, and the steps from which training went on, as JSON.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import PartialState
from killing import end_after, killer, replace

from hfclip.data.examples import read_dataset
from hfclip.text.tokenizer import tokenize
from hfclip.training import checkpoints
from hfclip.training.base import find_base, load_base
from hfclip.training.run import finetune

SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "lr": 3e-3,
    "steps": 10,
    "batch_size": 6,
    "template": "a {} picture",
    "validation": 0.2,
    "precision": "fp32",
    "checkpoint_minutes": 0,
    "mix": False,
}
LONGEST = 120.0  # seconds of a life that is not killed
# Operations on files while a checkpoint is written.
OPERATIONS = (
    (safetensors.torch, "save_file"),
    (checkpoints, "synced"),
    (Path, "rename"),
    (shutil, "rmtree"),
)


def end_at_operation(number: int) -> None:
    """Kills this process at an operation on files while a checkpoint is written."""
    killing, write = killer(number), checkpoints.write_checkpoint

    def writing(*args: Any) -> Path:
        replace(OPERATIONS, killing)
        return write(*args)

    sys.modules["hfclip.training.loop"].write_checkpoint = writing  # type: ignore[attr-defined]


def start(out: Path, rank: int, count: int, port: int, at_operation: int | None) -> int:
    """Starts one process of a life and returns its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        torch.set_num_threads(1)
        if count > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in place.items()})
            os.environ["MASTER_ADDR"] = "127.0.0.1"
        if at_operation is not None and rank == 0:
            end_at_operation(at_operation)
        finetune(sys.argv[1], sys.argv[2], out, **SETTINGS)
        status = 0
    except BaseException:  # noqa: BLE001  # the test shows it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def live(out: Path, count: int, at_operation: int | None, seconds: float) -> bool:
    """Runs one life and returns whether the training was finished in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(out, rank, count, port, at_operation) for rank in range(count)]
    end_after(processes[0], seconds)
    _, status = os.waitpid(processes[0], 0)
    for other in processes[1:]:
        if status:
            os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a process ended with status {os.WEXITSTATUS(status)}")
    return status == 0


def digest(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def warm_up() -> None:
    """Imports and computes once what each life would."""
    torch.optim.AdamW([torch.zeros(1)])  # imports much of torch
    tokenize("a red picture")
    read_dataset(sys.argv[1], validation=0.2)
    load_base(find_base(sys.argv[2])).save_pretrained(Path(sys.argv[3]) / "copy")


def main() -> None:
    """Trains without a kill, then with as many as asked for."""
    folder, count, kills = Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    draw = random.Random(count)  # noqa: S311  # moments, not secrets
    warm_up()
    for name in ["matplotlib", *(one for one in sys.modules if one.startswith("matplotlib."))]:
        sys.modules[name] = None  # type: ignore[assignment]  # no curves
    began = time.monotonic()
    assert live(folder / "0", count, None, LONGEST)
    lasting, hashes = time.monotonic() - began, [digest(folder / "0")]
    unfinished, steps, done = 0, [], 0
    while done < kills or len(hashes) == 1:
        out = folder / str(len(hashes))
        at_operation = draw.randint(1, 24) if done % 2 else None
        seconds = LONGEST if done % 2 else draw.uniform(0.1, 0.5) * lasting
        if done == kills:
            at_operation, seconds = None, LONGEST
        if live(out, count, at_operation, seconds):
            hashes.append(digest(out))
            continue
        done += 1
        unfinished += any((out / "checkpoints").glob(".step-*"))
        newest = checkpoints.newest_checkpoint(out / "checkpoints")
        steps.append(checkpoints.read_state(newest).step if newest else 0)
    print(json.dumps({"hashes": hashes, "kills": done, "unfinished": unfinished, "steps": steps}))  # noqa: T201


if __name__ == "__main__":
    assert not PartialState._shared_state, "a fork must find its processes itself"
    main()
