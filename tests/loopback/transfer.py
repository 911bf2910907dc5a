"""Handlers for commits, LFS uploads and downloads."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from .messages import RefusalError, Reply, content_reply, json_reply, redirect
from .repository import Blob, Commit, Content, ParentMovedError, Repository, goes_to_lfs, name_of
from .visit import Visit

Changes = dict[str, Blob | None]


def preupload(visit: Visit) -> Reply:
    """Returns for each file whether it belongs in the commit or in LFS."""
    commit = visit.commit(visit.changeable_repository())
    files = [_upload_mode(file, commit) for file in visit.request.json()["files"]]
    return json_reply({"files": files})


def _upload_mode(file: Mapping[str, Any], commit: Commit) -> dict[str, Any]:
    path = file["path"]
    mode = "lfs" if goes_to_lfs(path, file["size"]) else "regular"
    answer = {"path": path, "uploadMode": mode, "shouldIgnore": False}
    # The client compares this to skip unchanged files: the sha256 of LFS files, else git's id.
    return {**answer, "oid": commit.files[path].etag} if path in commit.files else answer


def lfs_batch(visit: Visit) -> Reply:
    """Returns the upload URL of each LFS object. Objects that exist have none."""
    visit.member()  # no permission check: LFS objects change nothing until a commit names them
    visit.readable_repository()
    wanted = visit.request.json()["objects"]
    objects = [{"oid": item["oid"], "size": item["size"]} for item in wanted]
    for item in objects:
        if item["oid"] not in visit.registry.lfs:
            item["actions"] = {"upload": {"href": f"{visit.cdn}/_lfs/{item['oid']}"}}
    return json_reply({"transfer": "basic", "objects": objects})


def create_commit(visit: Visit) -> Reply:
    repository = visit.changeable_repository()
    base = visit.commit(repository)
    header, *operations = map(json.loads, visit.request.read().splitlines())
    changes: Changes = {}
    for operation in operations:
        changes |= CHANGES[operation["key"]](visit, base, operation["value"])
    branch = _branch_to_move(visit, repository, base)
    parent, title = header["value"].get("parentCommit"), header["value"]["summary"]
    try:
        commit = repository.commit(changes, branch, title, parent)
    except ParentMovedError as error:
        message = "A commit has happened since. Please refresh and try again."
        raise RefusalError(412, message) from error
    return json_reply(_committed(f"{visit.hub}/{repository.id}", commit, branch))


def _committed(url: str, commit: Commit, branch: str) -> dict[str, Any]:
    number = branch.removeprefix("refs/pr/")
    return {
        "success": True,
        "commitOid": commit.id,
        "commitUrl": f"{url}/commit/{commit.id}",
        "pullRequestUrl": f"{url}/discussions/{number}" if number != branch else None,
    }


def _branch_to_move(visit: Visit, repository: Repository, base: Commit) -> str:
    if visit.request.query.get("create_pr") == "1":
        return repository.open_pull_request(base)
    revision = visit.names["rev"]
    if revision not in {*repository.branches, *repository.pull_requests}:
        raise RefusalError(400, f"{revision} is not a branch")
    return revision


def _regular_file(visit: Visit, base: Commit, value: Mapping[str, str]) -> Changes:
    return {value["path"]: Blob.regular(Content(base64.b64decode(value["content"])))}


def _lfs_file(visit: Visit, base: Commit, value: Mapping[str, str]) -> Changes:
    content = visit.registry.lfs.get(value["oid"])
    if content is None:
        raise RefusalError(400, f"LFS object {value['oid']} was never uploaded")
    return {value["path"]: Blob.lfs(content, value["oid"])}


def _deleted_file(visit: Visit, base: Commit, value: Mapping[str, str]) -> Changes:
    if value["path"] not in base.files:
        raise RefusalError(404, "A file with this name doesn't exist", "EntryNotFound")
    return {value["path"]: None}


def _deleted_folder(visit: Visit, base: Commit, value: Mapping[str, str]) -> Changes:
    root = value["path"].rstrip("/") + "/"
    return {path: None for path in base.files if path.startswith(root)}


CHANGES: dict[str, Callable[[Visit, Commit, Mapping[str, str]], Changes]] = {
    "file": _regular_file,
    "lfsFile": _lfs_file,
    "deletedFile": _deleted_file,
    "deletedFolder": _deleted_folder,
}


def resolve(visit: Visit) -> Reply:
    """Redirects LFS files to the CDN and all others to the Hub's own storage."""
    repository = visit.readable_repository()
    commit = visit.commit(repository)
    blob, path = visit.blob(commit), quote(visit.names["path"])
    headers = {"X-Repo-Commit": commit.id, "ETag": f'"{blob.oid}"'}
    if blob.sha256 is None:
        kind = "models/" if repository.id == name_of(repository.id) else ""
        cached = f"/api/resolve-cache/{kind}{repository.id}/{commit.id}/{path}"
        return redirect(307, cached, headers)
    linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
    headers |= linked | _xet_headers(visit, repository, blob)
    # The path is for the log and the faults. The CDN identifies objects only by hash.
    return redirect(302, f"{visit.cdn}/_lfs/{blob.sha256}?path={path}", headers)


def _xet_headers(visit: Visit, repository: Repository, blob: Blob) -> dict[str, str]:
    if blob.xet_hash is None:
        return {}
    renewal = f"{visit.hub}/api/models/{repository.id}/xet-read-token/{visit.names['rev']}"
    return {"X-Xet-Hash": blob.xet_hash, "X-Xet-Refresh-Route": renewal}


def xet_read_token(visit: Visit) -> Reply:
    """Returns the location of the xet store in two forms, for two kinds of client."""
    visit.commit(visit.readable_repository())
    expiry = int(time.time()) + 3600
    answer = {"casUrl": visit.xet, "accessToken": "xet", "exp": expiry}
    names = ("X-Xet-Cas-Url", "X-Xet-Access-Token", "X-Xet-Token-Expiration")
    headers = dict(zip(names, map(str, answer.values()), strict=True))
    return json_reply(answer, headers=headers)


def resolve_cache(visit: Visit) -> Reply:
    commit = visit.commit(visit.readable_repository())
    blob = visit.blob(commit)
    headers = {"X-Repo-Commit": commit.id, "ETag": f'"{blob.etag}"'}
    return content_reply(blob.content, headers, visit.request.headers.get("range"))


def lfs_object(visit: Visit) -> Reply:
    content = _lfs_content(visit)
    headers = {"ETag": f'"{visit.names["sha256"]}"'}
    return content_reply(content, headers, visit.request.headers.get("range"))


def _lfs_content(visit: Visit) -> Content:
    content = visit.registry.lfs.get(visit.names["sha256"])
    if content is None:
        raise RefusalError(404, "NoSuchKey")
    return content


def receive_lfs_object(visit: Visit) -> Reply:
    if not visit.registry.receive(visit.names["sha256"], visit.request.body):
        raise RefusalError(400, "XAmzContentSHA256Mismatch")
    return Reply(200)
