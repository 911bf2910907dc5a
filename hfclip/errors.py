"""The exceptions that hfclip raises.

Each message states what was found, what was expected and what to do. Every exception derives from
`HfclipError` and from a built-in exception, so code written for OpenAI's `clip` still catches it.
"""


class HfclipError(Exception):
    """The base class of all hfclip exceptions."""


class ArgumentError(HfclipError, ValueError):
    """An argument has a value that the function does not accept."""


class ArgumentTypeError(HfclipError, TypeError):
    """An argument has a type that the function does not accept."""


class DeviceError(HfclipError, RuntimeError):
    """A device name is unknown to torch, or the device is not available on this machine."""


class UnknownTokenError(HfclipError, KeyError):
    """A token id is not in the vocabulary."""

    __str__ = Exception.__str__  # KeyError would show the message in quotation marks


class ConfigError(HfclipError, ValueError):
    """A model configuration is malformed, inconsistent or needs too much memory."""


class ClipImportedError(HfclipError, ImportError):
    """Another module named `clip` is already imported, and code may still refer to it."""


class ModelNotFoundError(HfclipError, RuntimeError):
    """A model name matches no release, file or folder."""


class CheckpointError(HfclipError, RuntimeError):
    """A weight file cannot be read: it is truncated, damaged or in an unknown format."""


class UnsafeCheckpointError(CheckpointError):
    """A weight file would execute code if it was loaded. It is rejected before any code runs."""


class WeightsMismatchError(CheckpointError):
    """Weights do not fit the model: keys are missing or unexpected, or shapes differ."""


class NeedsTorchError(HfclipError, RuntimeError):
    """Something needs torch: a weight file that NumPy cannot read, or torch is not installed."""


class TextTooLongError(HfclipError, RuntimeError):
    """A text has more tokens than the model's context length."""


class ImageError(HfclipError, ValueError):
    """An image cannot be found, opened or decoded."""


class DataError(HfclipError, ValueError):
    """A data set is malformed or ambiguous, or too much of it cannot be used."""


class EngineError(HfclipError, RuntimeError):
    """A cluster cannot be reached, has no room or is gone, or its workers gave parts up."""


class PublishError(HfclipError, RuntimeError):
    """A model cannot be published as it is, or would overwrite files that hfclip did not write."""


class ExportError(HfclipError, RuntimeError):
    """A model cannot be written in the requested layout."""


class OptimizationError(HfclipError, RuntimeError):
    """A model cannot be optimized: it was patched, or the result would exceed the stated error."""


class TrainingError(HfclipError, RuntimeError):
    """A fine-tune cannot start or go on: its folder is not its own, or the loss is not a number."""


class ShapeError(HfclipError, ValueError):
    """A tensor has the wrong shape, dtype or device."""


class LabelError(HfclipError, ValueError):
    """Labels or templates are missing, empty, repeated or malformed."""


class HubError(HfclipError, RuntimeError):
    """A request to the Hub or to its local cache failed."""


class RepositoryError(HubError):
    """A repository, revision or file is missing, not accessible or of an unsupported kind."""


class NetworkError(HubError):
    """The Hub is unreachable, fails or limits the rate of requests, and the cache has no copy."""


class CacheError(HubError):
    """The cache cannot be written: the disk is full, or the folder is read-only."""


class IntegrityError(HubError):
    """A file's hash differs from the published one, and a new download did not help."""
