"""``python -m tools``: everything that makes the documents, from the repository's root."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from shufflenetv2.errors import ShuffleNetError
from shufflenetv2.package import CHECKOUT

# What the generators need beyond the package; they are imported when they are used.
sys.path.insert(0, str(CHECKOUT / "tests"))


def update(arguments: argparse.Namespace) -> int:
    from .documents import chosen

    for each in chosen(arguments.paths):
        print(f"{each} ...", file=sys.stderr)
        each.update()
    return 0


def check(arguments: argparse.Namespace) -> int:
    from .documents import chosen

    stale = [each for each in chosen(arguments.paths) if each.stale()]
    for each in stale:
        print(f"{each} is stale; type: python -m tools update {each.path}")
    return 1 if stale else 0


def measure(arguments: argparse.Namespace) -> int:
    if arguments.gpu:
        from .gpu import measure_gpu

        measure_gpu()
        return 0
    from .measure import measure

    measure()
    return 0


def folder(arguments: argparse.Namespace) -> int:
    from .folder import measure_folder

    measure_folder(arguments.photos)
    return 0


def cost(arguments: argparse.Namespace) -> int:
    from .cost import cost

    cost(arguments.rounds)
    return 0


def faults(arguments: argparse.Namespace) -> int:
    from .faults import document

    del arguments
    sys.stdout.write(document())
    return 0


def bundle(arguments: argparse.Namespace) -> int:
    from .bundle import bundle

    said = {key: getattr(arguments, key) for key in ("license", "source", "recipe") if getattr(arguments, key)}
    entry = bundle(arguments.file, arguments.name, urls=arguments.url, default=arguments.default, **said)
    print(f"{entry}: {entry.file}, {entry.size} bytes, sha256 {entry.sha256}")
    print("what remains: python -m tools update, and a line in CHANGELOG.md")
    return 0


def api(arguments: argparse.Namespace) -> int:
    from .api import write_pages

    write_pages(arguments.folder)
    return 0


def record(arguments: argparse.Namespace) -> int:
    from .bundle import record

    record(arguments.weights, arguments.measured, arguments.dataset, arguments.by)
    return 0


def calibrate(arguments: argparse.Namespace) -> int:
    from .calibration import calibrate

    given = vars(arguments)
    calibrate(**{key: given[key] for key in ("weights", "train", "test", "held_out", "seed", "by", "seen")})
    return 0


def foreign(arguments: argparse.Namespace) -> int:
    from .calibration import foreign

    foreign(arguments.weights, arguments.count, arguments.by)
    return 0


def teacher(arguments: argparse.Namespace) -> int:
    from .teacher import train_teacher

    given = vars(arguments)
    train_teacher(**{key: given[key] for key in ("photos", "folder", "held_out", "seed")})
    return 0


def draw(arguments: argparse.Namespace) -> int:
    from .cifar10 import draw

    draw(arguments.test)
    return 0


def mutate(arguments: argparse.Namespace) -> int:
    from .mutate import AREAS, document, mutate

    if arguments.document:
        document()
        return 0
    for area in [arguments.area] if arguments.area else AREAS:
        mutate(area, arguments.seed, arguments.count, arguments.again, arguments.slow, arguments.budget)
    return 0


def photos(arguments: argparse.Namespace) -> int:
    from .photo_mutants import photo_mutants

    photo_mutants(arguments.seed, arguments.count)
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(function: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(function.__name__, help=text, description=text)  # type: ignore[attr-defined]
        command.set_defaults(function=function)
        return command

    for function, text in (
        (update, "make every generated document, table and figure anew where it is stale"),
        (check, "name what is stale, with the command that mends it; exit status 1 if anything is"),
    ):
        add(function, text).add_argument("paths", nargs="*", metavar="PATH", help="these alone (default: everything)")
    command = add(measure, "measure docs/benchmark.json anew: twenty minutes on a machine that does nothing else")
    command.add_argument("--gpu", action="store_true", help="docs/benchmark-gpu.json instead: eight minutes on a GPU")
    command = add(
        folder, "print how many photos of a folder each way of `classify` does, and what fast decoding changes"
    )
    command.add_argument("--photos", type=int, default=1000, help="how many, of about 500x375")
    add(cost, "print what hashing and checking add to a cached load").add_argument("--rounds", type=int, default=15)
    add(faults, "print docs/faults.md as the tests make it")
    command = add(api, "write the pages of the public names, from their docstrings")
    command.add_argument("folder", nargs="?", type=Path, default=Path("build/api"), help="default: %(default)s")
    command = add(bundle, "add a checkpoint to weights.json: with it in the package in half precision, or with --url")
    command.add_argument("file", type=Path, help="any checkpoint that the package reads")
    command.add_argument("--name", required=True, help="the entry's, as in flowers_v1")
    command.add_argument("--url", nargs="+", default=[], help="where this very file is published, tried in order")
    command.add_argument("--default", action="store_true", help="make it the default of its architecture")
    for option in ("license", "source", "recipe"):
        command.add_argument(f"--{option}", help=f"the entry's {option}")
    command = add(record, "put what `shufflenetv2 evaluate --json` counted into weights.json")
    command.add_argument("weights", help="as in shufflenet_v2_x0_5/cifar10_v2")
    command.add_argument("measured", type=Path, help="the file of JSON")
    command.add_argument("--dataset", required=True, help="on which it was measured")
    command.add_argument("--by", required=True, help="the date and the machine")
    command = add(calibrate, "fit a temperature on photos held out of training, and put it into weights.json")
    command.add_argument("weights", help="as in shufflenet_v2_x0_5/cifar10_v2")
    command.add_argument("train", type=Path, help="the folder that they were trained on")
    command.add_argument("test", type=Path, help="other photos, to tell what it changes; nothing is fitted on them")
    command.add_argument("--held-out", type=float, required=True, help="as it was given to `train`")
    command.add_argument("--seed", type=int, default=0, help="as it was given to `train`")
    command.add_argument("--by", required=True, help="the date and the machine")
    command.add_argument("--seen", action="store_true", help="they were trained on all of it: tell, and change nothing")
    command = add(foreign, "count how often weights answer about photos that show none of their classes")
    command.add_argument("weights", help="as in shufflenet_v2_x0_5/cifar10_v2")
    command.add_argument("--count", type=int, default=200, help="of photos of each kind")
    command.add_argument("--by", required=True, help="the date and the machine")
    command = add(teacher, "train two networks for `train --teacher` on CIFAR-10; what was begun goes on")
    command.add_argument("photos", type=Path, help="the folder of CIFAR-10's training photos")
    command.add_argument("folder", type=Path, help="for teacher.pt2 and log.json")
    command.add_argument("--held-out", type=float, default=0.1, help="part of the photos, as `train` has it")
    command.add_argument("--seed", type=int, default=0)
    command = add(draw, "draw the pictures in docs/cifar10/, of the logs there and the test photos")
    command.add_argument("test", type=Path, help="the folder of CIFAR-10's test photos")
    command = add(mutate, "change the package in one place at a time, and see whether the area's tests notice")
    command.add_argument("area", nargs="?", help="one of those in tools/mutate.py (default: each)")
    command.add_argument("--seed", type=int, default=0, help="chooses the mutants")
    command.add_argument("--count", type=int, default=60, help="of mutants in each area")
    command.add_argument("--again", action="store_true", help="try those that survived earlier, and no others")
    command.add_argument("--slow", action="store_true", help="with the tests that are marked slow")
    command.add_argument("--document", action="store_true", help="bring docs/mutants.md up to date, and no more")
    command.add_argument("--budget", type=float, default=12, help="seconds of tests for each mutant")
    command = add(photos, "read many damaged photos, and write docs/photo-mutants.json for docs/faults.md")
    command.add_argument("--seed", type=int, default=0, help="makes the damage")
    command.add_argument("--count", type=int, default=200_000, help="of photos in all")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.function(arguments))
    except (ShuffleNetError, OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
