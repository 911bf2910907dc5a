"""Proves a converted folder equal to the file it was made from: every bit, and what it computes."""

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


@dataclass(frozen=True)
class Finding:
    """What was compared, and how it came out."""

    what: str
    passed: bool
    detail: str


def check(folder: Path, file: Path, *, run_torchscript: bool = False) -> list[Finding]:
    """Compares a converted folder with its source.

    Args:
        folder: In hfclip's layout.
        file: OpenAI's archive or a state dict in its layout.
        run_torchscript: Whether to run the archive's own code, in a process of its own, as a
            second and independent way to the logits. Only for an archive that you trust.

    Raises:
        HfclipError: One of the two cannot be read.
    """
    ours = read_checkpoint(find(folder))
    theirs = read_checkpoint(find(file))
    findings = [_names(ours, theirs), _bits(ours, theirs), _config(ours, theirs)]
    if run_torchscript:
        findings.append(_computed(ours, file))
    return findings


def _names(ours: Checkpoint, theirs: Checkpoint) -> Finding:
    differing = sorted(ours.tensors.keys() ^ theirs.tensors.keys())
    detail = f"only one side has {', '.join(differing[:3])}" if differing else ""
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
    return torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: Tensor) -> Tensor:
    """The bytes themselves, so that NaN equals NaN and 0.0 is not -0.0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _config(ours: Checkpoint, theirs: Checkpoint) -> Finding:
    same = ours.config == theirs.config
    return Finding("configuration", same, "as the shapes tell" if same else str(theirs.config))


def _computed(ours: Checkpoint, file: Path) -> Finding:
    """Our rebuilt model against the archive's own code, both in float32."""
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
            return Finding("logits", False, f"the archive does not run: {reason}")
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
    help="The file that it was made from.",
)
@click.option(
    "--run-torchscript",
    is_flag=True,
    help="Also run the archive's own code, as a second way to the logits; only if you trust it.",
)
def main(folder: Path, file: Path, run_torchscript: bool) -> None:
    """Compare a converted FOLDER with its source, bit for bit."""
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
