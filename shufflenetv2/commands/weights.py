"""``weights``: list, fetch, verify and locate the files of the manifest."""

import argparse
import json
import os
import sys
from collections.abc import Callable

from ..errors import ShuffleNetError
from ..files import expanded, shown
from ..weights.manifest import Entry, find_entry, load_manifest, matching
from .options import add


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, purpose in ACTIONS.items():
        action = actions.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
        action.add_argument(
            "names",
            nargs="*",
            metavar="WEIGHTS",
            help="an architecture, a weights name, or ARCH/NAME (default: all)",
        )
        add(action, "--json", help="print one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    entries = select(arguments.names)
    failed = 0
    rows: list[Row] = []
    for entry in entries:
        try:
            row = row_of(arguments.action, entry)
        except ShuffleNetError as error:
            failed += 1
            print(f"shufflenetv2: error: {error}", file=sys.stderr)
            row = {"weights": str(entry), "error": str(error)}
            if not arguments.json:
                continue
        if arguments.json:
            print(json.dumps(row))
        elif arguments.action == "list":
            rows.append(row)
        else:
            print("  ".join(str(value) for value in row.values()))
    if rows:
        print(table(rows))
    return 1 if failed else 0


def select(names: list[str]) -> list[Entry]:
    """The manifest's entries that any of ``names`` means; all of them without names.

    Raises:
        ValueError: a name means none, or is a path.
    """
    chosen: list[Entry] = []
    for name in names:
        means = matching(name)
        if not means and os.path.exists(expanded(name)):
            raise ValueError(
                f"{shown(name)} is a file of your own, and `weights` is about those that are listed; "
                "other commands take yours as --weights PATH"
            )
        means = means or [find_entry(None, name)]  # which says what there is
        chosen += [each for each in means if each not in chosen]
    return chosen if names else list(load_manifest())


Row = dict[str, object]


def row_of(action: str, entry: Entry) -> Row:
    from ..weights import store

    match action:
        case "fetch":
            return {"path": str(store.fetch_to_cache(entry)), "sha256": entry.sha256}
        case "verify":
            return {"weights": str(entry), "verified": "ok", "path": str(store.verify(entry))}
        case "path":
            return {"path": str(store.local_path(entry))}
    return {
        "weights": str(entry),
        "default": entry.default,
        "classes": entry.num_classes,
        "input": entry.preprocess.crop,  # pixels a side
        "acc@1": entry.metrics.acc1,  # percent
        "size": entry.size,  # bytes
        "where": "bundled" if entry.path else "cached" if os.path.isfile(store.local_path(entry)) else "not fetched",
        "dataset": entry.metrics.dataset,
    }


SHOWN: dict[str, Callable[..., str]] = {
    "default": lambda default: "default" if default else "",
    "input": lambda side: f"{side}x{side}",
    "acc@1": "{:.2f} %".format,
    "size": lambda size: f"{size / 1e6:.1f} MB",
}


def table(rows: list[Row]) -> str:
    """A header and aligned columns; numbers, of which all but the names of things are, to the right."""
    lines = [[*rows[0]], *([SHOWN.get(key, str)(value) for key, value in row.items()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = ["<" if isinstance(value, (str, bool)) else ">" for value in rows[0].values()]
    layout = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
    return "\n".join(layout.format(*line).rstrip() for line in lines)


ACTIONS = {
    "list": "list the weights there are, and where",
    "fetch": "fetch weights into the cache, for later or for a machine without network",
    "verify": "check the size and sha256 of files in the cache; nothing is fetched",
    "path": "print where files are, or would be, in the cache",
}
