"""What commands share: options with one spelling, help and default, and values that say what they want.

Commands import what needs torch or Pillow only once they run, so that `--help` need not wait for it.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..description import BATCH_SIZE, MAX_SIDE
from ..files import expanded, read_regular, shown
from ..network.formats.table import HALF, SERVED
from ..package import guess
from ..photos.formats import MAX_PIXELS, MAX_PIXELS_COPIED
from ..weights.manifest import DEFAULT_ARCH

if TYPE_CHECKING:
    from ..builder import Weights

MAX_LABELS = 10_000_000  # bytes of a file of labels

Number = TypeVar("Number", int, float)


def add_weights(
    parser: argparse._ActionsContainer, more: str = "", default: str | None = "default", labelled: bool = True
) -> None:
    """``--weights``, ``--arch`` and ``--categories``, for ``chosen_weights``; ``more`` is said of the first."""
    parser.add_argument(
        "--weights",
        default=default,
        help=f"a name from `weights list`, or the path of a checkpoint or an exported file{more}"
        + (" (default: %(default)s)" if default else ""),
    )
    if labelled:
        parser.add_argument(
            "--categories", type=labels, metavar="FILE", help="the labels, one a line, for a checkpoint that has none"
        )
    text = f"such as {DEFAULT_ARCH}, x1_0 or 1.0 (default: the one the weights are for, or {DEFAULT_ARCH})"
    parser.add_argument("--arch", type=arch, help=text)


def say(line: str) -> None:
    """A line beside the results, on stderr."""
    print(f"shufflenetv2: {line}", file=sys.stderr)


def any_path(text: str) -> Path:
    """The path ``text``, its ``~`` too, which shells leave alone behind a ``=``."""
    return Path(expanded(text))


def arch(text: str) -> str:
    """The architecture that ``text`` names, in full or by its width alone."""
    from ..network.model import SPECS

    width = text.lower().rpartition("shufflenet_v2_")[2].strip("x").replace(".", "_")
    name = f"shufflenet_v2_x{width}"
    if name not in SPECS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(SPECS)}, got {text!r:.80}{guess(text, SPECS)}")
    return name


def labels(text: str) -> list[str]:
    """The lines of the file ``text``, in order."""
    try:
        lines = read_regular(expanded(text), MAX_LABELS).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise argparse.ArgumentTypeError(f"must be a file of labels, one a line; {shown(text)}: {reason}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


def chosen_weights(arguments: argparse.Namespace, **options: Any) -> "Weights":
    """What ``--weights``, ``--arch`` and ``--categories`` say, for ``build``."""
    from ..builder import resolve

    return resolve(arguments.arch, arguments.weights, categories=arguments.categories, **options)


def number(kind: Callable[[str], Number], low: float, high: float, wanted: str) -> Callable[[str], Number]:
    """What makes an ``int`` or a ``float`` from ``low`` to ``high`` of a text, or the error that argparse shows."""

    def read(text: str) -> Number:
        with suppress(ValueError, OverflowError):
            value = kind(text)
            if low <= value <= high:
                return value
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r:.80}")

    return read


def whole(low: int, high: int, of: str = "", to: str = "") -> Callable[[str], int]:
    return number(int, low, high, f"a whole number{of} from {low} to {to or high}")


positive = whole(1, 10**6)
seed = whole(0, 2**63 - 1, to="2**63 - 1")
workers = whole(0, 256)
port = whole(1, 65535)
size = whole(32, MAX_SIDE, " of pixels")
fraction = number(float, 0, 1 - 1e-9, "at least 0 and below 1")
part = number(float, 1e-9, 1, "above 0 and at most 1")
probability = number(float, 0, 1, "from 0 to 1")
above_zero = number(float, 1e-12, 1e6, "above 0 and at most 1000000")
from_zero = number(float, 0, 1e6, "at least 0")
pixels = number(lambda text: int(float(text)), 1, 1e12, "a number of pixels from 1 to 1e12")


def sized(text: str) -> tuple[int, float | None]:
    """``SIZE`` or ``SIZE:SHARE``."""
    side, colon, share = text.partition(":")
    return size(side), part(share) if colon else None


OPTIONS: dict[str, dict[str, Any]] = {
    "--device": {"help": "for example cpu or cuda:0 (default: CUDA if there is one)"},
    "--runtime": {
        "choices": ("torch", *SERVED),
        "default": "torch",
        "help": "in what the network computes; but for torch, a file for it is written into the cache the first time "
        "(default: %(default)s, an exported file's own)",
    },
    "--precision": {
        "choices": ("float32", *HALF),
        "default": "float32",
        "help": "in what the network computes; half the bytes, and on processors with instructions for it and on GPUs "
        "faster (default: %(default)s, an exported file's own)",
    },
    "--batch-size": {
        "type": positive,
        "default": BATCH_SIZE,
        "metavar": "N",
        "help": "photos computed at once (default: %(default)s)",
    },
    "--plain": {"action": "store_true", "help": "the network as it was trained, not its deploy form"},
    "--workers": {
        "type": positive,
        "metavar": "N",
        "help": "threads that decode photos, for each process that computes (default: one a core)",
    },
    "--max-pixels": {
        "type": pixels,
        "metavar": "N",
        "help": f"the most pixels of a photo, as 200e6 (default: SHUFFLENETV2_MAX_PIXELS, or {MAX_PIXELS / 1e6:g}e6; "
        f"of WEBP, TIFF, AVIF and HEIC {MAX_PIXELS_COPIED / 1e6:g}e6)",
    },
    "--json": {"action": "store_true"},
}


def add(parser: argparse._ActionsContainer, *names: str, **changed: Any) -> None:
    """The options ``names`` of ``OPTIONS``."""
    for name in names:
        parser.add_argument(name, **OPTIONS[name] | changed)
