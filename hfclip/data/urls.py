"""Reads the names of files: a path or a URL, its protocol, and what in it is secret.

A URL with a password or a token in it is refused, because keys, plans and errors show URLs.
"""

import re

from hfclip.errors import DataError

_LOCAL = frozenset(("file", "local"))
# Two characters at least: C: is a drive of Windows.
_protocol = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE).match
_password = re.compile(r"(?<=://)[^/@]*:[^/@]*@")
_secret = re.compile(
    r"(?<=[?&;#])([\w-]*(?:signature|credential|token|password|secret|api_?-?key)|sig)=[^&;#]*",
    re.IGNORECASE,
)
_any_url = re.compile(r"\w[\w+.-]*://\S+")


def protocol_of(name: str) -> str | None:
    """Returns the protocol of a URL in lower case, or None for a path."""
    found = _protocol(name)
    return found[1].lower() if found else None


def is_remote(name: str) -> bool:
    """Returns whether a name is a URL of a file that is not on this machine."""
    protocol = protocol_of(name)
    return protocol is not None and protocol not in _LOCAL


def asks_much(url: str) -> bool:
    """Returns whether the size of a file takes a request of its own, as servers list no folder."""
    return protocol_of(url) in ("http", "https")


def without_local_protocol(name: str) -> str:
    """Returns the path of a URL such as file:///photos/a.jpg, and anything else as it is."""
    return name.partition("://")[2] if protocol_of(name) in _LOCAL else name


def redacted(url: str) -> str:
    """Returns a URL with *** in place of a password and of tokens."""
    return _secret.sub(r"\1=***", _password.sub("***@", url))


def check_url(url: str) -> None:
    """Checks that a URL may be stored.

    Raises:
        DataError: It has a password or a token in it, or chains several protocols.
    """
    if redacted(url) != url:
        raise DataError(
            f"{redacted(url)} has a password or token in it, which would be stored with the "
            "embeddings. Give it in the environment or in fsspec's configuration instead."
        )
    if "::" in url:
        raise DataError(f"{url} chains protocols with ::, which is not supported.")


def without_urls(text: str) -> str:
    """Returns a text with URL in place of each URL, as a client's error may show a token in one."""
    return _any_url.sub("URL", text)
