"""Writes random weights of full size in each format that an engine reads, once.

    python -m benchmarks.weights archive ViT-B/32 /tmp/ViT-B-32.pt

The archive and the safetensors file hold the same numbers. A process of its own writes a file, so
that the measuring process does not import torch.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import ROOT

if TYPE_CHECKING:
    from hfclip.config import ClipConfig
    from hfclip.model import CLIP

_ENDINGS = {
    "safetensors": ".safetensors",
    "archive": ".pt",
    "transformers": "-transformers",
    "hub": "-hub",
}
COMMIT = "0" * 40


def default_cache() -> Path:
    """Returns a folder of this user in the system's temporary folder."""
    return Path(tempfile.gettempdir()) / f"hfclip-benchmarks-{os.getuid()}"


def locate(kind: str, model: str, cache: Path) -> Path:
    """Returns the path of a model's weights in one format, which may not exist yet."""
    return cache / (model.replace("/", "-").replace("@", "-") + _ENDINGS[kind])


def provide(kind: str, model: str, cache: Path) -> Path:
    """Writes the weights of a model in one format unless they exist, and returns their path.

    Raises:
        subprocess.CalledProcessError: Writing failed; the reason was printed.
    """
    return written(locate(kind, model, cache), __name__, kind, model)


def written(path: Path, module: str, *arguments: str) -> Path:
    """Runs a module to write `path`, unless it exists, and returns `path`.

    The module runs in a process of its own and gets the path as its last argument. A failed run
    leaves no file behind.

    Raises:
        subprocess.CalledProcessError: Writing failed; the reason was printed.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="part-") as part:
            unfinished = Path(part) / path.name
            command = [sys.executable, "-m", module, *arguments, str(unfinished)]
            subprocess.run(command, cwd=ROOT, check=True)
            unfinished.replace(path)
    return path


def write_safetensors(model: str, path: Path) -> None:
    """Writes float32 under OpenAI's names, which open_clip also uses for these models."""
    from safetensors.torch import save_file

    save_file(random_model(model).state_dict(), path, metadata={"format": "pt"})


def write_archive(model: str, path: Path) -> None:
    """Writes TorchScript in mixed half precision, as in OpenAI's releases."""
    import torch

    from hfclip.network.clip import convert_weights
    from hfclip.network.scripted import script

    clip = random_model(model)
    traced = script(clip)
    # The traced module shares its tensors with the model. Tracing in half precision takes minutes
    # on a CPU and saves the same weights.
    convert_weights(clip, torch.float16)
    traced.save(str(path))


def write_transformers(model: str, path: Path) -> None:
    """Writes a folder for `CLIPModel.from_pretrained` with the same shapes and other numbers."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from hfclip.releases import RELEASES

    config = RELEASES[model].config
    torch.manual_seed(0)
    peer = CLIPConfig(
        vision_config=_vision(config), text_config=_text(config), projection_dim=config.embed_dim
    )
    CLIPModel(peer).save_pretrained(path)


def write_hub(model: str, path: Path) -> None:
    """Writes a Hub cache that holds a release at `COMMIT`, in the layout of huggingface_hub."""
    from huggingface_hub.file_download import repo_folder_name

    from hfclip.hub.integrity import compute
    from hfclip.releases import RELEASES

    file = RELEASES[model].hub
    folder = path / repo_folder_name(repo_id=file.repo_id, repo_type="model")
    unnamed, snapshot = folder / "blobs" / "unnamed", folder / "snapshots" / COMMIT
    unnamed.parent.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    write_safetensors(model, unnamed)
    blob = unnamed.replace(unnamed.with_name(compute(unnamed, "sha256")))
    (snapshot / file.file).symlink_to(Path("../../blobs") / blob.name)


def _vision(config: "ClipConfig") -> dict[str, Any]:
    return {
        "hidden_size": config.vision_width,
        "intermediate_size": config.vision_mlp_units,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.vision_heads,
        "image_size": config.image_resolution,
        "patch_size": config.vision_patch_size,
    }


def _text(config: "ClipConfig") -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.transformer_width,
        "intermediate_size": config.transformer_mlp_units,
        "num_hidden_layers": config.transformer_layers,
        "num_attention_heads": config.transformer_heads,
        "max_position_embeddings": config.context_length,
    }


def random_model(model: str) -> "CLIP":
    """Returns a float32 model with one seed, rounded to half precision as in an archive."""
    import torch

    from hfclip.model import CLIP
    from hfclip.network.clip import convert_weights
    from hfclip.releases import RELEASES

    torch.manual_seed(0)
    clip = CLIP(**RELEASES[model].config.to_dict()).eval()
    convert_weights(clip, torch.float16)
    convert_weights(clip, torch.float32)
    return clip


_WRITERS: dict[str, Callable[[str, Path], None]] = {
    "safetensors": write_safetensors,
    "archive": write_archive,
    "transformers": write_transformers,
    "hub": write_hub,
}


def main() -> None:
    """Writes the file that the command line names."""
    kind, model, path = sys.argv[1:]
    try:
        _WRITERS[kind](model, Path(path))
    except KeyboardInterrupt:  # the measuring process was interrupted too, and reports it
        sys.exit(130)


if __name__ == "__main__":
    main()
