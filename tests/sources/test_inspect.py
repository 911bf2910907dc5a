"""`inspect`, `list_models`, `download`, `verify` and `export` as Python functions."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY_RESNET, TINY_VIT, draw
from huggingface_hub import close_session, constants, snapshot_download
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

import hfclip
from hfclip import releases
from hfclip.publishing import export as exporting
from hfclip.sources.cached import scan
from hfclip.sources.inspect import ListedModel, list_models
from hfclip.sources.verify import verify_all

WEIGHTS, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
OPEN_CLIP_WEIGHTS, OPEN_CLIP_CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
BERT = json.dumps({"model_type": "bert", "hidden_size": 64}).encode()


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Returns the files of one small model in each layout of the Hub."""
    root = tmp_path_factory.mktemp("layouts")
    draw(TINY_VIT).save_pretrained(root / "hfclip")
    for layout in ("open_clip", "transformers"):
        exporting.export(root / "hfclip", root / layout, layout)
    return {
        folder.name: {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in root.iterdir()
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def hub(
    home: Path, monkeypatch: pytest.MonkeyPatch, layouts: dict[str, dict[str, bytes]]
) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("HFCLIP_NAMESPACE", raising=False)
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, home, monkeypatch)
        for layout, files in layouts.items():
            hub.add_repository(f"me/{layout}", files)
        hub.add_repository("me/ViT-B-32", layouts["hfclip"])
        yield hub
    close_session()


@pytest.fixture
def pinned(
    hub: LoopbackHub, layouts: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> releases.Release:
    """Returns a small pinned replacement for ViT-B/32."""
    real, files = releases.RELEASES["ViT-B/32"], layouts["open_clip"]
    commit = hub.add_repository(real.hub.repo_id, files)
    sha256 = hashlib.sha256(files[OPEN_CLIP_WEIGHTS]).hexdigest()
    file = dataclasses.replace(real.hub, revision=commit, sha256=sha256)
    original = releases.Original(
        "ViT-B-32.pt", len(files[OPEN_CLIP_WEIGHTS]), hashlib.sha256(b"original").hexdigest()
    )
    release = releases.Release(TINY_VIT, file, original)
    monkeypatch.setitem(releases.RELEASES, "ViT-B/32", release)
    return release


def rows() -> dict[str, ListedModel]:
    return {row.name: row for row in list_models()}


def cached_file(repo_id: str, name: str) -> Path:
    cache = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
    return next(cache.glob(f"snapshots/*/{name}"))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.resolve().write_bytes(content)


# The list of models.


def test_a_namespace_replaces_the_pinned_repositories_in_the_list(
    hub: LoopbackHub, pinned: releases.Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    hfclip.download("ViT-B/32")
    row = rows()["ViT-B/32"]
    assert (row.state, row.origin, row.namespace) == ("verified", pinned.hub.repo_id, None)
    assert row.revision == pinned.hub.revision
    monkeypatch.setenv("HFCLIP_NAMESPACE", "me")
    row = rows()["ViT-B/32"]
    assert (row.state, row.origin, row.namespace) == (
        "not cached",
        "me/ViT-B-32",
        "HFCLIP_NAMESPACE",
    )
    commit = hub.repository("me/ViT-B-32").branches["main"].id
    assert hfclip.download("ViT-B/32").origin == f"me/ViT-B-32 at {commit[:12]}"
    row = rows()["ViT-B/32"]
    assert (row.state, row.repository, row.revision) == ("verified", "me/ViT-B-32", commit)
    assert row.parameters == TINY_VIT.parameter_count
    assert rows()["RN50"].repository == "me/RN50"
    assert list_models(namespace="you")[5].repository == "you/ViT-B-32"
    assert list_models(namespace="you")[5].namespace == "namespace"


@pytest.mark.parametrize("layout", ["hfclip", "open_clip", "transformers"])
def test_a_clip_that_any_tool_cached_is_listed_without_a_request(
    layout: str, hub: LoopbackHub
) -> None:
    snapshot_download(f"me/{layout}")
    hub.forget_calls()
    commit = hub.repository(f"me/{layout}").branches["main"].id
    row = list_models()[-1]
    assert row == ListedModel(
        name=f"me/{layout}",
        state="cached",
        pinned="no",
        image_tower="ViT, 2 blocks of width 64, patch 16",
        pixels=32,
        parameters=TINY_VIT.parameter_count,
        origin=f"me/{layout} at {commit[:12]}",
        repository=f"me/{layout}",
        revision=commit,
    )
    assert hub.calls == []
    hfclip.download(f"me/{layout}")
    assert rows()[f"me/{layout}"].state == "verified"
    flip_a_bit(cached_file(f"me/{layout}", "*model.safetensors"))
    assert rows()[f"me/{layout}"].state == "cached"


@pytest.mark.parametrize(
    ("layout", "missing"),
    [
        ("hfclip", WEIGHTS),
        ("open_clip", OPEN_CLIP_WEIGHTS),
        ("transformers", WEIGHTS),
        ("transformers", PREPROCESSOR),
    ],
)
def test_a_clip_with_a_missing_file_is_listed_as_partial(
    layout: str, missing: str, hub: LoopbackHub
) -> None:
    snapshot_download(f"me/{layout}", ignore_patterns=[missing])
    assert rows()[f"me/{layout}"].state == "partial"
    with pytest.raises(hfclip.NetworkError, match=f"partly in the cache: {missing} is missing"):
        hfclip.verify(f"me/{layout}")
    hfclip.download(f"me/{layout}")
    assert rows()[f"me/{layout}"].state == "verified"


def test_a_clip_whose_preprocessor_is_known_to_be_missing_is_cached(
    hub: LoopbackHub, layouts: dict[str, dict[str, bytes]]
) -> None:
    hub.push("me/transformers", {PREPROCESSOR: None})
    folder = Path(snapshot_download("me/transformers"))
    assert rows()["me/transformers"].state == "cached"  # the client keeps the list of its files
    shutil.rmtree(folder.parents[1] / "trees")
    assert rows()["me/transformers"].state == "partial"
    record = folder.parents[1] / ".no_exist" / folder.name / PREPROCESSOR
    record.parent.mkdir(parents=True)
    record.touch()
    assert rows()["me/transformers"].state == "cached"


def test_broken_and_foreign_repositories_are_left_out(
    hub: LoopbackHub, layouts: dict[str, dict[str, bytes]]
) -> None:
    timm = {CONFIG: b'{"architecture": "vit_base"}', WEIGHTS: b"the image tower"}
    hub.add_repository("a/bert", {CONFIG: BERT, WEIGHTS: b"x"})
    hub.add_repository("a/timm", timm)
    hub.add_repository("a/nothing", {"README.md": b"hello"})
    hub.add_repository("z/timm-clip", layouts["open_clip"] | timm)
    for name in ("a/bert", "a/timm", "a/nothing", "z/timm-clip", "me/hfclip"):
        snapshot_download(name)
    cache = Path(constants.HF_HUB_CACHE)
    (cache / "models--a--file").write_text("no folder")
    (cache / "models--a--empty").mkdir()
    unnamable = cache / "models--a--b--c" / "snapshots" / ("0" * 40)
    unnamable.mkdir(parents=True)
    for name in (CONFIG, WEIGHTS):
        (unnamable / name).write_bytes(layouts["hfclip"][name])
    loop = cache / "models--a--loop" / "snapshots" / ("1" * 40)
    loop.mkdir(parents=True)
    (loop / CONFIG).symlink_to(loop / CONFIG)
    (loop / WEIGHTS).symlink_to("nowhere")
    odd = cache / "models--a--odd" / "refs"
    odd.mkdir(parents=True)
    (odd / "main").write_bytes(b"\xff\xfe")
    (cache / "models--a--odd" / "snapshots").write_text("no folder")
    assert [row.name for row in list_models()[10:]] == ["me/hfclip", "z/timm-clip"]


def test_main_is_listed_first_then_tags_then_other_commits(
    hub: LoopbackHub,
) -> None:
    first = hub.repository("me/hfclip").branches["main"].id
    hfclip.download("me/hfclip", revision=first)
    assert list_models()[-1].name == f"me/hfclip@{first}"
    hub.push("me/hfclip", {"README.md": b"new"}, tag="v1")
    hfclip.download("me/hfclip", revision="v1")
    assert [row.name for row in list_models()[10:]] == ["me/hfclip@v1"]
    hub.push("me/hfclip", {"README.md": b"newer"})
    hfclip.download("me/hfclip")
    for number, commit in enumerate((hub.repository("me/hfclip").branches["main"].id, first)):
        os.utime(cached_file("me/hfclip", CONFIG).parents[1] / commit, (number, number))
    assert [row.name for row in list_models()[10:]] == ["me/hfclip"]
    for model in scan():
        assert hfclip.load(model.name, "cpu", local_files_only=True)[0].config == TINY_VIT


def test_a_release_that_another_tool_cached_whole_has_one_row(
    hub: LoopbackHub, pinned: releases.Release
) -> None:
    snapshot_download(pinned.hub.repo_id, revision=pinned.hub.revision)
    assert rows()["ViT-B/32"].state == "cached"
    assert len(rows()) == 10


def test_a_release_whose_configuration_alone_is_cached_is_not_cached(
    hub: LoopbackHub, pinned: releases.Release
) -> None:
    repo_id, revision = pinned.hub.repo_id, pinned.hub.revision
    snapshot_download(repo_id, revision=revision, allow_patterns=[OPEN_CLIP_CONFIG])
    row = rows()["ViT-B/32"]
    assert (row.state, row.revision) == ("not cached", revision)


# inspect and export.


def test_inspect_reads_the_requested_revision_and_namespace(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push("me/ViT-B-32", {}, tag="v1")
    draw(TINY_RESNET).save_pretrained(tmp_path / "resnet")
    files = {name: tmp_path / "resnet" / name for name in (CONFIG, WEIGHTS)}
    hub.push("me/ViT-B-32", files)
    vit = "ViT, 2 blocks of width 64, patch 16"
    resnet = "ResNet, stages of 1, 2, 1, 1 blocks, width 4"
    assert hfclip.inspect("me/ViT-B-32", revision="v1").image_tower == vit
    assert hfclip.inspect("ViT-B/32", namespace="me").image_tower == resnet
    monkeypatch.setenv("HFCLIP_NAMESPACE", "me")
    assert hfclip.inspect("ViT-B/32", revision="v1").image_tower == vit
    facts = hfclip.inspect("ViT-B/32", local_files_only=True)
    assert facts.sha256 == hashlib.sha256(files[WEIGHTS].read_bytes()).hexdigest()
    assert json.loads(json.dumps(facts.to_dict()))["file"] == str(facts.file)


def test_export_takes_a_namespace(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = hfclip.export("ViT-B/32", tmp_path / "out", "open_clip", namespace="me")
    assert folder == tmp_path / "out"
    assert hfclip.load(folder, "cpu")[0].config == TINY_VIT


# download and verify.


@pytest.mark.parametrize(
    ("layout", "filename"),
    [
        ("hfclip", WEIGHTS),
        ("hfclip", CONFIG),
        ("open_clip", OPEN_CLIP_CONFIG),
        ("transformers", PREPROCESSOR),
        ("transformers", "vocab.json"),
    ],
)
def test_every_cached_file_is_verified_and_repaired(
    layout: str, filename: str, hub: LoopbackHub, layouts: dict[str, dict[str, bytes]]
) -> None:
    files = layouts[layout] | {"vocab.json": b'{"a": 1}'}
    hub.add_repository("me/all", files)
    folder = Path(snapshot_download("me/all"))
    verification = hfclip.verify("me/all")
    assert {path.name for path in verification.files} == set(files)
    assert verification.path.name.endswith(WEIGHTS)
    assert verification.digest.value == hashlib.sha256(files[verification.path.name]).hexdigest()
    assert next(iter(verification.files)) == verification.path
    flip_a_bit(folder / filename)
    hub.forget_calls()
    with pytest.raises(hfclip.IntegrityError, match=filename) as caught:
        hfclip.verify("me/all")
    assert hub.calls == []
    assert f"`hfclip verify me/all@{folder.name} --repair`" in str(caught.value)
    hfclip.verify(f"me/all@{folder.name}", repair=True)
    assert (folder / filename).read_bytes() == files[filename]
    hub.forget_calls()
    assert hfclip.verify("me/all").files == verification.files
    assert hub.calls == []


def test_all_damaged_files_are_named(hub: LoopbackHub) -> None:
    hfclip.download("me/transformers")
    for name in (CONFIG, PREPROCESSOR):
        flip_a_bit(cached_file("me/transformers", name))
    with pytest.raises(hfclip.IntegrityError) as caught:
        hfclip.verify("me/transformers")
    first, second = str(caught.value).splitlines()
    assert "/config.json has git" in first
    assert "/preprocessor_config.json has git" in second


def test_repair_mends_the_cached_commit_and_not_a_newer_one(hub: LoopbackHub) -> None:
    origin = hfclip.download("me/hfclip").origin
    hub.push("me/hfclip", {CONFIG: b"{}"})
    flip_a_bit(cached_file("me/hfclip", WEIGHTS))
    assert hfclip.verify("me/hfclip", repair=True).origin == origin
    assert len(list(scan())) == 1


def test_a_pinned_release_is_verified_against_its_pin(
    hub: LoopbackHub, pinned: releases.Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    hfclip.download("ViT-B/32")
    assert hfclip.verify("ViT-B/32").digest == ("sha256", pinned.hub.sha256)
    name = f"{pinned.hub.repo_id}@{pinned.hub.revision}"
    assert hfclip.verify(name).path == hfclip.verify("ViT-B/32").path
    wrong = dataclasses.replace(pinned.hub, sha256="0" * 64)
    monkeypatch.setitem(releases.RELEASES, "ViT-B/32", dataclasses.replace(pinned, hub=wrong))
    for known in ("ViT-B/32", name):
        with pytest.raises(hfclip.IntegrityError, match="publishes 0000"):
            hfclip.verify(known)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ({"name": "me/hfclip"}, "hfclip download me/hfclip"),
        ({"name": "me/nothing@v2"}, "hfclip download me/nothing@v2"),
        ({"name": "RN50"}, "hfclip download RN50"),
        ({"name": "RN50", "namespace": "me"}, "hfclip download RN50 --namespace me"),
        ({"name": "me/hfclip", "revision": "v1"}, "hfclip download me/hfclip --revision v1"),
    ],
)
def test_an_error_for_an_uncached_model_names_the_download_command(
    arguments: dict[str, str], command: str, hub: LoopbackHub
) -> None:
    with pytest.raises(hfclip.NetworkError, match="is not in the cache at") as caught:
        hfclip.verify(**arguments)  # type: ignore[arg-type]
    assert f"`{command}`" in str(caught.value)
    assert hub.calls == []


def test_an_error_for_a_file_missing_offline_names_the_download_command(
    hub: LoopbackHub,
) -> None:
    commit = hub.repository("me/hfclip").branches["main"].id
    hfclip.download("me/hfclip")
    cached_file("me/hfclip", WEIGHTS).unlink()
    with pytest.raises(hfclip.NetworkError, match="is not in the cache") as caught:
        hfclip.load("me/hfclip", "cpu", local_files_only=True)
    assert f"`hfclip download me/hfclip@{commit}`" in str(caught.value)


def test_the_bundled_model_is_verified_against_the_hashes_in_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(hfclip.__file__).parent / "digits"
    verification = hfclip.verify("digits")
    assert verification.files == {
        folder / name: ("sha256", hashlib.sha256((folder / name).read_bytes()).hexdigest())
        for name in (WEIGHTS, CONFIG)
    }
    assert hfclip.verify(folder).digest == verification.digest
    for name in (WEIGHTS, CONFIG):
        wrong = releases.BUNDLED["digits"] | {name: "0" * 64}
        with monkeypatch.context() as patch:
            patch.setitem(releases.BUNDLED, "digits", wrong)
            with pytest.raises(hfclip.IntegrityError, match=f"{name} has sha256 .* publishes 0000"):
                hfclip.verify("digits")


def test_a_local_file_or_folder_has_no_published_hash(
    hub: LoopbackHub, tmp_path: Path, layouts: dict[str, dict[str, bytes]]
) -> None:
    content = layouts["hfclip"][WEIGHTS]
    (tmp_path / WEIGHTS).write_bytes(content)
    (tmp_path / CONFIG).write_bytes(layouts["hfclip"][CONFIG])
    sha256 = hashlib.sha256(content).hexdigest()
    for name in (tmp_path, tmp_path / WEIGHTS):
        with pytest.raises(hfclip.IntegrityError, match=f"{sha256}. No hash is published for it"):
            hfclip.verify(name)
    with pytest.raises(hfclip.ModelNotFoundError, match=r"nothing\.pt not found"):
        hfclip.verify("nothing.pt")
    for local in ("digits", str(tmp_path)):
        with pytest.raises(hfclip.ArgumentError, match="has no revision 'v1'"):
            hfclip.verify(local, revision="v1")


def test_openais_original_file_is_verified_in_place(
    home: Path, tmp_path: Path, hub: LoopbackHub, pinned: releases.Release
) -> None:
    path = home / ".cache" / "clip" / "ViT-B-32.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"original")
    (tmp_path / "copy.pt").write_bytes(b"original")
    assert hfclip.verify("ViT-B/32").path == path
    assert hfclip.verify(tmp_path / "copy.pt").digest == ("sha256", pinned.original.sha256)
    assert [name for name, _ in verify_all()] == [str(path)]
    path.write_bytes(b"0riginal")
    with pytest.raises(hfclip.IntegrityError, match=f"OpenAI publishes {pinned.original.sha256}"):
        hfclip.verify("ViT-B/32")
    ((_, outcome),) = verify_all()
    assert isinstance(outcome, hfclip.IntegrityError)


def test_a_release_that_openais_clip_downloaded_is_listed_as_cached(
    home: Path, hub: LoopbackHub, pinned: releases.Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"original".ljust(pinned.original.size)
    original = dataclasses.replace(pinned.original, sha256=hashlib.sha256(content).hexdigest())
    release = dataclasses.replace(pinned, original=original)
    monkeypatch.setitem(releases.RELEASES, "ViT-B/32", release)
    path = home / ".cache" / "clip" / "ViT-B-32.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content[1:])
    assert rows()["ViT-B/32"].state == "not cached"
    path.write_bytes(content)
    row = rows()["ViT-B/32"]
    assert (row.state, row.origin) == ("cached", f"OpenAI's own file {path}")
    assert hfclip.download("ViT-B/32").path == path
    assert rows()["ViT-B/32"].state == "verified"
    assert list_models(namespace="me")[5].state == "not cached"
    assert hub.calls == []


def test_every_cached_commit_is_verified(
    hub: LoopbackHub, pinned: releases.Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(verify_all()) == []
    hub.add_repository("a/bert", {CONFIG: BERT, WEIGHTS: b"x"})
    snapshot_download("a/bert")
    snapshot_download("me/open_clip", ignore_patterns=[OPEN_CLIP_WEIGHTS])
    first = hub.repository("me/hfclip").branches["main"].id
    hfclip.download("me/hfclip")
    hub.push("me/hfclip", {"README.md": b"new"})
    hfclip.download("me/hfclip")
    hfclip.download("ViT-B/32")
    monkeypatch.setenv("HFCLIP_NAMESPACE", "me")
    hfclip.download("ViT-B/32")
    release = f"{pinned.hub.repo_id}@{pinned.hub.revision}"
    names = ["me/ViT-B-32", "me/hfclip", f"me/hfclip@{first}", release]
    hub.forget_calls()
    outcomes = dict(verify_all())
    assert list(outcomes) == names
    assert all(isinstance(outcome, hfclip.Verification) for outcome in outcomes.values())
    assert hub.calls == []
    flip_a_bit(cached_file("me/ViT-B-32", CONFIG))
    flip_a_bit(cached_file(pinned.hub.repo_id, OPEN_CLIP_WEIGHTS))
    damaged = [name for name, outcome in verify_all() if isinstance(outcome, Exception)]
    assert damaged == ["me/ViT-B-32", release]
    assert not [name for name, o in verify_all(repair=True) if isinstance(o, Exception)]
    assert not [name for name, o in verify_all() if isinstance(o, Exception)]


def test_a_file_that_cannot_be_read_is_a_cache_error(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfclip.hub import integrity

    hfclip.download("me/hfclip")

    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(integrity, "compute", refuse)
    with pytest.raises(hfclip.CacheError, match=r"model\.safetensors cannot be read: Permission"):
        hfclip.verify("me/hfclip")


# All functions.


def test_download_verify_and_the_list_import_no_torch(hub: LoopbackHub, home: Path) -> None:
    code = (
        "import sys, hfclip\n"
        "from hfclip.sources.inspect import list_models\n"
        "from hfclip.sources.verify import verify_all\n"
        "path = hfclip.download('me/transformers').path\n"
        "assert hfclip.verify('me/transformers', repair=True).path == path\n"
        "assert list_models()[-1].state == 'verified' and len(list(verify_all())) == 1\n"
        "hfclip.inspect, hfclip.verify('digits')\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={**hub.environment(home), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == 0, result.stderr


def test_the_functions_keep_their_names_beside_the_modules() -> None:
    import hfclip.publishing.export
    import hfclip.sources.download
    import hfclip.sources.inspect
    import hfclip.sources.verify

    assert hfclip.download is hfclip.sources.download.download
    assert hfclip.export is hfclip.publishing.export.export
    assert hfclip.inspect is hfclip.sources.inspect.inspect
    assert hfclip.verify is hfclip.sources.verify.verify
