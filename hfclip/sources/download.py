"""Downloads a model's files before they are used: `download`. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from hfclip.hub import integrity
from hfclip.hub.fetch import Access
from hfclip.hub.integrity import Digest
from hfclip.sources.find import find


@dataclass(frozen=True)
class Download:
    """A model whose files are on this machine.

    Attributes:
        name: The name that `download` was called with.
        origin: The repository and commit, or the file or folder, in words.
        path: The weight file, or the index of the shards.
        digest: The hash that this file was verified against; None for a bundled model or a
            local file or folder.
    """

    name: str
    origin: str
    path: Path
    digest: Digest | None


def download(
    name: str | Path,
    *,
    revision: str | None = None,
    namespace: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    subfolder: str | None = None,
    variant: str | None = None,
) -> Download:
    """Downloads and verifies all files of a model that `hfclip.load` reads, and no others.

    Files that are already cached are not downloaded again. Afterwards `hfclip.load` works offline.

    Args:
        name: A release such as "ViT-B/32", or a repository: "org/name" or "org/name@revision".
        revision: A branch, tag or commit; by default the pinned commit of a release, else main.
        namespace: The account whose copies of the nine releases are used; by default the
            environment variable HFCLIP_NAMESPACE, if set.
        token: A Hub token, True for the stored token, False for none.
        cache_dir: The folder of the Hub's cache; by default HF_HUB_CACHE, else `hub` in HF_HOME.
        force_download: Whether to download cached files again.
        subfolder: The folder in the repository that holds the model.
        variant: The variant of the weights, such as "fp16", as in `hfclip.load`.

    Returns:
        The path of the weight file, its hash and its origin.

    Raises:
        ModelNotFoundError: The name is not a release, repository, file or folder.
        HubError: A file cannot be downloaded, or does not have the published hash.

    Example:
        >>> hfclip.download("ViT-B/32").path.name
        'open_clip_model.safetensors'
    """
    access = Access(token, cache_dir, force_download=force_download)
    source = find(
        name,
        access,
        revision=revision,
        namespace=namespace,
        subfolder=subfolder,
        variant=variant,
    )
    record = integrity.recall(source.weights)
    return Download(str(name), source.origin, source.weights, record and record.digest)
