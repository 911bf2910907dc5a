import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from huggingface_hub import constants

import hfclip
from hfclip.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for repository, file in (
        ("models--me--my-clip", "model.safetensors"),
        ("models--laion--CLIP-ViT-B-32", "open_clip_model.safetensors"),
        ("models--me--a-dataset-card", "README.md"),
        ("datasets--me--pictures", "model.safetensors"),
        ("models--gpt2", "model.safetensors"),
    ):
        snapshot = tmp_path / repository / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / file).touch()
    return tmp_path


def complete(*typed: str) -> list[str]:
    *arguments, incomplete = typed
    found = ShellComplete(main, {}, "hfclip", "_HFCLIP_COMPLETE").get_completions(
        arguments, incomplete
    )
    assert {item.type for item in found} <= {"plain", "file"}
    return [item.value for item in found if item.type == "plain"]


PLACES = [
    ("classify", "cat.jpg", "--model"),
    ("download",),
    ("download", "RN50"),
    ("verify",),
    ("inspect",),
    ("export",),
    ("publish",),
    ("publish", "last.pt", "me/mine", "--base"),
]


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_model_names_are_completed_in_every_model_argument(place: tuple[str, ...]) -> None:
    everything = [*hfclip.available_models(), "digits", "laion/CLIP-ViT-B-32", "me/my-clip"]
    assert complete(*place, "") == everything
    assert complete(*place, "ViT-L") == ["ViT-L/14", "ViT-L/14@336px"]
    assert complete(*place, "me/") == ["me/my-clip"]
    assert complete(*place, "x") == []


def test_files_are_completed_beside_the_models() -> None:
    found = ShellComplete(main, {}, "hfclip", "_HFCLIP_COMPLETE").get_completions(["inspect"], "x")
    assert [(item.type, item.value) for item in found] == [("file", "x")]


def test_commands_and_templates_are_completed() -> None:
    assert complete("comp") == ["completion"]
    assert complete("completion", "") == ["bash", "zsh", "fish"]
    assert complete("classify", "--templates", "i") == ["imagenet"]
    assert "--labels-file" in complete("classify", "--label")


def test_release_names_are_completed_without_a_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "nowhere"))
    assert complete("inspect", "d") == ["digits"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_calls_hfclip(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"_HFCLIP_COMPLETE={shell}_complete" in result.stdout
    assert "Traceback" not in result.output


def test_bash_completes_a_name_with_the_script(tmp_path: Path) -> None:
    hfclip_program = tmp_path / "hfclip"
    hfclip_program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hfclip "$@"\n')
    hfclip_program.chmod(0o755)
    script = (
        'eval "$(hfclip completion bash)"\n'
        "COMP_WORDS=(hfclip inspect RN5); COMP_CWORD=2\n"
        "compopt() { :; }\n"  # it works only during an interactive completion
        "_hfclip_completion hfclip\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    result = subprocess.run(
        ["bash", "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "HF_HUB_CACHE": str(tmp_path),
        },
    )
    assert result.stdout.split() == ["RN50", "RN50x4", "RN50x16", "RN50x64"]


def test_completion_imports_no_torch() -> None:
    code = (
        "import sys, os\n"
        "os.environ |= {'COMP_WORDS': 'hfclip inspect V', 'COMP_CWORD': '2',\n"
        "               '_HFCLIP_COMPLETE': 'bash_complete'}\n"
        "from hfclip.cli import main\n"
        "try:\n"
        "    main(prog_name='hfclip')\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert "plain,ViT-B/32" in result.stdout
