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


def add_device(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--device", help="for example cpu or cuda:0 (default: CUDA if there is one)")


def add_runtime(parser: argparse._ActionsContainer) -> None:
    """``--runtime`` and ``--precision``, for ``computing.network_of``."""
    parser.add_argument(
        "--runtime",
        choices=("torch", *SERVED),
        default="torch",
        help="in what the network computes; but for torch, a file for it is written into the cache the first time "
        "(default: %(default)s, an exported file's own)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", *HALF),
        default="float32",
        help="in what the network computes; half the bytes, and on processors with instructions for it and on GPUs "
        "faster (default: %(default)s, an exported file's own)",
    )


def add_batch_size(parser: argparse._ActionsContainer, default: int = BATCH_SIZE) -> None:
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=default,
        metavar="N",
        help="photos computed at once (default: %(default)s)",
    )


def add_plain(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--plain", action="store_true", help="the network as it was trained, not its deploy form")


def add_json(parser: argparse._ActionsContainer, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what}")


def bounded(kind: Callable[[str], Number], text: str, low: float, high: float, wanted: str) -> Number:
    """``text`` as an ``int`` or a ``float`` from ``low`` to ``high``, or the error that argparse shows."""
    with suppress(ValueError):
        value = kind(text)
        if low <= value <= high:
            return value
    raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r:.80}")


def positive(text: str) -> int:
    return bounded(int, text, 1, 10**6, "a whole number from 1 to 1000000")


def seed(text: str) -> int:
    return bounded(int, text, 0, 2**63 - 1, "a whole number from 0 to 2**63 - 1")


def workers(text: str) -> int:
    return bounded(int, text, 0, 256, "a whole number from 0 to 256")


def port(text: str) -> int:
    return bounded(int, text, 1, 65535, "a whole number from 1 to 65535")


def size(text: str) -> int:
    return bounded(int, text, 32, MAX_SIDE, f"a whole number of pixels from 32 to {MAX_SIDE}")


def sized(text: str) -> tuple[int, float | None]:
    """``SIZE`` or ``SIZE:SHARE``."""
    pixels, colon, share = text.partition(":")
    return size(pixels), part(share) if colon else None


def fraction(text: str) -> float:
    return bounded(float, text, 0, 1 - 1e-9, "at least 0 and below 1")


def part(text: str) -> float:
    return bounded(float, text, 1e-9, 1, "above 0 and at most 1")


def probability(text: str) -> float:
    return bounded(float, text, 0, 1, "from 0 to 1")


def above_zero(text: str) -> float:
    return bounded(float, text, 1e-12, 1e6, "above 0 and at most 1000000")


def from_zero(text: str) -> float:
    return bounded(float, text, 0, 1e6, "at least 0")


def add_workers(
    parser: argparse._ActionsContainer,
    what: str = "threads",
    kind: Callable[[str], int] = positive,
    default: int | None = None,
    more: str = "",
) -> None:
    """``--workers``: ``what`` decodes photos while the model computes; ``more`` is said of the number."""
    shown = "one a core" if default is None else default
    help_text = f"{what} that decode photos, for each process that computes{more} (default: {shown})"
    parser.add_argument("--workers", type=kind, default=default, metavar="N", help=help_text)


def pixels(text: str) -> int:
    return int(bounded(float, text, 1, 1e12, "a number of pixels from 1 to 1e12"))


def add_decoding(parser: argparse.ArgumentParser) -> None:
    fast = parser.add_mutually_exclusive_group()
    fast.add_argument(
        "--fast-decode", action="store_true", help="let large JPEG photos be decoded smaller: faster, not bit-equal"
    )
    fast.add_argument(
        "--gpu-decode",
        action="store_const",
        dest="fast_decode",
        const="cuda",
        help="let the graphics card decode JPEG photos: faster, not bit-equal",
    )


def add_max_pixels(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--max-pixels",
        type=pixels,
        metavar="N",
        help=f"the most pixels of a photo, as 200e6 (default: SHUFFLENETV2_MAX_PIXELS, or {MAX_PIXELS:.0e}; of WEBP, "
        f"TIFF, AVIF and HEIC {MAX_PIXELS_COPIED:.0e})",
    )
