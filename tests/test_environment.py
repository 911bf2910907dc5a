"""The environment for a bug report: what it shows, and that it shows no secret."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch
from click.testing import CliRunner, Result
from huggingface_hub import constants

import hfclip
from hfclip import environment
from hfclip.cli import main
from hfclip.fast import onednn

ROOT = Path(hfclip.__file__).parents[1]
VERSIONS = {
    "torch": "2.9.0",
    "torchvision": "0.24.0",
    "huggingface_hub": "2.4.0",
    "safetensors": "0.8.0",
    "Pillow": "12.0.0",
    "numpy": "2.3.1",
    "ftfy": "6.3.1",
    "regex": "2025.1.1",
    "onnx": "1.19.0",
}
CAPABILITIES = {"architecture": "x86_64", "avx512_bf16": False, "avx512_vnni": True}
SECRET = "hf_qXzSecretOfTheTests"
PASSWORD = "pAsswordOfTheTests"

EXPECTED_TEXT = """\
hfclip            0.1.0
Python            3.12.1
torch             2.9.0
torchvision       0.24.0
huggingface_hub   2.4.0
safetensors       0.8.0
Pillow            12.0.0
numpy             2.3.1
ftfy              6.3.1
regex             2025.1.1
pillow-heif       not installed
onnx              1.19.0
faiss-cpu         not installed
transformers      not installed
open_clip_torch   not installed
platform          Linux-6.1-x86_64
processor         Example CPU 9000
CUDA              GPU 0, GPU 1 (torch 2.9.0+cu130, built for CUDA 13.0)
torch threads     3
CPU instructions  AVX2, avx512_vnni
optimize          float32 in float32, bfloat16 in float32, int8 in int8
cache             ~/hf/hub
cache size        0.00 GB
free space        12.35 GB
HF_HOME           ~/hf
HF_ENDPOINT       https://hub.example.org
HF_HUB_OFFLINE    yes
HFCLIP_NAMESPACE  me
proxies set       yes
token             found in HF_TOKEN
"""

EXPECTED_JSON = {
    "versions": {
        "hfclip": "0.1.0",
        "Python": "3.12.1",
        **VERSIONS,
        "pillow-heif": None,
        "faiss-cpu": None,
        "transformers": None,
        "open_clip_torch": None,
    },
    "platform": "Linux-6.1-x86_64",
    "processor": "Example CPU 9000",
    "torch": {
        "version": "2.9.0+cu130",
        "cuda_build": "13.0",
        "cuda_available": True,
        "cuda_devices": ["GPU 0", "GPU 1"],
        "threads": 3,
        "cpu_capability": "AVX2",
        "instructions": ["avx512_vnni"],
        "optimize": {"float32": "float32", "bfloat16": "float32", "int8": "int8"},
    },
    "torch_error": None,
    "cache": {"folder": "~/hf/hub", "size": 4321, "free": 12_345_678_901},
    "settings": {
        "hf_home": "~/hf",
        "hf_endpoint": "https://hub.example.org",
        "hf_hub_offline": True,
        "hfclip_namespace": "me",
        "proxies": True,
        "token": "HF_TOKEN",
    },
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["env", *arguments], catch_exceptions=False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test; no setting is given, and connections fail."""
    home = tmp_path / "home"
    (home / "hf").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HFCLIP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_HOME", str(home / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hf/hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "hf/token"))
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("hfclip env made a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return home


@pytest.fixture
def known_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine and the settings that EXPECTED_TEXT and EXPECTED_JSON describe."""

    def version(name: str) -> str:
        if name not in VERSIONS:
            raise metadata.PackageNotFoundError(name)
        return VERSIONS[name]

    cpu_file = home.parent / "cpuinfo"
    cpu_file.write_text("processor\t: 0\nmodel name\t: Example CPU 9000\nmodel name\t: Other\n")
    monkeypatch.setattr(environment, "__version__", "0.1.0")
    monkeypatch.setattr(environment, "_CPU_FILE", cpu_file)
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(platform, "python_version", lambda: "3.12.1")
    monkeypatch.setattr(platform, "platform", lambda: "Linux-6.1-x86_64")
    monkeypatch.setattr(torch, "__version__", "2.9.0+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: CAPABILITIES, raising=False)
    monkeypatch.setattr(onednn, "_quantizes", lambda: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=12_345_678_901))
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example.org")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HFCLIP_NAMESPACE", "me")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    (home / "hf/hub").mkdir()
    (home / "hf/hub/file").write_bytes(bytes(4321))


@pytest.mark.usefixtures("known_machine")
def test_the_text_has_one_fact_on_each_line() -> None:
    result = run()
    assert (result.stdout, result.stderr, result.exit_code) == (EXPECTED_TEXT, "", 0)


@pytest.mark.usefixtures("known_machine")
def test_the_json_is_the_environment_as_a_dictionary() -> None:
    assert json.loads(run("--json").stdout) == EXPECTED_JSON
    assert json.loads(json.dumps(environment.describe().to_dict())) == EXPECTED_JSON


def test_without_settings_the_defaults_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "__version__", "2.9.0+cpu")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    lines = run().stdout.splitlines()
    for line in (
        "CUDA              not available (torch 2.9.0+cpu, built without CUDA)",
        "cache             ~/hf/hub",
        "cache size        0.00 GB",
        "HF_HOME           ~/hf",
        "HF_ENDPOINT       https://huggingface.co",
        "HF_HUB_OFFLINE    no",
        "HFCLIP_NAMESPACE  not set",
        "proxies set       no",
        "token             not found",
    ):
        assert line in lines


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("place", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "file", "OIDC"])
def test_neither_tokens_nor_passwords_are_shown(
    place: str, arguments: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "hf/token").write_text(f"{SECRET}\n")
    (home / "hf/stored_tokens").write_text(f"[mine]\nhf_token = {SECRET}\n")
    if place == "OIDC":
        monkeypatch.setenv("HF_OIDC_RESOURCE", "me/clip")
        monkeypatch.setenv("HF_OIDC_ID_TOKEN", SECRET)
    elif place != "file":
        monkeypatch.setenv(place, SECRET)
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://alice:{PASSWORD}@proxy.example.org:3128")
    endpoint = f"https://alice:{PASSWORD}@hub.example.org:8443/api?token={SECRET}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)

    result = run(*arguments)

    found = {"file": "~/hf/token", "OIDC": "HF_OIDC_RESOURCE"}.get(place, place)
    assert result.exit_code == 0
    assert found in result.stdout
    assert "https://hub.example.org:8443/api" in result.stdout
    # The prefix hf_ with the first letters, and the ends, count as well.
    for part in (SECRET[:6], SECRET[-6:], PASSWORD[:6], PASSWORD[-6:], "alice", "proxy.example"):
        assert part not in result.output
    assert str(home) not in result.output


@pytest.mark.parametrize(
    ("variables", "content", "expected"),
    [
        ({}, None, None),
        ({}, " \n", None),
        ({}, SECRET, "~/hf/token"),
        ({"HF_TOKEN": SECRET}, SECRET, "HF_TOKEN"),
        ({"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": SECRET}, None, "HUGGING_FACE_HUB_TOKEN"),
        ({"HF_TOKEN": " "}, SECRET, "~/hf/token"),
        ({"HF_TOKEN": " ", "HUGGING_FACE_HUB_TOKEN": SECRET}, None, None),
        ({"HF_TOKEN": SECRET, "HF_OIDC_RESOURCE": "me/clip"}, SECRET, "HF_OIDC_RESOURCE"),
    ],
)
def test_the_token_is_found_where_the_client_finds_it(
    variables: Mapping[str, str],
    content: str | None,
    expected: str | None,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if content is not None:
        (home / "hf/token").write_text(content)
    assert environment.describe().settings.token == expected
    if "HF_OIDC_RESOURCE" not in variables:  # the client would make a request for it
        from huggingface_hub import get_token

        assert get_token() == (expected and SECRET)


def test_an_unreadable_token_file_is_reported(home: Path) -> None:
    (home / "hf/token").mkdir()
    token = environment.describe().settings.token
    assert token == "~/hf/token, which cannot be read (Is a directory)"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://huggingface.co", "https://huggingface.co"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/hub", "http://[::1]:8080/hub"),
        ("huggingface.co", "huggingface.co"),
        ("https://alice:pw@hub.org/api/hf", "https://hub.org/api/hf"),
        ("https://alice:p@w@hub.org", "https://hub.org"),
        ("alice:pw@hub.org", "hub.org"),
        ("https://hub.org?token=pw", "https://hub.org"),
        ("https://hub.org/#pw", "https://hub.org/"),
        ("https://alice:p/w@hub.org", None),
        ("https://alice?pw@hub.org", None),
        ("ftp://alice:pw@hub.org", None),
        ("not an address", None),
    ],
)
def test_the_endpoint_is_shown_without_password_and_query(
    address: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    assert environment.describe().settings.hf_endpoint == expected
    assert (expected or "not an address (not shown)") in run().stdout


def test_each_file_of_the_cache_counts_once(home: Path) -> None:
    hub = home / "hf/hub"
    (hub / "blobs").mkdir(parents=True)
    (hub / "snapshots/1/text").mkdir(parents=True)
    (home / "hf/shared").write_bytes(bytes(700))
    (hub / "blobs/a").write_bytes(bytes(1000))
    (hub / "blobs/b").symlink_to(home / "hf/shared")
    (hub / "snapshots/1/a").symlink_to("../../blobs/a")
    (hub / "snapshots/1/b").symlink_to("../../blobs/b")
    (hub / "snapshots/1/text/c").write_bytes(bytes(30))
    (hub / "snapshots/1/d").hardlink_to(hub / "snapshots/1/text/c")
    (hub / "snapshots/1/gone").symlink_to("../../blobs/gone")
    (hub / "snapshots/1/loop").symlink_to(hub)
    assert environment.describe().cache.size == 1730


def test_free_space_is_that_of_the_nearest_folder_that_exists(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(path: Path) -> SimpleNamespace:
        if not path.exists():
            raise FileNotFoundError(path)
        return SimpleNamespace(free=len(path.parts))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "new/cache/hub"))
    cache = environment.describe().cache
    assert (cache.folder, cache.size) == ("~/new/cache/hub", 0)
    assert cache.free == len(home.parts)


def test_free_space_that_the_system_does_not_report_is_unknown(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> SimpleNamespace:
        if path == home / "hf/hub":
            raise PermissionError(path)
        return SimpleNamespace(free=1)  # perhaps of another disk

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    assert "free space        unknown" in run().stdout.splitlines()


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("{home}", "~"),
        ("{home}/hf home", "~/hf home"),
        ("{home}2/hf", "{home}2/hf"),
        ("{home}.old/hf", "{home}.old/hf"),
        ("/mnt{home}/hf", "/mnt{home}/hf"),
        ("relative/hf", "relative/hf"),
    ],
)
def test_only_the_home_folder_itself_is_written_as_a_tilde(
    folder: str, expected: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HOME", folder.format(home=home))
    assert environment.describe().settings.hf_home == expected.format(home=home)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True}, ()),
        ({"architecture": "aarch64", "bf16": True}, ()),
        ({"amx_int8": True, "amx_bf16": True, "avx_vnni": False}, ("amx_bf16", "amx_int8")),
        ({}, ()),
    ],
)
def test_instructions_are_those_that_optimize_uses(
    capabilities: Mapping[str, object],
    expected: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    found = environment.describe().torch
    assert found is not None
    assert found.instructions == expected


def test_a_missing_torch_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = environment.describe()
    assert found.torch is None
    expected = "ModuleNotFoundError: import of torch halted; None in sys.modules"
    assert found.torch_error == expected
    assert f"torch error       {expected}" in run().stdout.splitlines()
    assert json.loads(run("--json").stdout)["torch"] is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "raise OSError(f'{__file__}:\\n  cannot open shared object file')",
            "OSError: ~/packages/torch.py: cannot open shared object file",
        ),
        ("", "ImportError: cannot import name"),
    ],
    ids=["its libraries are missing", "its files are missing"],
)
def test_a_torch_that_is_broken_is_a_line(code: str, expected: str, home: Path) -> None:
    packages = home / "packages"
    packages.mkdir()
    (packages / "torch.py").write_text(code)
    result = subprocess.run(
        [sys.executable, "-m", "hfclip", "env"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "", "HOME": str(home), "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}"},
    )
    assert (result.returncode, result.stderr) == (0, "")
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("torch error")]
    assert line.partition("  ")[2].strip().startswith(expected)
    assert "token" in result.stdout


def test_a_gpu_driver_that_fails_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> NoReturn:
        raise RuntimeError("CUDA unknown error")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", fail)
    assert "torch error       RuntimeError: CUDA unknown error" in run().stdout.splitlines()


def test_the_help_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from hfclip.cli import main\n"
        "main(['env', '--help'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "hfclip env --json" in result.stdout
