"""The loopback Hub with the real client, without faults."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx2
import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from . import LoopbackHub
from .conftest import (
    CONFIG,
    MINE,
    MINE_TO_READ,
    MODEL,
    STRANGERS,
    WEIGHTS,
    WEIGHTS_SHA256,
    Fetch,
    log_of,
)


def test_a_small_file_comes_from_the_hub_and_is_cached_under_its_git_blob_id(
    hub: LoopbackHub, fetch: Fetch, tmp_path: Path
) -> None:
    assert fetch("config.json") == CONFIG
    assert log_of(hub) == [
        ("hub", "HEAD", "config.json", 307),
        ("hub", "HEAD", "config.json", 200),
        ("hub", "GET", "config.json", 200),
    ]
    # `printf '{"embed_dim": 512}\n' | git hash-object --stdin`
    blobs = tmp_path / "cache" / "models--me--model" / "blobs"
    assert [blob.name for blob in blobs.iterdir()] == ["228330b8fbd31c88c155b999411dc25840fb4db1"]


def test_an_lfs_file_comes_from_the_cdn_and_is_cached_under_its_sha256(
    hub: LoopbackHub, fetch: Fetch, tmp_path: Path
) -> None:
    assert fetch("model.safetensors") == WEIGHTS
    assert log_of(hub) == [
        ("hub", "HEAD", "model.safetensors", 302),
        ("cdn", "GET", "model.safetensors", 200),
    ]
    blobs = tmp_path / "cache" / "models--me--model" / "blobs"
    assert [blob.name for blob in blobs.iterdir()] == [WEIGHTS_SHA256]


def test_a_token_goes_to_the_hub_and_not_to_the_cdn(hub: LoopbackHub, fetch: Fetch) -> None:
    fetch("model.safetensors", token=MINE)
    authorizations = [(call.server, call.authorization) for call in hub.calls if call.file]
    assert authorizations == [("hub", f"Bearer {MINE}"), ("cdn", None)]


def test_the_cdn_refuses_a_request_that_carries_a_token(hub: LoopbackHub, commit: str) -> None:
    response = httpx2.head(
        f"{hub.endpoint}/me/model/resolve/main/model.safetensors", trust_env=False
    )
    headers = {"Authorization": f"Bearer {MINE}"}
    refused = httpx2.get(response.headers["Location"], headers=headers, trust_env=False)
    assert refused.status_code == 400


def test_a_cached_file_takes_one_request_by_branch_and_none_by_commit(
    hub: LoopbackHub, commit: str, fetch: Fetch
) -> None:
    fetch("model.safetensors")
    hub.forget_calls()
    fetch("model.safetensors")
    assert log_of(hub) == [("hub", "HEAD", "model.safetensors", 302)]
    hub.forget_calls()
    assert fetch("model.safetensors", revision=commit) == WEIGHTS
    assert hub.calls == []


def test_a_file_on_disk_is_served_without_reading_it_whole_into_memory(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    big = tmp_path / "big.safetensors"
    with big.open("wb") as file:
        file.truncate(48 << 20)
    tracemalloc.start()
    hub.add_repository("me/big", {big.name: big})
    size = sum(map(len, _pieces(f"{hub.endpoint}/me/big/resolve/main/{big.name}")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 48 << 20
    assert peak < 8 << 20


def _pieces(url: str) -> Iterator[bytes]:
    with urlopen(url) as response:  # noqa: S310
        while piece := response.read(1 << 20):
            yield piece


def test_a_file_over_ten_megabytes_is_kept_in_lfs_whatever_its_name(
    hub: LoopbackHub, api: HfApi
) -> None:
    hub.add_repository("me/big", {"just.txt": bytes(10_000_000), "over.txt": bytes(10_000_001)})
    siblings = api.model_info("me/big", files_metadata=True).siblings or []
    assert [(file.rfilename, bool(file.lfs)) for file in siblings] == [
        ("just.txt", False),
        ("over.txt", True),
    ]


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=10-19", 206, WEIGHTS[10:20]),
        ("bytes=102390-", 206, WEIGHTS[102390:]),
        ("bytes=102390-999999", 206, WEIGHTS[102390:]),
        ("bytes=102400-", 416, b""),
        ("lines=1-2", 200, WEIGHTS),
    ],
)
def test_a_range_request_returns_exactly_its_bytes(
    hub: LoopbackHub, commit: str, wanted: str, status: int, body: bytes
) -> None:
    url = f"{hub.endpoint}/me/model/resolve/main/model.safetensors"
    response = httpx2.get(url, headers={"Range": wanted}, follow_redirects=True, trust_env=False)
    assert (response.status_code, response.content) == (status, body)


def test_an_unknown_token_is_refused_even_for_a_public_repository(fetch: Fetch) -> None:
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as caught:
        fetch("config.json", token="hf_unknown")
    assert caught.value.response.status_code == 401
    assert not isinstance(caught.value, RepositoryNotFoundError)


@pytest.mark.parametrize(("token", "status"), [(False, 401), (STRANGERS, 404)])
def test_a_private_repository_looks_missing_to_other_accounts(
    hub: LoopbackHub, fetch: Fetch, token: str | bool, status: int
) -> None:
    hub.repository("me/model").private = True
    with pytest.raises(RepositoryNotFoundError) as caught:
        fetch("config.json", token=token)
    assert caught.value.response.status_code == status
    assert not isinstance(caught.value, GatedRepoError)


def test_the_owner_of_a_private_repository_can_read_it(hub: LoopbackHub, fetch: Fetch) -> None:
    hub.repository("me/model").private = True
    assert fetch("config.json", token=MINE_TO_READ) == CONFIG


@pytest.mark.parametrize(("token", "status"), [(False, 401), (STRANGERS, 403)])
def test_a_gated_repository_refuses_downloads_until_access_is_granted(
    hub: LoopbackHub, fetch: Fetch, token: str | bool, status: int
) -> None:
    hub.repository("me/model").gated = True
    with pytest.raises(GatedRepoError) as caught:
        fetch("model.safetensors", token=token)
    assert caught.value.response.status_code == status
    hub.grant_access("me/model", "stranger")
    assert fetch("model.safetensors", token=STRANGERS) == WEIGHTS


def test_a_gated_repository_lists_its_files(hub: LoopbackHub, commit: str) -> None:
    hub.repository("me/model").gated = True
    info = HfApi(endpoint=hub.endpoint, token=False).model_info("me/model")
    assert (info.gated, info.sha) == ("manual", commit)


@pytest.mark.parametrize(
    ("filename", "revision", "error"),
    [
        ("config.json", "no-branch", RevisionNotFoundError),
        ("config.json", "0" * 40, RevisionNotFoundError),
        ("no-file.json", "main", EntryNotFoundError),
    ],
)
def test_an_error_names_the_missing_repository_revision_or_file(
    fetch: Fetch, filename: str, revision: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        fetch(filename, revision=revision)


def test_whoami_returns_the_account_and_the_permissions_of_a_token(hub: LoopbackHub) -> None:
    who = HfApi(endpoint=hub.endpoint).whoami(token=MINE_TO_READ)
    assert (who["name"], who["auth"]["accessToken"]["role"]) == ("me", "read")


def test_commit_ids_are_the_same_in_every_run(commit: str) -> None:
    assert commit == "5329aa9792cd20955246cc858bd973a1b1c44b88"


def test_a_restored_hub_has_what_it_had_before(hub: LoopbackHub, commit: str, api: HfApi) -> None:
    before = hub.calls
    with hub.restored():
        other = hub.push("me/model", {"b.bin": b"new"}, tag="v2")
        hub.add_repository("me/new", {"a.bin": b"bytes"})
        assert api.model_info("me/model").sha == other
        assert api.file_exists("me/new", "a.bin")
    assert hub.calls == before
    assert api.model_info("me/model").sha == commit
    assert not api.list_repo_refs("me/model").tags
    assert not api.repo_exists("me/new")
    assert not api.file_exists("me/model", "b.bin")


def test_the_listings_agree_on_sizes_and_hashes(api: HfApi, commit: str) -> None:
    siblings = api.model_info("me/model", files_metadata=True).siblings or []
    listed = [(file.rfilename, file.size, file.blob_id, file.lfs) for file in siblings]
    paths = ["config.json", "model.safetensors"]
    tree = [(file.path, file.size, file.blob_id, file.lfs) for file in _tree(api)]
    info = api.get_paths_info("me/model", paths, revision=commit)
    asked = [(file.path, file.size, file.blob_id, file.lfs) for file in map(_as_file, info)]
    assert listed == tree == asked
    assert [(path, size) for path, size, *_ in tree] == list(zip(paths, (19, 102400), strict=True))
    assert tree[0][2:] == ("228330b8fbd31c88c155b999411dc25840fb4db1", None)
    assert tree[1][3]["sha256"] == WEIGHTS_SHA256


def _as_file(entry: object) -> RepoFile:
    assert isinstance(entry, RepoFile)
    return entry


def _tree(api: HfApi, **options: Any) -> list[Any]:
    return list(api.list_repo_tree("me/model", **options))


def test_the_tree_lists_one_level_or_all(hub: LoopbackHub, api: HfApi, commit: str) -> None:
    hub.push("me/model", {"a/b/c.txt": b"c", "config.json": None})
    assert [entry.path for entry in _tree(api)] == ["a", "model.safetensors"]
    everything = ["a", "a/b", "a/b/c.txt", "model.safetensors"]
    assert [entry.path for entry in _tree(api, recursive=True)] == everything
    assert [entry.path for entry in _tree(api, path_in_repo="a")] == ["a/b"]


def test_each_revision_keeps_its_own_content(hub: LoopbackHub, commit: str, fetch: Fetch) -> None:
    hub.push("me/model", {"config.json": b"dev"}, branch="dev", tag="v1")
    hub.push("me/model", {"config.json": b"later"}, branch="dev")
    hub.push("me/model", {"config.json": b"new"})
    revisions = ("main", "dev", "v1", commit)
    contents = [fetch("config.json", revision=revision) for revision in revisions]
    assert contents == [b"new", b"later", b"dev", CONFIG]


def test_branches_and_tags_are_made_listed_and_deleted(api: HfApi, commit: str) -> None:
    api.create_branch("me/model", branch="a/b", revision=commit)
    api.create_tag("me/model", tag="v1")
    refs = api.list_repo_refs("me/model")
    branches = [("a/b", "refs/heads/a/b", commit), ("main", "refs/heads/main", commit)]
    assert [(ref.name, ref.ref, ref.target_commit) for ref in refs.branches] == branches
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", commit)]
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag("me/model", tag="v1")
    api.delete_branch("me/model", branch="a/b")
    api.delete_tag("me/model", tag="v1")
    refs = api.list_repo_refs("me/model")
    assert ([ref.name for ref in refs.branches], refs.tags) == (["main"], [])


# The client uses a deprecated argument of httpx2.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_an_uploaded_folder_comes_back_byte_for_byte(
    hub: LoopbackHub, api: HfApi, tmp_path: Path
) -> None:
    folder = _folder(tmp_path, MODEL)
    api.create_repo("me/new", private=True)
    commit = api.upload_folder(repo_id="me/new", folder_path=folder).oid
    files = hub.repository("me/new").commits[commit].files
    uploaded = {name: files[name].content.read() for name in MODEL}
    assert uploaded == MODEL
    assert hub.repository("me/new").private
    puts = [(call.server, call.path) for call in hub.calls if call.method == "PUT"]
    assert puts == [("cdn", f"/_lfs/{WEIGHTS_SHA256}")]


def _folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_unchanged_files_are_not_uploaded_again(
    hub: LoopbackHub, api: HfApi, commit: str, tmp_path: Path
) -> None:
    again = api.upload_folder(repo_id="me/model", folder_path=_folder(tmp_path, MODEL))
    assert again.oid == commit
    assert {call.method for call in hub.calls} <= {"GET", "POST"}


def test_a_commit_on_a_parent_that_has_moved_is_refused(
    hub: LoopbackHub, api: HfApi, commit: str
) -> None:
    hub.push("me/model", {"config.json": b"meanwhile"})
    upload = partial(api.upload_file, path_or_fileobj=b"mine", path_in_repo="config.json")
    with pytest.raises(HfHubHTTPError) as caught:
        upload(repo_id="me/model", parent_commit=commit)
    assert caught.value.response.status_code == 412
    assert hub.repository("me/model").branches["main"].files["config.json"].size == 9


def test_deleted_files_are_gone_and_the_history_shows_it(api: HfApi, commit: str) -> None:
    api.delete_file("config.json", repo_id="me/model", commit_message="less")
    assert api.list_repo_files("me/model") == ["model.safetensors"]
    history = [(entry.title, entry.commit_id == commit) for entry in _history(api)]
    assert history == [("less", False), ("initial commit", True)]


def _history(api: HfApi) -> list[Any]:
    return api.list_repo_commits("me/model")


def test_a_pull_request_leaves_main_unchanged(
    hub: LoopbackHub, api: HfApi, commit: str, fetch: Fetch
) -> None:
    upload = partial(api.upload_file, path_or_fileobj=b"proposed", path_in_repo="config.json")
    proposed = upload(repo_id="me/model", create_pr=True)
    assert proposed.pr_revision == "refs/pr/1"
    assert fetch("config.json", revision="refs/pr/1") == b"proposed"
    assert fetch("config.json") == CONFIG


@pytest.mark.parametrize("token", [MINE_TO_READ, STRANGERS])
def test_a_read_only_token_changes_nothing(hub: LoopbackHub, commit: str, token: str) -> None:
    api = HfApi(endpoint=hub.endpoint, token=token)
    with pytest.raises(HfHubHTTPError, match="403"):
        api.upload_file(path_or_fileobj=b"", path_in_repo="x", repo_id="me/model")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("me/another")
    assert hub.repository("me/model").branches["main"].id == commit


def test_an_existing_repository_is_not_created_again(api: HfApi, commit: str) -> None:
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("me/model")
    assert api.create_repo("me/model", exist_ok=True).repo_id == "me/model"
    assert api.model_info("me/model").sha == commit


def test_a_card_with_unclosed_metadata_is_refused(api: HfApi, commit: str) -> None:
    upload = partial(api.upload_file, path_in_repo="README.md", repo_id="me/model")
    with pytest.raises(ValueError, match="Invalid metadata"):
        upload(path_or_fileobj=b"---\nlicense: mit\n")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        upload(path_or_fileobj=b"# A card\n")


def test_a_space_is_created_with_an_sdk_and_is_another_repository_than_the_model(
    hub: LoopbackHub, api: HfApi, commit: str, tmp_path: Path
) -> None:
    with pytest.raises(HfHubHTTPError, match="A Space needs an SDK"):
        api.create_repo("me/model", repo_type="space", space_sdk="streamlit")
    url = api.create_repo("me/model", repo_type="space", space_sdk="gradio")
    assert str(url) == f"{hub.endpoint}/spaces/me/model"
    (tmp_path / "app.py").write_text("pass\n")
    done = api.upload_file(
        path_or_fileobj=tmp_path / "app.py",
        path_in_repo="app.py",
        repo_id="me/model",
        repo_type="space",
    )
    assert done.commit_url == f"{hub.endpoint}/spaces/me/model/commit/{done.oid}"
    info = api.space_info("me/model")
    assert info.id == "me/model"
    assert info.sha == done.oid
    assert {file.rfilename for file in info.siblings or []} == {".gitattributes", "app.py"}
    assert api.model_info("me/model").sha == commit
    path = hf_hub_download(
        "me/model", "app.py", repo_type="space", endpoint=hub.endpoint, cache_dir=tmp_path / "cache"
    )
    assert Path(path).read_text() == "pass\n"
