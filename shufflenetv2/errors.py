"""The exceptions a caller can act on.

Each also derives from the built-in exception it resembles: whoever gets the package through ``torch.hub`` cannot
import these classes, but can still write ``except OSError``. Each takes one message, so that it survives the pickling
that carries it out of a DataLoader worker.
"""


class ShuffleNetError(Exception):
    """Base of every error this package raises on purpose.

    Example:
        >>> try:
        ...     shufflenetv2.classifier(weights="cifar10")("README.md")
        ... except shufflenetv2.ShuffleNetError as error:
        ...     print(type(error).__name__)
        ImageError
    """


class DownloadError(ShuffleNetError, OSError):
    """No mirror delivered the weights; the message lists every attempt and its cause."""


class CacheError(ShuffleNetError, OSError):
    """A weights file in the cache or the package could not be read or written."""


class IntegrityError(ShuffleNetError, RuntimeError):
    """Bytes arrived, but they are not the ones the manifest lists (size or sha256 differ)."""


class CheckpointError(ShuffleNetError, RuntimeError):
    """A weights file is none, or does not fit the model; the message says what is wrong. No model was changed."""


class ManifestError(ShuffleNetError, ValueError):
    """``weights.json``, or what a file says of itself in the same terms, is malformed; the message names the field."""


class ImageError(ShuffleNetError, ValueError):
    """One photo cannot be used; the message names it and the reason."""


class DeviceError(ShuffleNetError, RuntimeError):
    """There is no such device, or it cannot be used on this machine."""


class DatasetError(ShuffleNetError, ValueError):
    """A folder of photos cannot be used as one: missing, empty, of unknown classes; the message names it."""


class TableError(ShuffleNetError, OSError):
    """A table of many photos cannot be written or gone on with; what it held before is intact, and so are its rows."""


class ExportError(ShuffleNetError, RuntimeError):
    """A file could not be written, or does not compute what the model does; nothing is left behind."""


class TrainingError(ShuffleNetError, RuntimeError):
    """Training cannot go on; the message says what to change. Checkpoints written before are intact."""
