"""Kinds of numbers on the command line, for argparse's ``type``: each says what it wanted and what it got."""

import argparse
import math
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

SMALLEST_EXPORTED_SIZE = 33  # at 32 the last stage has one pixel, and torch.export takes that for a constant

Number = TypeVar("Number", int, float)


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
    return bounded(int, text, 32, 2048, "a whole number of pixels from 32 to 2048")


def exported_size(text: str) -> int:
    return bounded(int, text, SMALLEST_EXPORTED_SIZE, math.inf, f"a whole number of at least {SMALLEST_EXPORTED_SIZE}")


def sized(text: str) -> tuple[int, float]:
    """``SIZE`` or ``SIZE:SHARE``."""
    pixels, _, share = text.partition(":")
    return size(pixels), part(share or "1")


def fraction(text: str) -> float:
    return bounded(float, text, 0, 1 - 1e-9, "at least 0 and below 1")


def part(text: str) -> float:
    return bounded(float, text, 1e-9, 1, "above 0 and at most 1")


def above_zero(text: str) -> float:
    return bounded(float, text, 1e-12, 1e6, "above 0")


def from_zero(text: str) -> float:
    return bounded(float, text, 0, 1e6, "at least 0")
