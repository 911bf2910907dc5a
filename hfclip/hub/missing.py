"""The errors that say that a model is not found, on the Hub or in its cache."""

from hfclip.errors import NetworkError, RepositoryError


class MissingRepositoryError(RepositoryError):
    """Raised if the Hub has no visible repository of a name, which may be misspelt."""


class NotCachedError(NetworkError):
    """Raised if a name is not in the cache and no request is made; it may be misspelt."""
