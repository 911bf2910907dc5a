"""Every error that hfclip raises on purpose.

Each message says what was found, what was expected and what to do. All derive from
`HfclipError`; each also derives from the built-in error that code written for
OpenAI's `clip` would have caught.
"""


class HfclipError(Exception):
    """The root of the tree: `except HfclipError` catches whatever hfclip refuses."""


class ArgumentError(HfclipError, ValueError):
    """An argument has a value that the function does not accept."""


class ArgumentTypeError(HfclipError, TypeError):
    """An argument has a type that the function does not accept."""


class DeviceError(HfclipError, RuntimeError):
    """A device has a name that torch does not know, or is not available on this machine."""


class UnknownTokenError(HfclipError, KeyError):
    """A token id is not in the vocabulary."""

    __str__ = Exception.__str__  # KeyError would show the message in quotation marks


class ConfigError(HfclipError, ValueError):
    """A model configuration is malformed, contradicts itself or asks for too much memory."""


class ClipImportedError(HfclipError, ImportError):
    """Another `clip` is imported already, and names taken from it would stay its own."""


class ModelNotFoundError(HfclipError, RuntimeError):
    """A model name means nothing here: no release, no file, no folder."""


class CheckpointError(HfclipError, RuntimeError):
    """A weight file cannot be read: truncated, damaged, or of a kind that is not known."""


class UnsafeCheckpointError(CheckpointError):
    """A weight file asks for code to be run, and is refused before any of it is."""


class WeightsMismatchError(CheckpointError):
    """Weights are sound but do not fit the model: keys missing, left over, or of another shape."""


class TextTooLongError(HfclipError, RuntimeError):
    """A text has more tokens than the context of the model."""


class ImageError(HfclipError, ValueError):
    """An image cannot be found, opened or decoded."""


class PublishError(HfclipError, RuntimeError):
    """A model is not fit to be published, or would overwrite what is not its own."""


class ExportError(HfclipError, RuntimeError):
    """A model cannot be written in the layout that was asked for, here and now."""


class OptimizationError(HfclipError, RuntimeError):
    """A model was patched, or comes out less precise than stated, and is not made faster."""


class ShapeError(HfclipError, ValueError):
    """A tensor has another shape, type or device than is encoded."""


class LabelError(HfclipError, ValueError):
    """Labels or templates do not make a classifier."""


class HubError(HfclipError, RuntimeError):
    """The Hub or its cache on this machine did not give what was asked for."""


class RepositoryError(HubError):
    """A repository, revision or file is missing, closed to you, or of a kind that is not read."""


class NetworkError(HubError):
    """The Hub cannot be reached, is down, or asks to wait; and the cache has no copy."""


class CacheError(HubError):
    """The cache cannot be written: the disk is full, or the folder is read-only."""


class IntegrityError(HubError):
    """A file's bytes do not hash to what was published, and a fresh copy did not help."""
