"""Kinds of numbers on the command line, for argparse's ``type``: each says what it wanted and what it got."""

import argparse
import math


def _number(text: str, low: float, high: float, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r:.80}")
    return value


def _integer(text: str, low: int, high: int, wanted: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r:.80}")
    return value


def positive(text: str) -> int:
    return _integer(text, 1, 10**6, "a whole number from 1 to 1000000")


def seed(text: str) -> int:
    return _integer(text, 0, 2**63 - 1, "a whole number from 0 to 2**63 - 1")


def workers(text: str) -> int:
    return _integer(text, 0, 256, "a whole number from 0 to 256")


def port(text: str) -> int:
    return _integer(text, 1, 65535, "a whole number from 1 to 65535")


def size(text: str) -> int:
    return _integer(text, 32, 2048, "a whole number of pixels from 32 to 2048")


def sized(text: str) -> tuple[int, float]:
    """``SIZE`` or ``SIZE:SHARE``."""
    pixels, _, share = text.partition(":")
    return size(pixels), part(share or "1")


def fraction(text: str) -> float:
    return _number(text, 0, 1 - 1e-9, "at least 0 and below 1")


def part(text: str) -> float:
    return _number(text, 1e-9, 1, "above 0 and at most 1")


def above_zero(text: str) -> float:
    return _number(text, 1e-12, 1e6, "above 0")


def from_zero(text: str) -> float:
    return _number(text, 0, 1e6, "at least 0")
