"""``python -m tools``: everything that makes the documents, from the repository's root."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from shufflenetv2.errors import ShuffleNetError
from shufflenetv2.package import CHECKOUT

# What the generators need beyond the package.
sys.path.insert(0, str(CHECKOUT / "tests"))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(function: str, text: str) -> argparse.ArgumentParser:
        """A command that calls ``function`` (see ``find``) with what is typed, and has its name."""
        command = commands.add_parser(function.rpartition(".")[2], help=text, description=text)
        command.set_defaults(function=function)
        return command

    for function, text in (
        ("documents.update", "make every generated document, table and figure anew where it is stale"),
        ("documents.check", "name what is stale, with the command that mends it; exit status 1 if anything is"),
    ):
        add(function, text).add_argument("paths", nargs="*", metavar="PATH", help="these alone (default: everything)")
    command = add("measure", "measure docs/benchmark.json anew: twenty minutes on a machine that does nothing else")
    command.add_argument("--gpu", action="store_true", help="docs/benchmark-gpu.json instead: eight minutes on a GPU")
    command = add(
        "folder", "print how many photos of a folder each way of `classify` does, and what fast decoding changes"
    )
    command.add_argument("--photos", type=int, default=1000, dest="count", help="how many, of about 500x375")
    add("cost", "print what hashing and checking add to a cached load").add_argument("--rounds", type=int, default=15)
    add("faults", "print docs/faults.md as the tests make it")
    command = add("api", "write the pages of the public names, from their docstrings")
    command.add_argument("folder", nargs="?", type=Path, default=Path("build/api"), help="default: %(default)s")
    command = add("bundle", "add a checkpoint to weights.json: with it in the package in half precision, or with --url")
    command.add_argument("file", type=Path, help="any checkpoint that the package reads")
    command.add_argument("--name", required=True, help="the entry's, as in flowers_v1")
    command.add_argument(
        "--url", dest="urls", nargs="+", default=[], help="where this very file is published, tried in order"
    )
    command.add_argument("--default", action="store_true", help="make it the default of its architecture")
    for option in ("license", "source", "recipe"):
        command.add_argument(f"--{option}", help=f"the entry's {option}")
    command = add("bundle.record", "put what `shufflenetv2 evaluate --json` counted into weights.json")
    command.add_argument("weights", help="as in shufflenet_v2_x0_5/cifar10_v2")
    command.add_argument("measured", type=Path, help="the file of JSON")
    command.add_argument("--dataset", required=True, help="on which it was measured")
    command.add_argument("--by", required=True, help="the date and the machine")
    command = add(
        "calibration.calibrate", "fit a temperature on photos held out of training, and put it into weights.json"
    )
    command.add_argument("weights", help="as in shufflenet_v2_x0_5/cifar10_v2")
    command.add_argument("train", type=Path, help="the folder that they were trained on")
    command.add_argument("test", type=Path, help="other photos, to tell what it changes; nothing is fitted on them")
    command.add_argument("--held-out", type=float, required=True, help="as it was given to `train`")
    command.add_argument("--seed", type=int, default=0, help="as it was given to `train`")
    command.add_argument("--by", required=True, help="the date and the machine")
    command.add_argument("--seen", action="store_true", help="they were trained on all of it: tell, and change nothing")
    command = add("calibration.foreign", "count how often weights answer about photos that show none of their classes")
    command.add_argument("weights", help="as in shufflenet_v2_x0_5/cifar10_v2")
    command.add_argument("--count", type=int, default=200, help="of photos of each kind")
    command.add_argument("--by", required=True, help="the date and the machine")
    command = add("teacher", "train two networks for `train --teacher` on CIFAR-10; what was begun goes on")
    command.add_argument("photos", type=Path, help="the folder of CIFAR-10's training photos")
    command.add_argument("folder", type=Path, help="for teacher.pt2 and log.json")
    command.add_argument("--held-out", type=float, default=0.1, help="part of the photos, as `train` has it")
    command.add_argument("--seed", type=int, default=0)
    command = add("cifar10.draw", "draw the pictures in docs/cifar10/, of the logs there and the test photos")
    command.add_argument("test", type=Path, help="the folder of CIFAR-10's test photos")
    command = add("mutate", "change the package in one place at a time, and see whether the area's tests notice")
    command.add_argument("area", nargs="?", help="one of those in tools/areas.py (default: each)")
    command.add_argument("--seed", type=int, default=0, help="chooses the mutants")
    command.add_argument("--count", type=int, default=60, help="of mutants in each area")
    command.add_argument("--again", action="store_true", help="try those that survived earlier, and no others")
    command.add_argument("--slow", action="store_true", help="with the tests that are marked slow")
    command.add_argument("--document", action="store_true", help="bring docs/mutants.md up to date, and no more")
    command.add_argument("--budget", type=float, default=12, help="seconds of tests for each mutant")
    command = add(
        "photo_mutants.photos", "read many damaged photos, and write docs/photo-mutants.json for docs/faults.md"
    )
    command.add_argument("--seed", type=int, default=0, help="makes the damage")
    command.add_argument("--count", type=int, default=200_000, help="of photos in all")
    return parser


def find(function: str) -> Callable[..., int | None]:
    """``file.function``, or that of its own name in a file; it may return an exit status."""
    file = importlib.import_module(f"tools.{function.partition('.')[0]}")
    found: Callable[..., int | None] = getattr(file, function.rpartition(".")[2])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    given = vars(parser.parse_args(argv))
    try:
        return find(given.pop("function"))(**given) or 0
    except (ShuffleNetError, OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
