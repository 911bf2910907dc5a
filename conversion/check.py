"""Compares a converted folder with its source file: the bits of the weights, and the logits."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conversion.oracle import LOGITS, TOLERANCE, fixed_batch
from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.errors import HfclipError
from hfclip.model import CLIP
from hfclip.sources.find import find

# The integers of a width, by its number of bytes.
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Finding:
    """The result of one comparison.

    Attributes:
        what: The name of the comparison.
        passed: Whether both sides are equal, or within the tolerance.
        detail: The sizes, or the differences.
    """

    what: str
    passed: bool
    detail: str


def check(folder: Path, file: Path, *, run_torchscript: bool = False) -> list[Finding]:
    """Compares a converted folder with its source file.

    Args:
        folder: A folder in hfclip's layout.
        file: OpenAI's TorchScript archive, or a state dict with OpenAI's names.
        run_torchscript: Whether to compute the logits with the archive's own code too, in a
            separate process. Use it only for an archive that you trust.

    Raises:
        HfclipError: The folder or the file cannot be read.
    """
    ours = read_checkpoint(find(folder))
    theirs = read_checkpoint(find(file))
    findings = [_names(ours, theirs), _bits(ours, theirs), _config(ours, theirs)]
    if run_torchscript:
        findings.append(_computed(ours, file))
    return findings


def _names(ours: Checkpoint, theirs: Checkpoint) -> Finding:
    differing = sorted(ours.tensors.keys() ^ theirs.tensors.keys())
    detail = f"only one of them has {', '.join(differing[:3])}" if differing else ""
    return Finding("names", not differing, detail or f"{len(ours.tensors)} tensors")


def _bits(ours: Checkpoint, theirs: Checkpoint) -> Finding:
    shared = ours.tensors.keys() & theirs.tensors.keys()
    differing = [name for name in sorted(shared) if not _same_bits(ours, theirs, name)]
    held = sum(ours.tensors[name].nbytes for name in shared)
    detail = f"{', '.join(differing[:3])} differ" if differing else f"{held:,} bytes"
    return Finding("bits", not differing, detail)


def _same_bits(ours: Checkpoint, theirs: Checkpoint, name: str) -> bool:
    one, other = ours.tensors[name], theirs.tensors[name]
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(_integers(one), _integers(other))


def _integers(tensor: Tensor) -> Tensor:
    """Returns the bits as integers, so that NaN equals NaN and 0.0 differs from -0.0.

    Integers of the width of the numbers are compared several times faster than bytes.
    """
    dtype = _INTEGERS.get(tensor.element_size(), torch.uint8)
    return tensor.contiguous().reshape(-1).view(dtype)


def _config(ours: Checkpoint, theirs: Checkpoint) -> Finding:
    same = ours.config == theirs.config
    return Finding("configuration", same, "as read from the shapes" if same else str(theirs.config))


def _computed(ours: Checkpoint, file: Path) -> Finding:
    """Compares the logits of hfclip's model and of the archive's own code, both in float32."""
    model = CLIP.from_checkpoint(ours).float()
    images, texts = fixed_batch(model.config)
    with torch.no_grad():
        logits = model(images, texts)[0]
    with TemporaryDirectory() as folder:
        batch, out = Path(folder, "batch.safetensors"), Path(folder, "out.safetensors")
        save_file({"images": images, "texts": texts}, batch)
        command = [sys.executable, "-m", "conversion.oracle", str(file), str(batch), str(out)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if run.returncode:
            reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
            return Finding("logits", False, f"the archive's code failed: {reason}")
        expected = load_file(out)[LOGITS]
    difference = ((logits - expected).norm() / expected.norm()).item()
    return Finding("logits", difference <= TOLERANCE, f"relative difference {difference:.1e}")


@click.command(epilog="Example: python -m conversion check out/ViT-B-32 --against ViT-B-32.pt")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--against",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="Source file of the conversion.",
)
@click.option(
    "--run-torchscript",
    is_flag=True,
    help="Also compare the logits with those of the archive's own code. Only if you trust it.",
)
def main(folder: Path, file: Path, run_torchscript: bool) -> None:
    """Compare a converted FOLDER with its source file, bit for bit."""
    try:
        findings = check(folder, file, run_torchscript=run_torchscript)
    except HfclipError as error:
        raise click.ClickException(str(error)) from error
    for finding in findings:
        verdict = "same" if finding.passed else "DIFFERENT"
        click.echo(f"{finding.what:<14} {verdict:<10} {finding.detail}")
    if not run_torchscript:
        click.echo(f"{'logits':<14} not computed: --run-torchscript runs the archive's own code")
    sys.exit(0 if all(finding.passed for finding in findings) else 1)
