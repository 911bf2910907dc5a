"""Addresses of pages on the Hub, and the other spellings of a name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_VIT, draw
from huggingface_hub import close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

import hfclip
from hfclip.cli import main
from hfclip.publishing.export import export
from hfclip.publishing.published_card import hub_name
from hfclip.sources.addresses import Address, is_address, parse_address

OPENAI = (
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-large-patch14",
    "openai/clip-vit-large-patch14-336",
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Returns the files of one small model in transformers' and in open_clip's layout."""
    root = tmp_path_factory.mktemp("layouts")
    draw(TINY_VIT).save_pretrained(root / "hfclip")
    for layout in ("open_clip", "transformers"):
        export(root / "hfclip", root / layout, layout)
    return {
        folder.name: {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in root.iterdir()
    }


@pytest.fixture
def hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layouts: dict[str, dict[str, bytes]]
) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HFCLIP_NAMESPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        for repo_id in OPENAI:
            hub.add_repository(repo_id, layouts["transformers"])
        hub.add_repository("me/clip", layouts["open_clip"] | layouts["transformers"])
        yield hub
    close_session()


@pytest.mark.parametrize("repo_id", OPENAI)
def test_openais_repositories_of_transformers_load_as_any_other(
    repo_id: str, hub: LoopbackHub
) -> None:
    model, _ = hfclip.load(repo_id, "cpu")
    assert model.config == TINY_VIT
    assert all(repo_id in call.path for call in hub.calls if call.server == "hub")
    assert hfclip.verify(repo_id).path.name == "model.safetensors"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("me/clip", Address("me/clip")),
        ("me/clip/", Address("me/clip")),
        ("me/clip?library=open_clip#usage", Address("me/clip")),
        ("me/clip/tree/main", Address("me/clip", "main")),
        ("me/clip/tree/v1.0/", Address("me/clip", "v1.0")),
        ("me/clip/tree/refs%2Fpr%2F1", Address("me/clip", "refs/pr/1")),
        ("me/clip/tree/refs/pr/1", Address("me/clip", "refs/pr/1")),
        (f"me/clip/commit/{COMMIT}", Address("me/clip", COMMIT)),
        ("me/clip/commits/main", Address("me/clip", "main")),
        ("me/clip/blob/main/README.md", Address("me/clip", "main", "README.md")),
        ("me/clip/resolve/v1/model.safetensors", Address("me/clip", "v1", "model.safetensors")),
        ("me/clip/raw/refs%2Fpr%2F2/config.json", Address("me/clip", "refs/pr/2", "config.json")),
    ],
)
@pytest.mark.parametrize(
    "start",
    ["https://huggingface.co/", "http://hf.co/", "huggingface.co/", "https://HuggingFace.co/"],
)
def test_an_address_names_a_repository_a_revision_and_a_file(
    start: str, path: str, expected: Address
) -> None:
    assert is_address(start + path)
    assert parse_address(start + path) == expected


@pytest.mark.parametrize("endpoint", ["https://hub.example", "https://user:secret@hub.example/hf/"])
def test_an_address_of_the_endpoint_is_understood(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    place = "https://hub.example/hf" if endpoint.endswith("/hf/") else endpoint
    assert parse_address(f"{place}/me/clip/tree/v1") == Address("me/clip", "v1")
    with pytest.raises(hfclip.ModelNotFoundError, match="not an address of the Hub") as caught:
        parse_address("https://elsewhere.example/me/clip")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("https://example.org/me/clip", "not an address of the Hub at http://127.0.0.1"),
        ("https://huggingface.co.example.org/me/clip", "not an address of the Hub"),
        ("ftp://huggingface.co/me/clip", "not an address of the Hub"),
        ("https://huggingface.co", "names no repository"),
        ("https://huggingface.co/me", "names no repository"),
        ("https://huggingface.co/datasets/me/clip", "the address of a data set"),
        ("https://huggingface.co/spaces/me/clip", "the address of a Space"),
        ("https://huggingface.co/me/clip/discussions/3", "'discussions/3' names no revision"),
        ("https://huggingface.co/me/clip/tree", "'tree' names no revision"),
        ("https://huggingface.co/me/clip/tree/main/text", "the folder 'text' of a repository"),
        ("https://huggingface.co/me/clip/blob/main/a/b.bin", "'me/clip@main' and subfolder='a'"),
        ("https://huggingface.co/a--b/c", "the name is invalid for a repository"),
    ],
)
def test_an_address_of_something_else_is_refused_without_a_request(
    name: str, reason: str, hub: LoopbackHub
) -> None:
    for use in (lambda: hfclip.load(name, "cpu"), lambda: hfclip.verify(name)):
        with pytest.raises(hfclip.ModelNotFoundError, match=reason):
            use()
    assert hub.calls == []


def test_the_name_of_another_folder_is_no_address() -> None:
    for name in ("me/clip", "./huggingface.co", "ViT-B/32", "hf.com/me/clip", "hf-hub:me/clip"):
        assert not is_address(name), name


@pytest.mark.parametrize(
    "name",
    ["{endpoint}/me/clip", "https://huggingface.co/me/clip/", "hf.co/me/clip", "hf_hub:me/clip"],
)
def test_an_address_is_loaded_from_the_endpoint(name: str, hub: LoopbackHub) -> None:
    name = name.format(endpoint=hub.endpoint)
    assert hfclip.load(name, "cpu")[0].config == TINY_VIT
    assert hfclip.verify(name).path.name == "open_clip_model.safetensors"
    assert hfclip.inspect(name).origin.startswith("me/clip at ")
    assert hfclip.CLIP.from_pretrained(name).config == TINY_VIT


def test_the_revision_of_an_address_is_used(hub: LoopbackHub) -> None:
    first = hub.repository("me/clip").branches["main"].id
    hub.push("me/clip", {"config.json": b"{}", "open_clip_config.json": b"{}"})
    page = f"{hub.endpoint}/me/clip/tree/{first}"
    assert hfclip.load(page, "cpu")[0].config == TINY_VIT
    with pytest.raises(hfclip.ConfigError):
        hfclip.load(f"{hub.endpoint}/me/clip/tree/main", "cpu")
    with pytest.raises(hfclip.ArgumentError, match="but revision='v2' is given"):
        hfclip.load(page, "cpu", revision="v2")


def test_the_address_of_a_file_loads_its_repository_if_hfclip_reads_that_file(
    hub: LoopbackHub,
) -> None:
    page = f"{hub.endpoint}/me/clip/blob/main/"
    for file in ("README.md", "config.json", "open_clip_model.safetensors"):
        assert hfclip.load(page + file, "cpu")[0].config == TINY_VIT, file
    with pytest.raises(hfclip.ArgumentError) as caught:
        hfclip.load(page + "model.safetensors", "cpu")
    assert str(caught.value) == (
        "The address names model.safetensors, but hfclip reads open_clip_model.safetensors from "
        "this repository. Give 'me/clip@main' to load open_clip_model.safetensors, or download "
        "model.safetensors and give its path."
    )


def test_the_address_of_a_file_at_the_root_has_no_subfolder(hub: LoopbackHub) -> None:
    page = f"{hub.endpoint}/me/clip/blob/main/open_clip_model.safetensors"
    with pytest.raises(hfclip.ArgumentError, match="subfolder='text' does not apply"):
        hfclip.load(page, "cpu", subfolder="text")
    assert hub.calls == []


def test_a_bin_file_is_loaded_by_its_address(hub: LoopbackHub, tmp_path: Path) -> None:
    torch.save(draw(TINY_VIT).state_dict(), tmp_path / "pytorch_model.bin")
    draw(TINY_VIT).save_pretrained(tmp_path / "model")
    files = [tmp_path / "pytorch_model.bin", tmp_path / "model/config.json"]
    hub.add_repository("me/old", {path.name: path for path in files})
    model, _ = hfclip.load(f"{hub.endpoint}/me/old/blob/main/pytorch_model.bin", "cpu")
    assert model.config == TINY_VIT


def test_a_base_may_be_an_address(hub: LoopbackHub, tmp_path: Path) -> None:
    draw(TINY_VIT).save_pretrained(tmp_path / "model")
    (tmp_path / "model/model.safetensors").rename(tmp_path / "last.safetensors")
    base = f"{hub.endpoint}/me/clip"
    model, _ = hfclip.load(tmp_path / "last.safetensors", "cpu", base=base)
    assert model.config == TINY_VIT
    assert hub_name(base) == hub_name("hf_hub:me/clip@v1") == "me/clip"


def test_the_prefix_of_a_local_folder_is_understood(tmp_path: Path, hub: LoopbackHub) -> None:
    draw(TINY_VIT).save_pretrained(tmp_path / "me/clip")
    for name in ("local-dir:me/clip", f"local-dir:{tmp_path}/me/clip"):
        assert hfclip.load(name, "cpu")[0].config == TINY_VIT
        assert hfclip.inspect(name).origin.startswith("the folder")
        assert hub_name(name) is None
    assert hub.calls == []


@pytest.mark.parametrize("name", ["local-dir:", "local-dir:me/clip", "local-dir:digits"])
def test_a_missing_local_folder_is_not_looked_for_elsewhere(name: str, hub: LoopbackHub) -> None:
    with pytest.raises(hfclip.ModelNotFoundError, match="no such file or folder"):
        hfclip.load(name, "cpu")
    assert hub.calls == []


SPELLINGS = {
    "ViT-B-32": "ViT-B/32",
    "vit_b_32": "ViT-B/32",
    "vitb32": "ViT-B/32",
    "ViT-B-32-quickgelu": "ViT-B/32",
    "ViT-B-16-quick_gelu": "ViT-B/16",
    "clip-vit-base-patch32": "ViT-B/32",
    "clip-vit-base-patch16": "ViT-B/16",
    "clip-vit-large-patch14": "ViT-L/14",
    "clip-vit-large-patch14-336": "ViT-L/14@336px",
    "ViT-L-14": "ViT-L/14",
    "ViT-L-14-336": "ViT-L/14@336px",
    "ViT-L-14-336px": "ViT-L/14@336px",
    "ViT-L-14-336-quickgelu": "ViT-L/14@336px",
    "vit_large_patch14_clip_336.openai": "ViT-L/14@336px",
    "vit_base_patch32_clip_224.openai": "ViT-B/32",
    "resnet50": "RN50",
    "resnet50x64_clip.openai": "RN50x64",
    "RN50-quickgelu": "RN50",
    "RN101-quickgelu": "RN101",
    "RN50x4-quickgelu": "RN50x4",
    "rn50x16": "RN50x16",
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_another_spelling_of_a_release_is_suggested(name: str, hub: LoopbackHub) -> None:
    question = f"Did you mean '{SPELLINGS[name]}'?"
    for use in (hfclip.load, hfclip.verify, hfclip.download, hfclip.inspect):
        with pytest.raises(hfclip.ModelNotFoundError) as caught:
            use(name)
        assert question in str(caught.value)
    assert hub.calls == []


@pytest.mark.parametrize("command", ["verify", "download", "inspect"])
def test_the_commands_suggest_the_release_of_a_missing_repository(
    command: str, hub: LoopbackHub
) -> None:
    done = CliRunner().invoke(main, [command, "openai/ViT-B-32"])
    assert done.exit_code == 1
    assert "Did you mean 'ViT-B/32'?" in done.stderr
