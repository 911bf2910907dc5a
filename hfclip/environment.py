"""Describes the environment of hfclip for a bug report: versions, machine, torch and settings.

Makes no request, and returns neither a token nor a password. The user's home folder is written
as ~ in all paths.
"""

import os
import platform
import re
import shutil
import stat
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, get_args
from urllib.request import getproxies

from huggingface_hub import constants

from hfclip.hub.causes import TOKEN_VARIABLES
from hfclip.sources.find import NAMESPACE_VARIABLE
from hfclip.version import __version__

# The required packages, then the optional ones.
PACKAGES = (
    "torch",
    "torchvision",
    "huggingface_hub",
    "safetensors",
    "Pillow",
    "numpy",
    "ftfy",
    "regex",
    "pillow-heif",
    "onnx",
    "faiss-cpu",
    "transformers",
    "open_clip_torch",
)
_CPU_FILE = Path("/proc/cpuinfo")
# Captures scheme, host, port and path; does not capture user name, password and query.
_ADDRESS = re.compile(
    r"(https?://)?(?:[^/?#]*@)?((?:[\w.-]+|\[[\da-fA-F:]+\])(?::\d+)?(?:/[\w./-]*)?)(?:[?#][^@]*)?"
)


@dataclass(frozen=True)
class TorchFacts:
    """Properties of torch that change the speed or the results of hfclip.

    Attributes:
        version: The version with its build, such as "2.9.0+cpu".
        cuda_build: The version of CUDA that torch was built for, or None.
        cuda_available: Whether torch can use a CUDA GPU.
        cuda_devices: The names of the GPUs, in the order of their indices.
        threads: The number of threads of one operation on the CPU.
        cpu_capability: The instruction set of torch's own kernels, such as "AVX512".
        instructions: The names of the other instructions that `hfclip.optimize` uses.
        optimize: The dtype that `hfclip.optimize` computes in on the CPU, by requested dtype.
    """

    version: str
    cuda_build: str | None
    cuda_available: bool
    cuda_devices: tuple[str, ...]
    threads: int
    cpu_capability: str
    instructions: tuple[str, ...]
    optimize: dict[str, str]


@dataclass(frozen=True)
class Cache:
    """The cache of the Hub's client.

    Attributes:
        folder: The path, which may not exist yet.
        size: The size of all files in bytes. A file with several links counts once.
        free: The free space of the disk in bytes, or None if the system does not report it.
    """

    folder: str
    size: int
    free: int | None


@dataclass(frozen=True)
class Settings:
    """Settings that change where models come from.

    Attributes:
        hf_home: The folder HF_HOME, given or default.
        hf_endpoint: The address of the Hub without user name, password and query. None if the
            value is no address; it is then not shown, because it may contain a password.
        hf_hub_offline: Whether HF_HUB_OFFLINE rules out requests.
        hfclip_namespace: The value of HFCLIP_NAMESPACE, or None.
        proxies: Whether a proxy is set.
        token: The name of the variable or the path of the file that has a token, or None.
    """

    hf_home: str
    hf_endpoint: str | None
    hf_hub_offline: bool
    hfclip_namespace: str | None
    proxies: bool
    token: str | None


@dataclass(frozen=True)
class Environment:
    """The environment of hfclip, without secrets.

    Attributes:
        versions: The version of hfclip, of Python and of each package; None if not installed.
        platform: The operating system with its version, and the architecture.
        processor: The name of the processor.
        torch: Properties of torch, or None if it cannot be used.
        torch_error: The reason why torch cannot be used, or None.
        cache: The cache of the Hub's client.
        settings: Settings from the environment and from files.
    """

    versions: dict[str, str | None]
    platform: str
    processor: str
    torch: TorchFacts | None
    torch_error: str | None
    cache: Cache
    settings: Settings

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dictionaries of plain values, for JSON."""
        return asdict(self)


def describe() -> Environment:
    """Returns the present environment. Imports torch if it is installed."""
    facts, error = _torch()
    return Environment(
        versions={
            "hfclip": __version__,
            "Python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        platform=platform.platform(),
        processor=processor_name(),
        torch=facts,
        torch_error=error,
        cache=_cache(Path(constants.HF_HUB_CACHE)),
        settings=_settings(),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """Returns the name of the processor as the system gives it."""
    try:
        lines = _CPU_FILE.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):  # not Linux
        lines = []
    pairs = [line.partition(":") for line in lines]
    names = [value.strip() for key, _, value in pairs if key.strip() == "model name"]
    return names[0] if names else platform.processor() or platform.machine()


def _torch() -> tuple[TorchFacts | None, str | None]:
    """Returns the properties of torch, or the reason why it cannot be used."""
    try:
        return _torch_facts(), None
    except Exception as error:  # noqa: BLE001  # a broken installation or driver raises many kinds
        message = " ".join(str(error).split())  # one line
        return None, _with_tilde(f"{type(error).__name__}: {message}")


def _torch_facts() -> TorchFacts:
    import torch  # noqa: PLC0415

    from hfclip.fast import onednn, processor  # noqa: PLC0415
    from hfclip.fast.kernels import Precision  # noqa: PLC0415

    available = torch.cuda.is_available()
    count = torch.cuda.device_count() if available else 0
    cpu = torch.device("cpu")
    return TorchFacts(
        version=str(torch.__version__),
        cuda_build=torch.version.cuda,
        cuda_available=available,
        cuda_devices=tuple(torch.cuda.get_device_name(index) for index in range(count)),
        threads=torch.get_num_threads(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        instructions=processor.instructions(),
        optimize={name: onednn.toolbox(name, cpu).texts.precision for name in get_args(Precision)},
    )


def _cache(folder: Path) -> Cache:
    return Cache(_with_tilde(str(folder)), _size(folder), _free(folder))


def _size(folder: Path) -> int:
    """Returns the size of all files in bytes; follows links to files and counts each file once."""
    sizes: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = Path(parent, name).stat()
            except OSError:  # a broken link, or a file that another process removed
                continue
            if stat.S_ISREG(status.st_mode):
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def _free(folder: Path) -> int | None:
    """Returns the free space where a folder is or would be made."""
    for path in (folder, *folder.absolute().parents):
        try:
            return shutil.disk_usage(path).free
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
    return None


def _settings() -> Settings:
    return Settings(
        hf_home=_with_tilde(constants.HF_HOME),
        hf_endpoint=_public_address(constants.ENDPOINT),
        hf_hub_offline=constants.HF_HUB_OFFLINE,
        hfclip_namespace=os.environ.get(NAMESPACE_VARIABLE) or None,
        proxies=any(name != "no" for name in getproxies()),
        token=_token_origin(),
    )


def _public_address(address: str) -> str | None:
    match = _ADDRESS.fullmatch(address)
    return (match[1] or "") + match[2] if match else None


def _token_origin() -> str | None:
    """Returns where the Hub's client takes its token from, or None.

    The order is that of `huggingface_hub.get_token`, which may make requests and is not called.
    The secrets of Google Colab are left out, because Colab asks the user before it shows them.
    """
    if os.environ.get("HF_OIDC_RESOURCE"):
        return "HF_OIDC_RESOURCE"
    variable = next((name for name in TOKEN_VARIABLES if os.environ.get(name)), None)
    if variable and os.environ[variable].strip():
        return variable
    path = _with_tilde(constants.HF_TOKEN_PATH)
    try:
        return path if Path(constants.HF_TOKEN_PATH).read_bytes().strip() else None
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path}, which cannot be read ({error.strerror})"


def _with_tilde(text: str) -> str:
    """Replaces the user's home folder by ~ wherever a text has it as a whole path."""
    try:
        home = str(Path.home())
    except RuntimeError:  # the system does not know the user
        return text
    if Path(home) == Path(home).parent:  # the root of a file system, as in some containers
        return text
    return re.sub(rf"(?<![\w/.-]){re.escape(home)}(?![\w-]|\.\w)", "~", text)
