"""Models in .bin files, shards, variants and subfolders: in folders and on the loopback Hub."""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_VIT, draw
from huggingface_hub import close_session, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from logged import Log
from loopback.faults import Corrupt, Status
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from saved_weights import save, save_shards

import hfclip
from hfclip.cli import main
from hfclip.hub import integrity
from hfclip.layouts.transformers import to_transformers
from hfclip.layouts.write import write_layout
from hfclip.sources.inspect import list_models
from hfclip.sources.verify import verify_all

MODEL = draw(TINY_VIT)
OURS = MODEL.state_dict()
HALF = {name: tensor.half() for name, tensor in OURS.items()}
LAYOUTS = {
    "transformers": ("config.json", "model.safetensors", "pytorch_model.bin"),
    "open_clip": (
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
    ),
}
FORMS = ["bin", "legacy bin", "shards", "bin shards"]
TOKEN = "hf_secretOfTheTests"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HFCLIP_NAMESPACE", raising=False)
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        hub.add_account("me", TOKEN)
        yield hub
    close_session()


def write(
    folder: Path, form: str, layout: str = "transformers", *, variant: str | None = None
) -> Path:
    """Writes the model in a form, beside its configuration, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _, safe, pickled = LAYOUTS[layout]
    if not (folder / LAYOUTS[layout][0]).exists():
        write_layout(folder, TINY_VIT, OURS, layout)
        (folder / safe).unlink()
    weights = HALF if variant else OURS
    if layout == "transformers":
        weights = to_transformers(weights)
    name = pickled if "bin" in form else safe
    if "shards" in form:
        save_shards(weights, folder, name, variant=variant)
        return folder
    stem, _, suffix = name.rpartition(".")
    path = folder / (f"{stem}.{variant}.{suffix}" if variant else name)
    if form == "legacy bin":
        torch.save(dict(weights), path, _use_new_zipfile_serialization=False)
    else:
        save(weights, path)
    return folder


def files(folder: Path) -> dict[str, Path | bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def publish(hub: LoopbackHub, folder: Path) -> str:
    return hub.add_repository("me/clip", files(folder))


def assert_loads(name: str | Path = "me/clip", expected: object = OURS, **options: object) -> None:
    model, _ = hfclip.load(name, "cpu", **options)  # type: ignore[call-overload]
    assert isinstance(expected, dict)
    state = model.state_dict()
    assert list(state) == list(expected)
    for key, tensor in expected.items():
        assert torch.equal(state[key], tensor.float()), key


def fetched(hub: LoopbackHub) -> set[str]:
    return {call.file for call in hub.calls if call.file}


def cached(name: str) -> Path:
    folder = Path(constants.HF_HUB_CACHE) / "models--me--clip"
    (path,) = folder.glob(f"snapshots/*/{name}")
    return path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.resolve().write_bytes(content)


# Each form of the weights.


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_each_form_loads_from_a_folder_and_from_the_hub(
    form: str, layout: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model", form, layout)
    assert_loads(folder)
    publish(hub, folder)
    hub.forget_calls()
    assert_loads()
    for path in folder.iterdir():
        if "model" in path.name:
            assert integrity.is_verified(cached(path.name)), path.name
    hub.forget_calls()
    assert_loads(local_files_only=True)
    assert hub.calls == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_bit_in_any_file_is_repaired_online_and_refused_offline(
    form: str, layout: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model", form, layout)
    publish(hub, folder)
    assert_loads()
    damaged = [path.name for path in sorted(folder.iterdir()) if "model" in path.name]
    for name in damaged:
        flip_a_bit(cached(name))
        with pytest.raises(hfclip.IntegrityError, match=name):
            hfclip.load("me/clip", "cpu", local_files_only=True)
        with pytest.raises(hfclip.IntegrityError, match=name):
            hfclip.verify("me/clip")
        assert_loads()
        assert cached(name).read_bytes() == (folder / name).read_bytes()
    assert {path.name for path in hfclip.verify("me/clip").files} >= set(damaged)


def test_a_shard_with_wrong_bytes_gives_no_model(hub: LoopbackHub, tmp_path: Path) -> None:
    publish(hub, write(tmp_path / "model", "shards"))
    last = "model-00003-of-00003.safetensors"
    hub.fault(Corrupt(), last, times=None)
    with pytest.raises(hfclip.IntegrityError, match=last):
        hfclip.load("me/clip", "cpu")
    hub.forget_faults()
    hub.fault(Status(503), last, times=None)
    with pytest.raises(hfclip.NetworkError, match=last):
        hfclip.load("me/clip", "cpu")
    hub.forget_faults()
    assert_loads()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_safetensors_come_first_and_only_the_needed_files_are_fetched(
    layout: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    for form in FORMS:
        write(tmp_path / "model", form, layout)
    config, safe, pickled = LAYOUTS[layout]
    publish(hub, tmp_path / "model")
    assert hfclip.download("me/clip").path.name == f"{safe}.index.json"
    stem = safe.removesuffix(".safetensors")
    shards = {f"{stem}-0000{number}-of-00003.safetensors" for number in (1, 2, 3)}
    assert fetched(hub) - {"preprocessor_config.json"} == {config, f"{safe}.index.json", *shards}
    hub.push("me/clip", {f"{safe}.index.json": None})
    assert hfclip.download("me/clip").path.name == pickled
    hub.push("me/clip", {pickled: None})
    assert hfclip.download("me/clip").path.name == f"{pickled}.index.json"
    hub.forget_calls()
    assert_loads()
    assert not fetched(hub)


def test_safetensors_of_one_layout_come_before_pickles_of_the_other(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model", "bin", "open_clip")
    write_layout(folder, TINY_VIT, OURS, "transformers")
    assert hfclip.inspect(folder).file.name == "model.safetensors"
    (folder / "config.json").write_text('{"architecture": "vit", "pretrained_cfg": {}}')  # timm's
    assert hfclip.inspect(folder).file.name == "open_clip_pytorch_model.bin"
    publish(hub, folder)
    assert_loads()
    assert "model.safetensors" not in fetched(hub)


def test_a_folder_in_place_of_a_weight_file_is_not_a_weight_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "shards")
    (folder / "model.safetensors").mkdir()
    assert_loads(folder)


# Variants.


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["safetensors", *FORMS])
def test_a_variant_loads_only_on_request(
    form: str, layout: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model", form, layout, variant="fp16")
    publish(hub, folder)
    for name in (folder, "me/clip"):
        with pytest.raises(hfclip.RepositoryError, match=r"only as variants: 'fp16' \(.*fp16") as e:
            hfclip.load(name, "cpu")
        assert 'variant="fp16" (--variant fp16)' in str(e.value)
        assert_loads(name, HALF, variant="fp16")
    assert_loads(expected=HALF, variant="fp16", local_files_only=True)
    hub.forget_calls()
    write(folder, "bin", layout)
    commit = publish(hub, folder)
    assert_loads()
    assert not any("fp16" in name for name in fetched(hub))
    assert_loads(expected=HALF, variant="fp16", revision=commit)
    pretrained = hfclip.CLIP.from_pretrained(folder, variant="fp16").state_dict()
    assert torch.equal(pretrained["visual.proj"], HALF["visual.proj"].float())


def test_a_variant_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "safetensors", variant="fp16")
    with pytest.raises(hfclip.RepositoryError, match=r"no weights of the variant 'bf16'.*'fp16'"):
        hfclip.load(folder, "cpu", variant="bf16")
    write(folder, "safetensors")
    with pytest.raises(hfclip.RepositoryError, match=r"Leave out variant= \(--variant\)"):
        hfclip.load(folder, "cpu", variant="bf16")


@pytest.mark.parametrize("option", ["variant", "subfolder"])
def test_these_options_are_refused_where_they_do_not_apply(option: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model", "bin") / "pytorch_model.bin"
    for name in ("digits", "ViT-B/32", path):
        with pytest.raises(hfclip.ArgumentError, match=f"{option}='fp16' does not apply"):
            hfclip.load(name, "cpu", **{option: "fp16"})  # type: ignore[call-overload]
    with pytest.raises(hfclip.ArgumentError, match=f"has no {option} 'fp16'"):
        hfclip.verify(path, **{option: "fp16"})  # type: ignore[arg-type]


# Subfolders.


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["safetensors", *FORMS])
def test_a_model_in_a_subfolder_loads(
    form: str, layout: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    write(tmp_path / "model/some/clip", form, layout)
    (tmp_path / "model/README.md").write_text("A pipeline.")
    publish(hub, tmp_path / "model")
    for name in (tmp_path / "model", "me/clip"):
        for subfolder in ("some/clip", "some/clip/", "./some//clip"):
            assert_loads(name, subfolder=subfolder)
    assert "README.md" not in fetched(hub)
    assert_loads(subfolder="some/clip", local_files_only=True)
    assert hfclip.verify("me/clip").origin.endswith(", folder some/clip")
    flip_a_bit(next(path for path in hfclip.verify("me/clip").files if "model" in path.name))
    with pytest.raises(hfclip.IntegrityError):
        hfclip.load("me/clip", "cpu", subfolder="some/clip", local_files_only=True)


def test_an_error_names_the_subfolders_with_models(hub: LoopbackHub, tmp_path: Path) -> None:
    write(tmp_path / "model/clip", "bin")
    publish(hub, tmp_path / "model")
    for name in (tmp_path / "model", "me/clip"):
        with pytest.raises(hfclip.RepositoryError, match="in the folders 'clip'") as refusal:
            hfclip.load(name, "cpu")
        assert 'subfolder="clip" (--subfolder clip)' in str(refusal.value)
        with pytest.raises(hfclip.RepositoryError, match=r"has no folder 'other'.*are clip"):
            hfclip.load(name, "cpu", subfolder="other")


@pytest.mark.parametrize("name", ["me/clip/some/folder", "hf-hub:me/clip/some/folder"])
def test_a_name_with_a_folder_gets_a_hint(name: str, hub: LoopbackHub) -> None:
    with pytest.raises(hfclip.ModelNotFoundError) as refusal:
        hfclip.load(name, "cpu")
    assert '"me/clip" and subfolder="some/folder" (--subfolder some/folder)' in str(refusal.value)
    assert hub.calls == []


@pytest.mark.parametrize("subfolder", ["..", "../other", "a/../../b", "/etc", "a\\b", "a\0b"])
def test_a_subfolder_cannot_lead_out_of_its_folder(
    subfolder: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    write(tmp_path / "other", "bin")
    (tmp_path / "model").mkdir()
    for name in (tmp_path / "model", "me/clip"):
        with pytest.raises(hfclip.ArgumentError, match="expected a folder inside"):
            hfclip.load(name, "cpu", subfolder=subfolder)
    assert hub.calls == []


# Partial caches.


def cache_as_another_tool(*names: str) -> None:
    for name in names:
        with suppress(EntryNotFoundError):  # the client records this in its folder .no_exist
            hf_hub_download("me/clip", name)


PREFERRED = ("model.safetensors", "model.safetensors.index.json")


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("form", ["shards", "bin shards"])
def test_a_part_of_the_shards_is_refused_offline_by_their_names(
    form: str, listed: bool, hub: LoopbackHub, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model", form)
    commit = publish(hub, folder)
    (index,) = (path.name for path in folder.glob("*.index.json"))
    first, *others = sorted(path.name for path in folder.glob("*-of-*"))
    if listed:
        hub.fault(Status(503), others[0], times=None)
        with suppress(hfclip.NetworkError):
            hfclip.load("me/clip", "cpu")
        hub.forget_faults()
    else:
        cache_as_another_tool("config.json", "preprocessor_config.json", *PREFERRED)
        cache_as_another_tool("pytorch_model.bin", index, first)
    with pytest.raises(hfclip.NetworkError, match="2 of 3 shards are missing") as refusal:
        hfclip.load("me/clip", "cpu", local_files_only=True)
    assert ", ".join(others) in str(refusal.value)
    assert f"`hfclip download me/clip@{commit}`" in str(refusal.value)
    assert list_models()[-1].state == "partial"
    with pytest.raises(hfclip.NetworkError, match=f"only partly in the cache: {others[0]}"):
        hfclip.verify("me/clip")
    hfclip.download("me/clip")
    assert_loads(local_files_only=True)
    assert list_models()[-1].state == "verified"


def test_a_bin_file_is_not_used_offline_if_safetensors_may_exist(
    hub: LoopbackHub, tmp_path: Path, log: Log
) -> None:
    publish(hub, write(tmp_path / "model", "bin"))
    cache_as_another_tool("config.json", "preprocessor_config.json", "pytorch_model.bin")
    for name in PREFERRED:
        with pytest.raises(hfclip.NetworkError, match=f"has a file {name}:"):
            hfclip.load("me/clip", "cpu", local_files_only=True)
        cache_as_another_tool(name)
    assert_loads(local_files_only=True)
    assert "has a file open_clip_config.json:" in log.text


def test_a_bin_file_that_open_clip_cached_is_used_offline(hub: LoopbackHub, tmp_path: Path) -> None:
    publish(hub, write(tmp_path / "model", "bin", "open_clip"))
    cache_as_another_tool("open_clip_config.json", "open_clip_pytorch_model.bin")
    with pytest.raises(hfclip.NetworkError, match=r"has a file open_clip_model\.safetensors:"):
        hfclip.load("me/clip", "cpu", local_files_only=True)
    cache_as_another_tool("open_clip_model.safetensors")
    assert_loads(local_files_only=True)


def test_an_index_that_names_a_file_outside_its_folder_fetches_nothing_else(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model", "shards")
    index = folder / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"]["logit_scale"] = "../../../outside.safetensors"
    index.write_text(json.dumps(values))
    publish(hub, folder)
    for name in (folder, "me/clip"):
        with pytest.raises(hfclip.CheckpointError, match="the plain name of a"):
            hfclip.load(name, "cpu")
    assert not any("-of-" in name or "outside" in name for name in fetched(hub))


def test_a_shard_that_the_repository_lacks_is_named(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "shards")
    (folder / "model-00002-of-00003.safetensors").unlink()
    publish(hub, folder)
    with pytest.raises(hfclip.RepositoryError, match="lacks 1 of the 3 shards") as refusal:
        hfclip.load("me/clip", "cpu")
    assert "model-00002-of-00003.safetensors" in str(refusal.value)
    assert not any("-of-" in name for name in fetched(hub))


# The cache's list, publishing, and the command line.


def test_the_list_shows_each_cached_variant_and_subfolder(hub: LoopbackHub, tmp_path: Path) -> None:
    write(tmp_path / "model", "safetensors")
    write(tmp_path / "model", "shards", variant="fp16")
    write(tmp_path / "model/inner", "bin")
    commit = publish(hub, tmp_path / "model")
    hfclip.download("me/clip", variant="fp16")
    (row,) = (row for row in list_models() if row.name == "me/clip")
    assert (row.state, row.variant, row.subfolder) == ("verified", "fp16", None)
    assert row.origin == f"me/clip at {commit[:12]}, variant fp16"
    with pytest.raises(hfclip.NetworkError, match=r"pytorch_model\.bin|not in the cache"):
        hfclip.verify("me/clip", subfolder="inner")
    assert hfclip.verify("me/clip").path.name == "model.safetensors.index.fp16.json"
    hfclip.download("me/clip", subfolder="inner")
    hfclip.download("me/clip")
    rows = [row for row in list_models() if row.name == "me/clip"]
    assert {(row.subfolder, row.variant, row.state) for row in rows} == {
        (None, None, "verified"),
        (None, "fp16", "verified"),
        ("inner", None, "verified"),
    }
    cached("model.fp16-00002-of-00003.safetensors").unlink()
    rows = [row for row in list_models() if row.name == "me/clip"]
    assert [row.variant for row in rows if row.state == "partial"] == ["fp16"]
    assert len(list(verify_all())) == 1


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # a warning of the client
@pytest.mark.parametrize("form", FORMS)
def test_weights_of_each_form_are_exported_and_published(
    form: str, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = write(tmp_path / "model/inner", form, variant="fp16")
    place = {"subfolder": "inner", "variant": "fp16"}
    hfclip.export(folder.parent, tmp_path / "out", "hfclip", **place)  # type: ignore[arg-type]
    assert_loads(tmp_path / "out", HALF)
    done = hfclip.publish(folder.parent, "me/fresh", **place)  # type: ignore[arg-type]
    assert "model.safetensors" in done.sent
    assert_loads("me/fresh", HALF)


def test_the_commands_take_a_subfolder_and_a_variant(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    write(tmp_path / "model/inner", "shards", variant="fp16")
    publish(hub, tmp_path / "model")
    place = ["--subfolder", "inner", "--variant", "fp16"]

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, [*arguments, *place])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    assert "folder inner, variant fp16" in run("download", "me/clip")
    assert json.loads(run("inspect", "me/clip", "--json"))["tensors"].keys() == {"float16"}
    assert "model.safetensors.index.fp16.json" in run("verify", "me/clip")
    run("export", "me/clip", str(tmp_path / "out"), "--layout", "open_clip")
    assert_loads(tmp_path / "out", HALF)
    plan = run("publish", str(tmp_path / "model"), "me/new", "--dry-run")
    assert "nothing was sent" in plan
    listed = CliRunner().invoke(main, ["models"]).stdout
    assert "folder inner, variant fp16" in listed
    shutil.rmtree(Path(constants.HF_HUB_CACHE))
    assert "variant fp16" not in CliRunner().invoke(main, ["models"]).stdout
