"""Finds the cause of a failed request to the Hub in the chain of exceptions and the settings.

The Hub's client does not translate exceptions of the libraries under it: an ImportError for a
proxy, a FileNotFoundError for a certificate, a protocol error for a token.
"""

import os
import ssl
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, get_token

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_TRANSPORTS = ("httpx", "httpcore", "h11")
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


def explain(error: BaseException) -> str | None:
    """Returns the cause of a failed request and the remedy, or None if the cause is unknown.

    The text continues "me/clip cannot be fetched: ", and shows neither tokens nor passwords.
    """
    links = list(_chain(error))
    return next((text for look in _LOOKS if (text := look(links)) is not None), None)


def has_illegal_token(error: BaseException) -> bool:
    """Returns whether a request was not sent because the token is not a legal header value."""
    return any(
        isinstance(link, UnicodeEncodeError) or "Illegal header value" in str(link)
        for link in _chain(error)
    )


def token_note() -> str:
    """Returns a sentence about a token in the environment that the client changes or ignores."""
    name = next((name for name in TOKEN_VARIABLES if name in os.environ), None)
    value = os.environ[name] if name else "none"
    if not value.strip():
        return f" {name} is set but empty, so no token was sent." if get_token() is None else ""
    if value.splitlines() != [value]:
        return f" {name} holds a line break, which was removed: set it to only the token."
    return ""


def is_of_connection(error: BaseException) -> bool:
    """Returns whether an error comes from the operating system or from the HTTP library."""
    return any(
        isinstance(link, OSError) or type(link).__module__.startswith(_TRANSPORTS)
        for link in _chain(error)
    )


def peer(error: BaseException) -> str:
    """Returns the scheme and host of a failed request."""
    for link in _chain(error):
        # httpx raises RuntimeError for an exception that has no request.
        request: Any = getattr(link, "_request", None)
        if request is not None and request.url.host:
            return f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
    return _endpoint()


def reason(error: BaseException) -> str:
    """Returns the message of the operating system, else the name of the exception."""
    for link in _chain(error):
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
    return type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _malformed_endpoint(links: list[BaseException]) -> str | None:
    if not any(type(link).__name__ in _BAD_ADDRESSES for link in links):
        return None
    try:
        parts = urlsplit(constants.ENDPOINT)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname)
        is_address = is_address and parts.port != 0
    except ValueError:  # the port is not a number
        is_address = False
    if is_address:
        return None
    return (
        f"HF_ENDPOINT is {_endpoint()!r}, which is not a URL. Set it to a URL with its scheme, "
        "such as https://huggingface.co, or unset it."
    )


def _socks_proxy(links: list[BaseException]) -> str | None:
    if not any(isinstance(link, ImportError) and "socksio" in str(link) for link in links):
        return None
    names = _proxy_variables(lambda address: address.startswith("socks"))
    return (
        f"{names} names a SOCKS proxy, which needs the package socksio. Install it with "
        "`pip install socksio`, or unset the variable."
    )


def _malformed_proxy(links: list[BaseException]) -> str | None:
    if not any(type(link).__name__ in _BAD_ADDRESSES or "proxy URL" in str(link) for link in links):
        return None
    names = _proxy_variables(lambda address: not _is_proxy(address))
    if not names:
        return None
    return f"{names} is not the URL of a proxy. Set it to a URL such as http://proxy:3128."


def _refusing_proxy(links: list[BaseException]) -> str | None:
    answer = next((str(link) for link in links if type(link).__name__ == "ProxyError"), None)
    if answer is None:
        return None
    return (
        f"the proxy in {_proxy_variables()} refused the request: {answer}. Check its URL and "
        "password."
    )


def _missing_certificates(links: list[BaseException]) -> str | None:
    path = os.environ.get("SSL_CERT_FILE")
    if not path or not any(isinstance(link, OSError) and not link.filename for link in links):
        return None
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        found = "which holds no certificate in PEM format"
    except OSError as error:
        found = f"which cannot be read ({error.strerror})"
    else:
        return None
    return f"SSL_CERT_FILE names {path}, {found}. Correct the path, or unset the variable."


def _untrusted_certificate(links: list[BaseException]) -> str | None:
    for link in links:
        if isinstance(link, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {peer(links[0])} is not trusted ({link.verify_message}). If "
                "your organization signs its own certificates, set SSL_CERT_FILE to a file with "
                "its root certificate."
            )
    return None


def _no_tls(links: list[BaseException]) -> str | None:
    for link in links:
        if isinstance(link, ssl.SSLError) and not isinstance(link, ssl.SSLCertVerificationError):
            return (
                f"{peer(links[0])} does not answer with valid TLS ({link.reason}). If it serves "
                "plain HTTP, its URL begins with http://. Check HF_ENDPOINT and the proxy."
            )
    return None


_BAD_ADDRESSES = frozenset({"UnsupportedProtocol", "InvalidURL"})
_LOOKS: tuple[Callable[[list[BaseException]], str | None], ...] = (
    _socks_proxy,
    _malformed_proxy,
    _malformed_endpoint,
    _refusing_proxy,
    _missing_certificates,
    _untrusted_certificate,
    _no_tls,
)


def _proxy_variables(is_meant: Callable[[str], bool] = bool) -> str:
    """Returns the names of proxy variables with a matching value. Values may hold passwords."""
    proxies = getproxies().items()
    names = [f"{key.upper()}_PROXY" for key, value in proxies if key != "no" and is_meant(value)]
    return " and ".join(sorted(names))


def proxy_note() -> str:
    """Returns a clause with the proxy variables in use, or ""."""
    names = _proxy_variables()
    return f" and the proxy in {names}" if names else ""


def _is_proxy(address: str) -> bool:
    try:
        # Like httpx, use http for an address without a scheme.
        parts = urlsplit(address if "://" in address else f"http://{address}")
        return parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _endpoint() -> str:
    """Returns HF_ENDPOINT without a password."""
    scheme, mark, rest = constants.ENDPOINT.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"
