"""``classify``: photos from anywhere in, the most likely labels of each out, in order: printed, or as a table."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, TableError
from ..files import shown
from ..package import progress_bar
from .options import add, add_weights, any_path, chosen_weights, positive, probability, say

if TYPE_CHECKING:
    from ..builder import Weights
    from ..inference.stream import Result

SOURCES = """\
a photo, a folder (read recursively, in order), a pattern such as 'photos/*.jpg', an https:// address, or - for one
photo on standard input; with --ray also what pyarrow reads, such as s3://bucket/folder"""


OF_SOURCES = ("sources", "files_from", "null")
SETTINGS = ("top", "runtime", "precision", "max_pixels", "fast_decode", "min_probability")  # of a classifier
OF_STREAM = ("batch_size", "features", "workers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help=SOURCES)
    parser.add_argument("--files-from", metavar="FILE", help="a list of more sources, one a line (-: standard input)")
    parser.add_argument("-0", "--null", action="store_true", help="sources in that list end in NUL: find -print0")
    add_weights(parser)
    parser.add_argument("--top", type=positive, default=5, help="how many labels a photo (default: %(default)s)")
    add(parser, "--batch-size", "--workers", "--device", "--runtime", "--precision", "--max-pixels")
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
    parser.add_argument(
        "--min-probability",
        "--threshold",
        type=probability,
        default=0.0,
        metavar="P",
        help="from 0 to 1: say `not sure` of photos whose first label is less likely",
    )
    parser.add_argument(
        "--explain", type=any_path, metavar="DIR", help="write each photo there, coloured by where the network looked"
    )
    add(parser, "--json", help="print one JSON object a line, one line a photo")
    table = parser.add_argument_group("tables")
    table.add_argument("-o", "--output", type=any_path, metavar="TABLE", help="write a .parquet, .csv or .jsonl file")
    table.add_argument("--features", action="store_true", help="with what the last layer reads, as a further column")
    begin = table.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on with a table whose run was interrupted")
    begin.add_argument("--overwrite", action="store_true", help="replace the table, or what there is of it")
    cluster = parser.add_argument_group("clusters")
    cluster.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS", help="compute in that Ray cluster (default: one here)"
    )
    cluster.add_argument("--actors", type=positive, metavar="N", help="processes that compute (default: one a core)")


def run(arguments: argparse.Namespace) -> int:
    check(arguments)
    left_out: list[str] = []
    photos = find(arguments, left_out.append)
    done, failed = write_table(arguments, photos) if arguments.output else print_lines(arguments, photos)
    for line in left_out:
        say(line)
    if failed:
        say(f"{failed} of {done} photos could not be classified")
    return 1 if failed else 0


def check(arguments: argparse.Namespace) -> None:
    """Refuse what contradicts itself.

    Raises:
        ValueError: saying what to change.
    """
    if arguments.ray and os.path.exists(arguments.ray):
        raise ValueError(
            f"--ray took {shown(arguments.ray)} for the address of a cluster; write photos before it: "
            f"classify {shown(arguments.ray)} --ray"
        )
    if not arguments.sources and arguments.files_from is None:
        raise ValueError("no photo was given: name a photo, a folder or an address, or --files-from FILE")
    if arguments.null and arguments.files_from is None:
        raise ValueError("-0 says how --files-from is read; give both, or neither")
    if arguments.sources.count("-") + (arguments.files_from == "-") > 1:
        raise ValueError("standard input can be read once: as one photo, -, or as --files-from -")
    if arguments.ray and "-" in arguments.sources:
        raise ValueError("standard input is on this machine alone; give --ray files that every node can read")
    if arguments.output and arguments.json:
        raise ValueError("--json prints lines, --output writes a table; for a table of such lines: --output x.jsonl")
    for name in ("features", "resume", "overwrite", "ray", "actors"):
        if getattr(arguments, name) and not arguments.output:
            raise ValueError(f"--{name} goes with a table; add --output TABLE")
    if arguments.explain and arguments.output:
        raise ValueError("--explain goes with printed lines, not with a table; leave out --output")
    if arguments.explain:
        from ..inference.overlays import check_sources

        check_sources(arguments.sources, arguments.explain)
    for name in ("explain", "features"):
        if getattr(arguments, name) and arguments.runtime != "torch":
            raise ValueError(f"--{name} looks into the network of PyTorch; leave --runtime out")
    if arguments.actors and not arguments.ray:
        raise ValueError("--actors goes with --ray")


def find(arguments: argparse.Namespace, told: Callable[[str], object]) -> Iterator[Any]:
    """The photos, found as they are asked for."""
    from ..photos.listing import find_listed, find_photos, read_list
    from ..tables import cluster

    def photos(source: str) -> Iterable[Any]:
        if source == "-":
            return [sys.stdin.buffer]
        if arguments.ray and cluster.is_remote(source):
            return cluster.find_remote(source)
        return find_photos([source], told)

    parts = list(map(photos, arguments.sources))
    if arguments.files_from is not None:
        listed = read_list(arguments.files_from, b"\0" if arguments.null else b"\n")
        parts.append(find_listed(listed, told))
    return chain.from_iterable(parts)


def print_lines(arguments: argparse.Namespace, photos: Iterator[Any]) -> tuple[int, int]:
    classifier = make_classifier(arguments, chosen_weights(arguments))
    if arguments.explain:
        from ..inference.overlays import Overlays

        overlays = Overlays(arguments.explain, classifier)
        photos = overlays.others(photos)
    done = failed = 0
    shows = sys.stderr.isatty()
    with progress_bar(None, "photo", shown=shows) as bar:
        # On a terminal the bar has to step aside for each line; a file or a pipe gets the lines alone.
        write: Callable[[str], object] = bar.write if sys.stdout.isatty() and shows else partial(print, flush=True)
        for result in classifier.stream(photos, batch_size=arguments.batch_size, workers=arguments.workers):
            bar.update(1)
            done += 1
            if result.error:
                failed += 1
                print(f"shufflenetv2: error: {result.error}", file=sys.stderr)
            if arguments.json:
                write(to_json(result))
            elif not result.error:
                write(to_text(result))
            if arguments.explain and not result.error:
                try:
                    overlays.write(result.photo)
                except ImageError as error:  # it has changed meanwhile
                    failed += 1
                    print(f"shufflenetv2: error: {error}", file=sys.stderr)
    if arguments.explain and overlays.left_out:
        say(f"left out {overlays.left_out} in {shown(overlays.folder)}, where the overlays are")
    return done, failed


def write_table(arguments: argparse.Namespace, photos: Iterator[Any]) -> tuple[int, int]:
    from ..description import to_json as plain
    from ..network.model import SPECS
    from ..photos.listing import list_sha256
    from ..tables.rows import photo_name
    from ..tables.table import Table

    source = chosen_weights(arguments)
    about = {name: getattr(arguments, name) for name in (*OF_SOURCES, *SETTINGS, *OF_STREAM[:2], "categories")}
    about["list_sha256"] = list_sha256(arguments.files_from)
    named = filter(None, [*arguments.sources, arguments.files_from])
    about["directory"] = None if all(map(os.path.isabs, named)) else str(Path.cwd())
    about |= {"weights": source.title, "weights_sha256": source.sha256}
    table = Table(
        arguments.output,
        about,
        description={"description": plain(source.info)},
        features=SPECS[source.arch].head_channels if arguments.features else 0,
        batch_size=arguments.batch_size,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )
    with table, progress_bar(None, "photo", shown=False if arguments.ray else None) as bar:
        if table.complete:
            told = "" if table.compared else "; its rows alone are kept: sources and options were not compared"
            say(f"{shown(arguments.output)} is complete{told}; no photo was read")
            return table.done, table.failed
        rows = rows_of_cluster if arguments.ray else rows_of_stream
        for row in rows(arguments, source, table.missing(photos, photo_name)):
            bar.update(1)
            table.add(row)
        if table.unnamed and arguments.files_from and not about["list_sha256"]:  # of a pipe, known only now
            raise TableError(f"the list leaves out {table.unnamed} photos of {shown(table.folder)}; or --overwrite")
        table.finish()
    for count, what in ((table.unnamed, "of the first run are gone"), (table.repeated, "were named more than once")):
        if count:
            say(f"{count} photos {what}")
    return table.done, table.failed


def rows_of_stream(arguments: argparse.Namespace, source: "Weights", photos: Iterator[Any]) -> Iterator[dict[str, Any]]:
    from ..tables.rows import photo_name, to_row

    options = {name: getattr(arguments, name) for name in OF_STREAM}
    results = make_classifier(arguments, source).stream(photos, **options)
    return (to_row(result, photo_name(result.photo), source, arguments.features) for result in results)


def rows_of_cluster(
    arguments: argparse.Namespace, source: "Weights", photos: Iterator[Any]
) -> Iterator[dict[str, Any]]:
    from ..tables import cluster

    options = {name: getattr(arguments, name) for name in (*OF_STREAM, *SETTINGS, "device", "categories")}
    options |= {"arch": source.arch, "weights": source.name, "sha256": source.sha256}
    return cluster.classify_on(arguments.ray, photos, actors=arguments.actors, **options)


def make_classifier(arguments: argparse.Namespace, source: "Weights") -> Any:
    from ..inference.classifier import Classifier

    return Classifier(source, **{name: getattr(arguments, name) for name in (*SETTINGS, "device")})


def to_text(result: "Result") -> str:
    from ..photos.url import is_url, public_name

    name = public_name(result.photo) if is_url(result.photo) else _given(result)
    lines = [f"{each.probability:9.2%}  {each.label}" for each in result.predictions]
    return "\n".join([shown(name), *(lines or [" not sure"])])


def to_json(result: "Result") -> str:
    """In ASCII: the bytes of a name that is no text come back from ``os.fsencode``."""
    if result.error:
        return json.dumps({"photo": _given(result), "error": str(result.error)})
    return json.dumps({"photo": _given(result), "predictions": [each._asdict() for each in result.predictions]})


def _given(result: "Result") -> str:
    return "-" if hasattr(result.photo, "read") else str(result.photo)
