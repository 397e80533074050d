"""The one door to the bytes of weights: decide, read, verify, fetch, write.

The cache is torch.hub's own checkpoint directory under torchvision's file names, so either finds what the other
fetched. Whatever is loaded is verified on this very load. No lock is taken: every writer has a temporary file of its
own, and the last ``os.replace`` wins with the same bytes.
"""

import errno
import os
import shutil
import time
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from pathlib import Path

import torch.hub

from ..errors import CacheError, DownloadError, IntegrityError
from ..files import NotRegularError, is_device, read_regular, sweep, whole_file
from ..package import BUNDLED, logger, offline, require
from .manifest import Entry

REPLACE_TRIES = 5  # on Windows the target cannot be replaced while another process reads it
REPLACE_SECONDS = 0.05  # before the second try; doubled each time

Flaw = FileNotFoundError | IntegrityError | CacheError  # absent, not the right file, not readable


class Action(Enum):
    """What is done about a weights file."""

    USE = auto()
    FETCH = auto()
    REPLACE = auto()  # fetch it, and say why
    REFUSE = auto()


def decide(flaw: Flaw | None, *, bundled: bool, offline: bool) -> Action:
    """What to do about a file in which ``flaw`` was found.

    Args:
        flaw: ``None`` if the file is there and verified.
        bundled: whether the package should hold it, and no mirror does.
        offline: whether the network is forbidden.
    """
    if flaw is None:
        return Action.USE
    if bundled or offline:
        return Action.REFUSE
    return Action.FETCH if isinstance(flaw, FileNotFoundError) else Action.REPLACE


def local_path(entry: Entry) -> Path:
    """Where the entry's file is, or would be: in the package, or ``<torch.hub.get_dir()>/checkpoints/<file>``."""
    return BUNDLED / entry.path if entry.path else Path(torch.hub.get_dir()) / "checkpoints" / entry.file


def fetch(entry: Entry, progress: bool = True) -> bytes:
    """The verified bytes of a weights file.

    They come from the package (bundled entries), else from the cache, else from the network; then they are cached. A
    cache that cannot be written costs one logged warning, not the load.

    Args:
        entry: which file.
        progress: show a bar on stderr while fetching.

    Raises:
        DownloadError: not in the cache, and no mirror delivered it (or ``SHUFFLENETV2_OFFLINE`` is set).
        IntegrityError: what the cache or the mirrors hold is not the file that the manifest lists.
        CacheError: the file cannot be read, and fetching it anew is forbidden or impossible.
    """
    data, trouble = _obtain(entry, progress)
    if trouble:
        logger.warning("%s. The verified weights were loaded from memory and will be fetched again next time.", trouble)
    return data


def fetch_to_cache(entry: Entry, progress: bool = True) -> Path:
    """Where the verified file of ``entry`` is, after fetching it if need be; errors as in ``fetch``.

    Raises:
        CacheError: also if the cache cannot be written.
    """
    trouble = _obtain(entry, progress)[1]
    if trouble:
        raise trouble
    sweep(local_path(entry).parent)  # a hit has written nothing, and has swept nothing either
    return local_path(entry)


def verify(entry: Entry) -> Path:
    """Where the file of ``entry`` is, after checking its size and sha256; nothing is fetched.

    Raises:
        CacheError: it is not there, or cannot be read.
        IntegrityError: it is not the file the manifest lists.
    """
    path = local_path(entry)
    try:
        read_verified(path, entry)
    except FileNotFoundError as error:
        raise CacheError(f"{path} is missing; `shufflenetv2 weights fetch {entry}` fetches it") from error
    return path


def _obtain(entry: Entry, progress: bool) -> tuple[bytes, CacheError | None]:
    """The verified bytes, and what kept them from being cached, if anything."""
    path = local_path(entry)
    data, flaw = b"", None
    try:
        data = read_verified(path, entry)
    except (FileNotFoundError, IntegrityError, CacheError) as error:
        flaw = error
    match decide(flaw, bundled=entry.path is not None, offline=offline()):
        case Action.USE:
            return data, None
        case Action.REFUSE:
            assert flaw is not None
            raise _refusal(flaw, entry, path) from flaw
        case Action.REPLACE:
            logger.warning("%s; fetching it anew", flaw)
        case Action.FETCH:
            pass

    require("fetching weights", "requests>=2.32")  # what it needs; pyproject.toml says which is secure
    from .download import download

    try:
        data = download(entry, progress)
    except (DownloadError, IntegrityError) as error:
        told = f"{str(error).rstrip()}\n{by_hand(entry)}"
        told += ", or set SHUFFLENETV2_MIRROR to the address of a directory that holds it."
        if isinstance(flaw, IntegrityError | CacheError):
            raise type(flaw)(f"{flaw}, and it could not be replaced. {told}") from error
        raise type(error)(told) from error
    try:
        write_verified(path, data, entry)
    except CacheError as trouble:
        return data, trouble
    return data, None


def _refusal(flaw: Flaw, entry: Entry, path: Path) -> Exception:
    absent = isinstance(flaw, FileNotFoundError)
    if entry.path:
        if absent:
            return CacheError(f"{path} is missing, although it ships with the package; install it again")
        return type(flaw)(f"{flaw}. It ships with the package; install it again")
    if absent:
        return DownloadError(f"{path} is missing, and SHUFFLENETV2_OFFLINE forbids fetching it. {by_hand(entry)}.")
    return type(flaw)(f"{flaw}. SHUFFLENETV2_OFFLINE forbids fetching it anew. {by_hand(entry)}.")


def by_hand(entry: Entry) -> str:
    """What to do on a machine that cannot fetch the file."""
    return (
        f"To go on without the network, copy {entry.file} ({entry.size} bytes, sha256 {entry.sha256}) "
        f"into {local_path(entry).parent}"
    )


def read_verified(path: Path, entry: Entry) -> bytes:
    """The file's bytes, read once and verified; nothing is written or locked.

    Raises:
        FileNotFoundError: there is no such file.
        IntegrityError: it is no regular file, or not the one the manifest lists.
        CacheError: it cannot be read.
    """
    try:
        data = read_regular(path, entry.size)
    except NotRegularError as error:
        raise IntegrityError(f"{path} {error}: the weights {entry}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, "no such file in the weights cache", str(path)) from error
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror or error}") from error
    problem = entry.difference(data)
    if problem:
        raise IntegrityError(f"{path} is not the file of {entry}: {problem}")
    return data


def write_verified(path: Path, data: bytes, entry: Entry) -> None:
    """Put verified bytes under ``path``, whole or not at all.

    Raises:
        CacheError: with the bytes needed and free, and the variable to set. Nothing is left behind.
    """
    directory = path.parent
    try:
        if directory.parts[:1] and directory.parts[0].startswith("~"):
            raise FileNotFoundError(errno.ENOENT, "no home directory is known")
        directory.mkdir(parents=True, exist_ok=True)
        sweep(directory)
        if is_device(path):
            path.unlink()  # nobody's data, and nothing else is replaced by whole_file
        with whole_file(path, replace=partial(_replace, entry=entry)) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise CacheError(
            f"{path} could not be written: {error.strerror or error} ({len(data)} bytes needed, {_free(directory)} "
            "free). Set TORCH_HOME to a directory that is writable and has room"
        ) from error


def _replace(temporary: Path, path: Path, entry: Entry) -> None:
    for attempt in range(REPLACE_TRIES):
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if attempt == REPLACE_TRIES - 1:
                raise
        with suppress(FileNotFoundError, IntegrityError, CacheError):  # whoever holds it may have written it too
            read_verified(path, entry)
            return
        time.sleep(REPLACE_SECONDS * 2**attempt)


def _free(directory: Path) -> str:
    for place in (directory, *directory.parents):
        with suppress(OSError):  # it need not exist
            return str(shutil.disk_usage(place).free)
    return "an unknown number"
