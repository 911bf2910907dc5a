"""`hfclip models`, `download`, `verify` and `inspect` on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import TINY_VIT, draw
from huggingface_hub import close_session, constants
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

import hfclip
from hfclip.cli import main

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    draw(TINY_VIT).save_pretrained(path)
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HFCLIP_NAMESPACE", raising=False)
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        for name in ("me/one", "me/two", "me/ViT-B-32"):
            hub.add_repository(name, {file: folder / file for file in (CONFIG, WEIGHTS)})
        yield hub
    close_session()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def messages(result: Result) -> list[str]:
    """Returns the lines of standard error without progress bars."""
    return [line for line in result.stderr.splitlines() if "|" not in line]


def cached(repo_id: str, filename: str = WEIGHTS) -> Path:
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
    return next(folder.glob(f"snapshots/*/{filename}"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.resolve().write_bytes(content)


def test_download_continues_after_a_failure_and_reports_it_at_the_end(hub: LoopbackHub) -> None:
    result = run("download", "me/one", "me/missing", "nonsense", "me/two")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [lines[0].split()[0], lines[2].split()[0]] == ["me/one", "me/two"]
    assert [lines[1].strip(), lines[3].strip()] == [str(cached("me/one")), str(cached("me/two"))]
    first, second, last = messages(result)
    assert first.startswith("Error: me/missing does not exist or is private")
    assert second.startswith("Error: Model nonsense not found")
    assert last == "2 of 4 failed: me/missing, nonsense"


def test_download_prints_a_row_for_each_name_as_json(hub: LoopbackHub) -> None:
    result = run("download", "me/one", "me/missing", "digits", "--json")
    assert result.exit_code == 1
    one, missing, digits = json.loads(result.stdout)
    assert one == {
        "name": "me/one",
        "path": str(cached("me/one")),
        "digest": f"sha256:{cached('me/one').resolve().name}",
        "error": None,
    }
    assert (missing["name"], missing["path"], missing["digest"]) == ("me/missing", None, None)
    assert messages(result)[0] == f"Error: {missing['error']}"
    assert (digits["digest"], Path(digits["path"]).name) == (None, WEIGHTS)


def test_a_single_failed_name_is_one_line(hub: LoopbackHub) -> None:
    for command in ("download", "verify"):
        result = run(command, "me/missing")
        assert result.exit_code == 1
        assert len(messages(result)) == 1
        assert result.stdout == ""


def test_verify_continues_after_a_failure_and_reports_it_at_the_end(hub: LoopbackHub) -> None:
    run("download", "me/one", "me/two")
    damage(cached("me/one", CONFIG))
    result = run("verify", "me/one", "me/missing", "me/two", "digits")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:3] == [
        f"me/two  sha256 {cached('me/two').resolve().name}",
        f"  {cached('me/two')}",
        f"  {cached('me/two', CONFIG)}",
    ]
    assert result.stdout.splitlines()[3].startswith("digits  sha256 2ffce5d8d4d9")
    first, second, last = messages(result)
    assert first.startswith(f"Error: {cached('me/one', CONFIG)} has git")
    assert "`hfclip download me/missing`" in second
    assert last == "2 of 4 failed: me/one, me/missing"
    assert run("verify", "me/one", "--repair").exit_code == 0
    assert run("verify", "me/one", "me/two").exit_code == 0


def test_verify_prints_a_row_for_each_model_as_json(hub: LoopbackHub) -> None:
    run("download", "me/one", "me/two")
    damage(cached("me/two"))
    result = run("verify", "--all", "--json")
    assert result.exit_code == 1
    one, two = json.loads(result.stdout)
    weights, config = cached("me/one"), cached("me/one", CONFIG)
    assert one == {
        "name": "me/one",
        "path": str(weights),
        "digest": f"sha256:{weights.resolve().name}",
        "error": None,
        "files": {
            str(weights): f"sha256:{weights.resolve().name}",
            str(config): f"git:{config.resolve().name}",
        },
    }
    assert (two["name"], two["digest"]) == ("me/two", None)
    assert "--repair" in two["error"]
    assert messages(result)[-1] == "1 of 2 failed: me/two"
    assert run("verify", "--all", "--repair").exit_code == 0
    assert run("verify", "--all").exit_code == 0


def test_verify_all_reports_an_empty_cache_and_succeeds(hub: LoopbackHub) -> None:
    result = run("verify", "--all")
    assert (result.exit_code, result.stdout) == (
        0,
        "No CLIP model is cached: there is nothing to verify.\n",
    )
    result = run("verify", "--all", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


@pytest.mark.parametrize(
    "arguments",
    [[], ["me/one", "--all"], ["--all", "--revision", "v1"], ["--all", "--namespace", "me"]],
)
def test_verify_refuses_arguments_that_contradict_each_other(arguments: list[str]) -> None:
    result = run("verify", *arguments)
    assert result.exit_code == 2
    assert "--all" in messages(result)[-1]


def test_models_names_the_source_of_the_namespace(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row() -> list[str]:
        return run("models").stdout.splitlines()[6].split()

    assert row()[-1] == "timm/vit_base_patch32_clip_224.openai"
    monkeypatch.setenv("HFCLIP_NAMESPACE", "me")
    assert (row()[1], row()[-1]) == ("not", "me/ViT-B-32")
    run("download", "ViT-B/32")
    assert (row()[1], row()[-1]) == ("verified", "me/ViT-B-32")
    assert run("models").stdout.splitlines()[-1] == (
        "The nine releases are those of me (HFCLIP_NAMESPACE)."
    )
    assert run("models", "--namespace", "you").stdout.splitlines()[-1] == (
        "The nine releases are those of you (--namespace)."
    )


def test_models_keeps_its_json_keys_and_adds_new_ones(hub: LoopbackHub) -> None:
    run("download", "me/one")
    commit = hub.repository("me/one").branches["main"].id
    rows = json.loads(run("models", "--json").stdout)
    assert [row["name"] for row in rows] == [*hfclip.available_models(), "digits", "me/one"]
    assert rows[-1] == {
        "name": "me/one",
        "state": "verified",
        "pinned": "no",
        "image_tower": "ViT, 2 blocks of width 64, patch 16",
        "pixels": 32,
        "parameters": TINY_VIT.parameter_count,
        "origin": f"me/one at {commit[:12]}",
        "repository": "me/one",
        "revision": commit,
        "namespace": None,
        "subfolder": None,
        "variant": None,
    }
    assert all(row.keys() == rows[-1].keys() for row in rows)


def test_inspect_takes_a_namespace_and_a_revision(hub: LoopbackHub) -> None:
    first = hub.repository("me/ViT-B-32").branches["main"].id
    hub.push("me/ViT-B-32", {"README.md": b"new"})
    arguments = ("inspect", "ViT-B/32", "--namespace", "me", "--json")
    assert json.loads(run(*arguments).stdout)["origin"] != f"me/ViT-B-32 at {first[:12]}"
    facts = json.loads(run(*arguments, "--revision", first).stdout)
    assert facts["origin"] == f"me/ViT-B-32 at {first[:12]}"
    assert facts["pixels"] == 32


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ("models", "hfclip models --namespace me"),
        ("download", "hfclip download ViT-B/32 RN50"),
        ("verify", "hfclip verify --all --json"),
        ("inspect", "hfclip inspect ViT-B/32 --namespace me"),
    ],
)
def test_each_help_shows_examples(command: str, example: str) -> None:
    assert f"\n    {example}\n" in run(command, "--help").stdout
