"""What a Space installs: hfclip itself, and the other packages in the versions of this machine."""

import json
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from hfclip.errors import ArgumentError, DataError, PublishError
from hfclip.hub import integrity
from hfclip.hub.push import Repository
from hfclip.version import __version__

PINNED = (
    "torch",
    "torchvision",
    "huggingface_hub",
    "safetensors",
    "ftfy",
    "regex",
    "Pillow",
    "numpy",
    "pyarrow",
    "gradio",
)
"""What hfclip and its page import. A Space installs the versions of this machine."""

# PyTorch's index of builds for CPUs, which new Spaces have. They need no packages for CUDA.
_CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"
_ADDRESS = re.compile(r"(?:git\+)?https://[^\s;]+")
_WHEEL = re.compile(r"hfclip-[\w.+!]+-[\w.-]+\.whl")


@dataclass(frozen=True)
class Install:
    """Where a Space installs hfclip from.

    Attributes:
        requirement: The line for pip; for a wheel, its beginning.
        wheel: A wheel that is sent with the Space, or None.
    """

    requirement: str
    wheel: Path | None = None

    def line(self, space: Repository) -> str:
        """Returns the line for pip. The address of a wheel carries its sha256, which pip checks."""
        if self.wheel is None:
            return self.requirement
        digest = integrity.compute(self.wheel, "sha256")
        address = f"{space.url}/resolve/main/{quote(self.wheel.name)}#sha256={digest}"
        return f"{self.requirement} @ {address}"


def choose_install(given: str | Path | None = None) -> Install:
    """Returns where a Space installs hfclip from.

    Args:
        given: An address that begins with https:// or git+https://, or a wheel of hfclip on this
            machine. None uses the package index or the address that this hfclip was installed from.

    Raises:
        ArgumentError: `given` is neither.
        PublishError: This hfclip was installed from a folder or file, so a Space cannot install the
            same.
    """
    if given is None:
        return Install(_own_requirement())
    if _ADDRESS.fullmatch(str(given)):
        return Install(f"hfclip[app] @ {given}")
    wheel = Path(given).expanduser()
    if not wheel.is_file() or not _WHEEL.fullmatch(wheel.name):
        raise ArgumentError(
            f"{given} is neither an address (https://..., git+https://...) nor a wheel of hfclip "
            "on this machine. `pip wheel --no-deps -w dist FOLDER` builds one from a checkout."
        )
    return Install("hfclip[app]", wheel)


def requirements(install: Install, space: Repository) -> str:
    """Returns the text of requirements.txt."""
    lines = [_CPU_INDEX, install.line(space)]
    lines += [f"{name}=={version_of(name)}" for name in PINNED]
    return "".join(f"{line}\n" for line in lines)


def version_of(package: str) -> str:
    """Returns the version of a package, without the part that names the build, such as +cpu.

    Raises:
        DataError: The package is not installed.
    """
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        raise DataError(
            f"A Space gets the versions of this machine, but {package} is not installed: pip "
            "install 'hfclip[app]'"
        ) from None


def _own_requirement() -> str:
    """Returns the requirement that installs this hfclip again.

    pip records the address in direct_url.json (PEP 610), unless the package came from an index.
    """
    text = metadata.distribution("hfclip").read_text("direct_url.json")
    if text is None:
        return f"hfclip[app]=={__version__}"
    origin = json.loads(text)
    address, commit = origin["url"], origin.get("vcs_info", {}).get("commit_id")
    if address.startswith("https://") and "dir_info" not in origin:
        return f"hfclip[app] @ {f'git+{address}@{commit}' if commit else address}"
    raise PublishError(
        f"This hfclip was installed from {address.removeprefix('file://')}, which a Space cannot "
        "reach. Say where the Space gets it: --hfclip-from with the address of a package or with a "
        "wheel on this machine, which is then sent with the Space (hfclip_from= in Python). "
        "`pip wheel --no-deps -w dist FOLDER` builds a wheel from a checkout."
    )
