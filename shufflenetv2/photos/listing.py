"""The photos in folders, and what was left out of them: nothing is passed over without a word."""

import codecs
import glob
import hashlib
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from ..errors import DatasetError
from ..files import expanded, shown
from .formats import recognise, remedy, suffixes
from .url import is_url

MAX_NAME = 1 << 20  # bytes of an entry of a list

Found = Path | str  # a file, or an address
Told = Callable[[str], object]  # is given a line for each folder of which something was left out


class LeftOut:
    """What a folder holds and is not read; as text, one line."""

    def __init__(self) -> None:
        self.suffixes: Counter[str] = Counter()
        self.others: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self.suffixes or self.others)

    def __str__(self) -> str:
        counts = self.others.copy()
        if self.suffixes:
            common = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))  # not as the disk has them
            kinds = [shown(kind)[:20] for kind, _ in common[:5]]
            kinds = [f"{kind}: {remedy(kind)}" if remedy(kind) else kind for kind in kinds]
            listed = ", ".join(kinds + ["..."] * (len(self.suffixes) > 5))
            counts[f"file that is no photo by name ({listed})|files that are no photos by name ({listed})"] = (
                self.suffixes.total()
            )
        return ", ".join(f"{count} {kind.split('|')[count > 1]}" for kind, count in counts.items())


HIDDEN = "hidden|hidden"
BROKEN = "broken link|broken links"
AGAIN = "link to a folder read already|links to folders read already"
CLOSED = "folder that cannot be listed|folders that cannot be listed"
UNLABELLED = "file in no class's folder|files in no class's folder"


def is_hidden(name: str) -> bool:
    """Beside names that begin with a dot, Synology's folders of thumbnails, one in each folder."""
    return name.startswith(".") or name == "@eaDir"


def find_photos(sources: Iterable[str | os.PathLike[str]], told: Told = lambda line: None) -> Iterator[Found]:
    """The photos of ``sources``, found as they are asked for: none is listed before the first is given.

    Args:
        sources: files, as given; folders, of which what is a photo by its suffix is read, recursively and sorted,
            without hidden files, and links to folders last; patterns such as ``photos/*.jpg``, sorted within a folder;
            addresses. ``~`` is the home directory, and what exists by a name is no pattern.
        told: is given a line for each folder of which something was left out, once that is read.

    Raises:
        DatasetError: at once, if a folder among the sources holds no photo or cannot be listed, or nothing fits a
            pattern.
    """
    return chain.from_iterable([_primed(_photos(each, told)) for each in sources])


def find_listed(sources: Iterable[str], told: Told = lambda line: None) -> Iterator[Found]:
    """The same of a long list, read as it goes: a folder without photos is given itself, as a photo that is none."""
    for source in sources:
        try:
            yield from _photos(source, told)
        except DatasetError:
            yield Path(expanded(source))
        except (OSError, ValueError):  # too long a name, a NUL in it, a folder that may not be entered
            yield Path(source)


def read_list(name: str, separator: bytes) -> Iterator[str]:
    """The sources in the file ``name``, or in standard input if that is ``-``; empty ones are left out.

    Raises:
        DatasetError: at once, if it cannot be opened or is no list of names; later, if one of them is too long.
    """
    try:
        file = sys.stdin.buffer if name == "-" else open(expanded(name), "rb")  # noqa: SIM115 -- _split closes it
    except OSError as error:
        raise DatasetError(f"{shown(name)} cannot be read as a list of photos: {error.strerror}") from error
    entries = _split(file, name, separator)
    next(entries)  # from here on, also where nobody asks for more
    return entries


def list_sha256(name: str | None) -> str | None:
    """Of the list in the file ``name``; ``None`` for what can be read but once, as standard input."""
    if name in (None, "-") or not os.path.isfile(expanded(str(name))):
        return None
    with open(expanded(str(name)), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split(file: BinaryIO, name: str, separator: bytes) -> Iterator[str]:
    rest = b""
    with file:
        begin = file.read1(1 << 16)  # type: ignore[attr-defined]  # what there is: a pipe may be slow
        if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DatasetError(f"{shown(name)} is text in UTF-16, as PowerShell writes it; save it as UTF-8")
        if recognise(begin):
            raise DatasetError(f"{shown(name)} is a photo, not a list of photos; leave --files-from out")
        yield ""
        part = begin.removeprefix(codecs.BOM_UTF8)
        while part:
            *whole, rest = (rest + part).split(separator)
            if len(rest) > MAX_NAME:
                raise DatasetError(f"{shown(name)} is no list of photos: it has no end of an entry in {MAX_NAME} bytes")
            yield from (os.fsdecode(entry) for each in whole if (entry := _ended(each, separator)))
            part = file.read1(1 << 16)  # type: ignore[attr-defined]
    if entry := _ended(rest, separator):
        yield os.fsdecode(entry)


def _ended(entry: bytes, separator: bytes) -> bytes:
    return entry.removesuffix(b"\r") if separator == b"\n" else entry


def _primed(photos: Iterator[Found]) -> Iterator[Found]:
    """The same photos; the first is looked for now, so that what is wrong is told before anything long begins."""
    return chain([next(photos)], photos)


def _photos(source: str | os.PathLike[str], told: Told) -> Iterator[Found]:
    """At least one photo.

    Raises:
        DatasetError: there is none.
    """
    if isinstance(source, str) and is_url(source):
        yield source
        return
    path = Path(expanded(source))
    if path.is_dir():
        left_out = LeftOut()
        yield from _photos_in(path, left_out)
        tell(path, left_out, told)
    elif glob.has_magic(str(path)) and not os.path.lexists(path):
        all_below = "**" in path.parts and path.name in ("*", "**")  # then what is in a folder that fits, fits as well
        matches = (each for each in _matching(str(path)) if not (all_below and os.path.isdir(each)))
        if (first := next(matches, None)) is None:
            raise DatasetError(f"nothing fits the pattern {shown(path)}, and no file has that name")
        yield from find_listed(chain([first], matches), told)
    else:
        yield path


def _matching(pattern: str) -> Iterator[str]:
    head, tail = os.path.split(pattern)
    folders = sorted(glob.iglob(head, recursive=True)) if glob.has_magic(head) else [head]
    for folder in folders:
        yield from sorted(glob.iglob(os.path.join(glob.escape(folder), tail), recursive=True))


def tell(folder: Path, left_out: LeftOut, told: Told) -> None:
    if left_out:
        told(f"left out of {shown(folder)}: {left_out}")


def list_photos(folder: Path, left_out: LeftOut) -> list[Path]:
    """The photos of one folder, sorted; what else is in it is counted in ``left_out``.

    Raises:
        DatasetError: it holds no photo, or cannot be listed.
    """
    return sorted(_photos_in(folder, left_out))


def _photos_in(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise DatasetError(f"the folder {shown(folder)} cannot be listed: {error.strerror}") from error
    photos = _walk(folder, left_out)
    first = next(photos, None)
    if first is None:
        beside = f"; in it: {left_out}" if left_out else ""
        raise DatasetError(f"the folder {shown(folder)} holds no photo ({', '.join(suffixes())}){beside}")
    yield first
    yield from photos


def _walk(top: Path, left_out: LeftOut) -> Iterator[Path]:
    """Links to folders are followed, each folder is read once: those that are no links first."""
    seen: set[tuple[int, int]] = set()
    links = deque([str(top)])
    while links:
        folder = links.popleft()
        stack = [(folder, _entries(folder, seen, links, left_out))]
        while stack:
            folder, entries = stack[-1]
            if not entries:
                stack.pop()
                continue
            name, is_folder = entries.pop()
            path = os.path.join(folder, name)
            if is_folder:
                stack.append((path, _entries(path, seen, links, left_out)))
            else:
                yield Path(path)


def _entries(folder: str, seen: set[tuple[int, int]], links: deque[str], left_out: LeftOut) -> list[tuple[str, bool]]:
    """The names of its photos and folders (then true), the first one last; ``links`` gets its links to folders."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            left_out.others[AGAIN] += 1
            return []
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        left_out.others[CLOSED] += 1
        return []
    wanted = suffixes()
    names = []
    for entry in entries:
        if is_hidden(entry.name):
            left_out.others[HIDDEN] += 1
        elif entry.is_symlink() and not os.path.exists(entry.path):
            left_out.others[BROKEN] += 1
        elif entry.is_dir():
            if entry.is_symlink():
                links.append(entry.path)
            else:
                names.append((entry.name, True))
        elif entry.name.lower().endswith(wanted):
            names.append((entry.name, False))
        else:
            left_out.suffixes[os.path.splitext(entry.name)[1].lower() or "without a suffix"] += 1
    return names[::-1]
