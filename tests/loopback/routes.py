"""The handler of each URL, on the Hub and on its CDN."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from . import browsing, transfer
from .messages import RefusalError, Reply, ServerName
from .visit import Handler, Visit

PLACEHOLDERS = {
    "{A}": r"/api/(?:models/|(?=datasets/|spaces/))(?P<repo>(?:datasets/|spaces/)?[^/]+/[^/]+)",
    "{repo}": r"(?P<repo>(?:datasets/|spaces/)?[^/]+/[^/]+)",
    "{rev}": r"(?P<rev>[^/]+)",
    "{ref}": r"(?P<ref>[^/]+)",
    "{path}": r"(?P<path>.+)",
    "{sha256}": r"(?P<sha256>[0-9a-f]{64})",
}


@dataclass(frozen=True)
class Route:
    """A method, a URL pattern and its handler."""

    method: str
    form: re.Pattern[str]
    handler: Handler


def route(method: str, template: str, handler: Handler) -> Route:
    form = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for name, pattern in PLACEHOLDERS.items():
        form = form.replace(name, pattern)
    return Route(method, re.compile(form), handler)


HUB_ROUTES = (
    route("GET", "/api/whoami-v2", browsing.whoami),
    route("GET", "/api/agent-harnesses", browsing.agent_harnesses),
    route("POST", "/api/validate-yaml", browsing.validate_yaml),
    route("POST", "/api/repos/create", browsing.create_repository),
    route("GET", "{A}", browsing.model_info),
    route("GET", "{A}/revision/{rev}", browsing.model_info),
    route("GET", "{A}/tree/{rev}", browsing.list_tree),
    route("GET", "{A}/tree/{rev}/{path}", browsing.list_tree),
    route("POST", "{A}/paths-info/{rev}", browsing.paths_info),
    route("GET", "{A}/commits/{rev}", browsing.list_commits),
    route("GET", "{A}/refs", browsing.list_refs),
    route("POST", "{A}/branch/{ref}", browsing.create_branch),
    route("DELETE", "{A}/branch/{ref}", browsing.delete_branch),
    route("POST", "{A}/tag/{rev}", browsing.create_tag),
    route("DELETE", "{A}/tag/{ref}", browsing.delete_tag),
    route("POST", "{A}/preupload/{rev}", transfer.preupload),
    route("POST", "{A}/commit/{rev}", transfer.create_commit),
    route("POST", "/{repo}.git/info/lfs/objects/batch", transfer.lfs_batch),
    route("GET", "{A}/xet-read-token/{rev}", transfer.xet_read_token),
    route("GET", "/{repo}/resolve/{rev}/{path}", transfer.resolve),
    route("GET", "/api/resolve-cache/models/{repo}/{rev}/{path}", transfer.resolve_cache),
    route("GET", "/api/resolve-cache/{repo}/{rev}/{path}", transfer.resolve_cache),
)

CDN_ROUTES = (
    route("GET", "/_lfs/{sha256}", transfer.lfs_object),
    route("PUT", "/_lfs/{sha256}", transfer.receive_lfs_object),
)


ROUTES: dict[ServerName, tuple[Route, ...]] = {"hub": HUB_ROUTES, "cdn": CDN_ROUTES}


def find(server: ServerName, method: str, path: str) -> tuple[Handler, dict[str, str]]:
    """Returns the handler of a URL and the names in the URL. Other URLs get a 404."""
    wanted = "GET" if method == "HEAD" else method
    for candidate in ROUTES[server]:
        found = candidate.form.fullmatch(path) if candidate.method == wanted else None
        if found:
            return candidate.handler, {
                key: unquote(name) for key, name in found.groupdict().items()
            }
    return _nothing_here, {}


def _nothing_here(visit: Visit) -> Reply:
    raise RefusalError(404, f"No {visit.request.method} {visit.request.path} in this Hub")


def _check_token(visit: Visit) -> None:
    """Checks the token, even if the answer does not need one, as the Hub does."""
    _ = visit.account


def _refuse_token(visit: Visit) -> None:
    """Refuses a token on the CDN, as object stores do for a signed URL."""
    if visit.request.headers.get("authorization"):
        raise RefusalError(400, "Only one auth mechanism allowed")


CHECKS: dict[ServerName, Callable[[Visit], None]] = {"hub": _check_token, "cdn": _refuse_token}


def serve(server: ServerName, visit: Visit, handler: Handler) -> Reply:
    try:
        CHECKS[server](visit)
        return handler(visit)
    except RefusalError as refusal:
        return refusal.reply()
