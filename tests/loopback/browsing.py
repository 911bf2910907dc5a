"""Handlers for accounts, repositories, files, branches and tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from .messages import RefusalError, Reply, json_reply
from .repository import LFS_SUFFIXES, PREFIXES, Blob, Commit, Repository, name_of, owner_of
from .visit import Visit

SDKS = ("gradio", "docker", "static")


def whoami(visit: Visit) -> Reply:
    member = visit.member()
    access = {"displayName": "loopback", "role": member.role}
    who = {"type": "user", "name": member.name, "fullname": member.name}
    orgs = [{"type": "org", "name": name} for name in member.organizations]
    return json_reply({**who, "orgs": orgs, "auth": {"accessToken": access}})


def agent_harnesses(visit: Visit) -> Reply:
    return json_reply({"standardEnvVars": [], "harnesses": {}})


def validate_yaml(visit: Visit) -> Reply:
    """Checks that a card has a metadata block, but not its content."""
    content = visit.request.json()["content"]
    if not content.startswith("---\n"):
        warning = {"message": "empty or missing yaml metadata in repo card"}
        return json_reply({"errors": [], "warnings": [warning]})
    closed = re.match(r"---\n.*?^---\s*$", content, re.DOTALL | re.MULTILINE)
    errors = [] if closed else [{"message": "the yaml metadata block has no end"}]
    return json_reply({"errors": errors, "warnings": []}, 400 if errors else 200)


def create_repository(visit: Visit) -> Reply:
    asked, member = visit.request.json(), visit.member()
    kind = asked.get("type") or "model"
    repo_id = f"{PREFIXES.get(kind, '')}{asked['organization'] or member.name}/{asked['name']}"
    if kind == "space" and asked.get("sdk") not in SDKS:
        raise RefusalError(400, f"A Space needs an SDK, one of {', '.join(SDKS)}")
    if not member.may_write(repo_id):
        raise RefusalError(403, f"You don't have the rights to create {repo_id}")
    answer = {"url": f"{visit.hub}/{repo_id}", "name": repo_id}
    repository = Repository(repo_id, private=asked.get("visibility") == "private")
    if visit.registry.repositories.setdefault(repo_id, repository) is not repository:
        message = f"You already created this {kind} repo"
        return json_reply({**answer, "error": message}, 409, {"X-Error-Message": message})
    attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs\n" for suffix in LFS_SUFFIXES)
    first = {".gitattributes": visit.registry.blob(".gitattributes", attributes.encode())}
    repository.commit(first, "main", "initial commit")
    return json_reply(answer)


def model_info(visit: Visit) -> Reply:
    repository = visit.repository()
    commit = visit.commit(repository)
    blobs = visit.request.query.get("blobs", "").lower() in ("true", "1")
    first = list(commit.history())[-1]
    return json_reply(
        {
            "id": name_of(repository.id),
            "author": owner_of(repository.id),
            "sha": commit.id,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "lastModified": _date(commit),
            "createdAt": _date(first),
            "siblings": [_sibling(*item, blobs) for item in sorted(commit.files.items())],
        }
    )


def _sibling(path: str, blob: Blob, details: bool) -> dict[str, Any]:
    if not details:
        return {"rfilename": path}
    sibling = {"rfilename": path, "size": blob.size, "blobId": blob.oid}
    if blob.sha256 is None:
        return sibling
    size = {"size": blob.size, "pointerSize": blob.pointer_size}
    return {**sibling, "lfs": {"sha256": blob.sha256, **size}}


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
    if blob.sha256 is None:
        return entry
    size = {"size": blob.size, "pointerSize": blob.pointer_size}
    xet = {"xetHash": blob.xet_hash} if blob.xet_hash else {}
    return {**entry, "lfs": {"oid": blob.sha256, **size}, **xet}


def _folder(path: str, commit: Commit) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": commit.id}


def _date(commit: Commit) -> str:
    return commit.date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def list_tree(visit: Visit) -> Reply:
    commit = visit.commit(visit.repository())
    entries = [_folder(path, commit) for path in commit.folders()]
    entries += [_entry(*item) for item in sorted(commit.files.items())]
    root = f"{visit.names['path']}/" if visit.names.get("path") else ""
    deep = visit.request.query.get("recursive", "").lower() in ("true", "1")
    return json_reply([entry for entry in entries if _is_listed(entry["path"], root, deep)])


def _is_listed(path: str, root: str, deep: bool) -> bool:
    return path.startswith(root) and (deep or "/" not in path.removeprefix(root))


def paths_info(visit: Visit) -> Reply:
    commit = visit.commit(visit.repository())
    wanted = parse_qs(visit.request.read().decode()).get("paths", [])
    files = [_entry(path, commit.files[path]) for path in wanted if path in commit.files]
    folders = [_folder(path, commit) for path in wanted if path in commit.folders()]
    return json_reply(files + folders)


def list_commits(visit: Visit) -> Reply:
    repository = visit.repository()
    author = {"user": owner_of(repository.id), "avatar": ""}
    return json_reply(
        [
            {
                "id": commit.id,
                "title": commit.title,
                "message": "",
                "date": _date(commit),
                "authors": [author],
            }
            for commit in visit.commit(repository).history()
        ]
    )


def list_refs(visit: Visit) -> Reply:
    repository = visit.repository()
    return json_reply(
        {
            "branches": _references(repository.branches, "refs/heads/"),
            "tags": _references(repository.tags, "refs/tags/"),
            "converts": [],
            "pullRequests": _references(repository.pull_requests, ""),
        }
    )


def _references(commits: Mapping[str, Commit], prefix: str) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": prefix + name, "targetCommit": commit.id}
        for name, commit in sorted(commits.items())
    ]


def create_branch(visit: Visit) -> Reply:
    repository = visit.writable_repository()
    start = visit.request.json().get("startingPoint", "main")
    commit = repository.find(start)
    if commit is None:
        raise RefusalError(404, f"Invalid rev id: {start}", "RevisionNotFound")
    return _create_reference(repository.branches, visit.names["ref"], commit)


def create_tag(visit: Visit) -> Reply:
    repository = visit.writable_repository()
    commit = visit.commit(repository)
    return _create_reference(repository.tags, visit.request.json()["tag"], commit)


def _create_reference(commits: dict[str, Commit], name: str, commit: Commit) -> Reply:
    if name in commits:
        raise RefusalError(409, f"Reference already exists: {name}")
    commits[name] = commit
    return json_reply({})


def delete_branch(visit: Visit) -> Reply:
    return _delete_reference(visit.writable_repository().branches, visit.names["ref"])


def delete_tag(visit: Visit) -> Reply:
    return _delete_reference(visit.writable_repository().tags, visit.names["ref"])


def _delete_reference(commits: dict[str, Commit], name: str) -> Reply:
    if commits.pop(name, None) is None:
        raise RefusalError(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return json_reply({})
