"""Many more damaged photos than the tests try: each a picture or an ``ImageError``, no crash, no hang, no other error.

They are read in child processes, so that one that crashes or hangs is named and the others are tried all the same.
"""

import json
import multiprocessing
import platform
import resource
import sys
from collections import Counter
from datetime import date
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from support.photo_mutants import FORMATS, mutants, thumbnail

from shufflenetv2.description import STANDARD
from shufflenetv2.errors import ImageError
from shufflenetv2.package import CHECKOUT
from shufflenetv2.photos.transform import PhotoTransform

RESULT = CHECKOUT / "docs" / "photo-mutants.json"
SECONDS, BYTES = 30, 2**30  # what docs/faults.md promises of one photo


def outcome(transform: PhotoTransform, photo: bytes) -> str:
    try:
        images = transform(photo)
    except ImageError as error:
        return "MemoryError" if isinstance(error.__cause__, MemoryError) else "refused"
    except BaseException as error:
        return type(error).__name__
    right = images.shape == (1, 3, 224, 224) and bool(images.isfinite().all())
    return "pictures" if right else f"an input of shape {list(images.shape)}"


def read(format: str, seed: int, numbers: range, to: Connection) -> None:
    """Tell of each number what came of it."""
    torch.set_num_threads(1)
    transform = PhotoTransform(STANDARD)
    transform(thumbnail())
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number, mutant in mutants(format, seed, numbers):
        to.send((number, outcome(transform, mutant)))


def try_format(format: str, seed: int, count: int) -> tuple[Counter[str], dict[str, str]]:
    """How often each outcome came, and what was wrong by the mutant's name."""
    outcomes: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    following = 0
    while following < count:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.Process(target=read, args=(format, seed, range(following, count), sender), daemon=True)
        child.start()
        sender.close()
        what = "crash"
        try:
            while following < count:
                if not receiver.poll(SECONDS):
                    what = "hang"
                    break
                number, said = receiver.recv()
                following = number + 1
                outcomes[said] += 1
                if said not in ("pictures", "refused"):
                    wrong[f"{format} {number}"] = said
        except EOFError:
            pass
        child.kill()
        child.join()
        if following < count:
            outcomes[what] += 1
            wrong[f"{format} {following}"] = what
            following += 1
        print(f"{format}: {following} of {count}, {dict(outcomes)}", file=sys.stderr, flush=True)
    return outcomes, wrong


def photos(seed: int, count: int) -> None:
    """Try ``count`` mutants, as many of each format, and write what came of them for docs/faults.md."""
    outcomes: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    for index, format in enumerate(FORMATS):
        share = count // len(FORMATS) + (index < count % len(FORMATS))
        found, bad = try_format(format, seed, share)
        outcomes, wrong = outcomes + found, wrong | bad
    result = {
        "mutants": count,
        "seed": seed,
        "pictures": outcomes["pictures"],
        "refused": outcomes["refused"],
        "wrong": wrong,
        "date": str(date.today()),
        "with": f"Pillow {version('pillow')}, Python {platform.python_version()}, {platform.system()}",
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    print(json.dumps(result, indent=1))
