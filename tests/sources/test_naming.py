"""The meaning of model names, and the errors for invalid ones."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import TINY_VIT, draw
from huggingface_hub import close_session, constants
from loopback.faults import Fault, Reset, Status
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

import hfclip
from hfclip.cli import main


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HFCLIP_NAMESPACE", raising=False)
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        yield hub
    close_session()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw(TINY_VIT).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "name",
    [
        "./missing", "../x", "../../x/y", "/abs/missing", "~/x", "~/x/y.pt", "x/y/z.pt", "x/y/z",
        "folder/file.safetensors", "folder/file.PT", "folder/file.ckpt", "missing.pth", "folder/",
        "folder\\file", ".hidden",
    ],
)  # fmt: skip
def test_a_missing_path_is_reported_as_a_missing_file(name: str, hub: LoopbackHub) -> None:
    with pytest.raises(hfclip.ModelNotFoundError, match="no such file or folder") as caught:
        hfclip.load(name, "cpu")
    assert str(caught.value).startswith(f"Model {name} not found: ")
    assert "Did you mean" not in str(caught.value)
    result = CliRunner().invoke(main, ["download", name])
    assert (result.exit_code, hub.calls) == (1, [])
    assert "no such file or folder" in result.stderr


@pytest.mark.parametrize("name", ["a--b/c", "a/b..c", "-a/b", "a/b.git", "a/" + 100 * "b"])
def test_a_name_that_no_repository_can_have_is_told_so(name: str, hub: LoopbackHub) -> None:
    with pytest.raises(hfclip.ModelNotFoundError, match="the name is invalid for a repository"):
        hfclip.load(name, "cpu")
    assert hub.calls == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 300, "File name too long"),
        ("~nobody-of-this-name/x", "[Hh]ome directory"),
        ("a\0b", "not found"),
    ],
)
def test_an_error_of_the_operating_system_is_reported(
    name: str, reason: str, hub: LoopbackHub
) -> None:
    with pytest.raises(hfclip.ModelNotFoundError, match=reason):
        hfclip.load(name, "cpu")
    assert hub.calls == []


def test_a_pipe_is_neither_a_file_nor_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(hfclip.ModelNotFoundError, match="neither a file nor a folder"):
        hfclip.load(tmp_path / "pipe.pt", "cpu")


def test_the_hub_prefix_marks_a_name_as_a_repository(hub: LoopbackHub, folder: Path) -> None:
    files = {name: folder / name for name in ("config.json", "model.safetensors")}
    hub.add_repository("me/clip.pt", files)
    model, _ = hfclip.load("hf-hub:me/clip.pt", "cpu")
    assert model.config == TINY_VIT


@pytest.mark.parametrize("name", ["", " ", "\n", Path()], ids=["text", "space", "line", "path"])
def test_an_empty_name_is_refused_and_not_the_current_folder(
    name: str | Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(hfclip.ModelNotFoundError, match="name is empty"):
        hfclip.load(name, "cpu")


@pytest.mark.parametrize("name", [".", "./", "../model"])
def test_a_dot_means_the_current_folder(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert hfclip.load(name, "cpu")[0].config == TINY_VIT


@pytest.mark.parametrize("name", [None, 3, b"digits", ["digits"]])
def test_a_name_of_another_type_is_refused(name: object) -> None:
    with pytest.raises(hfclip.ArgumentTypeError, match="a str or a path, not"):
        hfclip.load(name, "cpu")  # type: ignore[call-overload]


@pytest.mark.parametrize("option", ["revision", "namespace"])
@pytest.mark.parametrize("kind", ["bundled", "folder", "file"])
def test_an_option_that_does_not_apply_to_a_name_is_refused(
    kind: str, option: str, folder: Path
) -> None:
    name = {"bundled": "digits", "folder": folder, "file": folder / "model.safetensors"}[kind]
    with pytest.raises(hfclip.ArgumentError, match=f"{option}='me' does not apply"):
        hfclip.load(name, "cpu", **{option: "me"})  # type: ignore[call-overload]


def test_a_name_with_two_accounts_or_two_revisions_is_refused(hub: LoopbackHub) -> None:
    with pytest.raises(hfclip.ArgumentError, match="namespace='you' does not apply"):
        hfclip.load("me/clip", "cpu", namespace="you")
    with pytest.raises(
        hfclip.ArgumentError, match="names the revision 'v1', but revision='v2' is given"
    ):
        hfclip.load("me/clip@v1", "cpu", revision="v2")
    assert hub.calls == []


def test_the_namespace_of_the_environment_applies_only_to_releases(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFCLIP_NAMESPACE", "me")
    assert hfclip.load(folder, "cpu")[0].config == TINY_VIT


@pytest.mark.parametrize("fault", [Status(503), Status(429), Status(403), Reset()])
def test_a_hub_error_has_no_hint_about_the_name(fault: Fault, hub: LoopbackHub) -> None:
    hub.fault(fault, "/*", method="*", times=None)
    with pytest.raises(hfclip.HubError) as caught:
        hfclip.load("ViT-B/23", "cpu")
    assert "Did you mean" not in str(caught.value)
    assert "There is no file or folder" not in str(caught.value)


def test_a_missing_or_uncached_repository_gets_a_hint(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hint = r"There is no file or folder ViT-B/23 either\. Did you mean 'ViT-B/32'\?"
    with pytest.raises(hfclip.RepositoryError, match=hint) as missing:
        hfclip.load("ViT-B/23", "cpu")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(hfclip.NetworkError, match=hint) as uncached:
        hfclip.load("ViT-B/23", "cpu")
    assert type(missing.value) is hfclip.RepositoryError
    assert type(uncached.value) is hfclip.NetworkError
